"""What was known of a training step before a GPU was at hand: committed files that measurements stand beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eugen_nerf.gpu_day.day import ROOT

PRETENDED = ROOT / "docs" / "results" / "data" / "launches_pretended.json"
"""Rows with preset, variant, launches and waits of a step on a pretended device."""
ROOFLINE = ROOT / "docs" / "results" / "data" / "roofline.json"
"""Rows with method, variant, mode, precision, seconds, launches of what a card should need."""


def predictions_of(preset: str, variant: str, arithmetic: str) -> dict[str, Any]:
    """Launches and synchronisations counted on a pretended device, and the roofline's milliseconds; None where a file
    or its row is absent.

    Args:
        preset: a method's name.
        variant: dense or eugen.
        arithmetic: of the networks' products: float32, tf32 or bfloat16.
    """
    counted = _row(PRETENDED, preset=preset, variant=variant)
    bound = _row(ROOFLINE, method=preset, variant=variant, mode="train", precision=arithmetic)
    seconds = bound.get("seconds")
    return {
        "pretended_launches": counted.get("launches"),
        "pretended_synchronisations": counted.get("waits"),
        "predicted_ms": None if seconds is None else 1e3 * seconds,
    }


def _row(path: Path, **wanted: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf8"))
    rows = content["rows"] if isinstance(content, dict) else content
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), {})
