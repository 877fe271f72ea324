"""Runs compared once more at shares of their features, and trained at shares that steps draw."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.networks.layer_graph import LayerGraph
from eugen_nerf.evaluation.compare import evaluate
from eugen_nerf.evaluation.costs.feature_shares import parse_shares
from eugen_nerf.evaluation.protocol import Timing
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import load_run

QUICK = Timing(warmup=0, repeats=1, num_queries=64, chunk_size=32, split_repeats=1)


def test_rows_of_their_own(tiny_eugen_run: Path, tiny_stock_run: Path) -> None:
    found = evaluate([tiny_eugen_run], names=["a"], timing=QUICK, device="cpu", shares=("a:0.5", "a:1.0"))
    rows = {row["variant"]: row for row in found.rows}
    assert list(rows) == ["a", "a 0.5", "a 1", "mean-image", "white"]
    assert rows["a 0.5"]["macs_per_query"] < rows["a"]["macs_per_query"]
    assert rows["a 0.5"]["predictions_sha256"] != rows["a"]["predictions_sha256"]
    assert rows["a 1"]["predictions_sha256"] == rows["a"]["predictions_sha256"]
    assert "a 0.5: the field fine was not trained at this share of its features" in found.notes
    with pytest.raises(ConfigError, match=r"--shares takes runs of the eugen-\* methods, and 'stock' is none"):
        evaluate([tiny_stock_run], names=["stock"], timing=QUICK, device="cpu", shares=("stock:0.5",))


@pytest.mark.parametrize("word", ["a", "a:", "a:half", "a:0", "a:1.5", "a:nan"])
def test_words_without_a_share_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"is no RUN:SHARE with a share above 0 and at most 1"):
        parse_shares([word], ["a"])


def test_words_that_name_nothing_or_one_row_twice_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"is no RUN:SHARE; runs are a, b"):
        parse_shares(["c:0.5"], ["a", "b"])
    with pytest.raises(ConfigError, match="names one row twice"):
        parse_shares(["a:0.5", "a:.5"], ["a"])


def test_every_step_draws_one_share_for_all_fields(tiny_eugen_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run(tiny_eugen_run, device=torch.device("cpu"))
    model = run.model
    assert isinstance(model, GraphModel)
    used: list[float] = []
    forward = LayerGraph.forward

    def recorded(self: LayerGraph, *inputs: Tensor, **settings: object) -> tuple[Tensor, ...]:
        used.append(self.share)
        return forward(self, *inputs, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(LayerGraph, "forward", recorded)
    for field in model.graph_fields().values():
        field.shares = (0.25, 0.5)
    rays, _ = run.pipeline.datamanager.next_train(0)
    torch.manual_seed(0)
    steps = []
    for _ in range(12):
        used.clear()
        model.train()
        model(rays)
        assert len(used) >= 2
        steps += sorted(set(used))
    assert len(steps) == 12, "the coarse and the fine field have one share"
    assert set(steps) == {0.25, 0.5}
    used.clear()
    model.eval()
    with torch.no_grad():
        model(rays)
    assert set(used) == {1.0}
