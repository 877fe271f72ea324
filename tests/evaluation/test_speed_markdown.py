"""Tables of speeds, from a small result file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eugen_nerf.core.errors import DataError
from eugen_nerf.evaluation.documents.speed_markdown import Speeds, speeds_table


def _row(name: str, rate: float, **more: Any) -> dict[str, Any]:
    found = {"family": "small", "name": name, "best_dense": False, "queries_per_second": rate, "multiply_adds": 1000}
    found |= {
        "ratio": rate / 4e6,
        "ratio_quartiles": [0.5, 0.75],
        "share_of_peak": 0.25,
        "deviation": None,
        "note": None,
    }
    return {**found, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        _row("dense, eager", 2e6),
        _row("dense, eager plan bfloat16", 4e6, best_dense=True, deviation=1e-3),
        _row("dense, compile plan bfloat16", 9e6, note="not compile: no compiler"),
        _row("EUGen m=8, eager", 7e5),
        _row("EUGen m=8, eager plan bfloat16", 1.2e7),
    ]
    part = {"family": "small", "name": "dense", "best_dense": True, "seconds_per_image": 1.5}
    part |= {"ratio": 1.0, "split": {"MLP": 1.25}}
    step = {"family": "small", "name": "dense", "milliseconds": 12.34, "ratio": 1.0, "ratio_quartiles": [1, 1]}
    content = {"queries": rows, "images": [part], "training": [step]}
    (tmp_path / "speed.json").write_text(json.dumps(content))
    return tmp_path


def test_all_ways_of_the_dense_network_and_the_fastest_of_the_others(folder: Path) -> None:
    lines = speeds_table(Speeds("page", "name", "speed.json", "small", "dense, eager"), folder).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| dense, eager",
        "| **dense, eager plan bfloat16**",
        "| EUGen m=8, eager plan bfloat16",
    ]
    assert lines[-1] == "| EUGen m=8, eager plan bfloat16 | 1,000 | 12.0 M | 3.00 (0.50 to 0.75) | 6.00 | 25% | - |"


def test_pictures_and_training(folder: Path) -> None:
    assert "| **dense** | 1.5 | 1.00 | 1.25 |" in speeds_table(
        Speeds("page", "name", "speed.json", "pictures small"), folder
    )
    table = speeds_table(Speeds("page", "name", "speed.json", "training small"), folder)
    assert "| dense | 12.3 | 1.00 (1.00 to 1.00) |" in table


@pytest.mark.parametrize("of", ["large", "training large"])
def test_what_is_not_there_is_said(folder: Path, of: str) -> None:
    with pytest.raises(DataError, match=f"cannot be read as speeds of '{of}'"):
        speeds_table(Speeds("page", "name", "speed.json", of), folder)
    with pytest.raises(DataError, match=r"other\.json cannot be read"):
        speeds_table(Speeds("page", "name", "other.json", of), folder)
