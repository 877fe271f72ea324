"""A web page of one or two fields: markup, script, style and weights in one text, under a policy that forbids the rest.

Names and texts of runs are data: they stand escaped in the markup and in a block of JSON, and the page's script writes
them as text. The policy lists the hashes of the one script and the one style, so that nothing else can run, and allows
no connection, but to the files beside a page that has some.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.web.module_bundling import bundle_modules
from eugen_nerf.web.page_payload import PagePayload

ENTRY = "page/main.js"
MOST_FIELDS = 2
"""Fields of one page: side by side with a split between them."""
LONGEST_TITLE = 200
"""Characters of a title or name, at most; what is longer is cut."""
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' "
    "rx='4' fill='%230b766f'/%3E%3Cpath d='M8 3v10' stroke='white'/%3E%3Ccircle cx='8' cy='8' r='3.5' fill='none' "
    "stroke='white'/%3E%3C/svg%3E"
)


@dataclass(frozen=True)
class PageField:
    """A field on a page.

    Attributes:
        name: as readers see it.
        description: values of JSON that the engine loads it by.
        data: its weights, as the engine takes them.
    """

    name: str
    description: Mapping[str, Any]
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class WebPage:
    """What is written: the page, and the files beside it where its weights are not inside.

    Attributes:
        html: the page.
        beside: contents by file name.
    """

    html: str
    beside: Mapping[str, bytes]


def web_page(
    fields: Sequence[PageField],
    title: str,
    *,
    inline: bool = True,
    poster: bytes | None = None,
    sources: Mapping[str, str] | None = None,
) -> WebPage:
    """The page of one or two fields.

    Args:
        fields: the first one's test views are listed.
        title: of the page.
        inline: whether the weights stand in the page; files beside it otherwise, which need a web server.
        poster: a JPEG file that is shown until the first picture is drawn, and where none can be.
        sources: modules by path in place of this package's own, for tests.

    Raises:
        ConfigError: no field, or more than two.
    """
    if not 0 < len(fields) <= MOST_FIELDS:
        raise ConfigError(f"a page shows one field or two, not {len(fields)}: give one or two bundles or runs")
    payloads = [PagePayload.of(each.data) for each in fields]
    places = [None if inline else f"field-{number}.bin" for number in range(len(fields))]
    data = {
        "title": _cut(title),
        "fields": [
            {"name": _cut(each.name), "description": each.description, "payload": payload.describe(place)}
            for each, payload, place in zip(fields, payloads, places, strict=True)
        ],
    }
    script = bundle_modules(own_sources() if sources is None else sources, ENTRY)
    style = _asset("page/page.css")
    html = _template().render(
        title=_cut(title),
        policy=content_policy(script, style, connects=not inline),
        icon=ICON,
        poster=None if poster is None else "data:image/jpeg;base64," + base64.b64encode(poster).decode(),
        style=_trusted(style),
        script=_trusted(script),
        data=_trusted(inert_json(data)),
        payloads=[_trusted(payload.text()) for payload in payloads] if inline else [],
    )
    beside = {place: payload.stored for place, payload in zip(places, payloads, strict=True) if place is not None}
    return WebPage(html, beside)


def content_policy(script: str, style: str, *, connects: bool) -> str:
    """The page's Content-Security-Policy: its one script and style by hash, pictures that are made in it, no other.

    Args:
        script: text of the script element.
        style: text of the style element.
        connects: whether the page may read files beside it.
    """
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if connects:
        rules["connect-src"] = "'self'"
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def inert_json(value: object) -> str:
    """JSON that can stand in a script element: no letter of it can end the element or begin another.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


@cache
def own_sources() -> Mapping[str, str]:
    """The modules of the page and of the engine, text by path."""
    folder = files("eugen_nerf.web") / "assets"
    rooms = [room for room in folder.iterdir() if room.is_dir()]
    return {f"{room.name}/{each.name}": _read(each) for room in rooms for each in room.iterdir() if _is_module(each)}


def _is_module(path: Traversable) -> bool:
    return path.name.endswith(".js")


def _read(path: Traversable) -> str:
    return path.read_text(encoding="utf8")


def _asset(path: str) -> str:
    return _read(files("eugen_nerf.web") / "assets" / path)


def _cut(text: str) -> str:
    """A name or title as a page shows it: printable, not empty, not too long."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[:LONGEST_TITLE] or "field"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def _template() -> Any:
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_asset("page/page.html"))


def _trusted(text: str) -> Any:
    """A text that goes into the markup as it is."""
    from markupsafe import Markup

    return Markup(text)
