"""`convert_` on batches that are not like the first, on outputs that are no tensors, and on few rows or units."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_models import MLP, batches
from torch import Tensor, nn

from eugen_nerf.core import convert_
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.modules.outputs import tensors_in

OUTSIDE = "has units that are also read outside of linear layers"


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Branches(nn.Module):
    """A hidden layer and consumers; what is done with them depends on the batch's first number."""

    def __init__(self, late: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.other, self.late = nn.Linear(5, 48), nn.Linear(48, 4), nn.Linear(48, 4), late

    def forward(self, x: Tensor) -> Tensor:
        u = self.a(x)
        return self.late(self, u) if float(x[0, 0]) > 100 else self.b(torch.relu(u))


LATE: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "outside": (lambda m, u: m.b(u.relu()) + u.relu().sum(-1, keepdim=True), rf"{OUTSIDE}: .* \(goes through sum"),
    "another layer": (lambda m, u: m.other(u.relu()), "has a width that .* on batch 5, where other runs"),
    "another function": (lambda m, u: m.b(u.sin()), "is read by b in another way on batch 5"),
}


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("how", LATE)
def test_what_only_a_late_batch_does_is_found(how: str, aware: bool) -> None:
    late, reason = LATE[how]
    x, model = batches(), Branches(late)
    convert_(copy.deepcopy(model), x, layers=("a",), num_features=0.5, output_aware=aware)
    x[4] = x[4].index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(101.0))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=rf"a {reason}.*and not on the first"):
        convert_(model, x, layers=("a",), num_features=0.5, output_aware=aware)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_layers_that_run_for_some_batches_hold_out_their_own() -> None:
    """Of two experts each sees every other batch, none of them always a fifth one."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.ModuleList(nn.Linear(5, 24) for _ in range(2))
            self.last = nn.ModuleList(nn.Linear(24, 3) for _ in range(2))

        def forward(self, x: Tensor, which: int) -> Tensor:
            return self.last[which](torch.relu(self.first[which](x)))

    model, x = Experts(), [(part, index // 3 % 2) for index, part in enumerate(batches(count=9))]
    report = convert_(model, x, layers=(r"first\.0",), num_features=24, output_aware=True)
    assert report.layers[0].relative_error < 1e-10
    with pytest.raises(ConfigError, match=r"first\.1 was not called on the first batch"):
        convert_(model, x, layers=(r"first\.1",))


class Given(nn.Module):
    """A hidden layer and a consumer, and something that is no tensor made of the hidden units beside."""

    def __init__(self, beside: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.beside = nn.Linear(5, 48), nn.Linear(48, 4), beside

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.a(x))
        return self.b(h), self.beside(h)


BESIDE: dict[str, Callable[[Tensor], Any]] = {
    "number": lambda h: float(h.sum()),
    "array": lambda h: h.detach().mean(-1).numpy(),
    "object": lambda h: SimpleNamespace(inner=SimpleNamespace(mean=h.mean())),
    "sparse": lambda h: h.mean(-1).to_sparse(),
    "nested": lambda h: torch.nested.nested_tensor([h[:3].mean(-1), h[3:].mean(-1)]),
    "distribution": lambda h: torch.distributions.Normal(h.mean(-1), 1.0),
    "width": lambda h: h.shape[-1],
}


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype")
@pytest.mark.parametrize("kind", BESIDE)
def test_outputs_of_any_kind_are_compared(kind: str) -> None:
    with pytest.raises(ConfigError, match=OUTSIDE):
        convert_(Given(BESIDE[kind]), batches(), num_features=0.5)
    model = Given(lambda h: BESIDE[kind](torch.ones(7, 5)))
    convert_(model, batches(), num_features=0.5)
    assert model.a.out_features == 24


def test_objects_that_hold_themselves_end() -> None:
    ring = SimpleNamespace(t=torch.ones(2), text="none", kind=dict)
    ring.ring = ring
    assert len(tensors_in([ring, ring])) == 2


@pytest.mark.parametrize("rows", [1, 2, 200])
@pytest.mark.parametrize("aware", [False, True])
def test_full_width_is_exact_however_few_rows_there_are(rows: int, aware: bool) -> None:
    model, x = MLP(F.relu), batches()[0]
    expected = model(x).detach()
    report = convert_(model, batches(rows, 5), num_features=1.0, output_aware=aware)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert max(layer.relative_error for layer in report.layers) < 1e-3


def test_single_samples_without_a_dimension_of_rows() -> None:
    flat, rows = MLP(F.relu), MLP(F.relu)
    rows.load_state_dict(flat.state_dict())
    x = batches(1, 5, count=60)
    convert_(flat, [part[0] for part in x], macs=0.6, output_aware=True)
    convert_(rows, x, macs=0.6, output_aware=True)
    torch.testing.assert_close(flat(batches()[0]), rows(batches()[0]))


def test_errors_of_constant_values_are_of_the_size_of_rounding() -> None:
    report = convert_(MLP(F.relu), [torch.ones(100, 5)] * 6, num_features=4)
    assert all(layer.relative_error < 1 for layer in report.layers)


REASONS: dict[str, tuple[Callable[[], nn.Module], list[Any], str]] = {
    "dead": (lambda: _shifted(-100), batches(), "0 has no unit above 0 on the first batch, of which relu leaves"),
    "never off": (lambda: _shifted(100), batches(), "0 goes through relu, which changes none of its values"),
    "flattened": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)),
        batches(9, 4, 5),
        r"0 .* it goes through relu and is cut, reordered or repeated \((view|_unsafe_view)\)",
    ),
    "twice": (lambda: Repeated(), batches(), r"first has a width that .*second also reads other values"),
    "scaled": (lambda: Scaled(), batches(), f"first {OUTSIDE}, or whose number the model computes with"),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv1d(5, 8, 1), nn.ReLU(), nn.Conv1d(8, 2, 1)),
        batches(9, 5, 4),
        r"no nn\.Linear that could be converted; what it has of its own are Conv1d",
    ),
    "no rows": (lambda: MLP(F.relu), [torch.zeros(0, 5), *batches()], "nothing but empty tensors on the first batch"),
    "arguments": (lambda: MLP(F.relu), [(x, x) for x in batches()], r"does not run on the first batch \(TypeError: "),
    "shape": (lambda: MLP(F.relu), batches(9, 7), r"does not run on the first batch \(RuntimeError: .*give other"),
    "meta": (lambda: MLP(F.relu).to("meta"), batches(), r"first\.weight is on the meta device, .*load the trained"),
    "vmap": (lambda: Mapped(F.relu), batches(), r"first runs inside a transformation of torch\.func"),
    "no module": (lambda: torch.relu, batches(), "is a builtin_function_or_method, not a torch.nn.Module"),  # type: ignore[dict-item,return-value]
}


def _shifted(bias: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(model.get_parameter("0.bias"), bias)
    return model


class Repeated(MLP):
    """Its second layer is called twice."""

    def __init__(self) -> None:
        super().__init__(F.relu)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(torch.relu(self.second(h)))


class Scaled(Repeated):
    """It divides by the number of its units."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.second(h) / h.shape[-1]


class Mapped(MLP):
    """It is called row by row."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.vmap(super().forward)(x)


@pytest.mark.parametrize("kind", REASONS)
def test_refusals_say_what_it_is(kind: str) -> None:
    make, x, reason = REASONS[kind]
    with pytest.raises(ConfigError, match=reason):
        convert_(make(), x, num_features=0.5)


def test_what_belongs_to_parameters_and_buffers_stays() -> None:
    class Counting(MLP):
        def __init__(self) -> None:
            super().__init__(F.relu)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * x.mean()
            return super().forward(x)

    model = Counting()
    model.second.bias.requires_grad_(False)
    model.second.weight.no_decay = True  # type: ignore[attr-defined]
    convert_(model, batches(), num_features=0.5)
    assert model.get_buffer("calls") == model.get_buffer("mean") == 0
    assert [p.requires_grad for p in model.second.parameters()] == [True, False]
    assert model.second.weight.no_decay
    assert not hasattr(model.first.weight, "no_decay")
