"""Which layers of a plain PyTorch model can be made narrower, and why others cannot."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_models import FUNCTIONS, MLP, batches
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from eugen_nerf.core import ConversionConfig, EUGenConfig, Weighted, convert_
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.modules.discovery import find_hidden
from eugen_nerf.core.modules.linears import Linears


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


NAMES = {
    "in place": "relu(z)",
    "quick gelu": "0.587544 silu(1.702 z)",
    "softplus 37": "0.027027 softplus(37 z)",
    "leaky": "leaky_relu(0.137)(z)",
    "elu": "elu(0.7)(z)",
    "sine": "sin(z)",
    "sine 30": "sin(30 z)",
    "sine 17.77": "sin(17.7712 z)",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_found_from_values(name: str, dtype: torch.dtype) -> None:
    model = MLP(FUNCTIONS[name], "before").to(dtype)
    with torch.no_grad():
        found, refused = find_hidden(Linears(model), lambda: model(batches(dtype=dtype)[0]))
    assert [str(layer.function) for layer in found.values()] == [NAMES.get(name, f"{name}(z)")] * 2
    assert [layer.consumers for layer in found.values()] == [{"second": (5,)}, {"last": (0,)}]
    assert list(refused) == ["last"]


def test_names_of_functions_with_a_parameter() -> None:
    z = torch.linspace(-2, 2, 9)
    assert torch.equal(activation("leaky_relu(0.25)")(z), F.leaky_relu(z, 0.25))
    assert torch.equal(activation("elu(2e-1)")(z), F.elu(z, 0.2))
    for name in ("leaky_relu(a)", "relu(0.2)", "silu("):
        with pytest.raises(ConfigError, match="is unknown; choose one of"):
            activation(name)


class Block(nn.Module):
    """A residual block: its inner layer is hidden, the others are not."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        self.kind = kind
        self.inner, self.outer, self.last = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 2)
        self.norm = nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.inner(x))
        if self.kind == "norm":
            h = self.norm(h)
        y = F.relu(self.outer(h))
        if self.kind == "mean":
            y = y + h.mean(dim=-1, keepdim=True)
        elif self.kind == "gate":
            y = y * h[..., 16:]
        return self.last(x + y)


def test_residual_blocks() -> None:
    model, x = Block(), batches(10, 7, 16)
    report = convert_(model, x, num_features=20, layers=("inner", "outer"))
    assert list(report.linears) == ["inner", "outer"]
    assert report.skipped["outer"].startswith("has an output that no linear layer reads")
    assert model.inner.out_features == 20
    with pytest.raises(ConfigError, match=r"no layer to convert: outer has an output that no linear layer reads"):
        convert_(model, x, layers=("outer",))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("norm", "no linear layer reads"),
        ("mean", "read outside of linear layers: outputs depend on them"),
        ("gate", "a width that the model relies on"),
    ],
)
def test_values_that_something_else_reads(kind: str, reason: str) -> None:
    model, x = Block(kind), batches(10, 7, 16)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=f"inner has .*{reason}"):
        convert_(model, x, layers=("inner",))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_transformer_encoder_layers_of_torch() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True, activation="gelu")
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train()
    x = batches(10, 7, 16)
    expected = copy.deepcopy(model).eval()(x[0])
    report = convert_(model, x, num_features=1.0)
    assert [layer.name for layer in report.layers] == ["layers.0.linear1", "layers.1.linear1"]
    assert model.training
    assert model.layers[1].linear1.training
    torch.testing.assert_close(model.eval()(x[0]), expected, rtol=1e-3, atol=1e-3)
    assert "NonDynamicallyQuantizableLinear" in report.skipped["layers.0.self_attn.out_proj"]


def test_no_function_in_between_and_shared_weights() -> None:
    linear = nn.Linear(6, 6)
    chain = nn.Sequential(nn.Linear(5, 6), linear, nn.Tanh(), linear, nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(ConfigError, match=r"0 has an output that 1 reads with no function in between"):
        convert_(chain, batches(), layers=("0",))
    with pytest.raises(ConfigError, match=r"1 is read in different ways from call to call"):
        convert_(chain, batches(), layers=("1",))
    tied = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    tied[2].weight = tied[0].weight
    with pytest.raises(ConfigError, match=r"0 shares its weights with another module"):
        convert_(tied, batches(), layers=("0",))


def _double(layer: nn.Linear) -> None:
    plain = layer.forward
    layer.forward = lambda x: 2 * plain(x)  # type: ignore[method-assign]


CHANGED: dict[str, tuple[Callable[[nn.Linear], Any], str]] = {
    "hook": (lambda a: a.register_forward_hook(lambda *_: None), r"a hook \(.*lambda.*\) that may change what"),
    "pre-hook": (lambda a: a.register_forward_pre_hook(lambda *_: None), "a hook .* take it away first"),
    "mask": (lambda a: prune.l1_unstructured(a, "weight", 0.5), r"a pruning mask: .* torch.nn.utils.prune.remove"),
    "old": (nn.utils.spectral_norm, "spectral norm: make it plain first, by torch.nn.utils.remove_spectral_norm"),
    "new": (parametrizations.weight_norm, r"parametrized \(weight by _WeightNorm\), .*remove_parametrizations"),
    "patched": (_double, "a forward of its own put in the place of its class's"),
}


@pytest.mark.parametrize("how", CHANGED)
def test_layers_that_are_more_than_their_weights_are_refused(how: str) -> None:
    change, reason = CHANGED[how]
    for which in ("0", "2"):
        model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
        change(model.get_submodule(which))
        with pytest.raises(ConfigError, match=f"{which}, which (has|is) {reason}" if which == "2" else reason):
            convert_(model, batches(), layers=("0",))


def test_a_module_in_two_places_is_replaced_in_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 5))
            self.also = self.net[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + self.net(2 * x)

    model, x = Twice(), batches()
    expected = model(x[0])
    convert_(model, x, num_features=8)
    assert model.also is model.net[0]
    torch.testing.assert_close(model(x[0]), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ("third",)}, "layer pattern 'third' matches no layer; there are: first, second, last"),
        ({"layers": ("first",), "exclude": ("f.*",)}, "no layer to convert: all of them are excluded. Hidden layers"),
        ({"num_features": 25}, "cannot choose 25 features of 24 rows"),
        ({"num_features": (3, 4, 5)}, "3 numbers of features for 2 layers"),
        ({"num_features": 1.5}, "a fraction of the features must be in"),
        ({"num_features": {"last": 2}}, "last has an output that no linear layer reads"),
        ({"config": ConversionConfig("random", EUGenConfig(degree=2, norm=False))}, "degree 2 and norm False do not"),
        ({"config": ConversionConfig("svd")}, "recipe 'svd' puts a layer more into the model"),
        ({"config": ConversionConfig("random", EUGenConfig())}, "degree 1 and norm True do not collapse"),
    ],
)
def test_refusals_leave_the_model_alone(settings: dict, message: str) -> None:
    model, x = MLP(F.relu).train(), batches()
    modules, before = list(model.modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=message):
        convert_(model, x, **settings)
    assert list(model.modules()) == modules
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_batch_that_fails_late_leaves_the_model_alone() -> None:
    model = MLP(F.relu)
    modules = list(model.modules())

    def inputs() -> Iterator[Tensor]:
        yield from batches()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        convert_(model, inputs)
    assert list(model.modules()) == modules


def test_inputs_that_make_no_sense() -> None:
    model = MLP(F.relu)
    with pytest.raises(ConfigError, match="inputs are batches"):
        convert_(model, batches()[0])
    with pytest.raises(ConfigError, match="inputs are batches"):
        convert_(model, {"x": batches()[0]})
    with pytest.raises(ConfigError, match="gone through several times"):
        convert_(model, iter(batches()))
    with pytest.raises(ConfigError, match="no batches"):
        convert_(model, [])
    with pytest.raises(ConfigError, match="other outputs when it is called twice"):
        convert_(MLP(lambda x: F.relu(x) * torch.rand(())), batches())
    with pytest.raises(ConfigError, match=r"has no nn.Linear"):
        convert_(nn.Conv2d(3, 3, 1), batches(2, 3, 4, 4))
    with pytest.raises(ConfigError, match="gets 200 rows in a batch that has 3 weights"):
        convert_(model, [Weighted(x, torch.ones(3)) for x in batches()])


def test_modules_of_tinycudann_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    monkeypatch.setattr(Network, "__module__", "tinycudann.modules")
    model = nn.Sequential(Network(), nn.Linear(5, 2))
    with pytest.raises(ConfigError, match=r"0 is a module of tinycudann.*--pipeline.model.implementation torch"):
        convert_(model, batches())
