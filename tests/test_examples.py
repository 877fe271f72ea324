"""The examples of the tutorials, each as it is typed, on tiny data; their commands are forked from one process."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import with_scene
from commands import command
from PIL import Image
from tiny_photos import write_corner

from eugen_nerf.core import save_bundle

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FEW_RAYS = "--pipeline.datamanager.train-num-rays-per-batch 64"
FAST = {
    "eugen-data scene": "--num-train 6 --num-val 2 --num-test 2 --supersample 1",
    "eugen-data dynamic": "--num-train 6 --num-val 2 --num-test 2 --supersample 1",
    "eugen-eval": "--views 1 --repeats 1 --warmup 0 --queries 64 --split-repeats 1",
}
"""What makes commands of the examples cheap that the examples have no option for."""


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, offline: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> object:
    """Runs an example of that number in an empty folder; returns what it prints."""

    def started(words: list[str]) -> int:
        extra = next((extra for name, extra in FAST.items() if words[: len(name.split())] == name.split()), "")
        command({**offline, "RUN_IN": str(tmp_path)}, *words, *extra.split())
        return 0

    monkeypatch.setattr(subprocess, "call", started)
    monkeypatch.chdir(tmp_path)

    def example(number: int, *words: object) -> str:
        (path,) = (ROOT / "examples").glob(f"{number:02d}_*.py")
        monkeypatch.setattr(sys, "argv", [str(path), *" ".join(map(str, words)).split()])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return example


def test_an_example_ends_where_a_command_fails(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(subprocess, "call", lambda words: 3)
    with pytest.raises(SystemExit) as ended:
        run(2, "config.yml")
    assert ended.value.code == 3


def test_01_train(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run(1, "--resolution 16 --steps 2", FEW_RAYS)
    rows = json.loads((tmp_path / "outputs/01_train/comparison/report.json").read_text())["rows"]
    assert {row["variant"] for row in rows} >= {"dense", "eugen"}


def test_02_convert(run, tiny_dense_run: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = run(2, tiny_dense_run, "--macs 0.8 --max-rays 512 --ray-fraction 1")
    (config,) = tmp_path.glob("outputs/02_convert/converted/*/example/config.yml")
    assert f"ns-eval --load-config {config.relative_to(tmp_path)}" in out


def test_03_any_model(run) -> None:  # type: ignore[no-untyped-def]
    out = run(3, "--steps 300 --width 64")
    before, after = map(float, re.findall(r": (\d\.\d+) of the variance", out))
    assert before < 0.5
    assert after < 1


def test_04_bundle(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save_bundle(with_scene("frequency"), tmp_path / "bundle")
    assert "multiply-adds a point, 2 test views" in run(4, "bundle --size 10")
    with Image.open(tmp_path / "outputs/04_bundle.png") as image:
        assert image.size == (24, 10)
        assert len(image.getcolors()) > 3, "an image of nothing"


def test_05_dynamic_scene(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run(5, "--resolution 16 --steps 2 --frames 2", FEW_RAYS)
    with Image.open(tmp_path / "outputs/05_dynamic_scene/film.gif") as film:
        assert film.n_frames == 2


def test_06_signed_distance(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = run(6, "--resolution 32 24 --frames 12 --steps 2 --voxel 0.4")
    assert re.search(r"the nearest surface is -?\d+\.\d+ m away", out)
    assert (tmp_path / "outputs/06_signed_distance/room.ply").is_file()


def test_07_photographs(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("pycolmap", reason="the extra `photos` is not installed")
    write_corner(tmp_path / "mine")
    run(7, "mine --steps 2", FEW_RAYS)
    assert list(tmp_path.glob("outputs/07_photographs/photographs/*/example/nerfstudio_models/*.ckpt"))


def test_07_says_what_is_missing(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match=r"pip install .*\[photos\]"):
        run(7, "mine")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_a_tutorial_and_a_test(path: Path) -> None:
    page = ROOT / "docs/tutorials" / f"{path.stem}.md"
    assert f'--8<-- "examples/{path.name}"' in page.read_text(encoding="utf8")
    assert f"def test_{path.stem}(" in Path(__file__).read_text(encoding="utf8")
    assert f"python examples/{path.name}" in page.read_text(encoding="utf8")
