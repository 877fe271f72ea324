"""What is made of models' outputs: split, difference, padding; and how large images may be."""

from __future__ import annotations

import re

import numpy as np
import pytest

from eugen_nerf.core.errors import ConfigError
from eugen_viewer.frame_budget import SMALLEST, fit_size
from eugen_viewer.image_composition import LINE, DisplaySettings, compose, difference_image, map_colours, pad_to_aspect
from eugen_viewer.panels.readout import Readout, ReadoutRow, escape_markdown

RNG = np.random.default_rng(0)
A, B = ({"rgb": RNG.random((12, 20, 3), dtype=np.float32), "depth": RNG.random((12, 20, 1))} for _ in "ab")


def eight_bit(values: np.ndarray) -> np.ndarray:
    return np.floor(values * 255.0 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_split_has_the_first_run_on_its_left_and_the_second_on_its_right(share: float) -> None:
    image = compose(DisplaySettings("split", split=share), A, B)
    edge = round(share * 20)
    assert np.array_equal(image[:, :edge], eight_bit(A["rgb"][:, :edge]))
    assert np.array_equal(image[:, edge + 1 :], eight_bit(B["rgb"][:, edge + 1 :]))
    if 0 < edge < 20:
        assert (image[:, edge] == LINE).all()


def test_one_run_alone_is_its_own_picture() -> None:
    assert np.array_equal(compose(DisplaySettings("first"), A, None), eight_bit(A["rgb"]))
    assert np.array_equal(compose(DisplaySettings("second"), None, B), eight_bit(B["rgb"]))


def test_columns_rendered_for_a_split_are_those_that_are_seen() -> None:
    for share in np.linspace(0, 1, 21):
        settings = DisplaySettings("split", split=float(share))
        (a0, a1), (b0, b1) = settings.columns(20)
        whole = compose(settings, A, B)
        cut = []
        for run, low, high in ((A, a0, a1), (B, b0, b1)):
            visible = np.zeros_like(run["rgb"])
            visible[:, low:high] = run["rgb"][:, low:high]
            cut.append({"rgb": visible})
        assert np.array_equal(compose(settings, *cut), whole)


def test_a_difference_is_the_mean_over_channels_on_the_scale_given() -> None:
    a, b = np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 3), np.float32)
    b[0, 1] = (0.03, 0.06, 0.0)
    image = difference_image(a, b, 0.06)
    assert np.array_equal(image[0, 1], map_colours(np.array([0.5]), "inferno")[0])
    assert np.array_equal(image[1, 2], map_colours(np.array([0.0]), "inferno")[0])
    assert np.array_equal(compose(DisplaySettings("difference", full_scale=0.06), {"rgb": a}, {"rgb": b}), image)


def test_single_values_share_one_range_of_colours() -> None:
    near, far = np.full((4, 4, 1), 1.0), np.full((4, 4, 1), 3.0)
    image = compose(DisplaySettings("split", "depth", 0.5), {"depth": near}, {"depth": far})
    assert np.array_equal(image[0, 0], map_colours(np.array([0.0]), "turbo")[0])
    assert np.array_equal(image[0, 3], map_colours(np.array([1.0]), "turbo")[0])


def test_values_that_are_not_finite_are_shown_and_break_nothing() -> None:
    bad = {"rgb": np.full((4, 4, 3), np.nan, np.float32), "depth": np.full((4, 4, 1), np.inf, np.float32)}
    assert compose(DisplaySettings("first"), bad, None).shape == (4, 4, 3)
    assert compose(DisplaySettings("first", "depth"), bad, None).shape == (4, 4, 3)
    assert compose(DisplaySettings("difference"), bad, {"rgb": np.zeros((4, 4, 3), np.float32)}).shape == (4, 4, 3)


def test_refusals_say_what_there_is() -> None:
    with pytest.raises(ConfigError, match="no output 'normals'; it has rgb, depth"):
        compose(DisplaySettings("first", "normals"), A, None)
    with pytest.raises(ConfigError, match="in one size"):
        compose(DisplaySettings("split"), A, {"rgb": np.zeros((3, 3, 3), np.float32)})
    for wrong in ({"mode": "both"}, {"split": 1.5}, {"full_scale": 0.0}):
        with pytest.raises(ConfigError):
            DisplaySettings(**wrong)


@pytest.mark.parametrize("aspect", [0.2, 0.7, 1.0, 1.9, 8.0])
def test_padding_gives_the_windows_aspect_and_keeps_the_picture(aspect: float) -> None:
    image = RNG.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    wide = pad_to_aspect(image, aspect)
    height, width = wide.shape[:2]
    assert abs(width - aspect * height) <= max(1.0, aspect)
    top, left = (height - 30) // 2, (width - 40) // 2
    assert np.array_equal(wide[top : top + 30, left : left + 40], image)


def test_sizes_keep_the_aspect_and_the_limits() -> None:
    for aspect in (0.01, 0.3, 1.0, 1.77, 40.0, float("inf"), float("nan")):
        for height in (1.0, 50.0, 1e9):
            h, w = fit_size(height, aspect, 512)
            assert 1 <= h <= 512
            assert 1 <= w <= 512
            if 0.1 < aspect < 10:
                assert abs(w - aspect * h) <= aspect + 1
                assert min(h, w) >= min(SMALLEST, 512) - 1


def test_text_keeps_its_letters_and_words_and_nothing_in_it_is_markup() -> None:
    text = escape_markdown("a_b {c}\n<d>  |e| `f` *g* [h](i) \\ j/k-1.5, 7: 'l'")
    assert "\n" not in text
    shown = re.sub(r"\\([^\w\s]|_)", r"\1", text)
    assert shown == "a_b {c} <d> |e| `f` *g* [h](i) \\ j/k-1.5, 7: 'l'"
    assert not re.search(r"(?<!\\)[{}<>|`*_\[\]]", text)


def test_numbers_are_a_table_with_a_column_a_run() -> None:
    rows = [
        ReadoutRow("dense", 0.5, 100_000, 70_000, 69_376, 24.2),
        ReadoutRow("eugen", 0.05, 100_000, 35_000, None, None),
    ]
    text = Readout(rows, (48, 64), True, 38.341, 3).markdown()
    assert "| 64 x 48 pixels | dense | eugen |" in text
    assert "| ms per frame | 500 | 50.0 |" in text
    assert "| field queries per s | 200 k | 2.00 M |" in text
    assert "| multiply-adds a query | 69,376 | - |" in text
    assert "| PSNR, photograph | 24.20 dB | - |" in text
    assert "| PSNR, other run | 38.34 dB | 38.34 dB |" in text
    assert text.endswith("test view 3")
    assert Readout(rows, (48, 64), False).markdown().endswith("free camera, refining")
