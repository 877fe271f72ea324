"""Line and numbers over the image: what is written into the page's program, in which names are no code."""

from __future__ import annotations

import json
import re

from eugen_viewer.panels.picture_overlay import corner_numbers, number_lines, split_line
from eugen_viewer.panels.readout import Readout, ReadoutRow

HOSTILE = 'a{b}</div>"c\\ `d`\n${e}'


def test_numbers_are_of_a_ray_and_of_a_query() -> None:
    rows = [ReadoutRow("dense", 0.1, 20_000, 1000, 34_944), ReadoutRow("other", None, None, 7, None)]
    lines = number_lines(Readout(rows, (50, 100), False), 12.4)
    assert lines == ["100 x 50, 12 frames/s", "dense: 4.0 queries a ray, 34,944 multiply-adds a query", "other"]
    assert number_lines(Readout(rows, (50, 100), True), None)[0] == "100 x 50"


def test_what_others_wrote_is_a_string_and_no_markup() -> None:
    markdown = corner_numbers(Readout([ReadoutRow(HOSTILE)], (2, 4), True), None)
    assert "\n" not in markdown
    written = re.search(r'\}\}>\{ ?(".*")\}</div>$', markdown)
    assert written is not None
    assert json.loads(written[1]) == f"4 x 2\n{HOSTILE}"


def test_a_line_is_of_its_slider_and_of_where_the_image_is() -> None:
    line = split_line('x"y', 0.125, 0.875)
    assert "\n" not in line
    assert r'getElementById("x\"y")' in line
    assert "(0.12500 + (0.87500 - 0.12500) *" in line
    assert not re.search("SLIDER|FIRST|LAST|CLASS", line)
