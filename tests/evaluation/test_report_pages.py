"""Pages from templates: whatever a value holds, it is text and no part of the page; tables have one registry."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eugen_nerf.evaluation.reports import pages
from eugen_nerf.evaluation.reports.comparison_page import ShownImage, ShownView
from eugen_nerf.evaluation.reports.pages import render_page
from eugen_nerf.evaluation.reports.text_tables import COLUMNS, TextTable, text_table

HOSTILE = "</style></script><b onclick='x' title=\"y\">&lt;{{ 7 * 7 }}"
IMAGE = np.zeros((2, 2, 3), np.uint8)
TABLE = TextTable(HOSTILE, [HOSTILE], [[HOSTILE]], HOSTILE)
VALUES: dict[str, dict[str, Any]] = {
    "comparison.html": {
        "introduction": HOSTILE,
        "notes": [HOSTILE],
        "scores": TABLE,
        "sizes": TextTable(HOSTILE, [HOSTILE] * 2, [[HOSTILE] * 2]),
        "tables": [TABLE],
        "psnr_time": HOSTILE,
        "curves": HOSTILE,
        "curves_remark": HOSTILE,
        "scale": [HOSTILE],
        "full_scale": HOSTILE,
        "views": [ShownView(3, [ShownImage(IMAGE, HOSTILE, HOSTILE)])],
        "frames": {HOSTILE: IMAGE},
        "frames_view": 3,
        "times": HOSTILE,
        "protocol": {HOSTILE: HOSTILE, "list": [HOSTILE]},
        "environment": {HOSTILE: HOSTILE},
    },
    "signed_distance.html": {
        "remark": HOSTILE,
        "notes": [HOSTILE],
        "tables": [TABLE],
        "slices": HOSTILE,
        "protocol": {"reference": HOSTILE, HOSTILE: [HOSTILE]},
        "environment": {HOSTILE: HOSTILE},
    },
    "scene_means.html": {"tables": [TABLE], "links": [(HOSTILE, HOSTILE)]},
    "study.html": {
        "remark": HOSTILE,
        "groups": [(TABLE, HOSTILE)],
        "published": [
            {"text": HOSTILE, "source": HOSTILE},
            dict.fromkeys(("text", "source", "differs", "verdict"), HOSTILE),
        ],
        "settings_of_study": {HOSTILE: HOSTILE},
        "environment": {HOSTILE: HOSTILE},
    },
}


class Reader(HTMLParser):
    """Counts the hostile text where a browser would show it, and keeps every element."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts += sum(value == HOSTILE for _, value in attrs)

    def handle_data(self, data: str) -> None:
        self.texts += data.count(HOSTILE)


@pytest.mark.parametrize("template", sorted(VALUES))
def test_every_value_is_escaped(template: str) -> None:
    page = render_page(template, title=HOSTILE, heading=HOSTILE, **VALUES[template])
    reader = Reader()
    reader.feed(page)
    assert "b" not in {tag for tag, own in reader.elements if own}
    assert not any("onclick" in own for _, own in reader.elements)
    assert page.count("</style>") == 1
    assert page.count("</script>") == page.count("<script>") <= 1
    assert "49" not in re.sub(r"base64,[^\"]*", "", page)
    assert reader.texts >= len(VALUES[template])


def test_every_template_is_tested() -> None:
    folder = Path(pages.__file__).with_name("templates")
    whole = {path.name for path in folder.glob("*.html") if "extends" in path.read_text(encoding="utf8")}
    assert whole == set(VALUES)


def test_tables_show_texts_numbers_pairs_and_dashes_and_no_empty_column() -> None:
    rows = [
        {"variant": "a", "psnr": 31.256, "ssim": None, "image_speed_ratio": "?", "fit_seconds": [2.0, 0.25]},
        {"variant": "b", "psnr": None, "near": 0.5, "queries_per_second": 12_345.0},
    ]
    keys = ("variant", "psnr", "ssim", "image_speed_ratio", "fit_seconds", "near", "queries_per_second")
    table = text_table("title", keys, rows, "remark")
    assert table.headings == ["variant", "PSNR", "image x", "fit s", "near", "queries/s"]
    assert table.rows == [["a", "31.26", "?", "2.0 ± 0.2", "-", "-"], ["b", "-", "-", "-", "0.50", "12.3k"]]
    assert table.heading == "Title"
    assert "ssim" in COLUMNS
