"""The data of a page: what rounding does to numbers, what the blocks hold, and which bundles are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from bundles import KINDS, make, with_scene
from hypothesis import given
from hypothesis import strategies as st

from eugen_nerf.core import ConfigError, HashGrid
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.radiance_bundle import RadianceBundle
from eugen_nerf.core.encodings.point_encodings import BoxEncoding
from eugen_nerf.core.layers.activations import _CONVERSION_ONLY, ACTIVATIONS
from eugen_nerf.core.layers.products import PRODUCTS
from eugen_nerf.web.data_blocks import DataBlocks, round_half, round_short
from eugen_nerf.web.page import own_sources
from eugen_nerf.web.rounding import (
    PRECISIONS,
    Precision,
    density_levels,
    lost_decibel,
    rounded,
    rounding_error,
)
from eugen_nerf.web.scene_data import scene_data

WORDS = {
    *("radiance", "distance", "frequency", "off_axis", "contracted", "pyramid", "box", "cube", "spherical"),
    *("grid", "surface", "proposals", "piecewise", "linear"),
    *("softplus", "exp", "relu", "tanh", "plain", "f32", "f16", "u32", "colour", "depth", "normals", "slice"),
}
"""All that a description may say besides numbers and names of views."""


@given(st.lists(st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-4), min_size=1, max_size=9))
def test_halves_keep_eleven_bits_and_change_nothing_twice(numbers: list[float]) -> None:
    exact = torch.tensor(numbers)
    once = round_half(exact)
    assert bool(((once - exact).abs() <= exact.abs() * 2**-11).all())
    assert torch.equal(round_half(once), once)


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=9))
def test_bytes_are_half_a_step_off_at_most(numbers: list[float]) -> None:
    exact = torch.tensor(numbers)
    assert bool(((round_short(exact) - exact).abs() <= exact.abs().max() / 254 * 1.001).all())


def test_blocks_hold_the_rounded_numbers() -> None:
    blocks, numbers = DataBlocks(), torch.randn(7, 3, generator=torch.Generator().manual_seed(0)) * 1e-6
    blocks.add_words(np.arange(5, dtype=np.uint8))
    kind, offset, count, scale = blocks.table[blocks.add_floats(numbers, half=True)]
    assert (kind, offset, count) == ("f16", 8, 21)
    stored = np.frombuffer(blocks.binary(), dtype="<f2", count=21, offset=8).astype(np.float64) * float(scale)
    assert np.array_equal(stored.astype(np.float32), round_half(numbers).flatten().numpy())
    kind, offset, count, scale = blocks.table[blocks.add_floats(numbers)]
    assert (kind, scale) == ("f32", 1.0)
    assert np.array_equal(np.frombuffer(blocks.binary(), "<f4", 21, int(offset)), numbers.flatten().numpy())


def test_levels_of_densities_are_a_half_step_off_at_most() -> None:
    grid = with_scene("frequency").scene
    assert grid is not None
    assert isinstance(grid.renderer, BundledGrid)
    levels = density_levels(grid.renderer, 31)
    kept = rounded(with_scene("frequency"), Precision(True, 8, 31)).scene
    assert kept is not None
    assert isinstance(kept.renderer, BundledGrid)
    depth, other = (r.density.double() * r.cell for r in (grid.renderer, kept.renderer))
    seen = depth > 2e-3
    assert levels.max() <= 31
    assert bool(seen.any())
    # half a step of the logarithm, and what a float16 adds
    assert float((other[seen] / depth[seen]).log().abs().max()) <= np.log(1e4) / 30 / 2 + 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_numbers_and_known_words_and_names_of_views(kind: str) -> None:
    field = with_scene(kind)
    description = scene_data(field).description
    names = {view.pop("name") for view in description["info"]["views"]}
    assert names == {"r_0.png", "r_1.png"}
    assert set(_texts(description)) <= WORDS


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def test_more_bits_are_taken_where_fewer_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    field = with_scene("box")
    coarse, fine = (rounding_error(field, rounded(field, PRECISIONS[i])) for i in (0, -1))
    assert coarse is not None
    assert fine is not None
    assert fine < coarse
    monkeypatch.setattr("eugen_nerf.web.rounding.MOST_LOST", 1.0)
    monkeypatch.setattr("eugen_nerf.web.rounding.MOST_ERROR", coarse)
    assert scene_data(field).precision == PRECISIONS[0]
    monkeypatch.setattr("eugen_nerf.web.rounding.MOST_ERROR", fine)
    assert scene_data(field).precision == PRECISIONS[-1]
    assert scene_data(field, half=True).half


def test_a_loss_is_of_errors_that_add_up() -> None:
    scene = with_scene("box").scene
    assert scene is not None
    assert lost_decibel(1e-3, None) is None
    # as much error again as 29.97 dB are
    assert lost_decibel(10**-2.997, scene.quality) == pytest.approx(10 * np.log10(2))


def test_bundles_without_a_renderer_are_refused() -> None:
    with pytest.raises(ConfigError, match="write it again"):
        scene_data(make("frequency"))


def test_grids_that_a_page_cannot_read_are_refused() -> None:
    field = with_scene("box")
    assert isinstance(field, RadianceBundle)
    assert isinstance(field.position, BoxEncoding)
    field.position.grid = HashGrid((4, 8), 3, 9)
    with pytest.raises(ConfigError, match="1, 2, 4 numbers a vertex, this field's has 3"):
        # three numbers a vertex and two levels are as wide as two and three
        scene_data(field)


def test_shaders_know_every_word_of_a_network() -> None:
    words = next(text for path, text in own_sources().items() if path.endswith("wgsl_words.js"))
    for table, known in {"ACTIVATIONS": {*ACTIVATIONS, *_CONVERSION_ONLY}, "PRODUCTS": set(PRODUCTS)}.items():
        text = words.split(f"const {table} = {{", 1)[1].split("\n};", 1)[0]
        assert set(re.findall(r"^  (\w+):", text, re.MULTILINE)) == known
