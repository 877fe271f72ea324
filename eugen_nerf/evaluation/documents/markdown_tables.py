"""Tables of documents made of result files: no figure in them is typed by hand.

A document has places for tables, between the lines `<!-- table NAME -->` and `<!-- end of table -->`; a list says what
each holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.evaluation.documents.attempts_markdown import Attempts, attempts_table
from eugen_nerf.evaluation.documents.day_tables import DayTable, day_table
from eugen_nerf.evaluation.documents.goals_markdown import ImageGoals, goals_table
from eugen_nerf.evaluation.documents.launch_markdown import LaunchCounts, launch_table
from eugen_nerf.evaluation.documents.roofline_markdown import Predictions, predictions_table
from eugen_nerf.evaluation.documents.speed_markdown import Speeds, speeds_table
from eugen_nerf.evaluation.documents.table_columns import COLUMNS, FROM_TO, column_cell, column_heading, with_parts
from eugen_nerf.evaluation.statistics.claims import groups_of, judged
from eugen_nerf.evaluation.statistics.published import check_published
from eugen_nerf.evaluation.statistics.seeds import losses, over_seeds

_PLACE = "<!-- table {} -->\n", "<!-- end of table -->"


@dataclass(frozen=True)
class TableRow:
    """One row: what it is called, and where its figures are."""

    label: str
    report: str | Sequence[str]
    """A `report.json`, relative to the project's folder; several, of other seeds of one suite, are read as one."""
    variant: str
    """Of that report; where there are only VARIANT-s0, VARIANT-s1, ..., mean and standard deviation over them."""
    baseline: str = ""
    """What `psnr_lost` of one run is against; the report's baseline by default. Of several seeds, each has its own."""
    cells: Mapping[str, str] = field(default_factory=dict)
    """Texts of further columns, by heading."""


@dataclass(frozen=True)
class Place:
    """One table of one document."""

    document: str
    name: str
    columns: Sequence[str]
    """Keys of `COLUMNS`, `psnr_from_to`, or headings of the rows' own `cells`."""
    rows: Sequence[TableRow]
    heading: str = "variant"


@dataclass(frozen=True)
class Pivot:
    """A table of a study: one number of every case, cases of one kind side by side."""

    document: str
    name: str
    report: str
    """A study's `report.json`, relative to the project's folder."""
    value: str
    """Key of the number: its mean over seeds is shown, three digits of it."""
    rows: Sequence[str]
    """Keys of a case that name a row, such as group and kind."""
    column: str
    """Key of a case that names a column, such as m; a group's name stands alone as a heading."""


@dataclass(frozen=True)
class Cases:
    """A table of a study: several numbers of every case, a case a row."""

    document: str
    name: str
    report: str
    """A study's `report.json`, relative to the project's folder."""
    values: Mapping[str, str]
    """Heading by key of a number: mean over seeds and its standard deviation are shown."""
    rows: Sequence[str]
    """Keys of a case that name a row, such as group and variant."""


@dataclass(frozen=True)
class Verdicts:
    """A table of what was published and what our runs say of it (`evaluation/statistics/claims.py`)."""

    document: str
    name: str
    claims: Mapping[str, str]
    """A suite's file by the `report.json` of its results, both relative to the project's folder."""


AnyPlace = Place | Pivot | Cases | Verdicts | Speeds | Predictions | DayTable | LaunchCounts | Attempts | ImageGoals


def read_places(path: Path) -> list[AnyPlace]:
    """Places from plain data: a list of mappings with the names of `Place` and `TableRow`, or of another kind.

    Raises:
        ConfigError: anything else.
    """
    import yaml

    try:
        entries = yaml.safe_load(path.read_text(encoding="utf8"))
        return [_place_of(entry) for entry in entries]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is no list of tables: {str(error).splitlines()[0]}") from error


def _place_of(entry: Mapping[str, Any]) -> AnyPlace:
    if "claims" in entry:
        return Verdicts(**entry)
    if "speeds" in entry:
        return Speeds(**entry)
    if "attempts" in entry:
        return Attempts(**entry)
    if "goals" in entry:
        return ImageGoals(**entry)
    if "launches" in entry:
        return LaunchCounts(**entry)
    if "predictions" in entry:
        return Predictions(**entry)
    if "day" in entry:
        return DayTable(**entry)
    if "column" in entry:
        return Pivot(**entry)
    if "values" in entry:
        return Cases(**entry)
    return Place(**{**entry, "rows": [TableRow(**row) for row in entry["rows"]]})


def table(place: AnyPlace, folder: Path) -> str:
    """The table as Markdown.

    Raises:
        DataError: a report, a variant or a value that is not there.
    """
    if isinstance(place, Pivot):
        return _pivoted(place, folder)
    if isinstance(place, Cases):
        return _listed(place, folder)
    if isinstance(place, Speeds):
        return speeds_table(place, folder)
    if isinstance(place, Attempts):
        return attempts_table(place, folder)
    if isinstance(place, ImageGoals):
        return goals_table(place, folder)
    if isinstance(place, LaunchCounts):
        return launch_table(place, folder)
    if isinstance(place, Predictions):
        return predictions_table(place, folder)
    if isinstance(place, DayTable):
        return day_table(place, folder)
    if isinstance(place, Verdicts):
        return _judged(place, folder)
    headings = [place.heading, *(column_heading(key) for key in place.columns)]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for row in place.rows:
        found = _figures(row, folder)
        cells = [row.cells.get(key, "") if key in row.cells else column_cell(found, key) for key in place.columns]
        lines.append("| " + " | ".join([row.label, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _pivoted(place: Pivot, folder: Path) -> str:
    path = folder / place.report
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    try:
        for case in json.loads(path.read_text(encoding="utf8"))["rows"]:
            row = cells.setdefault(tuple(str(case[key]) for key in place.rows), {})
            row[str(case[place.column])] = f"{case['mean'][place.value][0]:.3g}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a study with {place.value!r}: {type(error).__name__}") from error
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    headings = [column if place.column == "group" else f"{place.column} = {column}" for column in columns]
    lines = [
        "| " + " | ".join([*place.rows, *headings]) + " |",
        "|" + "---|" * (len(place.rows) + len(columns)),
        *(
            "| " + " | ".join([*names, *(row.get(column, "-") for column in columns)]) + " |"
            for names, row in cells.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _listed(place: Cases, folder: Path) -> str:
    path = folder / place.report
    lines = ["| " + " | ".join([*place.rows, *place.values.values()]) + " |"]
    lines.append("|" + "---|" * (len(place.rows) + len(place.values)))
    try:
        for case in json.loads(path.read_text(encoding="utf8"))["rows"]:
            cells = [_mean(*case["mean"][key]) for key in place.values]
            lines.append("| " + " | ".join([*(str(case[key]) for key in place.rows), *cells]) + " |")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a study with {', '.join(place.values)}: {error!r}") from error
    return "\n".join(lines) + "\n"


def _mean(mean: float, spread: float) -> str:
    """Three digits, or all of a number of more; as many places for the spread, which is left out where it is 0."""
    if spread <= 1e-9 * abs(mean):
        return f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.3g}"
    places = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 3
    return f"{mean:,.{places}f} ± {spread:,.{places}f}"


def _judged(place: Verdicts, folder: Path) -> str:
    import yaml

    lines = ["| published | source | what differs | suite | our run |", "|---|---|---|---|---|"]
    for report, suite in place.claims.items():
        try:
            rows = json.loads((folder / report).read_text(encoding="utf8"))["rows"]
            published = yaml.safe_load((folder / suite).read_text(encoding="utf8"))["published"]
        except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
            raise DataError(f"{report} or {suite} cannot be read: {type(error).__name__}") from error
        for row in judged(check_published(published, suite), groups_of(rows)):
            if "verdict" in row:
                cells = [row["text"], row["source"], row.get("differs", "-"), f"`{Path(suite).stem}`", row["verdict"]]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def filled(text: str, name: str, content: str) -> str:
    """A document with one table replaced.

    Raises:
        DataError: no place of that name.
    """
    begin, end = _PLACE[0].format(name), _PLACE[1]
    pattern = re.escape(begin) + r".*?" + re.escape(end)
    if not re.search(pattern, text, flags=re.DOTALL):
        raise DataError(f"no place for table {name!r}: the document needs the lines {begin.strip()} and {end}")
    return re.sub(pattern, lambda _: begin + content + end, text, count=1, flags=re.DOTALL)


def _figures(row: TableRow, folder: Path) -> dict[str, Any]:
    paths = [folder / name for name in ([row.report] if isinstance(row.report, str) else row.report)]
    rows: list[dict[str, Any]] = []
    baseline = row.baseline
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf8"))
            rows += map(with_parts, content["rows"])
            baseline = baseline or content["protocol"]["baseline"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} cannot be read as a report: {type(error).__name__}") from error
    lost = losses(rows, baseline, "psnr")
    rows = [{**other, "psnr_lost": loss} for other, loss in zip(rows, lost, strict=True)]
    teacher = next((other.get("psnr") for other in rows if other["variant"] == baseline), None)
    seeds = {other["variant"]: other for other in over_seeds(rows, list(COLUMNS))}
    if len(paths) > 1 and row.variant in seeds:  # although the run of one seed may have the bare name
        return seeds[row.variant]
    for other in rows:
        if other["variant"] == row.variant:
            if None in (teacher, other.get("psnr")):
                return other
            return {**other, FROM_TO: (teacher, other["psnr"]), "psnr_lost": teacher - other["psnr"]}
    if row.variant in seeds:
        return seeds[row.variant]
    there_are = ", ".join(other["variant"] for other in rows)
    raise DataError(f"{', '.join(map(str, paths))} has no variant {row.variant!r}; there are {there_are}")
