"""Pages as texts: whatever a run is called, its name is data, and the policy names what the page runs and no more."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import random
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import pair, pretended_field, pretended_sources

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.web.page import PageField, WebPage, inert_json, web_page
from eugen_nerf.web.page_files import check_page_path, write_page
from eugen_nerf.web.page_payload import PagePayload

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "{{ 7 * 7 }}{% raw %}",
    "a\u2028b\u2029c\u202e",
    "&lt;b&gt;&amp;",
    "]]>",
    "</title><base href=//x>",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
)


class Elements(HTMLParser):
    """What elements a page has, and the texts of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}
        self._at = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        given = dict(attrs)
        self._at = (given.get("id") or given.get("type") or tag) if tag in ("script", "style", "title") else ""

    def handle_endtag(self, tag: str) -> None:
        self._at = ""

    def handle_data(self, data: str) -> None:
        if self._at:
            self.texts[self._at] = self.texts.get(self._at, "") + data


def page_called(name: str, title: str = "t") -> WebPage:
    view = {"name": name, "psnr": 1.0}
    field = PageField(name, {"info": {"views": [view]}, "text": name}, b"1234")
    return web_page([field], title, sources=pretended_sources())


PLAIN = Elements(page_called("plain").html)


@settings(max_examples=40)
@given(
    st.one_of(st.text(max_size=60), st.sampled_from(HOSTILE)), st.one_of(st.text(max_size=30), st.sampled_from(HOSTILE))
)
def test_no_name_adds_an_element_or_changes_a_script(name: str, title: str) -> None:
    name, title = (text.encode("utf8", "replace").decode() for text in (name, title))
    found = Elements(page_called(name, title).html)
    assert found.tags == PLAIN.tags
    assert {key for key, _ in found.attributes} == {key for key, _ in PLAIN.attributes}
    assert found.texts["module"] == PLAIN.texts["module"]
    assert found.texts["style"] == PLAIN.texts["style"]
    data = json.loads(found.texts["page-data"])
    assert data["fields"][0]["description"]["text"] == name
    assert data["fields"][0]["description"]["info"]["views"][0]["name"] == name
    assert data["title"] == found.texts["title"]
    assert data["title"].isprintable()


@given(st.recursive(st.none() | st.text() | st.floats(allow_nan=False, allow_infinity=False), lambda v: st.lists(v)))
def test_json_comes_back_and_holds_no_markup(value: object) -> None:
    text = inert_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set(text) & set("<>&")


def test_json_has_no_numbers_that_browsers_refuse() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        inert_json([float("nan")])


@pytest.mark.parametrize("inline", [True, False])
def test_the_policy_allows_the_page_s_own_script_and_style_alone(inline: bool) -> None:
    page = web_page(pair(), "t", inline=inline, sources=pretended_sources())
    found = Elements(page.html)
    policy = dict(found.attributes)["content"]  # of the last element with one
    policies = [value for key, value in found.attributes if key == "content" and value and "default-src" in value]
    assert len(policies) == 1, policy
    rules = dict(rule.split(" ", 1) for rule in (policies[0] or "").split("; "))
    digest = {
        name: base64.b64encode(hashlib.sha256(found.texts[name].encode()).digest()).decode()
        for name in ("module", "style")
    }
    assert rules.pop("script-src") == f"'sha256-{digest['module']}'"
    assert rules.pop("style-src") == f"'sha256-{digest['style']}'"
    assert rules.pop("connect-src", None) == (None if inline else "'self'")
    assert rules == {
        "default-src": "'none'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # what such a policy refuses is not there: attributes with code or style
    assert not [key for key, _ in found.attributes if key.startswith("on") or key == "style"]
    assert not [
        value for key, value in found.attributes if key in ("src", "href") and not (value or "").startswith("data:")
    ]


def test_the_policy_stands_before_all_that_it_governs() -> None:
    page = web_page(pair(), "t", sources=pretended_sources()).html
    assert page.index("Content-Security-Policy") < min(
        page.index(tag) for tag in ("<style", "<script", "<link", "<img") if tag in page
    )


@given(st.binary(max_size=200), st.integers(1, 40))
def test_payloads_come_back(data: bytes, repeats: int) -> None:
    data *= repeats
    payload = PagePayload.of(data)
    described = payload.describe(None)
    stored = base64.b64decode(payload.text())
    bytes_ = gzip.decompress(stored) if described["compression"] == "gzip" else stored
    count = len(bytes_) // payload.planes
    joined = bytes(bytes_[plane * count + i] for i in range(count) for plane in range(payload.planes))
    assert joined == data
    assert len(stored) <= len(data) or not data
    assert described["bytes"] == len(data)
    assert described["stored"] == len(payload.text())


def test_planes_of_bytes_are_taken_where_they_pack_better() -> None:
    numbers = random.Random(0)
    values = b"".join(bytes([numbers.randrange(256), 0x3C]) for _ in range(2000))
    payload = PagePayload.of(values)
    assert (payload.compression, payload.planes) == ("gzip", 2)
    assert len(payload.stored) < 2100
    assert PagePayload.of(numbers.randbytes(400)).compression == "none"


def test_a_page_shows_one_or_two_fields() -> None:
    for fields in ([], [*pair(), pretended_field("c")]):
        with pytest.raises(ConfigError, match=f"one field or two, not {len(fields)}"):
            web_page(fields, "t", sources=pretended_sources())


def test_names_are_cut_and_never_empty() -> None:
    page = web_page([pretended_field("\n \0"), pretended_field("x" * 900)], "\t", sources=pretended_sources())
    data = json.loads(Elements(page.html).texts["page-data"])
    assert [field["name"] for field in data["fields"]] == ["field", "x" * 200]
    assert "<title>field</title>" in page.html


def test_a_poster_is_data() -> None:
    page = web_page(pair(), "t", poster=b"\xff\xd8", sources=pretended_sources()).html
    assert f'src="data:image/jpeg;base64,{base64.b64encode(bytes([255, 216])).decode()}"' in html.unescape(page)


def test_a_page_is_one_file_or_a_folder(tmp_path: Path) -> None:
    inside = web_page(pair(), "t", sources=pretended_sources())
    assert write_page(inside, tmp_path / "a.html") == (tmp_path / "a.html").stat().st_size
    beside = web_page(pair(), "t", inline=False, sources=pretended_sources())
    written = write_page(beside, tmp_path / "b")
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"index.html", "field-0.bin", "field-1.bin"}
    assert written == sum(path.stat().st_size for path in (tmp_path / "b").iterdir())
    assert len(list(tmp_path.iterdir())) == 2
    assert "payload-0" not in beside.html


def test_nothing_is_replaced_unless_that_is_wanted(tmp_path: Path) -> None:
    page, place = web_page(pair(), "t", sources=pretended_sources()), tmp_path / "a.html"
    place.write_text("old")
    with pytest.raises(RunError, match="exists: choose another --output, or pass --overwrite"):
        write_page(page, place)
    assert place.read_text() == "old"
    write_page(page, place, overwrite=True)
    assert place.read_text(encoding="utf8") == page.html
    folder = web_page(pair(), "t", inline=False, sources=pretended_sources())
    (tmp_path / "b").mkdir()
    write_page(folder, tmp_path / "b")
    with pytest.raises(RunError, match="exists: choose"):
        write_page(folder, tmp_path / "b")
    write_page(folder, tmp_path / "b", overwrite=True)


def test_places_that_no_page_can_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.doc is no \.html file"):
        check_page_path(tmp_path / "a.doc")
    (tmp_path / "c.html").mkdir()
    with pytest.raises(RunError, match="is a folder, not a file"):
        check_page_path(tmp_path / "c.html")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(RunError, match="holds other files and no page"):
        check_page_path(tmp_path / "mine", folder=True, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="not a folder"):
        check_page_path(tmp_path / "file", folder=True)
