"""The page of the demo's scene that the documentation opens."""

from __future__ import annotations

import json
from pathlib import Path

from test_page import Elements

from eugen_nerf.web.page import content_policy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "demo.html"


def test_it_is_small_and_whole() -> None:
    text = PAGE.read_text(encoding="utf8")
    assert PAGE.stat().st_size <= 1_000_000
    found = Elements(text)
    policy = next(value for key, value in found.attributes if key == "content" and value and "default-src" in value)
    assert policy == content_policy(found.texts["module"], found.texts["style"], connects=False)
    fields = json.loads(found.texts["page-data"])["fields"]
    assert [field["name"] for field in fields] == ["dense", "distilled"]
    assert all(len(found.texts[f"payload-{i}"]) == field["payload"]["stored"] for i, field in enumerate(fields))
    assert all(view["psnr"] > 25 for field in fields for view in field["description"]["info"]["views"])
