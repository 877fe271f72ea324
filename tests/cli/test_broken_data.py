"""Commands on a run whose data set has moved or broken since: one line that names the file, and what to do."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden"
RUN = "runs/nerf-dense/eugen-nerf-small/golden/config.yml"
COMMANDS = {"eval": (), "distill": ("--max-drop", "0.5"), "view": ()}


def move(scene: Path) -> None:
    scene.rename(scene.with_name("elsewhere"))


def cut_short(scene: Path) -> None:
    path = scene / "transforms_train.json"
    path.write_text(path.read_text()[:200])


def damage(scene: Path) -> None:
    path = scene / "train/r_001.png"
    path.write_bytes(path.read_bytes()[:100])


def shrink(scene: Path, name: str = "r_001.png") -> None:
    path = scene / "train" / name
    Image.open(path).resize((9, 9)).save(path)


def shrink_the_first(scene: Path) -> None:
    shrink(scene, "r_000.png")


FAULTS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "moved": (move, ("the data set data/scene", "does not exist", "--data")),
    "JSON cut short": (cut_short, ("transforms_train.json' is not valid JSON", "--data")),
    "damaged image": (damage, ("r_001.png' is damaged", "copy it again")),
    "other size": (shrink, ("r_001.png' of the train split is 9x9 pixels where its camera is 16x16",)),
    "the first of another size": (shrink_the_first, ("r_000.png' of the train split is 9x9 pixels", "(1 of ")),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_wrong_is_one_line(
    command: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("runs/nerf-dense", "data/scene"):
        shutil.copytree(GOLDEN / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    apply, words = FAULTS[fault]
    apply(tmp_path / "data/scene")
    monkeypatch.setattr(sys, "argv", [f"eugen-{command}", "--load-config", RUN, *COMMANDS[command]])
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"eugen_nerf.cli.{command}").main()
    assert left.value.code == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last, last
