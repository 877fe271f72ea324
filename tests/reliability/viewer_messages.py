"""Table `viewer` of `scripts/reliability.py`: everything hostile, sent to a viewer in a process of its own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile_messages import Hostile, hostile_messages
from raw_clients import BROKEN_FRAMES, REQUESTS, Tab, attempt, request, send_broken, until
from running_viewer import RunningViewer, running_viewer

NEVER = ("let through", "tracebacks", "control characters")
LABELS = {
    "types": "messages with fields of other types, too few, too many; messages of viser that no page sends",
    "numbers": "cameras and clicks that are not finite, or out of range",
    "sizes": "nested 20,000 deep, announced as 4 billion, larger than 64 KB, 2,000 at once",
    "order": "before a first camera, or out of turn",
    "controls": "controls that are not there, values that they cannot have, other properties",
    "mutations": "good messages with changed bytes",
}
BETWEEN = 0.4
"""Seconds between two connections: the viewer takes 10 new ones a second, and 3 fewer for each that it refuses."""


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for every kind, and one for the viewer afterwards."""
    with running_viewer(folder) as viewer, Tab(viewer.port) as tab:
        until(lambda: "Save path for ns-render" in tab.controls and tab.images > 0, "the page")
        kinds: dict[str, list[Hostile]] = defaultdict(list)
        for hostile in hostile_messages(tab.controls, mutations=200):
            kinds[hostile.kind].append(hostile)
        for kind, each in kinds.items():
            yield _messages(LABELS[kind], each, viewer)
        yield _frames(viewer)
        yield _requests(viewer)
        if tab.image_after_move() is None:
            raise RuntimeError("the viewer no longer serves")


def _messages(what: str, hostile: list[Hostile], viewer: RunningViewer) -> dict[str, Any]:
    start, outcomes = len(viewer.said()), []
    for each in hostile:
        time.sleep(BETWEEN)
        outcomes.append(attempt(viewer.port, each))
    through = sum(each.outcome not in (None, outcome) for each, outcome in zip(hostile, outcomes, strict=True))
    return {
        "what": what,
        "tries": len(hostile),
        "closed": outcomes.count("closed"),
        "left out": outcomes.count("left out"),
        "let through": through,
        **_printed(viewer, start),
    }


def _frames(viewer: RunningViewer) -> dict[str, Any]:
    start, closed = len(viewer.said()), []
    for content in BROKEN_FRAMES.values():
        time.sleep(BETWEEN)
        closed.append(send_broken(viewer.port, content))
    return {
        "what": "bytes that are no frames of a websocket",
        "tries": len(closed),
        "closed": sum(closed),
        "left out": 0,
        "let through": len(closed) - sum(closed),
        **_printed(viewer, start),
    }


def _requests(viewer: RunningViewer) -> dict[str, Any]:
    start, refused, tries = len(viewer.said()), 0, 0
    for headers, path, let_in in REQUESTS:
        for websocket in (False, True):
            if let_in:
                continue
            tries += 1
            refused += request(viewer.port, headers, path, websocket=websocket)[9:12] == b"403"
    return {
        "what": "other names, pages of other servers, DNS rebinding, queries that redirect the page",
        "tries": tries,
        "closed": refused,
        "left out": 0,
        "let through": tries - refused,
        **_printed(viewer, start),
    }


def _printed(viewer: RunningViewer, start: int) -> dict[str, int]:
    """What came to the terminal since it had `start` characters."""
    said = viewer.said()[start:]
    controls = sum(not (character.isprintable() or character == "\n") for character in said)
    return {"tracebacks": said.count("Traceback"), "control characters": controls}
