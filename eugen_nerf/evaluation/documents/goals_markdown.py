"""A table of goals for images next to what `scripts/renderer_cost.py` measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eugen_nerf.core.errors import DataError

HEADINGS = (
    *("work", "goal", "reached", "seconds", "of them products at the peak", "queries a ray"),
    *("dB lost to photographs", "PSNR to the exact image"),
)


@dataclass(frozen=True)
class Goal:
    """One row."""

    work: str
    goal: str
    """What is wanted, for reading."""
    report: str
    """A result file, relative to the project's folder."""
    run: str
    """Of that file."""
    way: str
    """Of rendering, that is judged; the run's first way is what it is compared with."""


@dataclass(frozen=True)
class ImageGoals:
    """A table with a row for every goal."""

    document: str
    name: str
    goals: Sequence[Mapping[str, Any]]
    """Arguments of `Goal`."""


def goals_table(place: ImageGoals, folder: Path) -> str:
    """The table as Markdown.

    Raises:
        DataError: no result file, or no such run or way in it.
    """
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    return "\n".join([*lines, *(_line(Goal(**goal), folder) for goal in place.goals)]) + "\n"


def _line(goal: Goal, folder: Path) -> str:
    path = folder / goal.report
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        rows = {row["way"]: row for row in content["pictures"]["rows"] if row["run"] == goal.run}
        first, judged = next(iter(rows.values())), rows[goal.way]
        limit = float(judged["products at the peak, s"]) / float(judged["seconds"])
        before, after = first["PSNR to photographs"], judged["PSNR to photographs"]
        cells = (
            *(goal.work, goal.goal, f"{judged['x']}", judged["seconds"], f"{100 * limit:.0f} %"),
            judged["queries a ray that meets something"],
            f"{float(before) - float(after):.2f}" if before and after else "-",
            judged["PSNR to the first"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, ZeroDivisionError) as error:
        raise DataError(f"{path} has no times of {goal.run!r} rendered by {goal.way!r}: {error!r}") from error
    return "| " + " | ".join(cells) + " |"
