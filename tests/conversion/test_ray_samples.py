"""Samples to fit on: which pixels, where along their rays, and how much each one counts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor, nn

from eugen_nerf.conversion.ray_samples import network_inputs
from eugen_nerf.conversion.teachers.graph_runs import graph_model
from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.methods.runs.loading import Run, load_run
from eugen_nerf.methods.runs.training_rays import RAYS_PER_BATCH, choose_rays, training_views

FOCAL = 8 / np.tan(0.35)  # of the tiny data set: 16 pixels, 0.7 rad


def load(path: Path) -> Run:
    return load_run(path, device="cpu", test_mode="val")


def cameras(*sizes: tuple[int, int]) -> Cameras:
    """Cameras of other heights and widths."""
    count = len(sizes)
    heights, widths = (torch.tensor([[size[k]] for size in sizes]) for k in range(2))
    poses = torch.eye(4)[:3].expand(count, 3, 4)
    return Cameras(poses, 10.0, 10.0, 5.0, 5.0, width=widths, height=heights)


def test_rays_are_drawn_once_each_from_every_pixel() -> None:
    several = cameras((20, 30), (8, 50), (17, 9))
    rays = choose_rays(several, 1.0, 10_000, seed=0)
    found = {tuple(ray) for ray in rays.tolist()}
    assert len(found) == len(rays)
    assert found == {
        (c, row, column)
        for c, (h, w) in enumerate([(20, 30), (8, 50), (17, 9)])
        for row in range(h)
        for column in range(w)
    }
    assert rays.tolist() != sorted(rays.tolist())
    some = choose_rays(several, 0.5, 10_000, seed=0)
    assert len(some) == round(0.5 * (600 + 400 + 153))
    assert len({tuple(ray) for ray in some.tolist()}) == len(some)
    assert torch.equal(some, choose_rays(several, 0.5, 10_000, seed=0))
    assert not torch.equal(some, choose_rays(several, 0.5, 10_000, seed=1))
    assert len(choose_rays(several, 1.0, 400, seed=0)) == 400
    shares = torch.bincount(some[:, 0], minlength=3) / len(some)
    np.testing.assert_allclose(shares, np.array([600, 400, 153]) / 1153, atol=0.06)


def test_silly_fractions_are_refused() -> None:
    one = cameras((32, 32))
    for fraction in (0.0, -0.1, 1.01, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"the fraction of rays must be in \(0, 1\], got"):
            choose_rays(one, fraction, 4096, seed=0)
    least = 5 * RAYS_PER_BATCH
    assert len(choose_rays(one, 1.0, least, seed=0)) == least
    with pytest.raises(ConfigError, match=rf"{least - 1} rays .* take at least {least} by a larger --ray-fraction"):
        choose_rays(one, 1.0, least - 1, seed=0)
    with pytest.raises(RunError, match="object holds no training cameras"):
        training_views(object())


def pixel_rays(data: Path, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins and unit directions of pixels' rays from the poses in the data set's JSON."""
    frames = json.loads((data / "transforms_train.json").read_text())["frames"]
    poses = np.array([frame["transform_matrix"] for frame in frames])[rays[:, 0]]
    row, column = rays[:, 1] + 0.5, rays[:, 2] + 0.5
    local = np.stack([(column - 8) / FOCAL, -(row - 8) / FOCAL, -np.ones(len(rays))], axis=1)
    directions = np.einsum("nij,nj->ni", poses[:, :3, :3], local)
    return poses[:, :3, 3], directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("which", ["coarse", "fine"])
def test_inputs_lie_on_the_rays_of_the_pixels(which: str, tiny_stock_run: Path, tiny_blender: Path) -> None:
    run = load(tiny_stock_run)
    _, teacher = graph_model(run)
    views = training_views(run.pipeline.datamanager).cameras
    rays = choose_rays(views, 0.5, 4096, seed=3)
    batches = network_inputs(teacher, views, rays, which)
    first, second = list(batches()), list(batches())
    assert len(first) == 8
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))
        assert torch.equal(a.weights, b.weights)
    field = getattr(teacher, f"field_{which}")
    for index in (0, 5):
        part = rays[index * RAYS_PER_BATCH : (index + 1) * RAYS_PER_BATCH].numpy()
        origins, directions = pixel_rays(tiny_blender, part)
        # nerfstudio's encoding ends with what it encodes
        positions = first[index].inputs[0][:, -3:].double().numpy().reshape(RAYS_PER_BATCH, -1, 3)
        asked = first[index].inputs[1][:, -3:].double().numpy().reshape(RAYS_PER_BATCH, -1, 3)
        np.testing.assert_allclose(asked, np.broadcast_to(directions[:, None], asked.shape), atol=1e-5)
        along = ((positions - origins[:, None]) * directions[:, None]).sum(axis=-1)
        np.testing.assert_allclose(positions, origins[:, None] + along[..., None] * directions[:, None], atol=1e-4)
        assert (np.diff(along, axis=1) > 0).all()
        if which == "coarse":
            expected = (np.arange(8) + 0.5) * 6 / 8  # the near plane is at 0 in evaluation
            np.testing.assert_allclose(along, np.broadcast_to(expected, along.shape), atol=1e-4)
            np.testing.assert_allclose(first[index].weights, sample_weights(field, first[index].inputs), rtol=1e-3)
        else:
            assert along.min() > 0
            assert along.max() < 6
        assert first[index].weights.min() >= 0.5 - 1e-6
        assert first[index].weights.mean() == pytest.approx(1.0, abs=1e-4)


def sample_weights(field: nn.Module, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """Half even, half by the rendering weights `T_i (1 - exp(-sigma_i delta))` of 8 bins 0.75 long."""
    with torch.no_grad():
        raw = field.network(*inputs)[0].double().numpy().reshape(-1, 8)
    optical = np.log1p(np.exp(raw)) * 0.75
    before = np.cumsum(optical, axis=1) - optical
    weights = np.exp(-before) * (1 - np.exp(-optical))
    return (0.5 + 0.5 * weights / weights.mean()).reshape(-1)


@pytest.mark.parametrize("which", ["coarse", "fine"])
def test_empty_cells_are_left_out(which: str, train_tiny: Callable) -> None:
    path, _ = train_tiny(variant="dense", occupancy="hull", occupancy_resolution=48)
    run = load(path)
    views = training_views(run.pipeline.datamanager).cameras
    rays = choose_rays(views, 0.5, 4096, seed=0)
    grid = run.model.occupancy
    counts = []
    for cells in (grid.cells.clone(), torch.ones_like(grid.cells), torch.zeros_like(grid.cells)):
        grid.cells.copy_(cells)
        batches = list(network_inputs(run.model, views, rays, which)())
        counts.append(sum(len(batch.inputs[0]) for batch in batches))
        for batch in batches:
            assert batch.inputs[0].shape[0] == batch.inputs[1].shape[0] == batch.weights.shape[0] >= 1
            assert torch.isfinite(batch.weights).all()
            if cells.any():
                assert grid.occupied(batch.inputs[0][:, -3:]).all()
    assert 8 == counts[2] < counts[0] < counts[1]


@pytest.mark.parametrize("method", ["eugen-mipnerf360-small", "eugen-zipnerf-small"])
def test_inputs_are_what_rendering_asks_of_proposals_and_field(method: str, train_tiny_unbounded: Callable) -> None:
    """Of the last round that a proposal serves, with that round's weights."""
    path, _ = train_tiny_unbounded(method=method, variant="dense")
    run = load(path)
    model, views = run.model, training_views(run.pipeline.datamanager).cameras
    rays = choose_rays(views, 0.5, 4096, seed=0)
    part = rays[:RAYS_PER_BATCH]
    fields, asked = model.graph_fields(), {}
    handles = [
        field.network.register_forward_pre_hook(lambda _, inputs, name=name: asked.__setitem__(name, inputs))
        for name, field in fields.items()
    ]
    with torch.no_grad():
        bundle = views.generate_rays(camera_indices=part[:, :1], coords=part[:, 1:] + 0.5)
        rounds, samples = model.sampler(model.collider(bundle), model.densities(EvaluationMode.INFERENCE))
        density, _ = model.field.get_density(samples)
    for handle in handles:
        handle.remove()
    weights = {"field": samples.get_weights(density), "proposal_0": rounds[0].weights, "proposal_1": rounds[1].weights}
    if len(model.proposals) == 1:
        weights["proposal_0"] = rounds[1].weights
    assert set(asked) == set(fields) == {"field", *(f"proposal_{i}" for i in range(len(model.proposals)))}
    for name, expected in asked.items():
        first, *others = network_inputs(model, views, rays, name)()
        assert len(first.inputs) == len(expected) == (2 if name == "field" else 1)
        for found, value in zip(first.inputs, expected, strict=True):
            assert torch.equal(found, value.flatten(0, 1))
        mass = weights[name].flatten().double().numpy()
        np.testing.assert_allclose(first.weights, 0.5 + 0.5 * mass / mass.mean(), rtol=1e-4)
        assert sum(len(batch.weights) for batch in (first, *others)) == len(rays) * len(mass) // RAYS_PER_BATCH
