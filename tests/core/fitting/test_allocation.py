"""Allotted features against every choice there is, and the predicted errors against the errors themselves."""

from __future__ import annotations

import itertools
from itertools import pairwise

import numpy as np
import pytest
import torch

from eugen_nerf.core import Batch, EUGenConfig, LayerGraph, LayerSpec, NeRFShape, build_nerf
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting import allocation as allocate
from eugen_nerf.core.fitting.allocation import candidate_widths, combined_front, pareto_front, within_budget
from eugen_nerf.core.fitting.convert_graph import convertible_layers
from eugen_nerf.core.fitting.importance import gather_moments, values_and_gradients
from eugen_nerf.core.least_squares import greedy_path

SHAPES = {
    "skip": NeRFShape(
        position_width=5, direction_width=3, trunk_layers=3, trunk_width=8, skips=(2,), head_layers=2, head_width=6
    ),
    "bottleneck": NeRFShape(
        position_width=5,
        direction_width=3,
        trunk_layers=2,
        trunk_width=8,
        skips=(),
        bottleneck_width=7,
        head_layers=1,
        head_width=6,
    ),
    "distance": NeRFShape(position_width=9, trunk_layers=4, trunk_width=8, skips=(2,), head_width=0, output="distance"),
}


def cost_of(shape: NeRFShape, widths: dict[str, int], kept: dict[str, LayerSpec] | None = None) -> int:
    """Multiply-adds of the collapsed network with these features, as the network itself counts them."""
    specs = (kept or {}) | {
        name: LayerSpec("eugen", num_features=m, eugen=EUGenConfig(norm=False))
        for name, m in widths.items()
        if m < (shape.head_width if name.startswith("head") else shape.trunk_width)
    }
    return build_nerf(shape, specs).multiply_adds()


def falling(width: int, seed: int) -> list[float]:
    steps = np.random.default_rng(seed).exponential(size=width)
    return [*np.cumsum(steps[::-1])[::-1].tolist(), 0.0]


@pytest.mark.parametrize("name", SHAPES)
def test_the_front_is_that_of_all_choices(name: str) -> None:
    shape = SHAPES[name]
    graph = build_nerf(shape)
    layers = convertible_layers(graph)
    errors = {layer: falling(graph.layer(layer).out_features, i) for i, layer in enumerate(layers)}
    choices = {layer: (2, 5, graph.layer(layer).out_features) for layer in layers}
    front = pareto_front(graph, errors, choices)
    everything = []
    for widths in itertools.product(*choices.values()):
        chosen = dict(zip(layers, widths, strict=True))
        everything.append((cost_of(shape, chosen), sum(errors[n][m] for n, m in chosen.items())))
    best = [(c, e) for c, e in everything if not any(a <= c and b <= e and (a, b) != (c, e) for a, b in everything)]
    assert [p.multiply_adds for p in front] == sorted({c for c, _ in best})
    np.testing.assert_allclose([p.error for p in front], [e for _, e in sorted(set(best))], atol=1e-12)
    assert all(p.multiply_adds == cost_of(shape, p.num_features) for p in front)
    assert front[-1].multiply_adds == graph.multiply_adds()
    assert front[-1].error == 0


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("m", "degree"), [(3, 1), (8, 1), (2, 2), (4, 2)])
def test_layers_that_are_converted_already_keep_their_price(name: str, m: int, degree: int) -> None:
    """Every second layer is EUGen and stays so; the others' features are chosen."""
    shape = SHAPES[name]
    kept = {
        layer: LayerSpec("eugen", num_features=m, eugen=EUGenConfig(norm=False, degree=degree))
        for layer in convertible_layers(build_nerf(shape))[::2]
        if m * degree <= build_nerf(shape).layer(layer).out_features
    }
    graph = build_nerf(shape, kept)
    layers = convertible_layers(graph)
    errors = {layer: falling(graph.layer(layer).out_features, i) for i, layer in enumerate(layers)}
    choices = {layer: (2, 5, graph.layer(layer).out_features) for layer in layers}
    front = pareto_front(graph, errors, choices)
    costs = {
        cost_of(shape, dict(zip(layers, widths, strict=True)), kept) for widths in itertools.product(*choices.values())
    }
    assert all(p.multiply_adds == cost_of(shape, p.num_features, kept) for p in front)
    assert front[0].multiply_adds == min(costs)
    assert front[-1].multiply_adds == graph.multiply_adds()


def test_some_layers_only() -> None:
    shape = SHAPES["skip"]
    graph = build_nerf(shape)
    front = pareto_front(graph, {"trunk_1": falling(8, 0)}, {"trunk_1": (1, 2, 4, 8)})
    assert [p.multiply_adds for p in front] == [cost_of(shape, {"trunk_1": m}) for m in (1, 2, 4, 8)]


def test_a_thinned_front_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build_nerf(SHAPES["distance"])
    errors = {layer: falling(8, i) for i, layer in enumerate(convertible_layers(graph))}
    choices = {layer: tuple(range(1, 9)) for layer in errors}
    exact = pareto_front(graph, errors, choices)
    monkeypatch.setattr(allocate, "MAX_POINTS", 60)
    for point in pareto_front(graph, errors, choices):
        twin = max((p for p in exact if p.multiply_adds <= point.multiply_adds), key=lambda p: p.multiply_adds)
        assert twin.error <= point.error + 1e-12
        assert point.error <= 1.15 * twin.error + 0.05


def test_fronts_combined_are_the_best_of_all_pairs() -> None:
    fronts = {}
    for name in ("skip", "distance"):
        graph = build_nerf(SHAPES[name])
        errors = {
            layer: falling(graph.layer(layer).out_features, i) for i, layer in enumerate(convertible_layers(graph))
        }
        fronts[name] = pareto_front(graph, errors, {n: (3, graph.layer(n).out_features) for n in errors})
    pairs = [(a.multiply_adds + b.multiply_adds, a.error + b.error) for a in fronts["skip"] for b in fronts["distance"]]
    combined = combined_front(fronts)
    for cost, error in pairs:
        assert any(c.multiply_adds <= cost and c.error <= error + 1e-12 for c in combined)
    for c in combined:
        assert c.multiply_adds == sum(p.multiply_adds for p in c.parts.values())
        assert c.error == pytest.approx(sum(p.error for p in c.parts.values()))
    for earlier, later in pairwise(combined):
        assert earlier.multiply_adds < later.multiply_adds
        assert earlier.error > later.error
    middle = combined[len(combined) // 2]
    assert within_budget(combined, middle.multiply_adds + 0.5) == middle
    with pytest.raises(ConfigError, match=f"the fewest are {combined[0].multiply_adds:,}"):
        within_budget(combined, combined[0].multiply_adds - 1)


def test_widths_and_errors_that_do_not_fit() -> None:
    assert candidate_widths(40) == (4, 8, 12, 16, 20, 24, 28, 32, 36, 40)
    assert candidate_widths(256) == tuple(range(16, 257, 16))
    for width in range(1, 300):
        choices = candidate_widths(width)
        assert choices[-1] == width
        assert len(choices) >= min(width, 8)
        assert len(choices) <= 16 or width > 256
    graph = build_nerf(SHAPES["skip"])
    with pytest.raises(ConfigError, match="takes 1 to 8 features"):
        pareto_front(graph, {"trunk_1": falling(8, 0)}, {"trunk_1": (9,)})
    with pytest.raises(ConfigError, match="no layer"):
        pareto_front(graph, {})
    for spec in (
        LayerSpec("eugen", num_features=4),  # its norm is a matrix more, as large as its consumers' features
        LayerSpec("eugen", num_features=5, eugen=EUGenConfig(norm=False, degree=2)),  # more features than outputs
        LayerSpec("lowrank", num_features=3),
    ):
        converted = build_nerf(SHAPES["skip"], {"trunk_1": spec})
        with pytest.raises(ConfigError, match=r"'trunk_1' is .*, whose cost does not follow from widths alone"):
            pareto_front(converted, {"trunk_0": falling(8, 0)})


def draw_batches(graph: LayerGraph, *, with_gradients: bool) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(3):
        inputs = tuple(torch.randn(50, w, generator=generator, dtype=torch.float64) for w in graph.input_widths)
        weights = torch.rand(50, generator=generator, dtype=torch.float64)
        rows = [graph.width(v) for v in graph.outputs]
        cotangents = tuple(torch.randn(50, w, generator=generator, dtype=torch.float64) for w in rows)
        found.append(Batch(inputs, weights, cotangents if with_gradients else None))
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_derivatives_of_the_objective(name: str) -> None:
    """Against finite differences: a value is changed, and what reads it is computed again."""
    torch.manual_seed(0)
    graph = build_nerf(SHAPES[name]).double().requires_grad_(False)
    batch = draw_batches(graph, with_gradients=True)[0]
    names = convertible_layers(graph)
    values = values_and_gradients(graph, batch, names)
    assert batch.cotangents is not None

    def objective_with(layer: str, changed: torch.Tensor) -> torch.Tensor:
        state: list[torch.Tensor] = list(batch.inputs)
        for each in graph.names:
            state.append(changed if each == layer else graph.layer(each)(graph.gather(each, state)))
        return sum((state[v] * c).sum(dim=1) for v, c in zip(graph.outputs, batch.cotangents, strict=True))  # type: ignore[return-value, arg-type]

    for layer, (value, gradient) in values.items():
        assert gradient is not None
        for unit in (0, 3):
            step = torch.zeros_like(value)
            step[:, unit] = 1e-6
            difference = (objective_with(layer, value + step) - objective_with(layer, value - step)) / 2e-6
            torch.testing.assert_close(gradient[:, unit], difference, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("with_gradients", [True, False])
def test_curves_are_the_errors_of_least_squares(with_gradients: bool) -> None:
    """The error left by the chosen neurons, fitted again by numpy, weighted and measured by the metric."""
    torch.manual_seed(0)
    graph = build_nerf(SHAPES["skip"]).double().requires_grad_(False)
    batches = draw_batches(graph, with_gradients=with_gradients)
    (moments,) = gather_moments(graph, lambda: batches, ["trunk_1"]).values()
    curve = moments.curve()
    assert len(curve) == 9
    assert curve[-1] == 0
    assert all(later <= earlier + 1e-15 for earlier, later in pairwise(curve.tolist()))
    y = np.concatenate([graph.values(*b.inputs)["trunk_1"].numpy() for b in batches])
    weights = torch.cat([b.weights for b in batches if b.weights is not None]).numpy()
    metric = moments.metric.numpy()
    if with_gradients:
        gradients = [values_and_gradients(graph, b, ["trunk_1"])["trunk_1"][1] for b in batches]
        g = np.concatenate([v.numpy() for v in gradients if v is not None])
        np.testing.assert_allclose(metric.T @ metric, g.T @ g / len(g), rtol=1e-6, atol=1e-12)
    else:
        rows = np.concatenate([graph.layer("trunk_2").weight.numpy()[:, 5:]])
        np.testing.assert_allclose(metric, rows)
    chosen = greedy_path(moments.outputs, 8, moments.metric)[0].tolist()
    root = np.sqrt(weights)[:, None]
    for m in (0, 1, 3, 6):
        phi = np.concatenate([y[:, chosen[:m]], np.ones((len(y), 1))], axis=1)
        fit = phi @ np.linalg.lstsq(root * phi, root * y, rcond=None)[0]
        error = (weights * np.square((y - fit) @ metric.T).sum(axis=1)).sum() / weights.sum()
        assert curve[m].item() == pytest.approx(error, rel=1e-6, abs=1e-12)


def test_a_pruned_neuron_costs_its_square() -> None:
    """As if each neuron's part of the error stood alone, dearest first."""
    torch.manual_seed(0)
    graph = build_nerf(SHAPES["skip"]).double().requires_grad_(False)
    batches = draw_batches(graph, with_gradients=True)
    (moments,) = gather_moments(graph, lambda: batches, ["trunk_1"]).values()
    y = np.concatenate([graph.values(*b.inputs)["trunk_1"].numpy() for b in batches])
    weights = torch.cat([b.weights for b in batches if b.weights is not None]).numpy()
    each = [
        np.average(((y[:, j : j + 1] @ moments.metric.numpy()[:, j : j + 1].T) ** 2).sum(1), weights=weights)
        for j in range(8)
    ]
    expected = [sum(sorted(each)[: 8 - m]) for m in range(9)]
    np.testing.assert_allclose(moments.curve(pruned=True).numpy(), expected, rtol=1e-9, atol=1e-15)
    assert all(b >= a - 1e-15 for a, b in zip(moments.curve(), moments.curve(pruned=True), strict=True) if b > 0)


def test_nothing_to_learn_from() -> None:
    graph = build_nerf(SHAPES["skip"])
    with pytest.raises(ConfigError, match="no samples"):
        gather_moments(graph, lambda: [], ["trunk_1"])
