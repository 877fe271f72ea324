"""The command: what it refuses in one line, and that a wheel has all of the viewer."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from eugen_nerf.cli import view

ROOT = Path(__file__).resolve().parents[2]


def refused(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["eugen-view", *words])
    with pytest.raises(SystemExit) as stopped:
        view.main()
    assert stopped.value.code == 1
    return capsys.readouterr().err.strip()


def test_refusals_are_one_line(
    tiny_dense_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = str(tiny_dense_run)
    for words, said in (
        (["--load-config", str(tmp_path / "config.yml")], "no run at"),
        (["--load-config", run, "--names", "a", "b"], "2 names for 1 runs"),
        (["--load-config", run, run, "--names", "a", "a"], "give each a name of its own"),
        (["--load-config", run, "--port", "0"], "--port must be at least 1 and at most 65535"),
        (["--load-config", run, "--host", "192.0.2.7"], "not an address of this machine"),
        (["--load-config", run, "--max-size", "3"], "--max-size must be at least 16"),
        (["--load-config", run, "--device", "cuda:99"], "cannot be used here"),
        (["--load-config"], "no run to open"),
    ):
        line = refused(words, monkeypatch, capsys)
        last = line.splitlines()[-1]
        assert last.startswith("error: "), line
        assert said in last


def test_a_wheel_has_the_viewer_and_its_command(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in ("eugen_nerf", "viewer"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
        (scripts,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "eugen-view = eugen_nerf.cli.view:main" in files.read(scripts).decode()
    assert {str(path.relative_to(ROOT / "viewer")) for path in (ROOT / "viewer").rglob("*.py")} <= names
    assert "eugen_nerf/cli/view.py" in names
