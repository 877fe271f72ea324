"""Times: turns are taken in order, ratios are per round, queries are the same for every field."""

import pytest
import torch
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.fields.query_timing import (
    field_query_callable,
    medians,
    random_queries,
    speed_ratios,
    time_interleaved,
)


def test_turns_are_interleaved_and_warmups_untimed() -> None:
    calls: list[str] = []
    callables = {name: lambda name=name: calls.append(name) for name in "ABC"}
    seconds = time_interleaved(callables, warmup=1, repeats=2, device="cpu")
    assert calls == list("ABC" * 3)
    assert {name: len(values) for name, values in seconds.items()} == {"A": 2, "B": 2, "C": 2}


def test_clock_is_read_round_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def taking(duration: float):
        def work() -> None:
            now[0] += duration

        return work

    seconds = time_interleaved({"a": taking(1.0), "b": taking(3.0)}, warmup=0, repeats=2, device="cpu")
    assert seconds == {"a": [1.0, 1.0], "b": [3.0, 3.0]}


def test_ratio_is_the_median_of_per_round_ratios() -> None:
    seconds = {"base": [1.0, 10.0, 4.0], "fast": [0.5, 2.0, 1.0]}  # rounds: 2, 5, 4; ratio of medians is 4 / 1 as well
    seconds["odd"] = [10.0, 10.0, 1.0]  # rounds: 0.1, 1, 4; ratio of medians would be 0.4
    ratios = speed_ratios(seconds, "base")
    assert (ratios["base"].lower_quartile, ratios["base"].median, ratios["base"].upper_quartile) == (1.0, 1.0, 1.0)
    assert ratios["fast"].median == 4.0
    assert (ratios["fast"].lower_quartile, ratios["fast"].upper_quartile) == (3.0, 4.5)
    assert ratios["odd"].median == 1.0
    assert medians(seconds) == {"base": 4.0, "fast": 1.0, "odd": 10.0}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="no baseline 'x'"):
        speed_ratios({"a": [1.0]}, "x")
    with pytest.raises(ConfigError, match="repeats at least 1"):
        time_interleaved({}, warmup=0, repeats=0, device="cpu")


def test_queries_are_unit_directions_at_points_in_the_box_and_repeat() -> None:
    samples = random_queries(1000, seed=3, device="cpu")
    positions, directions = samples.frustums.get_positions(), samples.frustums.directions
    assert positions.shape == (1000, 1, 3)
    assert positions.abs().max() <= 1.0 + 1e-6
    assert positions.mean(dim=0).abs().max() < 0.1
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(1000, 1))
    assert torch.equal(positions, random_queries(1000, seed=3, device="cpu").frustums.get_positions())
    assert not torch.equal(positions, random_queries(1000, seed=4, device="cpu").frustums.get_positions())
    blob = samples.frustums.get_gaussian_blob()
    assert torch.isfinite(blob.mean).all()
    assert torch.isfinite(blob.cov).all()


class RecordingField(nn.Module):
    """Records the sizes of its queries."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, samples):
        assert torch.is_inference_mode_enabled()
        self.sizes.append(samples.frustums.get_positions().shape[0])
        return {FieldHeadNames.DENSITY: None}


def test_field_is_queried_in_chunks() -> None:
    field = RecordingField()
    query = field_query_callable(field, 10, 0, "cpu", chunk_size=4)
    assert field.sizes == []
    query()
    assert field.sizes == [4, 4, 2]
