"""Means and spreads over runs of one name but for its seed: "dense-s0", "dense-s1" are "dense"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def over_seeds(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Means and sample standard deviations of values.

    Returns a dictionary for every name that has several rows: `variant`, `seeds`, and for every key [mean, deviation],
    None where no row has a value.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(name_and_seed(row)[0], []).append(row)
    result: list[dict[str, Any]] = []
    for name, members in groups.items():
        if len(members) > 1:
            values = {key: [m[key] for m in members if m.get(key) is not None] for key in keys}
            means = {key: mean_and_spread(numbers) if numbers else None for key, numbers in values.items()}
            result.append({"variant": name, "seeds": len(members), **means})
    return result


def losses(rows: Sequence[Mapping[str, Any]], baseline: str, key: str) -> list[float | None]:
    """For every row, what it has less of than the baseline of the same seed, which is what seeds share; else None.

    Args:
        rows: with `variant` and a number called `key`.
        baseline: name of one row.
        key: see `rows`.
    """
    stem = name_and_seed({"variant": baseline})[0]
    baselines = {
        name_and_seed(row)[1]: row[key] for row in rows if name_and_seed(row)[0] == stem and row.get(key) is not None
    }
    return [
        baselines[seed] - row[key]
        if (seed := name_and_seed(row)[1]) in baselines and row.get(key) is not None
        else None
        for row in rows
    ]


def name_and_seed(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """What a row's variant is called without its seed, and the seed, None where it has none."""
    stem, mark, seed = str(row["variant"]).rpartition("-s")
    return (stem, seed) if mark and seed.isdigit() else (str(row["variant"]), None)


def mean_and_spread(values: Sequence[float]) -> list[float]:
    """Mean and sample standard deviation; of one value, 0."""
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]
