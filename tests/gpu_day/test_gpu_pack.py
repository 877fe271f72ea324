"""What is carried to a machine without a network: folders that fit, and commands as docs/guides/gpu.md has them."""

from __future__ import annotations

import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_pack", ROOT / "scripts" / "gpu_pack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_are_divided_into_folders_that_fit(pack: ModuleType) -> None:
    sizes = {Path(str(i)): 1 + (i * 7919) % 40 for i in range(60)}
    groups = pack.divided(sizes, 48)
    assert sorted(p for group in groups for p in group) == sorted(sizes)
    totals = [sum(sizes[p] for p in group) for group in groups]
    assert max(totals) <= 48
    assert all(a + b > 48 for a, b in pairwise(totals)), "two neighbours would have fitted in one"
    with pytest.raises(ValueError, match="at most 48"):
        pack.divided({Path("large"): 49}, 48)


def test_views_are_evenly_spaced_and_all_there(pack: ModuleType, tiny_blender: Path, tmp_path: Path) -> None:
    pack.pack_views(tiny_blender, tmp_path, {"train": 2, "val": 9})
    train = json.loads((tmp_path / "transforms_train.json").read_text())
    assert [frame["file_path"] for frame in train["frames"]] == ["./train/r_0", "./train/r_2"]
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == ["r_0.png", "r_2.png"]
    val = json.loads((tmp_path / "transforms_val.json").read_text())
    assert len(val["frames"]) == 2, "no more than there are"
    assert train["camera_angle_x"] == 0.7


def test_the_page_has_the_commands(pack: ModuleType) -> None:
    page = (ROOT / "docs" / "guides" / "gpu.md").read_text()
    calls = pack.calls(["wheels-1", "wheels-2", "wheels-3"])
    for carried, command in calls:
        assert len(command) <= pack.COMMAND_LIMIT
        assert command in page, command
        assert all(folder in page for folder in carried)
    assert f"{len(calls)} calls" in page
    assert sum(pack.MINUTES) <= 12
    assert max(pack.MINUTES) < 10
