"""What predictions are made of by default; light, since the command line's help is made of them."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "tf32", "bfloat16"]

PRESETS = ("eugen-nerf", "eugen-mipnerf360", "eugen-zipnerf", "eugen-dnerf", "eugen-dnerf-hash", "eugen-isdf")
"""Methods at full size."""
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
