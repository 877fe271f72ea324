"""Image quality on 8-bit images: PSNR, SSIM (Wang et al. 2004) and LPIPS (Zhang et al., arXiv:1801.03924).

Images are NumPy uint8 [H, W, 3]. LPIPS needs network weights on disk; they are looked for and never downloaded.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from nerfstudio.utils.rich_utils import CONSOLE
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from eugen_nerf.core.errors import ConfigError, DataError, RunError

Image8 = npt.NDArray[np.uint8]  # [H, W, 3]
LpipsMetric = Callable[[Image8, Image8], float]

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
_LPIPS_SMALLEST = 31  # pixels a side: below, the pooling layers of AlexNet (and of the others) have nothing left
_LPIPS_WEIGHTS = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


def quantise(image: torch.Tensor) -> Image8:
    """Round an image to 8 bits: clipped to [0, 1], times 255, halves up.

    Args:
        image: float [H, W, 3], nominally in [0, 1].

    Returns:
        uint8 [H, W, 3].

    Raises:
        RunError: NaN or infinite values, which no rounding makes right.
    """
    bad = int((~torch.isfinite(image)).sum())
    if bad:
        raise RunError(f"the image holds {bad} values that are NaN or infinite: the run has diverged")
    scaled = image.detach().double().clamp(0.0, 1.0) * 255.0
    return torch.floor(scaled + 0.5).to(torch.uint8).cpu().numpy()


def psnr(prediction: Image8, truth: Image8) -> float:
    """Peak signal-to-noise ratio in dB, -10 log10(mean squared error) at data range 1; infinite for equal images."""
    first, second = _pair(prediction, truth)
    if bool((first == second).all()):
        return float("inf")
    return float(peak_signal_noise_ratio(first, second, data_range=1.0))


def ssim(prediction: Image8, truth: Image8) -> float:
    """Structural similarity at data range 1 with an 11x11 Gaussian window of sigma 1.5.

    The mean is over the pixels whose whole window lies inside the image, as in the paper and in scikit-image.
    torchmetrics alone is not enough to say: some of its versions leave the border out, later ones mirror the image
    there. So the map of the similarity is taken from it, and the border of 5 pixels is left out here.

    Raises:
        DataError: an image smaller than the window.
    """
    first, second = _pair(prediction, truth)
    if min(first.shape[-2:]) < SSIM_WINDOW:
        raise DataError(f"SSIM's window is {SSIM_WINDOW} pixels wide, the images only {min(first.shape[-2:])}")
    _, values = structural_similarity_index_measure(
        first,
        second,
        data_range=1.0,
        gaussian_kernel=True,
        kernel_size=SSIM_WINDOW,
        sigma=SSIM_SIGMA,
        return_full_image=True,
    )
    assert isinstance(values, torch.Tensor)
    border = SSIM_WINDOW // 2
    return float(values[..., border:-border, border:-border].mean())


def lpips_weights_file(net: str) -> Path:
    """Where torch looks for the weights of an LPIPS network: ``$TORCH_HOME/hub/checkpoints/<torchvision's name>``."""
    if net not in _LPIPS_WEIGHTS:
        raise ConfigError(f"no LPIPS network {net!r}: choose one of {', '.join(_LPIPS_WEIGHTS)}")
    weights = getattr(torchvision.models, _LPIPS_WEIGHTS[net]).IMAGENET1K_V1
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]


def load_lpips(
    net: str = "alex", *, side: int, device: str | torch.device = "cpu"
) -> tuple[LpipsMetric | None, str | None]:
    """Build LPIPS on [0, 1] images (``normalize=True``) from weights on disk.

    Args:
        net: "alex", "vgg" or "squeeze".
        side: the shorter side of the images in pixels; the networks need at least 31.
        device: where the network runs.

    Returns:
        (metric, None), or (None, one line that says why LPIPS is absent). Nothing is ever downloaded.
    """
    if side < _LPIPS_SMALLEST:
        return None, f"LPIPS left out: images of {side} pixels a side are smaller than its {_LPIPS_SMALLEST}"
    file = lpips_weights_file(net)
    if not file.is_file():
        url = getattr(torchvision.models, _LPIPS_WEIGHTS[net]).IMAGENET1K_V1.url
        get = f"curl --create-dirs -o {file} {url}"
        return None, f"LPIPS left out: no {net} weights. Get them with: {get} (or set TORCH_HOME to where they are)"
    try:
        network = LearnedPerceptualImagePatchSimilarity(net_type=net, normalize=True)  # type: ignore[arg-type]
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        return None, f"LPIPS left out: {file} cannot be read ({type(error).__name__})"
    network = network.to(device).eval()

    def metric(prediction: Image8, truth: Image8) -> float:
        first, second = (image.to(device, torch.float32) for image in _pair(prediction, truth))
        with torch.inference_mode():
            value = float(network(first, second))
        network.reset()  # else every score is kept
        return value

    return metric, None


def image_metrics(prediction: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """What a model reports of an image in training and in ns-eval, on 8-bit images: psnr, ssim, lpips (AlexNet).

    SSIM and LPIPS are left out of images too small for them, LPIPS also where its weights are absent.

    Args:
        prediction: `[H, W, 3]`, nominally in [0, 1].
        truth: likewise.
    """
    a, b = quantise(prediction), quantise(truth)
    side = min(a.shape[:2])
    metrics = {"psnr": psnr(a, b)}
    if side >= SSIM_WINDOW:
        metrics["ssim"] = ssim(a, b)
    lpips = _cached_lpips(side >= _LPIPS_SMALLEST, str(prediction.device))
    if lpips is not None:
        metrics["lpips"] = lpips(a, b)
    return metrics


@lru_cache(maxsize=2)
def _cached_lpips(large_enough: bool, device: str) -> LpipsMetric | None:
    """LPIPS, built once for all images of an evaluation."""
    metric, reason = load_lpips(side=_LPIPS_SMALLEST if large_enough else 1, device=device)
    if reason is not None:
        CONSOLE.print(reason)
    return metric


def _pair(prediction: Image8, truth: Image8) -> tuple[torch.Tensor, torch.Tensor]:
    """Both images as float64 [1, 3, H, W] in [0, 1]."""
    for image in (prediction, truth):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(f"metrics take uint8 images [H, W, 3], not {image.dtype} {list(image.shape)}")
    if prediction.shape != truth.shape:
        raise DataError(f"the images differ in size: {list(prediction.shape)} and {list(truth.shape)}")
    first, second = (torch.from_numpy(np.ascontiguousarray(image)) for image in (prediction, truth))
    return first.double().div(255).permute(2, 0, 1)[None], second.double().div(255).permute(2, 0, 1)[None]
