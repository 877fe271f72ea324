"""What `convert_` must not pass over in silence: mixed scales, NaN by design, tied weights, Python lists, compilers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_models import MLP, batches
from torch import Tensor, nn

from eugen_nerf.core import convert_
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.modules.outputs import differ

OUTSIDE = "has units that are also read outside of linear layers"


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Head(nn.Module):
    """A hidden layer, a linear consumer, and what `finish` makes of both."""

    def __init__(self, finish: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.finish = nn.Linear(5, 48), nn.Linear(48, 4), finish

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.a(x))
        return self.finish(self.b(h), h)


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "last": lambda large, small: torch.cat([large, small], dim=-1),
    "first": lambda large, small: torch.cat([large, small], dim=-1).T,
    "images": lambda large, small: torch.cat([large, small], dim=-1).reshape(10, 20, 5).permute(0, 2, 1)[..., None],
    "tuple": lambda large, small: (large, {"small": small}),
    "complex": lambda large, small: torch.complex(torch.cat([large, small], -1), torch.cat([large, small], -1)),
}


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("form", FORMS)
def test_a_second_reader_of_small_channels_is_found_beside_large_ones(form: str, scale: float) -> None:
    join = FORMS[form]
    with pytest.raises(ConfigError, match=f"a {OUTSIDE}: outputs depend on them .*mean"):
        convert_(Head(lambda y, h: join(scale * y, h.mean(-1, keepdim=True))), batches(), num_features=0.5)
    narrow = Head(lambda y, h: join(scale * y, y[:, :1]))
    convert_(narrow, batches(), num_features=0.5)
    assert narrow.a.out_features == 24


@pytest.mark.parametrize("size", [1, 20, 200])
def test_rows_of_any_number_show_a_second_reader(size: int) -> None:
    x = batches(size, 5)
    with pytest.raises(ConfigError, match=OUTSIDE):
        convert_(Head(lambda y, h: torch.cat([1e4 * y, h.mean(-1, keepdim=True)], -1)), x, num_features=0.5)
    convert_(Head(lambda y, _: torch.cat([1e4 * y, y.mean(-1, keepdim=True)], -1)), x, num_features=0.5)


def test_cancellation_is_no_second_reader() -> None:
    """Sums of large numbers that nearly cancel differ in float32 by rounding alone."""
    model = Head(lambda y, _: torch.cat([y, (1e6 + y).sum(-1, keepdim=True) - 4e6], dim=-1))
    convert_(model, batches(), num_features=0.5)


def test_a_reader_that_only_some_batches_have_is_found() -> None:
    model = Head(lambda y, h: y + h.sum(-1, keepdim=True) if float(y[0, 0]) > 0 else y)
    with torch.no_grad():
        first, second = (
            next(x for x in batches() if (model.b(torch.relu(model.a(x)))[0, 0] > 0) == up) for up in (0, 1)
        )
    with pytest.raises(ConfigError, match=OUTSIDE):
        convert_(model, [first, second], num_features=0.5)


FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "-inf": lambda y: y.index_fill(-1, torch.tensor([3]), -torch.inf),
    "inf": lambda y: y.index_fill(-1, torch.tensor([3]), torch.inf),
    "nan": lambda y: y.index_fill(-1, torch.tensor([3]), torch.nan),
    "rays that hit nothing": lambda y: y.where(torch.arange(len(y))[:, None] % 3 > 0, torch.nan),
    "zero by zero": lambda y: y / (torch.arange(len(y))[:, None] % 3).clamp_max(1),
}


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("fill", FILLS)
def test_outputs_that_are_not_finite_by_design(fill: str, aware: bool) -> None:
    finish = FILLS[fill]
    model, x = Head(lambda y, _: finish(y)), batches()
    before = model(x[0]).detach()
    convert_(model, x, num_features=0.5, output_aware=aware)
    after = model(x[0]).detach()
    assert torch.equal(after.isfinite(), before.isfinite())
    error = (after - before)[before.isfinite()].square().mean() / before[before.isfinite()].var()
    assert float(error) < 0.1
    with pytest.raises(ConfigError, match=OUTSIDE):
        convert_(Head(lambda y, h: finish(y + h.sum(-1, keepdim=True))), x, num_features=0.5, output_aware=aware)


def test_infinities_that_depend_on_units_are_found() -> None:
    """The number that is masked depends on the hidden units themselves."""
    model = Head(lambda y, h: y.where(h.sum(-1, keepdim=True) > h.sum(-1).median(), -torch.inf))
    with pytest.raises(ConfigError, match=OUTSIDE):
        convert_(model, batches(), num_features=0.5)


def test_nothing_finite_is_nothing_to_check() -> None:
    with pytest.raises(ConfigError, match="returns no finite number on the first batch"):
        convert_(Head(lambda y, _: y * torch.nan), batches())


def test_rows_of_padding_are_left_out() -> None:
    x = [torch.cat([part, torch.full((30, 5), torch.nan)]) for part in batches()]
    model, plain = MLP(F.relu), MLP(F.relu)
    plain.load_state_dict(model.state_dict())
    convert_(model, x, num_features=12)
    convert_(plain, batches(), num_features=12)
    torch.testing.assert_close(model(batches()[0]), plain(batches()[0]), rtol=1e-3, atol=1e-3)
    model = MLP(F.relu)
    assert convert_(model, x, macs=0.6, output_aware=True).multiply_adds[1] > 0


def test_labels_alone_are_checked_too() -> None:
    convert_(Head(lambda y, _: y.argmax(-1)), batches(), num_features=0.5)
    with pytest.raises(ConfigError, match=OUTSIDE):
        convert_(Head(lambda y, h: (y + h[..., :4]).argmax(-1)), batches(), num_features=0.5)
    with pytest.raises(ConfigError, match="no output of the model carries finite gradients"):
        convert_(Head(lambda y, _: y.argmax(-1)), batches(), num_features=0.5, output_aware=True)


class Reached(nn.Module):
    """Layers that `forward` reaches by other ways than attributes."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2 = nn.Linear(5, 48), nn.Linear(48, 3)
        self.ways: dict[str, Callable[[Tensor], Tensor]] = {
            "closure": lambda x: fc2(torch.relu(fc1(x))),
            "partial": lambda x: partial(nn.Module.__call__, fc2)(torch.relu(partial(nn.Module.__call__, fc1)(x))),
            "weights": lambda x: F.linear(torch.relu(F.linear(x, fc1.weight, fc1.bias)), fc2.weight, fc2.bias),
            "forward": lambda x: fc2.forward(torch.relu(fc1.forward(x))),
            "keyword": lambda x: fc2(input=torch.relu(fc1(input=x))),
        }
        chain = [fc1, nn.ReLU(), fc2]
        self.ways["list"] = lambda x: chain[2](chain[1](chain[0](x)))
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.ways[self.way](x)


@pytest.mark.parametrize("way", ["list", "closure", "partial", "keyword"])
@pytest.mark.parametrize("settings", [{"num_features": 16}, {"macs": 0.4, "output_aware": True}])
def test_layers_reached_by_any_way_are_those_that_run(way: str, settings: dict[str, Any]) -> None:
    model, x = Reached(way), batches()
    before = model(x[0])
    convert_(model, x, **settings)
    rebuilt = F.linear(torch.relu(F.linear(x[0], model.fc1.weight, model.fc1.bias)), model.fc2.weight, model.fc2.bias)
    assert model.fc1.weight.shape[0] <= 20
    assert (model.fc1.out_features, model.fc2.in_features) == (model.fc1.weight.shape[0],) * 2
    torch.testing.assert_close(model(x[0]), rebuilt)
    assert float((model(x[0]) - before).abs().max()) > 1e-3


@pytest.mark.parametrize("way", ["weights", "forward"])
def test_weights_without_a_call_are_refused(way: str) -> None:
    with pytest.raises(ConfigError, match=r"fc1 was not called on the first batch: its weights are read by the model"):
        convert_(Reached(way), batches())


def test_a_layer_that_no_output_depends_on_is_refused() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.aside = MLP(F.relu), MLP(F.relu)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return self.used(x)

    with pytest.raises(ConfigError, match=r"aside\.first makes no difference to any output"):
        convert_(Aside(), batches(), layers=("aside.*",))
    report = convert_(Aside(), batches())
    assert [layer.name for layer in report.layers] == ["used.first", "used.second"]


@pytest.mark.parametrize("settings", [{"macs": 0.5, "output_aware": True}, {"output_aware": True}, {"macs": 0.5}, {}])
@pytest.mark.parametrize("inside", [False, True])
def test_inference_mode_changes_nothing(settings: dict[str, Any], inside: bool) -> None:
    results = []
    for mode in (True, False):
        torch.manual_seed(0)
        model = MLP(F.relu, width=48)
        with torch.inference_mode(mode and inside):
            x: Any = [{"x": part} for part in batches()]
        with torch.inference_mode(mode):
            convert_(model, x, **settings)
        model(batches()[0]).sum().backward()
        assert all(p.grad is not None and not p.is_inference() for p in model.parameters())
        results.append([*model.parameters()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_models_without_gradients_are_named() -> None:
    class Frozen(MLP):
        @torch.inference_mode()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    model = Frozen(F.relu)
    with pytest.raises(ConfigError, match=r"no output of the model carries finite gradients.*leave output_aware out"):
        convert_(model, batches(), output_aware=True)
    convert_(model, batches())
    assert not any(p.is_inference() for p in model.parameters())
    with torch.inference_mode():
        built = MLP(F.relu)
    with pytest.raises(ConfigError, match=r"first\.weight was made under torch\.inference_mode"):
        convert_(built, batches(), output_aware=True)


def test_checkpoints_run_layers_again_and_change_nothing() -> None:
    class Checkpointed(MLP):
        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)

    students = []
    for kind in (Checkpointed, MLP):
        torch.manual_seed(0)
        students.append(kind(F.relu))
        convert_(students[-1], batches(), num_features=10, output_aware=True)
    for a, b in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(a, b)


def test_compiled_models_are_converted_and_compiled_anew() -> None:
    def inner_compiled(net: MLP) -> nn.Module:
        return nn.Sequential(torch.compile(net, backend="eager"))

    def method_compiled(net: MLP) -> nn.Module:
        net.forward = torch.compile(net.forward, backend="eager")  # type: ignore[method-assign]
        return net

    def in_place(net: MLP) -> nn.Module:
        net.compile(backend="eager")
        return net

    ways = {"around": partial(torch.compile, backend="eager"), "inside": inner_compiled, "method": method_compiled}
    for way, compiled in {**ways, "in place": in_place}.items():
        torch.manual_seed(0)
        net, x = MLP(F.relu), batches()
        model = compiled(net)
        model(x[0])  # compiled before the conversion
        report = convert_(model, x, num_features=12)
        plain = torch.relu(net.second(torch.relu(net.first(x[0]))))
        assert net.second.weight.shape == (12, 12), way
        assert [layer.name for layer in report.layers] == [
            f"{'0.' * (way == 'inside')}{n}" for n in ("first", "second")
        ]
        torch.testing.assert_close(model(x[0]), net.last(plain))


def test_torchscript_is_named() -> None:
    traced = torch.jit.trace(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)), batches()[0])
    with pytest.raises(ConfigError, match="is TorchScript, whose layers keep their sizes: convert first"):
        convert_(traced, batches())


class Tied(nn.Module):
    """An autoencoder whose decoder uses the encoder's weights in some way, or not."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.enc, self.mid, self.back = how, nn.Linear(5, 48), nn.Linear(48, 32), nn.Linear(48, 32)
        if how == "same numbers":
            self.back.weight = nn.Parameter(self.mid.weight.data)
        self.kept = [self.mid.weight.detach().t()]

    def forward(self, x: Tensor) -> Any:
        z = self.mid(F.relu(self.enc(x)))
        if self.how == "transposed":
            return z, F.linear(F.relu(z), self.mid.weight.t())
        if self.how == "kept aside":
            return z, F.relu(z) @ self.kept[0].t()[:, :20]
        if self.how == "same numbers":
            return z, self.back(F.pad(F.relu(z), (0, 16)))
        if self.how == "own weights":
            return z, F.relu(z)[:, :5] @ self.enc.weight[:4].t()
        if self.how == "penalty":
            return z, self.mid.bias.square().sum()
        if self.how == "dtype":
            return z.to(self.mid.weight.dtype)[:, : self.mid.weight.shape[0]]
        with torch.enable_grad():  # gradients read weights as well, and stay right
            y = x.detach().requires_grad_()
            out = self.mid(F.relu(self.enc(y)))
            (normal,) = torch.autograd.grad(out.sum(), y, create_graph=torch.is_grad_enabled())
        return z, normal


@pytest.mark.parametrize("how", ["transposed", "kept aside", "same numbers", "penalty", "own weights"])
def test_weights_that_are_used_twice_are_found(how: str) -> None:
    reason = "enc has weights that are" if how == "own weights" else "enc is read by mid, whose weights are"
    caller = r"back \(Linear\)" if how == "same numbers" else r"the model \(Tied\)"
    with pytest.raises(ConfigError, match=f"{reason} also read outside of its call, by {caller}"):
        convert_(Tied(how), batches(), layers=("enc",), num_features=0.5)


@pytest.mark.parametrize("how", ["dtype", "gradient"])
def test_weights_whose_sizes_or_gradients_are_used_are_not_tied(how: str) -> None:
    model, x = Tied(how), batches()
    convert_(model, x, layers=("enc",), num_features=24)
    assert model.mid.in_features == 24


class After(nn.Module):
    """Something between a hidden layer's function and its consumer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.fc1, self.fc2, self.fc3 = kind, nn.Linear(5, 16), nn.Linear(16, 3), nn.Linear(5, 16)
        modules = {"norm": nn.LayerNorm(16), "group": nn.GroupNorm(4, 16), "batch": nn.BatchNorm1d(16)}
        self.between = modules.get(kind, nn.Mish())
        if kind == "batch":
            nn.init.normal_(self.between.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.fc1(x))
        if self.kind == "residual":
            h = h + x.repeat(1, 4)[:, :16]
        elif self.kind == "gate":
            h = h * x.repeat(1, 4)[:, :16]
        elif self.kind == "two layers":
            h = h * self.fc3(x)
        elif self.kind == "softmax":
            h = h.softmax(-1)
        elif self.kind == "product":
            h = h @ torch.ones(16, 16)
        else:
            h = self.between(h)
        return self.fc2(h)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("norm", r"it goes through between \(LayerNorm\)"),
        ("group", r"it goes through between \(GroupNorm\)"),
        ("batch", r"it goes through between \(BatchNorm1d\)"),
        ("residual", "it is added to another value"),
        ("gate", "it is multiplied by another value"),
        ("two layers", "it is multiplied by another value"),
        ("softmax", "it goes through softmax"),
        ("product", "it goes through a matrix product"),
        ("function", "it goes through gelu, mish, which is none of the known functions"),
    ],
)
def test_refusals_name_what_stands_in_the_way(kind: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"fc1 has an output that no linear layer reads .*: {reason}"):
        convert_(After(kind), batches(), layers=("fc1",))


def test_tensors_differ_by_more_than_rounding_in_any_slice() -> None:
    x = torch.randn(50, 9, dtype=torch.float64).float() * torch.logspace(0, 12, 9)
    assert not differ(x, x * (1 + 1e-6))
    for column in range(9):
        other = x.clone()
        other[:, column] *= 1.01
        assert differ(x, other)
        assert not differ(x, other, [x * 1.005])
    assert differ(x, x.where(x > 0, torch.nan))
    assert differ(torch.full((3,), torch.inf), torch.full((3,), -torch.inf))
    assert not differ(torch.full((3,), torch.nan), torch.full((3,), torch.nan))
