"""Baselines that a dense layer can be turned into: exact where they must be, and no better than their optimum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eugen_nerf.conversion.budget.baseline_budget import rank_plan, uniform_plan
from eugen_nerf.conversion.budget.budget_search import convert_to_budget
from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.run_writer import write_run
from eugen_nerf.conversion.teachers.graph_teacher import GraphTeacher
from eugen_nerf.core import ConversionConfig, DenseLinear, LowRankLinear, NeRFShape, build_nerf
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fitting.convert_graph import convert_graph
from eugen_nerf.core.fitting.importance import Batch
from eugen_nerf.core.fitting.layer_batches import LayerBatch, Replay
from eugen_nerf.core.fitting.rank_importance import rank_curves
from eugen_nerf.core.fitting.recipes.registry import recipe_named
from eugen_nerf.methods.runs.loading import load_run


def skewed_inputs(least: float = 0.02) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(600, 9)) @ np.diag(np.geomspace(1, least, 9)) @ generator.normal(size=(9, 9)) + 0.3


def replay_of(old: DenseLinear, x: np.ndarray) -> Replay:
    """Six batches; the sixth, held out, holds all of them."""

    def pairs() -> Iterator[LayerBatch]:
        with torch.no_grad():
            for index, part in enumerate([*np.array_split(x, 4), x]):
                inputs = torch.from_numpy(part)
                yield LayerBatch(inputs, old(inputs), None, index == 4)

    return Replay(pairs)


def dense() -> DenseLinear:
    torch.manual_seed(0)
    return DenseLinear(9, 7, "relu").double().requires_grad_(False)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_low_rank_is_the_best_for_weights_or_for_what_they_put_out(rank: int) -> None:
    old, x = dense(), skewed_inputs()
    found = {}
    for recipe in ("svd", "aware"):
        config = ConversionConfig(recipe=recipe)  # type: ignore[arg-type]
        layer = recipe_named(config.recipe).new_layer(old, rank, config.eugen, seed=0)
        assert isinstance(layer, LowRankLinear)
        error, _ = recipe_named(config.recipe).fit(layer, old, replay_of(old, x), torch.eye(7), config)
        found[recipe] = (layer.up @ layer.down).detach().numpy()
        y, fit = old(torch.from_numpy(x)).numpy(), layer(torch.from_numpy(x)).detach().numpy()
        assert error == pytest.approx(
            np.square(fit - y).sum() / np.square(y - y.mean(axis=0)).sum(), rel=1e-6, abs=1e-20
        )
    weight = old.weight.numpy()
    left = np.linalg.svd(weight)[1][rank:]
    assert np.square(found["svd"] - weight).sum() == pytest.approx(np.square(left).sum(), abs=1e-12)
    # Eckart and Young for the pre-activations without bias
    left = np.linalg.svd(x @ weight.T)[1][rank:]
    assert np.square(x @ (found["aware"] - weight).T).sum() == pytest.approx(np.square(left).sum(), rel=1e-4, abs=1e-9)
    assert np.square(x @ (found["aware"] - weight).T).sum() <= np.square(x @ (found["svd"] - weight).T).sum() + 1e-9


def test_pruning_keeps_the_neurons_that_count_most() -> None:
    old, x = dense(), skewed_inputs()
    metric = torch.diag(torch.tensor([1.0, 9, 1, 1, 30, 1, 1], dtype=torch.float64))
    config = ConversionConfig(recipe="pruned")
    layer = recipe_named(config.recipe).new_layer(old, 3, config.eugen, seed=0)
    assert isinstance(layer, EUGenLinear)
    error, _ = recipe_named(config.recipe).fit(layer, old, replay_of(old, x), metric, config)
    y = old(torch.from_numpy(x)).numpy()
    kept = np.argsort(np.square(y).sum(axis=0) * metric.diagonal().numpy() ** 2)[::-1][:3]
    expected = np.zeros_like(y)
    expected[:, kept] = y[:, kept]
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-12)
    assert error == pytest.approx(np.square(expected - y).sum() / np.square(y - y.mean(axis=0)).sum())


def test_compensation_is_least_squares_on_the_neurons_that_pruning_keeps() -> None:
    old, x = dense(), skewed_inputs()
    metric = torch.diag(torch.tensor([1.0, 9, 1, 1, 30, 1, 1], dtype=torch.float64))
    layers = {}
    for recipe in ("pruned", "compensated"):
        config = ConversionConfig(recipe=recipe)  # type: ignore[arg-type]
        layers[recipe] = recipe_named(config.recipe).new_layer(old, 3, config.eugen, seed=0)
        recipe_named(config.recipe).fit(layers[recipe], old, replay_of(old, x), metric, config)
    rows = layers["compensated"].projection.detach().numpy()
    assert {tuple(row) for row in rows} == {tuple(row) for row in layers["pruned"].projection.detach().numpy()}
    y = old(torch.from_numpy(x)).numpy()
    kept = np.maximum(x @ rows.T + layers["compensated"].projection_bias.detach().numpy(), 0)
    with_one = np.column_stack([kept, np.ones(len(x))])
    expected = with_one @ np.linalg.lstsq(with_one, y, rcond=None)[0]
    found = layers["compensated"](torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(y).max())  # fitted to what is not held out


@pytest.mark.parametrize("degree", [1, 2])
def test_whitened_projections_see_all_directions_alike(degree: int) -> None:
    """Inputs of very different spreads: pre-activations are as G's rows make them of standard normal inputs."""
    old, x = dense(), skewed_inputs(0.3)
    config = ConversionConfig(recipe="whitened", eugen=EUGenConfig(norm=False, degree=degree))
    layer = recipe_named(config.recipe).new_layer(old, 30, config.eugen, seed=0)
    drawn = recipe_named(config.recipe).new_layer(old, 30, config.eugen, seed=0)
    assert isinstance(layer, EUGenLinear)
    assert isinstance(drawn, EUGenLinear)
    error, _ = recipe_named(config.recipe).fit(layer, old, replay_of(old, x), torch.eye(7), config)
    u = x @ layer.projection.detach().numpy().T + layer.projection_bias.detach().numpy()
    rows = drawn.projection.detach().numpy()
    np.testing.assert_allclose(np.cov(u.T, bias=True), rows @ rows.T, rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(u.mean(axis=0), drawn.projection_bias.detach().numpy(), atol=1e-2)
    plain = ConversionConfig(recipe="random", eugen=EUGenConfig(norm=False, degree=degree))
    other, _ = recipe_named(plain.recipe).fit(drawn, old, replay_of(old, x), torch.eye(7), plain)
    assert 0 < error < 1
    assert error != other


def test_solving_again_beats_pruning() -> None:
    torch.manual_seed(0)
    shape = NeRFShape(position_width=6, trunk_layers=3, trunk_width=20, skips=(), head_width=0)
    teacher = build_nerf(shape).double().requires_grad_(False)
    batches = [Batch((torch.randn(200, 6, dtype=torch.float64),)) for _ in range(10)]
    plan = {"trunk_0": 12, "trunk_1": 10, "trunk_2": 8}
    truth = [teacher(*b.inputs)[0] for b in batches]
    errors = {}
    for recipe in ("rows", "compensated", "pruned"):
        student, _ = convert_graph(teacher, lambda: batches, plan, ConversionConfig(recipe=recipe))  # type: ignore[arg-type]
        with torch.no_grad():
            errors[recipe] = sum(
                float((student(*b.inputs)[0] - y).square().sum()) for b, y in zip(batches, truth, strict=True)
            )
    assert errors["rows"] < errors["compensated"] < 0.8 * errors["pruned"]


@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("recipe", ["svd", "aware"])
def test_rank_curves_are_the_errors_of_the_cut(recipe: Any, with_gradients: bool) -> None:
    """Against the weights that `fit_low_rank` makes, and derivatives by the pre-activations taken by autograd."""
    torch.manual_seed(0)
    shape = NeRFShape(position_width=6, trunk_layers=3, trunk_width=8, skips=(1,), head_width=0, function="softplus")
    graph = build_nerf(shape).double().requires_grad_(False)
    x, weights, g = torch.randn(90, 6).double(), torch.rand(90).double(), torch.randn(90, 1).double()
    batches = [
        Batch((x[i : i + 30],), weights[i : i + 30], (g[i : i + 30],) if with_gradients else None) for i in (0, 30, 60)
    ]
    curve = rank_curves(graph, lambda: batches, ["trunk_1"], recipe_named(recipe))["trunk_1"]
    old = graph.layer("trunk_1")
    assert isinstance(old, DenseLinear)
    inputs = graph.gather("trunk_1", [x, *graph.values(x).values()])
    assert inputs.shape == (90, 14)  # with the skip
    u = (inputs @ old.weight.T + old.bias).requires_grad_()
    y = torch.nn.functional.softplus(u)
    if with_gradients:
        later = graph.layer("trunk_2")(y)
        counted = torch.autograd.grad((graph.layer("density")(later) * g).sum(), u)[0].square()
    else:
        slope = torch.autograd.grad(y.sum(), u)[0]
        counted = slope.square() * graph.layer("trunk_2").weight.square().sum(dim=0)  # type: ignore[operator]
    replay = Replay(lambda: iter([LayerBatch(inputs, old(inputs), weights, index == 1) for index in range(2)]))
    assert curve[-1] == 0
    for rank in (1, 4, 7):
        config = ConversionConfig(recipe=recipe)
        cut = recipe_named(config.recipe).new_layer(old, rank, config.eugen, seed=0)
        recipe_named(config.recipe).fit(cut, old, replay, torch.eye(8), config)
        assert isinstance(cut, LowRankLinear)
        error = (inputs @ (cut.up @ cut.down - old.weight).T).square().sum(dim=1)
        expected = (weights * error).sum() / weights.sum() * counted.sum() / 8
        assert curve[rank].item() == pytest.approx(expected.item(), rel=1e-6)


def test_ranks_are_allocated_better_than_evenly(tiny_dense_run: Path, tmp_path: Path) -> None:
    run = load_run(tiny_dense_run, device="cpu", test_mode="val")
    config = DistillConfig(
        ray_fraction=0.5, max_rays=400, output_dir=tmp_path, conversion=ConversionConfig(recipe="aware")
    )
    conversion = GraphTeacher(run, config)
    even, allocated = uniform_plan(conversion, 0.5), rank_plan(conversion, 0.5)
    losses = [0.0, 0.0]
    for name in ("coarse", "fine"):
        network = conversion.model.graph_fields()[name].network
        layers = [*even[name]]
        curves = rank_curves(network, conversion.preview_batches(name), layers, recipe_named("aware"))
        for index, plan in enumerate((even, allocated)):
            losses[index] += sum(float(curves[n][plan[name][n]]) for n in layers if n in plan[name])
    assert losses[1] < 0.9 * losses[0]
    assert even["coarse"] == even["fine"]
    assert allocated["coarse"] == allocated["fine"]


PLANS: dict[str, Callable[..., Any]] = {
    "uniform": uniform_plan,
    "ranks": rank_plan,
}


@pytest.mark.parametrize(
    ("recipe", "share", "by"),
    [("svd", 0.7, "ranks"), ("aware", 0.5, "ranks"), ("aware", 0.5, "uniform"), ("random", 0.5, "uniform")],
)
def test_a_run_of_each(recipe: Any, share: float, by: str, tiny_dense_run: Path, tmp_path: Path) -> None:
    run = load_run(tiny_dense_run, device="cpu", test_mode="val")
    config = DistillConfig(
        ray_fraction=0.5, max_rays=400, output_dir=tmp_path, conversion=ConversionConfig(recipe=recipe)
    )
    conversion = GraphTeacher(run, config)
    plan = PLANS[by](conversion, share)
    trainer, student, reports = conversion.convert(plan)
    assert 0.85 * share < query_macs(student) / query_macs(conversion.model) <= share
    loaded = load_run(write_run(trainer, student, run.step, reports), device="cpu", test_mode="val")
    camera = loaded.pipeline.datamanager.eval_dataset.cameras[:1]  # type: ignore[attr-defined]
    torch.testing.assert_close(
        loaded.model.get_outputs_for_camera(camera)["rgb"], student.get_outputs_for_camera(camera)["rgb"]
    )


def test_pruning_within_a_budget(tiny_dense_run: Path, tmp_path: Path) -> None:
    """Widths are allocated by what pruned neurons cost, and no row is changed."""
    run = load_run(tiny_dense_run, device="cpu", test_mode="val")
    config = DistillConfig(
        ray_fraction=0.5, max_rays=400, output_dir=tmp_path, conversion=ConversionConfig(recipe="pruned")
    )
    conversion = GraphTeacher(run, config)
    result = convert_to_budget(conversion, "macs", 0.5)
    assert result.measured.multiply_adds <= 0.5 * query_macs(conversion.model)
    for name in ("coarse", "fine"):
        old = conversion.model.graph_fields()[name].network
        new = result.student.model.graph_fields()[name].network
        for layer in result.preview.plan(result.point)[name]:
            rows = new.layer(layer).projection
            assert (rows[:, None] == old.layer(layer).weight).all(dim=2).any(dim=1).all()
