"""eugen-bench speed: a table and a file, from the same word that suites are run by."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from eugen_nerf.benchmarks import hardware
from eugen_nerf.cli import bench

TINY = ("--scale", "0.002", "--repeats", "1", "--warmup", "0", "--no-compile")


@pytest.fixture(autouse=True)
def _small_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine can do at most is measured on small matrices: large ones in bfloat16 take most of a minute."""
    monkeypatch.setitem(hardware.SIDES, "cpu", (32, 64))
    monkeypatch.setitem(hardware.COPIED, "cpu", 1 << 16)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["eugen-bench", "speed", *arguments])
    bench.main()


def test_a_table_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "speed.json"
    image = ("--image", "4", "--samples", "4", "6")
    call(monkeypatch, *TINY, "--families", "nerf", "isdf", *image, "--output", str(output))
    printed, result = capsys.readouterr().out, json.loads(output.read_text())
    assert {row["family"] for row in result["queries"]} == {"NeRF 8x256", "iSDF 4x256, value and gradient"}
    assert sum(row["best_dense"] for row in result["queries"]) == 2
    assert {row["ratio"] for row in result["training"] if row["name"] == "dense"} == {1.0}
    assert result["peaks"].keys() == {"float32", "bfloat16", "copy"}
    names = [row["name"] for row in result["images"]]
    assert names[:3] == ["dense, as it is", "dense, eager plan float32", "dense, eager plan bfloat16"]
    assert names[3].startswith("EUGen m=128")
    for row in result["images"]:
        assert row["family"] == "NeRF 8x256"
        assert row["split"].keys() == {"encoding", "MLP", "sampling", "compositing", "other", "transfer"}
        assert row["split"]["MLP"] > 0
        assert (row["plans"] is None) == row["name"].endswith("as it is")
    assert result["images"][1]["largest_change"] < 1e-3
    assert result["environment"]["threads"] == 1
    assert "EUGen m=64, eager plan bfloat16" in printed
    assert "NeRF 8x256: one image of 4x4 pixels" in printed
    with pytest.raises(SystemExit):
        call(monkeypatch, *TINY, "--output", str(output))
    assert "pass --overwrite" in capsys.readouterr().err


def test_runs_are_rendered(
    monkeypatch: pytest.MonkeyPatch, tiny_dense_run: Path, tiny_eugen_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, *TINY, "--families", "isdf", "--load-config", str(tiny_dense_run), str(tiny_eugen_run))
    assert "one image of 16x16 pixels" in capsys.readouterr().out


def test_refusals(monkeypatch: pytest.MonkeyPatch, tiny_stock_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (("--repeats", "0"), "at least 1"),
        ((*TINY, "--families", "isdf", "--load-config", str(tiny_stock_run)), "no run of an eugen-* method"),
    ):
        with pytest.raises(SystemExit) as stopped:
            call(monkeypatch, *arguments)
        assert stopped.value.code == 1
        assert message in capsys.readouterr().err
