"""Errors of a rendered depth image against a measured one."""

from __future__ import annotations

from torch import Tensor


def depth_metrics(rendered: Tensor, truth: Tensor, hit: Tensor) -> dict[str, float]:
    """Errors over the pixels with a measured depth; NaN where there are none.

    Args:
        rendered: depths, metres.
        truth: measured depths of the same shape, metres; not finite where nothing was measured.
        hit: whether a surface was rendered, bool of the same shape.

    Returns:
        `depth_l1_cm`, the mean absolute error where a surface was rendered; `depth_within_5cm`, the share of pixels
        with a smaller error than that; `depth_missed`, the share without a surface.
    """
    valid = truth.isfinite()
    error, both = (rendered - truth).abs(), valid & hit
    return {
        "depth_l1_cm": float(100 * error[both].mean()),
        "depth_within_5cm": float((both & (error < 0.05))[valid].float().mean()),
        "depth_missed": float((~hit)[valid].float().mean()),
    }
