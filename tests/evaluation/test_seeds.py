"""Means over seeds, and losses against the baseline of the same seed."""

from types import SimpleNamespace

import numpy as np
import pytest

from eugen_nerf.evaluation.reports.tables import further_tables
from eugen_nerf.evaluation.statistics.seeds import losses, over_seeds


def test_seeds_are_averaged_by_name() -> None:
    rows = [
        {"variant": "dense-s0", "x": 1.0, "y": None},
        {"variant": "dense-s1", "x": 3.0, "y": None},
        {"variant": "eugen-64-s0", "x": 5.0, "y": 2.0},
        {"variant": "eugen-64-s1", "x": 5.0, "y": None},
        {"variant": "no-seed", "x": 9.0, "y": 9.0},
    ]
    assert over_seeds(rows, ["x", "y"]) == [
        {"variant": "dense", "seeds": 2, "x": [2.0, pytest.approx(np.sqrt(2.0))], "y": None},
        {"variant": "eugen-64", "seeds": 2, "x": [5.0, 0.0], "y": [2.0, 0.0]},
    ]


def test_a_loss_is_against_the_same_seed() -> None:
    rows = [
        {"variant": "dense-s0", "psnr": 30.0},
        {"variant": "dense-s1", "psnr": 28.0},
        {"variant": "half-s1", "psnr": 27.5},
        {"variant": "half-s0", "psnr": 29.0},
        {"variant": "half-s2", "psnr": 29.0},
        {"variant": "white", "psnr": None},
    ]
    assert losses(rows, "dense-s0", "psnr") == [0.0, 0.0, 0.5, 1.0, None, None]
    plain = [{"variant": "dense", "psnr": 30.0}, {"variant": "half", "psnr": 29.5}, {"variant": "half-s0", "psnr": 1.0}]
    assert losses(plain, "dense", "psnr") == [0.0, 0.5, None]


def test_the_table_pairs_seeds() -> None:
    common = {"image_split": None, "psnr_curve": None, "ssim": 0.9, "lpips": None, "macs_per_query": 1000}
    rows = [
        {"variant": f"{name}-s{seed}", "psnr": psnr, "image_speed_ratio": 1.0, "query_speed_ratio": 2.0, **common}
        for name, values in (("dense", (30.0, 28.0)), ("half", (29.0, 27.5)))
        for seed, psnr in enumerate(values)
    ]
    comparison = SimpleNamespace(rows=rows, protocol={"baseline": "dense-s0"}, published=[])
    (table, _) = further_tables(comparison)  # type: ignore[arg-type]
    assert table.headings[:4] == ["variant", "seeds", "lost", "PSNR"]
    assert table.rows[0][:4] == ["dense", "2", "0.00 ± 0.00", "29.00 ± 1.41"]
    assert table.rows[1][:4] == ["half", "2", "0.75 ± 0.35", "28.25 ± 1.06"]
    assert "LPIPS" not in table.headings
    assert "dense" in table.remark
