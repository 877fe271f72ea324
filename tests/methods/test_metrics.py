"""Metrics against independent float64 implementations, and LPIPS' absence reported in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from eugen_nerf.core.errors import ConfigError, DataError, RunError
from eugen_nerf.methods.runs.image_metrics import load_lpips, lpips_weights_file, psnr, quantise, ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    smooth = np.cumsum(generator.normal(size=(40, 48, 3)), axis=1)
    first = np.clip(128 + 8 * smooth, 0, 255).astype(np.uint8)
    second = np.clip(first + generator.normal(scale=12, size=first.shape), 0, 255).astype(np.uint8)
    return first, second


def test_quantise_rounds_halves_up_and_clips() -> None:
    values = torch.tensor([-0.5, 0.0, 0.49 / 255, 0.5 / 255, 1.5 / 255, 2.5 / 255, 254.4 / 255, 1.0, 7.0])
    rounded = quantise(values.double().reshape(3, 1, 3))
    assert rounded.dtype == np.uint8
    assert rounded.ravel().tolist() == [0, 0, 0, 1, 2, 3, 254, 255, 255]


def test_quantise_keeps_eight_bit_images() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.array_equal(quantise(torch.from_numpy(levels.astype(np.float32) / 255)), levels)


def test_quantise_refuses_nan() -> None:
    with pytest.raises(RunError, match="2 values that are NaN or infinite"):
        quantise(torch.tensor([[[float("nan"), 0.0, float("inf")]]]))


def test_psnr_closed_form(pair: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = pair
    error = np.mean((first.astype(np.float64) / 255 - second.astype(np.float64) / 255) ** 2)
    assert psnr(first, second) == pytest.approx(-10 * np.log10(error), abs=1e-5)
    assert psnr(np.full((4, 4, 3), 51, np.uint8), np.zeros((4, 4, 3), np.uint8)) == pytest.approx(-20 * np.log10(0.2))


def test_psnr_of_equal_images_is_infinite(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert psnr(pair[0], pair[0].copy()) == float("inf")


def test_ssim_against_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = (image.astype(np.float64) / 255 for image in pair)
    expected = structural_similarity(
        first, second, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(*pair) == pytest.approx(expected, abs=1e-6)
    assert ssim(pair[0], pair[0]) == pytest.approx(1.0)


def test_refusals(pair: tuple[np.ndarray, np.ndarray]) -> None:
    small = np.zeros((10, 30, 3), np.uint8)
    with pytest.raises(DataError, match="window is 11 pixels wide, the images only 10"):
        ssim(small, small)
    with pytest.raises(DataError, match="differ in size"):
        psnr(pair[0], small)
    with pytest.raises(DataError, match="uint8 images"):
        psnr(pair[0].astype(np.float32), pair[1])
    with pytest.raises(ConfigError, match="no LPIPS network 'resnet'"):
        load_lpips("resnet", side=64)


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_lpips_without_weights_is_one_line(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket", None)  # a download would fail loudly
    metric, reason = load_lpips(net, side=64)
    assert metric is None
    assert reason is not None
    assert f"curl --create-dirs -o {lpips_weights_file(net)} https://download.pytorch.org/models/{net}" in reason
    assert str(tmp_path / "hub" / "checkpoints") in reason
    assert "\n" not in reason


def test_lpips_with_broken_weights_or_small_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = lpips_weights_file("alex")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"broken")
    assert "cannot be read" in str(load_lpips("alex", side=64)[1])
    assert "smaller than its 31" in str(load_lpips("alex", side=30)[1])


def test_lpips_runs_at_its_smallest_size_and_orders_images() -> None:
    if not lpips_weights_file("alex").is_file():
        pytest.skip(f"no AlexNet weights at {lpips_weights_file('alex')}")
    metric, reason = load_lpips("alex", side=31)
    assert reason is None
    assert metric is not None
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (31, 31, 3), dtype=np.uint8)
    near = np.clip(image.astype(int) + generator.integers(-3, 4, image.shape), 0, 255).astype(np.uint8)
    assert metric(image, image) == 0.0
    assert metric(image, near) < metric(image, 255 - image)
