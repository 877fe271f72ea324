"""Rendering with fewer samples than training had: which are tried, what they change, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from safetensors.torch import save_file

from eugen_nerf.core import HashGrid
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.fields.encoders import MultisampleEncoder
from eugen_nerf.methods.rendering.fewer_samples import FewerSamples, sample_counts
from eugen_nerf.methods.rendering.planning import plans_of
from eugen_nerf.methods.rendering.stored_renderer import FORMAT, load_renderer, save_renderer
from eugen_nerf.methods.runs import fast_rendering
from eugen_nerf.methods.runs.fast_rendering import use_fast_renderer
from eugen_nerf.methods.runs.loading import load_run
from eugen_nerf.methods.runs.training_rays import Photographs
from eugen_nerf.methods.unbounded_model import UnboundedModel


def test_what_is_tried_goes_up_to_what_training_had() -> None:
    tried = sample_counts((64, 64, 32))
    assert tried[-1] == FewerSamples((64, 64, 32), 1.0)
    assert len(set(tried)) == len(tried)
    assert all(count <= most for few in tried for count, most in zip(few.counts, (64, 64, 32), strict=True))
    assert sum(tried[0].counts) == min(sum(few.counts) for few in tried)
    assert all(min(few.counts) >= 2 for few in sample_counts((2, 2, 2)))


@pytest.mark.parametrize("settings", [((8,), 1.0), ((8, 0), 1.0), ((8, 5000), 1.0), ((8, 8), 0.0), ((8, 8), 2.0)])
def test_counts_that_make_no_sense_are_refused(settings: tuple[tuple[int, ...], float]) -> None:
    with pytest.raises(ConfigError, match="samples"):
        FewerSamples(*settings)


@pytest.mark.parametrize("method", ["eugen-zipnerf-small", "eugen-mipnerf360-small"])
def test_a_run_renders_with_the_fewest_samples_that_are_good_enough(
    method: str, train_tiny_unbounded: Callable[..., tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "float32"))
    run = load_run(train_tiny_unbounded(method=method)[0], device="cpu")
    model = run.model
    assert isinstance(model, UnboundedModel)
    tried = sample_counts(model.sampler.counts)
    measured, good = Photographs.squared_error, tried[1]
    seen = list[FewerSamples | None]()

    def worse_with_fewer(self: Photographs, model: UnboundedModel) -> float:
        seen.append(model.fewer_samples)
        fewer = model.fewer_samples is not None and sum(model.fewer_samples.counts) < sum(good.counts)
        return measured(self, model) * (1e4 if fewer else 1)

    monkeypatch.setattr(Photographs, "squared_error", worse_with_fewer)
    choice = use_fast_renderer(run, quality=30.0)
    assert seen == [None, *tried[:2]]
    assert choice is not None
    assert model.fewer_samples == good
    assert (choice.rate, choice.queries, choice.way) == (good.rate, good.counts[-1], "fewer samples")
    assert str(choice).startswith(f"rendered by fewer samples: {good.counts[-1]}.0 queries a ray")
    assert set(plans_of(model)) == set(model.graph_fields())
    again = load_run(run.path, device="cpu")
    assert use_fast_renderer(again, quality=30.0) == choice
    assert again.model.fewer_samples == good


def test_only_inference_has_fewer_samples(train_tiny_unbounded: Callable[..., tuple[Path, Any]]) -> None:
    """Queries of each field are counted: fewer in inference, and as many as ever with gradients and in training."""
    run = load_run(train_tiny_unbounded(method="eugen-zipnerf-small")[0], device="cpu")
    model = run.model
    assert isinstance(model, UnboundedModel)
    trained, few = model.sampler.counts, FewerSamples((3, 2, 2))
    bundle = run.pipeline.datamanager.eval_dataset.cameras[:1].generate_rays(camera_indices=0, keep_shape=True)
    bundle, counts = bundle[:2, :3].flatten(), list[int]()
    for field in (*model.proposals, model.field):
        field.encoder.register_forward_pre_hook(lambda _, arguments: counts.append(arguments[0].shape[1]))

    def sampled(*, gradients: bool, training: bool) -> tuple[int, ...]:
        counts.clear()
        model.train(training)
        with torch.set_grad_enabled(gradients):
            assert model(bundle)["rgb"].shape == (6, 3)
        return tuple(counts)

    assert sampled(gradients=False, training=False) == trained
    model.render_by(few)
    assert sampled(gradients=False, training=False) == few.counts
    assert sampled(gradients=True, training=False) == sampled(gradients=False, training=True) == trained
    model.render_by(None)
    assert sampled(gradients=False, training=False) == trained


def test_thinned_frustums_are_two_of_the_six_points_on_either_side_of_the_axis() -> None:
    torch.manual_seed(0)
    encoder = MultisampleEncoder(HashGrid((16, 32), 2, 12)).eval()
    start = torch.rand(4, 6, 1) + 0.5
    ahead = torch.nn.functional.normalize(torch.randn(4, 1, 3), dim=-1).expand(4, 6, 3)
    frustums = Frustums(torch.zeros(4, 6, 3), ahead, start, start + 0.1, torch.full((4, 6, 1), 1e-3))
    points, widths = encoder.multisamples(frustums)
    encoder.thinned = True
    fewer, fewer_widths = encoder.multisamples(frustums)
    assert fewer.shape == (4, 6, 2, 3)
    assert torch.equal(fewer, points[:, :, [1, 4]])
    assert torch.allclose(fewer_widths, widths[:, :, [1, 4]])
    # inside the unit ball nothing is contracted: both lie off the axis, and their middle is near that of all six
    inside = (start[..., 0] < 0.85)[..., None]
    off = (fewer - fewer.mean(dim=2, keepdim=True)).norm(dim=-1)
    assert bool((off > 1e-3).all())
    assert bool((((fewer.mean(dim=2) - points.mean(dim=2)).norm(dim=-1, keepdim=True) < 0.01) | ~inside).all())
    assert encoder(RaySamples(frustums)).shape == (4, 6, encoder.out_features)
    assert encoder.train().multisamples(frustums)[0].shape == (4, 6, 6, 3)


def test_they_are_stored_as_numbers_alone(tmp_path: Path) -> None:
    path, few = tmp_path / "r.safetensors", FewerSamples((8, 4, 3), 0.5)
    save_renderer(path, few, {"a": 1})
    assert load_renderer(path, "cpu") == (few, {"a": 1})
    broken = (
        '{"counts": "8", "rate": 1}',
        '{"counts": [8, 0], "rate": 1}',
        '{"counts": [8, 4]}',
        '{"counts": [Infinity, 4], "rate": 1}',
        "[]",
    )
    for settings in broken:
        save_file({}, path, metadata={"format": FORMAT, "settings": settings, "measured": "{}"})
        assert load_renderer(path, "cpu") is None


def test_a_stored_renderer_of_another_method_is_not_used(
    train_tiny_unbounded: Callable[..., tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a stranger's run can bring along, beside its checkpoint and with all conditions right."""
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "float32"))
    run = load_run(train_tiny_unbounded(method="eugen-zipnerf-small")[0], device="cpu")
    choice = use_fast_renderer(run, quality=30.0)
    path = run.path.parent / "renderer.safetensors"
    stored = load_renderer(path, "cpu")
    assert stored is not None
    grid = DensityGrid(torch.zeros(3), 0.1, torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.bool))
    save_renderer(path, GridRenderer(grid), stored[1])
    again = use_fast_renderer(run, quality=30.0)
    assert again is not None
    assert choice is not None
    assert (again.way, again.rate) == (choice.way, choice.rate) == ("fewer samples", choice.rate)
