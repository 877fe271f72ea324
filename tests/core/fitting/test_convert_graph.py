"""Closed-form conversion against numpy's least squares, and where it must be exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from eugen_nerf.core import (
    Batch,
    ConversionConfig,
    DenseLinear,
    EUGenConfig,
    EUGenLinear,
    LayerGraph,
    NeRFShape,
    build_nerf,
    convert_graph,
)
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting import layer_batches as pairs
from eugen_nerf.core.fitting.convert_graph import convertible_layers

SHAPE = NeRFShape(
    position_width=7, direction_width=5, trunk_layers=4, trunk_width=16, skips=(2,), head_layers=2, head_width=10
)
WIRING = {
    "trunk_0": [0],
    "trunk_1": ["trunk_0"],
    "trunk_2": [0, "trunk_1"],
    "trunk_3": ["trunk_2"],
    "density": ["trunk_3"],
    "head_0": [1, "trunk_3"],
    "head_1": ["head_0"],
    "rgb": ["head_1"],
}
HIDDEN = tuple(name for name in WIRING if name not in ("density", "rgb"))
RANDOM = ConversionConfig(recipe="random", eugen=EUGenConfig(norm=False, seed=3))
Inputs = tuple[Tensor, Tensor]


def make_teacher(seed: int = 0) -> LayerGraph:
    torch.manual_seed(seed)
    graph = build_nerf(SHAPE).double()
    with torch.no_grad():
        for name in HIDDEN:
            graph.layer(name).weight.mul_(2)
            graph.layer(name).bias.mul_(2)
    return graph


def draw(count: int, seed: int = 0) -> Inputs:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.normal(size=(count, 7))), torch.from_numpy(generator.normal(size=(count, 5)))


def make_batches(count: int = 10, size: int = 120, seed: int = 0) -> Callable[[], list[Batch]]:
    batches = [Batch(draw(size, seed + i)) for i in range(count)]
    return lambda: batches


def same_held_out(size: int = 300, seed: int = 0) -> Callable[[], list[Batch]]:
    """Four batches to fit, and the same samples again held out: the error is that of the fit."""
    parts = [draw(size, seed + i) for i in range(4)]
    whole = tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return lambda: [Batch(inputs) for inputs in (*parts, whole)]


def in_numpy(graph: LayerGraph, name: str, x: np.ndarray) -> np.ndarray:
    """One layer: relu(W x + b), or A relu(G x + g) + b."""
    state = {key: value.double().numpy() for key, value in graph.layer(name).state_dict().items()}
    linear = name in ("density", "rgb")
    if isinstance(graph.layer(name), DenseLinear):
        y = x @ state["weight"].T + state["bias"]
        return y if linear else np.maximum(y, 0)
    hidden = np.maximum(x @ state["projection"].T + state["projection_bias"], 0)
    return hidden @ state["weight"].T + state["bias"]


def values_in_numpy(graph: LayerGraph, inputs: Inputs) -> dict[int | str, np.ndarray]:
    values: dict[int | str, np.ndarray] = dict(enumerate(x.numpy() for x in inputs))
    for name, reads in WIRING.items():
        values[name] = in_numpy(graph, name, np.concatenate([values[v] for v in reads], axis=1))
    return values


def ridge_in_numpy(phi: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with rows for the ridge term and a constant column that it spares."""
    n, m = phi.shape
    scale = np.sqrt(ridge * (phi**2).sum(axis=0).mean())
    top = np.concatenate([phi, np.ones((n, 1))], axis=1)
    bottom = np.concatenate([scale * np.eye(m), np.zeros((m, 1))], axis=1)
    solution, *_ = np.linalg.lstsq(
        np.concatenate([top, bottom]), np.concatenate([y, np.zeros((m, y.shape[1]))]), rcond=1e-15
    )
    return solution[:-1].T, solution[-1]


def outputs(graph: LayerGraph, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad():
        return [y.clone() for y in graph(*inputs)]


def all_features(fraction: float = 1.0) -> dict[str, int]:
    return {name: round(fraction * (16 if name.startswith("trunk") else 10)) for name in HIDDEN}


def test_every_row_kept_is_the_teacher() -> None:
    teacher = make_teacher()
    student, reports = convert_graph(teacher, make_batches(), all_features(), ConversionConfig())
    assert [r.name for r in reports] == list(HIDDEN)
    assert all(r.relative_error < 1e-10 for r in reports)
    assert all(isinstance(student.layer(name), EUGenLinear) for name in HIDDEN)
    for inputs in (make_batches()()[0].inputs, draw(200, 99)):
        for ours, theirs in zip(outputs(student, inputs), outputs(teacher, inputs), strict=True):
            assert theirs.std() > 0.01
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distinct", [5, 8])
def test_repeated_neurons_are_recovered_from_the_distinct_ones(distinct: int) -> None:
    """relu(s w x + s b) = s relu(w x + b): rows that repeat one another up to a positive factor span nothing new."""
    teacher = make_teacher()
    with torch.no_grad():
        for name in HIDDEN:
            layer = teacher.layer(name)
            rows = torch.arange(layer.out_features) % distinct
            scale = 1 + torch.arange(layer.out_features, dtype=torch.float64) // distinct
            layer.weight.copy_(layer.weight[rows] * scale[:, None])
            layer.bias.copy_(layer.bias[rows] * scale)
    student, reports = convert_graph(teacher, make_batches(), dict.fromkeys(HIDDEN, distinct), ConversionConfig())
    assert all(r.relative_error < 1e-10 for r in reports)
    for ours, theirs in zip(outputs(student, draw(200, 99)), outputs(teacher, draw(200, 99)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    if distinct > 1:
        _, worse = convert_graph(teacher, make_batches(), {"trunk_1": distinct - 1}, ConversionConfig())
        assert worse[0].relative_error > 1e-4, "one fewer must not do"


@pytest.mark.parametrize("name", ["trunk_1", "trunk_2", "head_0"])
def test_the_error_never_grows_with_the_number_of_rows(name: str) -> None:
    teacher, batches = make_teacher(), same_held_out()
    width = teacher.layer(name).out_features
    errors, chosen = [], []
    for count in range(1, width + 1):
        student, reports = convert_graph(teacher, batches, {name: count}, ConversionConfig())
        errors.append(reports[0].relative_error)
        rows = student.layer(name).projection
        matches = (rows[:, None] == teacher.layer(name).weight[None]).all(dim=2)
        assert (matches.sum(dim=1) == 1).all(), "each row of G is one of the teacher's"
        chosen.append(matches.double().argmax(dim=1).tolist())
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(errors))
    assert errors[0] > 0.05
    assert errors[-1] < 1e-10
    assert all(shorter == longer[:-1] for shorter, longer in pairwise(chosen)), "nested"


@pytest.mark.parametrize("count", [3, 12, 20])
def test_random_features_are_fitted_as_numpy_fits_them(count: int) -> None:
    teacher, batches = make_teacher(), same_held_out()
    student, reports = convert_graph(teacher, batches, {"trunk_0": count}, RANDOM)
    state = {key: value.numpy() for key, value in student.layer("trunk_0").state_dict().items()}
    assert state["projection"].shape == (count, 7)
    x = np.concatenate([batch.inputs[0].numpy() for batch in batches()[:4]])
    y = in_numpy(teacher, "trunk_0", x)
    phi = np.maximum(x @ state["projection"].T + state["projection_bias"], 0)
    with_one = np.concatenate([phi, np.ones((len(x), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(with_one, y, rcond=None)
    found = phi @ state["weight"].T + state["bias"]
    np.testing.assert_allclose(found, with_one @ solution, atol=1e-6)
    error = ((found - y) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
    assert reports[0].relative_error == pytest.approx(error, rel=1e-6)
    assert reports[0].ridge == 1e-9
    assert reports[0].num_features == count
    assert reports[0].parameters == (7 * 16 + 16, count * 8 + 16 * count + 16)
    assert reports[0].multiply_adds == (7 * 16, count * (7 + 16))


@pytest.mark.parametrize("recipe", ["rows", "random"])
def test_each_layer_is_fitted_behind_its_converted_predecessors(recipe: str) -> None:
    """All hidden layers by hand, the skip included: inputs from the student's prefix, targets from the teacher."""
    teacher, batches = make_teacher(), make_batches()
    config = ConversionConfig(recipe=recipe, eugen=RANDOM.eugen)
    student, reports = convert_graph(teacher, batches, all_features(0.4), config)
    fit = [i for i in range(10) if i % 5 != 4]
    inputs = [torch.cat([batches()[i].inputs[k] for i in fit]) for k in range(2)]
    held_out = [torch.cat([batches()[i].inputs[k] for i in (4, 9)]) for k in range(2)]
    own, truth = values_in_numpy(student, inputs), values_in_numpy(teacher, inputs)
    own_held_out, truth_held_out = values_in_numpy(student, held_out), values_in_numpy(teacher, held_out)
    for report in reports:
        state = {key: value.numpy() for key, value in student.layer(report.name).state_dict().items()}

        def phi_of(values: dict[int | str, np.ndarray], state=state, name=report.name) -> np.ndarray:
            x = np.concatenate([values[v] for v in WIRING[name]], axis=1)
            return np.maximum(x @ state["projection"].T + state["projection_bias"], 0)

        weight, bias = ridge_in_numpy(phi_of(own), truth[report.name], report.ridge)
        found = phi_of(own_held_out) @ state["weight"].T + state["bias"]
        np.testing.assert_allclose(found, phi_of(own_held_out) @ weight.T + bias, rtol=1e-5, atol=1e-6)
        y = truth_held_out[report.name]
        error = ((found - y) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
        assert report.relative_error == pytest.approx(error, rel=1e-5)
        # on the teacher's own prefix the fit is another one: the test can tell the two apart
        if report.name == "trunk_2":
            other, _ = ridge_in_numpy(phi_of(truth), truth[report.name], report.ridge)
            assert np.abs(other - weight).max() > 1e-3


def test_the_ridge_term_is_chosen_on_held_out_samples() -> None:
    """With few samples and many features the smallest ridge overfits, and the held-out samples say so."""
    teacher, batches = make_teacher(), make_batches(count=5, size=12)
    student, reports = convert_graph(teacher, batches, {"trunk_0": 40}, RANDOM)
    assert reports[0].ridge > 1e-9
    state = {key: value.numpy() for key, value in student.layer("trunk_0").state_dict().items()}
    x = [batch.inputs[0].numpy() for batch in batches()]
    phi = [np.maximum(part @ state["projection"].T + state["projection_bias"], 0) for part in x]
    y = [in_numpy(teacher, "trunk_0", part) for part in x]
    errors = {}
    for ridge in (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
        weight, bias = ridge_in_numpy(np.concatenate(phi[:4]), np.concatenate(y[:4]), ridge)
        errors[ridge] = ((phi[4] @ weight.T + bias - y[4]) ** 2).sum()
    assert reports[0].ridge == min(errors, key=errors.get)


def test_batches_of_other_sizes_give_the_same_student() -> None:
    teacher, batches = make_teacher(), make_batches(count=5, size=96)()
    fit = [torch.cat([batch.inputs[k] for batch in batches[:4]]) for k in range(2)]
    sizes = [1, 200, 33, 150]
    other = [*(Batch(inputs) for inputs in zip(*(x.split(sizes) for x in fit), strict=True)), batches[4]]
    students = [
        convert_graph(teacher, lambda chosen=chosen: iter(chosen), all_features(0.5), ConversionConfig())
        for chosen in (batches, other)
    ]
    (first, one), (second, two) = students
    for a, b in zip(one, two, strict=True):
        assert a.relative_error == pytest.approx(b.relative_error, rel=1e-8)
    for a, b in zip(outputs(first, draw(50, 7)), outputs(second, draw(50, 7)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("config", [ConversionConfig(), RANDOM, ConversionConfig(train_steps=8)])
def test_a_weight_counts_like_so_many_samples(config: ConversionConfig) -> None:
    """Weights 0, 1 and 2 against samples left out, single and twice, in fit and held-out batches alike."""
    teacher, plain = make_teacher(), make_batches()()
    counts = [torch.from_numpy(np.random.default_rng(50 + i).permutation([0, 1, 1, 2] * 30)) for i in range(10)]
    pairs = list(zip(plain, counts, strict=True))
    weighted = [Batch(batch.inputs, c.double()) for batch, c in pairs]
    repeated = [Batch(tuple(x.repeat_interleave(c, dim=0) for x in batch.inputs)) for batch, c in pairs]
    features = {"trunk_0": 6, "trunk_1": 7, "trunk_2": 6}
    students = [convert_graph(teacher, lambda b=b: b, features, config) for b in (weighted, repeated, plain)]
    errors = [[report.relative_error for report in reports] for _, reports in students]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)
    for a, b in zip(*(outputs(student, draw(50, 7)) for student, _ in students[:2]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert errors[0] != pytest.approx(errors[2], rel=1e-3)


def test_solving_the_rows_again_helps_behind_converted_layers() -> None:
    teacher, features = make_teacher(), all_features(0.5)
    errors, students = {}, {}
    for sweeps in (0, 4):
        config = ConversionConfig(sweeps=sweeps)
        students[sweeps], reports = convert_graph(teacher, make_batches(), features, config)
        errors[sweeps] = {report.name: report.relative_error for report in reports}
    first = [students[sweeps].layer("trunk_0").state_dict() for sweeps in (0, 4)]
    assert all(torch.equal(first[0][key], first[1][key]) for key in first[0]), "nothing is converted before it"
    assert errors[4]["trunk_1"] < errors[0]["trunk_1"]
    rows = students[0].layer("trunk_1").projection
    theirs = teacher.layer("trunk_1").weight
    assert (rows[:, None] == theirs[None]).all(dim=2).any(dim=1).all(), "without sweeps the rows are the teacher's"
    assert not (students[4].layer("trunk_1").projection[:, None] == theirs[None]).all(dim=2).all()


@pytest.mark.parametrize("config", [ConversionConfig(), RANDOM, ConversionConfig(train_steps=12)])
def test_what_does_not_fit_in_memory_is_made_again(config: ConversionConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, batches, calls = make_teacher(), make_batches(), []

    def counted() -> list[Batch]:
        calls.append(1)
        return batches()

    students = []
    for size in (1 << 30, 5000, 0):
        monkeypatch.setattr(pairs, "CACHE_BYTES", size)
        calls.clear()
        students.append((convert_graph(teacher, counted, all_features(0.5), config)[0].state_dict(), len(calls)))
    (kept, once), *others = students
    assert once == len(HIDDEN), "one pass a layer"
    for state, passes in others:
        assert passes > once or config is RANDOM
        assert all(torch.equal(state[key], kept[key]) for key in kept)


@pytest.mark.parametrize("lr", [1e-3, 100.0])
def test_training_a_layer_never_makes_it_worse(lr: float) -> None:
    teacher, batches = make_teacher(), make_batches()
    before, (start,) = convert_graph(teacher, batches, {"trunk_1": 4}, ConversionConfig())
    config = ConversionConfig(train_steps=40, train_lr=lr)
    after, (end,) = convert_graph(teacher, batches, {"trunk_1": 4}, config)
    first, second = before.layer("trunk_1").state_dict(), after.layer("trunk_1").state_dict()
    if lr > 1:
        assert end.relative_error == pytest.approx(start.relative_error, rel=1e-9)
        assert all(torch.equal(first[key], second[key]) for key in first)
    else:
        assert end.relative_error < 0.999 * start.relative_error
        assert not torch.equal(first["projection"], second["projection"])
    held_out = [torch.cat([batches()[i].inputs[k] for i in (4, 9)]) for k in range(2)]
    x, y = values_in_numpy(teacher, held_out)["trunk_0"], values_in_numpy(teacher, held_out)["trunk_1"]
    error = ((in_numpy(after, "trunk_1", x) - y) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
    assert end.relative_error == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("config", [ConversionConfig(), RANDOM, ConversionConfig(train_steps=2)])
def test_the_teacher_is_left_alone_and_the_student_can_be_trained(config: ConversionConfig) -> None:
    teacher = make_teacher()
    before = copy.deepcopy(teacher.state_dict())
    seen: list[str] = []
    student, _ = convert_graph(teacher, make_batches(5), {"head_0": 3, "trunk_2": 4}, config, seen.append)
    assert seen == ["trunk_2", "head_0"], "in the network's order, whatever the order of the request"
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert isinstance(teacher.layer("head_0"), DenseLinear)
    assert all(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    sum(y.sum() for y in student(*draw(4))).backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    shared = {p.data_ptr() for p in teacher.parameters()} & {p.data_ptr() for p in student.parameters()}
    assert not shared


def test_settings_of_random_features_arrive() -> None:
    eugen = EUGenConfig(norm=True, degree=2, projection="orthogonal", seed=11)
    student, (report,) = convert_graph(
        make_teacher(), make_batches(), {"trunk_1": 6}, ConversionConfig("random", eugen)
    )
    layer = student.layer("trunk_1")
    assert isinstance(layer, EUGenLinear)
    assert (layer.config.degree, layer.config.norm, layer.config.num_features) == (2, True, 6)
    assert layer.weight.shape == (16, 12)
    assert 0 < report.relative_error < 1


def test_refusals() -> None:
    teacher, batches = make_teacher(), make_batches(5)
    names = ", ".join(HIDDEN)
    assert convertible_layers(teacher) == HIDDEN
    for name in ("density", "trunk_9"):
        with pytest.raises(ConfigError, match=f"^'{name}' is no dense hidden layer; there are: {names}$"):
            convert_graph(teacher, batches, {name: 4}, ConversionConfig())
    for count in (0, 17):
        with pytest.raises(ConfigError, match=f"^cannot choose {count} features of 16 rows: choose 1 to 16"):
            convert_graph(teacher, batches, {"trunk_1": count}, ConversionConfig())
    for count in (0, 65):
        with pytest.raises(ConfigError, match=f"^{count} features make no sense for a layer 16 wide; choose 1 to 64"):
            convert_graph(teacher, batches, {"trunk_1": count}, RANDOM)
    with pytest.raises(ConfigError, match=r"too few samples to convert.*at least 5 batches are needed"):
        convert_graph(teacher, make_batches(4), {"trunk_1": 4}, ConversionConfig())
    student, _ = convert_graph(teacher, batches, {"trunk_1": 4}, ConversionConfig())
    with pytest.raises(ConfigError, match="'trunk_1' is no dense hidden layer; there are: trunk_0, trunk_2"):
        convert_graph(student, batches, {"trunk_1": 4}, ConversionConfig())
    with torch.no_grad():
        teacher.layer("trunk_0").weight[0, 0] = float("nan")
    with pytest.raises(ConfigError, match="not finite: check the teacher for NaN weights"):
        convert_graph(teacher, batches, {"trunk_1": 4}, ConversionConfig())
