"""Which int8 product is taken: stand-ins that add in 16 bits as some processors do, and torch's own on this one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eugen_nerf.core import ConfigError
from eugen_nerf.core.inference.int8 import Int8Product, _first_exact, exact_int8, is_exact

pytestmark = pytest.mark.processor
CPU = torch.device("cpu")


def stand_in(bits: int, *, narrow: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The product of integer weights with inputs rounded to so many bits; pairs are added in 16 bits where narrow."""

    def multiply(x: Tensor, weight: Tensor) -> Tensor:
        step = x.max() / (2**bits - 1)
        products = (x / step).round()[:, None, :] * weight
        pairs = torch.nn.functional.pad(products, (0, products.shape[-1] % 2)).unflatten(-1, (-1, 2)).sum(-1)
        return (pairs.clamp(-(2**15), 2**15 - 1) if narrow else pairs).sum(-1) * step

    return multiply


@pytest.mark.parametrize(("bits", "narrow", "exact"), [(8, False, True), (8, True, False), (7, True, True)])
def test_sums_that_are_cut_off_are_found_out(bits: int, narrow: bool, exact: bool) -> None:
    assert is_exact(stand_in(bits, narrow=narrow)) is exact


def test_errors_of_any_row_are_found_out() -> None:
    right = stand_in(8, narrow=False)

    def one_off(x: Tensor, weight: Tensor) -> Tensor:
        found = right(x, weight)
        found[-1, -1] += 1
        return found

    def raising(x: Tensor, weight: Tensor) -> Tensor:
        raise RuntimeError("Didn't find engine")

    assert not is_exact(one_off)
    assert not is_exact(lambda x, weight: right(x, weight) * torch.nan)
    assert not is_exact(raising)


def test_fewer_bits_come_before_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"narrow": lambda bits: stand_in(bits, narrow=True), "wide": lambda bits: stand_in(bits, narrow=False)}

    def bind(self: Int8Product, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        multiply = kinds.get(self.engine, lambda bits: lambda x, weight: x @ weight.T + 1)(self.bits)
        return lambda x: multiply(x, weight)

    monkeypatch.setattr(Int8Product, "bind", bind)
    assert _first_exact(("narrow", "wide")) == Int8Product("narrow", 7)
    assert _first_exact(("wrong", "wide", "narrow")) == Int8Product("wide", 8)
    assert _first_exact(("wrong",)) is None


def test_what_is_taken_here_is_right_and_says_what_it_is() -> None:
    product = exact_int8(CPU)
    assert is_exact(lambda x, w: product.bind(w, None)(x))
    assert str(product).startswith(f"int8 weights with a scale a row, inputs in {product.bits} bits")
    assert str(product).endswith(f"by torch's engine {product.engine}")
    assert "cut off on this processor" in str(Int8Product("x86", 7))


def test_without_an_exact_product_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.core.inference.int8._first_exact", lambda engines: None)
    with pytest.raises(ConfigError, match=r"none of torch's int8 engines \(.*\) is exact here: take bfloat16"):
        exact_int8(CPU)
    with pytest.raises(ConfigError, match="no int8 products on cuda here: take bfloat16, or --device cpu"):
        exact_int8(torch.device("cuda"))
