"""Tables of plane waves, against numpy in float64 and the encodings that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import array, draw

from eugen_nerf.core import FrequencyEncoding, OffAxisEncoding
from eugen_nerf.core.encodings.point_encodings import ContractedEncoding, Encoding
from eugen_nerf.core.inference.sinusoids import Sinusoids, as_sinusoids


def _table(encoding: Encoding) -> Sinusoids:
    found = as_sinusoids(encoding)
    assert found is not None
    return found


def _near(table: Sinusoids, encoding: Encoding, x: torch.Tensor, tolerance: float) -> None:
    y = table(x)
    exact = encoding.double()(x.double(), x[..., :1].double())
    assert y.dtype == torch.float32
    assert float((y - exact).abs().max()) <= tolerance


@pytest.mark.parametrize("width", [1, 3])
def test_octaves_are_exact_whatever_the_frequency(width: int) -> None:
    """Multiplied by powers of two and without whole turns, no digit is lost."""
    encoding = FrequencyEncoding(width, 16, 0.0, 15.0)
    _near(_table(encoding), encoding, 3 * draw(200, width, seed=3).float(), 5e-7)


def test_other_frequencies_lose_the_digits_of_the_phase() -> None:
    """vanilla-nerf's ten frequencies up to 2^8 are no octaves: its own phases in float32 err as much."""
    encoding = FrequencyEncoding(3, 10, 0.0, 8.0)
    table, x = _table(encoding), draw(200, 3, seed=4).float().clamp(-2, 2)
    # frequencies are what they are rounded to; products are rounded to half a unit of 512 turns
    turns = array(x)[:, :, None] * array(2 ** torch.linspace(0.0, 8.0, 10))
    phases = 2 * np.pi * turns.reshape(200, 30)
    exact = np.concatenate([np.sin(phases), np.cos(phases), array(x)], axis=1)
    error = np.abs(array(table(x)) - exact).max()
    assert error <= 2 * np.pi * 512 * 2.0**-24 + 1e-6
    assert error <= 1.5 * np.abs(array(encoding(x, x[:, :1])) - exact).max()


def test_off_axis() -> None:
    encoding = OffAxisEncoding(5 * draw(3, 21, seed=5).float(), draw(3, seed=6).float(), 0.3)
    _near(_table(encoding), encoding, 2 * draw(200, 3, seed=7).float(), 5e-6)


def test_any_leading_shape_and_dtype() -> None:
    encoding = FrequencyEncoding(3, 4, 0.0, 3.0)
    table = _table(encoding)
    x = draw(2, 5, 3, seed=8)
    y = table(x)
    assert y.shape == (2, 5, 27)
    assert torch.equal(y.reshape(10, 27), table(x.float().reshape(10, 3)))
    assert table(x[:0]).shape == (0, 5, 27)
    assert torch.isnan(table(torch.tensor([[0.0, torch.inf, 1.0]]))).any()


def test_gaussians_are_no_plane_waves_of_a_point() -> None:
    assert as_sinusoids(ContractedEncoding(torch.eye(3), 2)) is None
