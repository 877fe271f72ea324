"""A comparison in one sentence: how much faster, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from eugen_nerf.evaluation.reports.tables import is_noise

SMALL_LOSS = 0.5
"""dB that a run may lose for the headline to be about the fastest such run, and not the one that loses least."""


def headline(rows: Sequence[Mapping[str, Any]], baseline: str) -> str:
    """The sentence, such as "eugen: 1.5x as fast as dense, 0.1 dB lost"; of a run alone, its PSNR and time.

    It is about the run that renders an image fastest among those that lose at most `SMALL_LOSS` dB, else about the one
    that loses least.

    Args:
        rows: of a comparison; rows without times are left out.
        baseline: the run that speeds are relative to.
    """
    runs = [row for row in rows if row.get("seconds_per_image") is not None]
    base = next((row for row in runs if row["variant"] == baseline), None)
    others = [row for row in runs if row is not base]
    if base is None or not others:
        return "; ".join(f"{r['variant']}: {r['psnr']:.1f} dB, {r['seconds_per_image']:.3g} s an image" for r in runs)
    close = [row for row in others if _lost(base, row) <= SMALL_LOSS]
    row = max(close, key=_speed) if close else min(others, key=lambda other: _lost(base, other))
    return f"{row['variant']}: {_speed_words(row, baseline)}, {_loss_words(_lost(base, row))}"


def _speed(row: Mapping[str, Any]) -> float:
    """Speed of an image relative to the baseline's; 1 where the difference is within the noise."""
    return 1.0 if is_noise(row, "image_speed_ratio") else float(row["image_speed_ratio"])


def _lost(base: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """dB of PSNR; 0 where both are without error."""
    return 0.0 if base["psnr"] == row["psnr"] else float(base["psnr"] - row["psnr"])


def _speed_words(row: Mapping[str, Any], baseline: str) -> str:
    if is_noise(row, "image_speed_ratio"):
        return f"as fast as {baseline} within the noise"
    return f"{row['image_speed_ratio']:.1f}x as fast as {baseline}"


def _loss_words(lost: float) -> str:
    if not math.isfinite(lost):
        return "PSNR not comparable"
    rounded = round(abs(lost), 1)
    if rounded == 0:
        return "less than 0.05 dB apart"
    return f"{rounded:.1f} dB {'lost' if lost > 0 else 'gained'}"
