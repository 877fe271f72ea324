"""Image metrics of a model during training and in ns-eval."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure


def image_metrics(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of `[H, W, 3]` images in [0, 1]."""
    a, b = (x.permute(2, 0, 1)[None].clamp(0, 1) for x in (prediction, truth))
    return {
        "psnr": float(peak_signal_noise_ratio(a, b, data_range=1.0)),
        "ssim": float(structural_similarity_index_measure(a, b, data_range=1.0)),
    }
