"""What is said of work that goes on, where nothing can be drawn."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from eugen_nerf.cli.support import distill_progress, progress
from eugen_nerf.cli.support.distill_progress import ConversionSteps
from eugen_nerf.cli.support.progress import Lines, stages, working
from eugen_nerf.cli.support.runner import run_command
from eugen_nerf.evaluation import stage_lines
from eugen_nerf.evaluation.stage_lines import Steps, counted, shares


def test_a_line_says_steps_shares_and_the_time_left() -> None:
    clock = [0.0]
    lines = Lines(["train a", "train b", "distil c"], lambda: clock[0])
    assert lines.line() == "0 of 3 steps done"
    lines.report("train a", 0.0)
    clock[0] = 100.0  # loading takes a while, and says nothing of the rate
    lines.report("train b", 10.0)
    assert lines.line() == "0 of 3 steps done; train a 0 %; train b 10 %"
    lines.report("train a", 5.0)
    clock[0] = 400.0
    lines.report("train a", 10.0)  # 60 s a per cent
    assert "; train a 10 %, 90 minutes left; " in lines.line()
    lines.report("train a", 100.0)
    lines.report("train b", 40.0)  # 10 s a per cent
    assert lines.line() == "1 of 3 steps done; train b 40 %, 10 minutes left"


def test_a_log_gets_a_line_now_and_then_and_a_terminal_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=40)
        with working(console, "rendering") as at, stages(console, ["a", "b"]) as report:
            report("a", 100.0)
            if not terminal:
                while console.file.getvalue().count("\n") < 5:  # type: ignore[attr-defined]
                    time.sleep(0.01)
            report("b", 50.0)
            at("timing images: 2 of 6")
            while not terminal and "; timing" not in console.file.getvalue():  # type: ignore[attr-defined]
                time.sleep(0.01)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        if not terminal:
            assert lines[0] == "rendering"
            assert "rendering, for 0 seconds" in lines
            assert "1 of 2 steps done" in lines
            assert any(line.startswith("1 of 2 steps done; b 50 %") for line in lines)
        else:
            assert "rendering, for 0 seconds" not in lines
            assert not any("steps done" in line for line in lines)


def test_a_line_comes_at_least_every_half_minute() -> None:
    assert 0 < progress.EVERY <= 30
    assert 0 < stage_lines.EVERY <= 30
    assert 0 < distill_progress.EVERY <= 30


def test_steps_say_which_they_are_at_and_the_time_left() -> None:
    clock = [5.0]
    stage = Steps("rendering dense", 8, clock=lambda: clock[0])
    assert stage.line() == "rendering dense: 1 of 8"
    stage.done, clock[0] = 2, 25.0  # ten seconds a view, six views left
    assert stage.line() == "rendering dense: 3 of 8, 60 seconds left"
    stage.done = 8
    assert stage.line() == "rendering dense: 8 of 8"


def test_stages_are_lines_in_a_log_and_timed_ones_on_a_terminal_too() -> None:
    for terminal, timed, lines in ((False, False, 1), (False, True, 1), (True, True, 1), (True, False, 0)):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=60)
        with counted("scoring", 2, console, timed=timed) as done:
            done()
            done()
        assert console.file.getvalue().count("scoring: 1 of 2\n") == lines  # type: ignore[attr-defined]


def test_shares_of_stages_are_lines_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_lines, "EVERY", 0.01)
    console = Console(file=io.StringIO(), width=60)
    with shares(console) as begin:
        begin("fusing depth")(1.0)
        begin("meshing dense")(0.25)
        while "meshing dense: 26 of 100 per cent, " not in console.file.getvalue():  # type: ignore[attr-defined]
            time.sleep(0.01)
    assert "fusing depth: 1 of 100 per cent\n" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_conversion_counts_the_layers_that_it_knows() -> None:
    known = ConversionSteps([("coarse", "trunk_1"), ("fine", "trunk_1"), ("fine", "trunk_2")])
    known.report("coarse", "moments")
    assert known.line() == "converting: coarse, moments, for 0 seconds"
    known.report("coarse", "trunk_1")
    known.report("fine", "trunk_1")
    assert known.line() == "converting: 3 of 3, 0 seconds left"
    budget = ConversionSteps()
    budget.report("fine", "trunk_1")
    assert budget.line() == "converting: fine, trunk_1, for 0 seconds"
    budget.calibrating(0.5, "squared error 1")
    assert budget.line() == "calibrating: 51 of 100 per cent, 0 seconds left"


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("a\nrendering dense: 3 of 8, 20 seconds left\nb", (0.0, "rendering dense: 3 of 8, 20 seconds left")),
        ("meshing a: 26 of 100 per cent", (0.0, "meshing a: 26 of 100 per cent")),
        ("scoring a: 1 of 8\n290 (29.00%)  12 ms", (29.0, "")),
    ],
)
def test_a_job_says_what_its_log_says(tmp_path: Path, printed: str, said: tuple[float, str]) -> None:
    found: list[tuple[float, str]] = []
    command = [sys.executable, "-c", f"print({printed!r}, flush=True); import time; time.sleep(1.5)"]
    run_command(command, tmp_path / "log", on_progress=lambda percent, words: found.append((percent, words)))
    assert found[0] == said
    lines = Lines(["evaluate"])
    lines.report("evaluate", *said)
    assert lines.line() == f"0 of 1 steps done; evaluate{', ' + said[1] if said[1] else ' 29 %'}"
