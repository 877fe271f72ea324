"""The crop that a page enlarges, against a search of all windows."""

import numpy as np
import pytest

from eugen_nerf.evaluation.images.crop import most_different_crop


@pytest.mark.parametrize("runs", [1, 3])
def test_no_other_crop_has_more_contrast(runs: int) -> None:
    generator = np.random.default_rng(runs)
    truth = generator.integers(0, 256, (13, 21, 3), dtype=np.uint8)
    images = [generator.integers(0, 256, truth.shape, dtype=np.uint8) for _ in range(runs)]
    errors = np.array([((image.astype(float) - truth) ** 2).sum(-1) for image in images])
    contrast = errors.std(0) if runs > 1 else errors[0]
    rows, columns = most_different_crop(truth, images, share=0.3)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (4, 6)
    best = max(contrast[r : r + 4, c : c + 6].sum() for r in range(10) for c in range(16))
    assert contrast[rows, columns].sum() == pytest.approx(best, rel=1e-9)


def test_an_error_that_all_share_is_not_shown() -> None:
    truth = np.zeros((32, 32, 3), np.uint8)
    images = [truth.copy(), truth.copy()]
    for image in images:
        image[:8, :8] = 200  # wrong in both alike
    images[1][20:24, 20:24] = 90
    rows, columns = most_different_crop(truth, images)
    assert rows.start <= 20
    assert rows.stop >= 24
    assert columns.start <= 20
    assert columns.stop >= 24


def test_equal_images_have_a_crop_too() -> None:
    truth = np.full((2, 3, 3), 7, np.uint8)
    rows, columns = most_different_crop(truth, [truth])
    assert truth[rows, columns].shape == (1, 1, 3)
