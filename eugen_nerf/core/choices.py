"""Names that settings choose from; command lines are made of them, so nothing is imported here."""

from __future__ import annotations

from typing import Literal

Variant = Literal["eugen", "dense", "lowrank", "snnk", "monarch", "narrow", "shallow"]
"""Networks of a method: EUGen layers, none, or another kind of cheaper layer at the same cost."""
VariantSetting = Literal[Variant, "auto"]
"""What a run's settings name: a network, or the one that is recommended for its method."""
RecipeName = Literal["rows", "random", "whitened", "pruned", "compensated", "svd", "aware"]
"""Ways to turn a dense layer into a cheaper one (`core/fitting/recipes/registry.py`)."""
Product = Literal["plain", "harmonic", "minimum", "clamped"]
"""Ways to join the two projections of a feature of degree 2 (`core/layers/products.py`)."""
Backend = Literal["eager", "compile", "triton", "wgpu"]
"""What runs an inference plan (`core/inference/plan_backends.py`)."""
PlanDtype = Literal["float32", "bfloat16", "float16"]
PLAN_DTYPES: tuple[PlanDtype, ...] = ("float32", "bfloat16")
BACKENDS: dict[Backend, tuple[PlanDtype, ...]] = {
    "eager": PLAN_DTYPES,
    "compile": PLAN_DTYPES,
    "triton": PLAN_DTYPES,
    "wgpu": ("float32", "float16"),
}
"""Backends, and the dtypes that each one has."""
