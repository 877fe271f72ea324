"""The pages: links between them lead somewhere, and lines can be read in an editor. No network is needed."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import statistics
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINE = 120
"""Characters of a line, tables, code and single long words apart."""


def pages() -> list[str]:
    """All Markdown pages that git knows, relative to the project."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split() if (ROOT / name).is_file()]


def prose(text: str) -> list[str]:
    """The lines outside of code blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()


def anchor(title: str) -> str:
    """The anchor that GitHub and Python-Markdown give to a title of Latin letters."""
    words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)).strip().lower()
    return words.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """All anchors of a page."""
    titles = (re.match(r"#+ (.*)", line) for line in prose(page.read_text(encoding="utf8")))
    return {anchor(title[1]) for title in titles if title}


@pytest.mark.parametrize("name", pages())
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"`[^`]*`", "", "\n".join(prose(page.read_text(encoding="utf8"))))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, part = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_relative_to(ROOT), f"{name}: {target} leaves the project"
        assert linked.is_file(), f"{name}: {target} is not there"
        if part:
            assert part in anchors(linked), f"{name}: {target} has no such title; there are {sorted(anchors(linked))}"


@pytest.mark.parametrize("name", pages())
def test_lines_fit(name: str) -> None:
    for line in prose((ROOT / name).read_text(encoding="utf8")):
        if not line.startswith("|") and " " in line.strip():
            assert len(line) <= LINE, f"{name}: {len(line)} characters: {line}"


def test_every_page_is_reached_from_the_first() -> None:
    reached, waiting = set(), [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf8"))
        waiting += [path for link in links if (path := (page.parent / link).resolve()).is_file()]
    missed = {name for name in pages() if name.startswith("docs/") and ROOT / name not in reached}
    assert not missed


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf8").splitlines()) <= 150
    assert (ROOT / "docs/images/view.webp").stat().st_size < 2_000_000


def test_titles_are_ordered() -> None:
    for name in pages():
        levels = [len(title[1]) for line in prose((ROOT / name).read_text()) if (title := re.match(r"(#+) ", line))]
        assert levels[:1] == [1], f"{name} has no title"
        assert levels.count(1) == 1, f"{name} has several titles"
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), f"{name} leaves a level of titles out"


def texts() -> list[str]:
    """Every text of the programs, with a zero byte where a value is put in."""
    found = []
    for folder in ("eugen_nerf", "viewer", "scripts"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_messages_are_those_of_the_program() -> None:
    page = (ROOT / "docs/guides/troubleshooting.md").read_text(encoding="utf8")
    messages = re.findall(r"^> (.*)$", page, re.MULTILINE)
    assert len(messages) > 20
    printed = texts()
    for message in messages:
        pattern = re.compile(".*".join(re.escape(part) for part in re.split(r"\.\.\.", message)), re.DOTALL)
        assert any(map(pattern.fullmatch, printed)), f"no program prints {message!r}"


def test_the_chart_shows_what_the_tables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    shown = importlib.import_module("readme_pictures").points()
    rows = []
    for name in ("README.md", "docs/results/conversion.md"):
        for table in re.findall(r"<!-- table [\w-]+ -->\n(.*?)<!--", (ROOT / name).read_text(), re.DOTALL):
            heading, _, *lines = (line.strip("| \n").split(" | ") for line in table.splitlines())
            rows += [dict(zip(heading, line, strict=True), label=line[0]) for line in lines]
    number, compared = re.compile(r"-?\d+\.\d+").fullmatch, 0
    for row in rows:
        if "teacher trained on" in row["label"] or "dense teacher" in row["label"]:
            continue
        if number(row.get("lost", "")) and number(row.get("query x", "")):
            lost, faster = float(row["lost"]), float(row["query x"])
            near = [p for p in shown if abs(p.psnr + lost) < 0.0051 and abs((p.speed_ratio or 0) - faster) < 0.0051]
            assert near, f"no mark for {row}"
            compared += 1
    assert compared > 15
    assert sum(point.speed_ratio is None for point in shown) == 4, "those that were not timed beside a dense network"


def test_the_front_shows_what_the_tables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means and deviations of its marks stand in the tables of the page that it heads."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    front = importlib.import_module("front_picture")
    page = (ROOT / "docs/results/optimizer.md").read_text(encoding="utf8")
    cells = {cell.strip() for line in page.splitlines() if line.startswith("|") for cell in line.split("|")}
    for title, files in front.PANELS.items():
        shown = front.marks(files)
        assert {"dense", "eugen", "narrow"} <= {mark.kind for mark in shown}, title
        for mark in shown:
            spread = f" ± {statistics.stdev(mark.psnr):.2f}" if len(mark.psnr) > 1 else ""
            assert f"{statistics.fmean(mark.psnr):.2f}{spread}" in cells, f"{title}: no figure for {mark.kind}"
            assert mark.kind != front.REFERENCE or set(mark.times) == {1.0}
