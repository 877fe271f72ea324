"""Linear maps in training by either library, against float64 and torch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eugen_nerf.core import DenseLinear, LayerGraph
from eugen_nerf.core.layers import cpu_products
from eugen_nerf.core.layers.cpu_products import (
    MIN_ROWS,
    OneDNNGains,
    multiplies_by_onednn,
    onednn_gains,
    products_line,
    trained_linear,
)

needs_onednn = pytest.mark.skipif(not multiplies_by_onednn(torch.float32), reason="this torch has no oneDNN products")
FASTER = [OneDNNGains(2.0, 2.0), OneDNNGains(2.0, 0.5), OneDNNGains(0.5, 2.0)]


@pytest.fixture(params=FASTER, ids=["both", "rows", "weights"])
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OneDNNGains:
    """A processor on which oneDNN is faster in products of some kind."""
    gains: OneDNNGains = request.param
    monkeypatch.setattr(cpu_products, "onednn_gains", lambda: gains)
    return gains


def tensors(*leading: int) -> list[Tensor]:
    """Inputs, weights and biases."""
    torch.manual_seed(0)
    return [torch.randn(*shape, requires_grad=True) for shape in ((*leading, 7), (5, 7), (5,))]


def in_float64(given: list[Tensor]) -> list[Tensor]:
    return [t.detach().double().requires_grad_() for t in given]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the products of oneDNN that are made from here on."""
    made: list[str] = []
    own = cpu_products.onednn_linear
    monkeypatch.setattr(cpu_products, "onednn_linear", lambda *given: made.append("oneDNN") or own(*given))
    return made


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(MIN_ROWS,), (MIN_ROWS // 16, 16)])
def test_values_and_gradients_are_those_of_float64(
    faster: OneDNNGains, leading: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    given = tensors(*leading)
    expected = in_float64(given)
    for function, (x, weight, shift) in ((trained_linear, given), (F.linear, expected)):
        function(x, weight, shift if bias else None).square().sum().backward()
    # rows: the output and the gradient of x; weights: one sum over them
    assert len(made) == 2 * (faster.rows > 1) + (faster.weights > 1)
    for own, exact in zip(given[: 2 + bias], expected, strict=False):
        torch.testing.assert_close(own.grad, exact.grad, rtol=1e-4, atol=1e-3, check_dtype=False)


@needs_onednn
def test_gradients_of_gradients_are_those_of_float64(faster: OneDNNGains) -> None:
    """As signed distances are trained: their gradient is in the loss."""

    def gradients(linear: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
        x, weight, bias = inputs
        value = linear(linear(x, weight, bias).tanh(), weight.mT, None).sin().sum()
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), inputs))

    given = tensors(MIN_ROWS)
    found, expected = gradients(trained_linear, given), gradients(F.linear, in_float64(given))
    for own, exact in zip(found, expected, strict=True):
        assert float((own.double() - exact).norm() / exact.norm()) < 1e-5


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda m: m[:24, :16].contiguous(),
    "columns": lambda m: m[:16, :24].contiguous().mT,
    "a part": lambda m: m[:24, :16],
    "a part of columns": lambda m: m[:16, :24].mT,
    "every second": lambda m: m[::2, ::2][:24, :16],
    "one column": lambda m: m[:24, :1],
    "one row": lambda m: m[:1, :16],
    "a row for all": lambda m: m[:1, :16].expand(24, 16),
}


@needs_onednn
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("x", ["rows", "columns", "a part"])
def test_no_layout_meets_the_reference_implementation(x: str, layout: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It is a thousand times as slow. Narrower networks within one are parts of its matrices."""
    torch.manual_seed(3)
    weight = LAYOUTS[layout](torch.randn(64, 64))
    rows = LAYOUTS[x](torch.randn(64, 64))[:, : weight.shape[1]]
    if layout == "one column":
        rows = rows[:, :1]
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        found = cpu_products.onednn_linear(rows, weight, None)
    said = [line for line in capfd.readouterr().out.splitlines() if ",exec," in line]
    assert said
    assert not [line for line in said if ",ref" in line]
    torch.testing.assert_close(found, F.linear(rows, weight), rtol=1e-5, atol=1e-5)


@needs_onednn
def test_a_share_of_a_network_trains_through_it(faster: OneDNNGains, capfd: pytest.CaptureFixture[str]) -> None:
    network = LayerGraph(
        {"a": DenseLinear(6, 32), "b": DenseLinear(32, 32), "c": DenseLinear(32, 4, "identity")},
        {"a": [0], "b": ["a"], "c": ["b"]}, (6,), ["c"],
    )  # fmt: skip
    network.share = 0.5
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        network(torch.randn(MIN_ROWS, 6))[0].square().sum().backward()
    said = capfd.readouterr().out
    assert ",exec," in said
    assert not [line for line in said.splitlines() if ",exec," in line and ",ref" in line]


@needs_onednn
def test_what_is_not_a_number_stays_so(faster: OneDNNGains) -> None:
    x, weight, bias = tensors(MIN_ROWS)
    with torch.no_grad():
        x[3, 2] = float("nan")
    assert trained_linear(x, weight, bias).isnan().any(dim=1).nonzero().flatten().tolist() == [3]


@needs_onednn
@pytest.mark.parametrize("case", ["few rows", "no gradients", "autocast", "float64", "vmap", "slower"])
def test_torch_multiplies_where_the_other_path_has_no_place(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gains = OneDNNGains(1.4, 1.4) if case == "slower" else FASTER[0]
    monkeypatch.setattr(cpu_products, "onednn_gains", lambda: gains)
    made = counted(monkeypatch)
    x, weight, bias = tensors(MIN_ROWS // 2 if case == "few rows" else 2 * MIN_ROWS)
    if case == "float64":
        x, weight, bias = (t.double() for t in (x, weight, bias))
    expected = F.linear(x, weight, bias)
    with torch.set_grad_enabled(case != "no gradients"), torch.autocast("cpu", torch.bfloat16, case == "autocast"):
        if case == "vmap":
            found = torch.vmap(lambda rows: trained_linear(rows, weight, bias))(x.view(2, -1, x.shape[-1])).flatten(
                0, 1
            )
        else:
            found = trained_linear(x, weight, bias)
    assert not made
    torch.testing.assert_close(found.float(), expected.float(), atol=0.1 if case == "autocast" else 1e-5, rtol=1e-5)


@needs_onednn
def test_networks_train_through_it(faster: OneDNNGains, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    network = LayerGraph(
        {"a": DenseLinear(6, 32), "b": DenseLinear(32, 4, "identity")}, {"a": [0], "b": ["a"]}, (6,), ["b"]
    )
    x = torch.randn(MIN_ROWS, 6)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(network(x)[0].square().sum(), list(network.parameters())))

    made = counted(monkeypatch)
    found = gradients()
    assert made
    monkeypatch.setattr(cpu_products, "onednn_gains", lambda: OneDNNGains(0.0, 0.0))
    for own, torchs in zip(found, gradients(), strict=True):
        torch.testing.assert_close(own, torchs, rtol=1e-4, atol=1e-3)


def test_the_line_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(gain > 0 for gain in onednn_gains()) or "no oneDNN" in products_line()
    monkeypatch.setattr(cpu_products, "onednn_gains", lambda: OneDNNGains(2.25, 0.6))
    assert "queries by oneDNN (2.25x), gradients of weights by MKL (0.60x)" in products_line()
    monkeypatch.setattr(cpu_products, "onednn_gains", lambda: OneDNNGains(0.0, 0.0))
    assert "no oneDNN" in products_line()
