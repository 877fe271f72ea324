"""Layers inside torch.func, which code that reads memory itself has to leave alone."""

from __future__ import annotations

import pytest
import torch

from eugen_nerf.core import EUGenConfig, EUGenLinear


@pytest.mark.parametrize("product", ["plain", "harmonic", "minimum", "clamped"])
def test_a_layer_of_degree_two_is_mapped_and_differentiated(product: str) -> None:
    torch.manual_seed(0)
    layer = EUGenLinear(6, 4, EUGenConfig(num_features=8, degree=2, norm=False, product=product))  # type: ignore[arg-type]
    x = torch.randn(3, 50, 6)
    torch.testing.assert_close(torch.vmap(layer)(x), torch.stack([layer(rows) for rows in x]))
    found = torch.func.grad(lambda rows: layer(rows).sum())(x)
    known = x.clone().requires_grad_()
    torch.testing.assert_close(found, torch.autograd.grad(layer(known).sum(), known)[0])
