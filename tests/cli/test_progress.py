"""What is said of work that goes on, where nothing can be drawn."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from eugen_nerf.cli import progress
from eugen_nerf.cli.progress import Lines, stages, working


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
        with working(console, "rendering"), stages(console, ["a", "b"]) as report:
            report("a", 100.0)
            if not terminal:
                while console.file.getvalue().count("\n") < 5:  # type: ignore[attr-defined]
                    time.sleep(0.01)
            report("b", 50.0)
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
