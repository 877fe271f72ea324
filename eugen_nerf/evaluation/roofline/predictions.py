"""How long a counted step should take on a card: rows of plain data, and lines to print."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.evaluation.roofline.cards import Card
from eugen_nerf.evaluation.roofline.counter import Counted
from eugen_nerf.evaluation.roofline.sets import Precision
from eugen_nerf.evaluation.roofline.steps import CountedStep, Mode, count_step


def predict_rows(
    method: str, variant: Variant, mode: Mode, card: Card, precisions: Sequence[Precision], rays: int | None = None
) -> list[dict[str, Any]]:
    """One row a precision of the networks' products; rendering has no bfloat16 of its own and is left out there.

    Args:
        method: name of a method of this package.
        variant: of its networks.
        mode: train or eval.
        card: that it runs on.
        precisions: rows to make.
        rays: of the batch or chunk; by default as many as the method's settings say.

    Returns:
        Rows with `method`, `variant`, `mode`, `rays`, `precision`, `parameters`, `kept_bytes`, the totals `seconds`,
        `launches`, `bytes` and `flops`; `limits`, seconds by what held operations back; and `parts`, a list of the
        totals by `part` and `pass` (forward or backward), the slowest first.

    Raises:
        ConfigError: as `count_step`.
    """
    rows = []
    steps: dict[bool, CountedStep] = {}
    for precision in precisions:
        half = precision == "bfloat16"
        if half and mode == "eval":
            continue
        if half not in steps:
            steps[half] = count_step(method, variant, mode, bfloat16=half, rays=rays)
        step = steps[half]
        head = {"method": method, "variant": variant, "mode": mode, "rays": step.rays, "precision": precision}
        totals = predict(step.operations, card, precision)
        rows.append({**head, "parameters": step.parameters, "kept_bytes": step.kept_bytes, **totals})
    return rows


def predict(operations: Sequence[Counted], card: Card, precision: Precision) -> dict[str, Any]:
    """Totals, limits and parts of counted operations, as `predict_rows` describes them.

    Operations run one after the other, each as long as its slowest limit says.
    """
    parts: dict[tuple[str, str], dict[str, float]] = defaultdict(
        lambda: {"seconds": 0.0, "launches": 0, "bytes": 0, "flops": 0}
    )
    limits: dict[str, float] = defaultdict(float)
    for counted in operations:
        operation = counted.operation
        times = card.times(operation, _products(counted, card, precision))
        limit = max(times, key=lambda name: times[name])
        limits[limit] += times[limit]
        part = parts[counted.part, "backward" if counted.backward else "forward"]
        for key, value in (
            ("seconds", times[limit]),
            ("launches", 1),
            ("bytes", operation.bytes),
            ("flops", operation.flops),
        ):
            part[key] += value
    slowest_first = sorted(parts.items(), key=lambda item: -item[1]["seconds"])
    return {
        **{key: sum(part[key] for part in parts.values()) for key in ("seconds", "launches", "bytes", "flops")},
        "limits": dict(sorted(limits.items(), key=lambda item: -item[1])),
        "parts": [{"part": name, "pass": way, **totals} for (name, way), totals in slowest_first],
    }


def row_lines(row: Mapping[str, Any]) -> list[str]:
    """A row and its parts as text."""
    limits = ", ".join(f"{name} {seconds / row['seconds']:.0%}" for name, seconds in row["limits"].items())
    lines = [
        f"{row['method']}, {row['variant']}, {row['mode']}, {row['precision']}: {row['rays']:,} rays, "
        f"{1e3 * row['seconds']:.1f} ms, {row['launches']:,} launches, {row['bytes'] / 1e9:.1f} GB, "
        f"{row['flops'] / 1e12:.2f} TFLOP, {row['kept_bytes'] / 1e9:.1f} GB kept; held back by {limits}"
    ]
    for part in row["parts"]:
        name = f"{part['part']}, {part['pass']}"
        lines.append(
            f"  {name:30s} {1e3 * part['seconds']:8.2f} ms {part['launches']:6,} launches "
            f"{part['bytes'] / 1e9:8.2f} GB {part['flops'] / 1e12:8.3f} TFLOP"
        )
    return lines


def _products(counted: Counted, card: Card, precision: Precision) -> str:
    """Key of the rate of an operation's products: TF32 is for networks alone."""
    dtype = counted.operation.dtype
    if dtype == "float32" and precision == "tf32" and counted.part == "MLP":
        return "tf32"
    return dtype if dtype in card.products else "float32"
