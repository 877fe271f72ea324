"""Messages to the viewer that no browser sends, generated from those that one does."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from viser import _messages

CAMERA: dict[str, Any] = {
    "type": "ViewerCameraMessage",
    "wxyz": (0.7, -0.7, 0.0, 0.0),
    "position": (0.0, -30.0, 10.0),
    "fov": 0.8,
    "aspect": 1.3,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 0.0, 1.0),
}
CLICK: dict[str, Any] = {
    "type": "ScenePointerMessage",
    "event_type": "click",
    "ray_origin": (0.0, -30.0, 10.0),
    "ray_direction": (0.0, 1.0, 0.0),
    "screen_pos": ((0.5, 0.5),),
}
FROM_PAGES = frozenset(
    {"ViewerCameraMessage", "GuiUpdateMessage", "ScenePointerMessage", "FileTransferPartAck", "ShareUrlRequest"}
)
"""Kinds of messages that a page of the viewer sends."""
OTHER_TYPES: dict[str, Any] = {
    "nothing": None,
    "truth": True,
    "text": "1\x1b[2J\u202e",
    "bytes": b"\xff\x00",
    "map": {"a": [1]},
    "list of lists": [[[]]],
    "extension": msgspec.msgpack.Ext(5, b"x"),
}
BAD_NUMBERS: dict[str, float] = {"NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf}

Outcome = Literal["closed", "left out"]


@dataclass(frozen=True)
class Hostile:
    """Something to send after a first camera, or instead of one.

    Attributes:
        kind: group that it is counted in.
        what: in words.
        frames: bytes are sent as binary messages, text as text.
        outcome: what has to become of it; None where either is right.
        hello: whether a camera is sent before.
    """

    kind: str
    what: str
    frames: tuple[bytes | str, ...]
    outcome: Outcome | None
    hello: bool = True


def packed(message: Any) -> bytes:
    """A message as it is sent."""
    return msgspec.msgpack.encode(message)


def update(control: Any, value: Any, name: str = "value") -> bytes:
    """A new value of a control."""
    return packed({"type": "GuiUpdateMessage", "id": control, "updates": {name: value}})


def hostile_messages(controls: dict[str, tuple[str, Any]], seed: int = 0, mutations: int = 60) -> Iterator[Hostile]:
    """All of them, the same for a seed.

    Args:
        controls: identifier and value of the page's controls, by their label.
        seed: of the mutations.
        mutations: number of good messages with changed bytes.
    """
    yield from _types()
    yield from _numbers()
    yield from _bombs()
    yield from _order(controls)
    yield from _controls(controls)
    yield from _mutations(controls, seed, mutations)


def _types() -> Iterator[Hostile]:
    for good in (CAMERA, CLICK):
        for name in good:
            for word, value in OTHER_TYPES.items():
                yield Hostile("types", f"{name} is {word}", (packed({**good, name: value}),), "closed")
            short = {key: value for key, value in good.items() if key != name}
            yield Hostile("types", f"no {name}", (packed(short),), "closed")
        yield Hostile("types", "one field too many", (packed({**good, "more": 1}),), "closed")
    for message in sorted(each.__name__ for each in _messages.Message.get_subclasses()):
        if message not in FROM_PAGES:
            yield Hostile("types", f"{message} from a page", (packed({"type": message}),), "closed")
    for word, value in OTHER_TYPES.items():
        yield Hostile("types", f"{word} alone", (packed(value),), "closed")
    yield Hostile("types", "text", ("text",), "closed")
    yield Hostile("types", "empty", (b"",), "closed")


def _numbers() -> Iterator[Hostile]:
    for name, value in CAMERA.items():
        if name == "type":
            continue
        for word, bad in BAD_NUMBERS.items():
            changed = (bad, *value[1:]) if isinstance(value, tuple) else bad
            yield Hostile("numbers", f"{name} with {word}", (packed({**CAMERA, name: changed}),), "closed")
        huge = (1e300, *value[1:]) if isinstance(value, tuple) else 1e300
        yield Hostile("numbers", f"{name} of 1e300", (packed({**CAMERA, name: huge}),), "left out")
    for word, bad in BAD_NUMBERS.items():
        yield Hostile("numbers", f"click with {word}", (packed({**CLICK, "ray_origin": (bad, 0.0, 0.0)}),), "closed")
    for name, value in {"wxyz": (0.0,) * 4, "fov": 0.0, "aspect": -1.0}.items():
        yield Hostile("numbers", f"{name} of nothing", (packed({**CAMERA, name: value}),), "left out")
    yield Hostile("numbers", "up direction of 2^64 - 1", (packed(CAMERA)[:-9] + b"\xcf" + b"\xff" * 8,), "left out")


def _bombs() -> Iterator[Hostile]:
    deep = {"arrays": b"\x91" * 60_000 + b"\x01", "maps": b"\x81\xa1a" * 20_000 + b"\x01"}
    for word, bomb in deep.items():
        yield Hostile("sizes", f"20,000 or more nested {word}", (bomb,), "closed")
        value = packed({"type": "GuiUpdateMessage", "id": "a", "updates": {"value": 1}})[:-1] + bomb
        yield Hostile("sizes", f"nested {word} as a value", (value,), "closed")
    for word, head in {"list": b"\xdd", "map": b"\xdf", "text": b"\xdb", "bytes": b"\xc6"}.items():
        yield Hostile("sizes", f"{word} of 4 billion", (head + b"\xff" * 4,), "closed")
        yield Hostile("sizes", f"lists of {word}s of 16 million", ((b"\xdd\x00\xff\xff\xff" + head) * 900,), "closed")
    for size in ((1 << 16) + 1, 1 << 20):
        yield Hostile(
            "sizes", f"{size} bytes", (b"\xc6" + (size - 5).to_bytes(4, "big") + b"x" * (size - 5),), "closed"
        )
    yield Hostile("sizes", "65,535 empty lists", (b"\xdc\xff\xff" + b"\x90" * 65_500,), "closed")
    yield Hostile("sizes", "2,000 messages at once", (packed(CAMERA),) * 2000, "closed")


def _order(controls: dict[str, tuple[str, Any]]) -> Iterator[Hostile]:
    for label, (identifier, value) in controls.items():
        yield Hostile("order", f"{label} before a camera", (update(identifier, value),), "left out", hello=False)
    yield Hostile("order", "click before a camera", (packed(CLICK),), "left out", hello=False)
    yield Hostile("order", "20 publications", (packed({"type": "ShareUrlRequest"}),) * 20, "left out")
    acknowledged = {"type": "FileTransferPartAck", "source_component_id": None, "transfer_uuid": "\x1b]0;x\x07",
                    "transferred_bytes": 10**15, "total_bytes": -1}  # fmt: skip
    yield Hostile("order", "receipt of nothing", (packed(acknowledged),), "left out")


def _controls(controls: dict[str, tuple[str, Any]]) -> Iterator[Hostile]:
    for identifier in ("gone", "", "x" * 60_000, "\x1b[31m", "__class__"):
        yield Hostile("controls", f"unknown control {identifier[:9]!r}", (update(identifier, 1),), "left out")
    name = packed({"type": "GuiUpdateMessage", "id": "AB", "updates": {"value": 1}}).replace(b"\xa2AB", b"\xa2\xff\xfe")
    yield Hostile("controls", "a name that is not UTF-8", (name,), "closed")
    for label, (identifier, present) in controls.items():
        for word, value in OTHER_TYPES.items():
            same = isinstance(value, str) == isinstance(present, str) and isinstance(value, bool) == isinstance(
                present, bool
            )
            if not (same and isinstance(value, bool | str)):
                yield Hostile("controls", f"{word} for {label}", (update(identifier, value),), "closed")
        for other in ("options", "update_cb", "__class__", "disabled"):
            yield Hostile("controls", f"{other} of {label}", (update(identifier, 1, other),), "closed")
        if isinstance(present, str):
            for text in ("no such", "\x1b[2J", "x" * 5000, "../../up"):
                yield Hostile("controls", f"{text[:9]!r} for {label}", (update(identifier, text),), "left out")
        elif not isinstance(present, bool):
            for word, bad in BAD_NUMBERS.items():
                yield Hostile("controls", f"{word} for {label}", (update(identifier, bad),), "closed")
            for number in (-1e12, 1e12):
                yield Hostile("controls", f"{number:g} for {label}", (update(identifier, number),), "left out")


def _mutations(controls: dict[str, tuple[str, Any]], seed: int, count: int) -> Iterator[Hostile]:
    # without buttons and boxes: a message that happens to stay whole would press them
    values = (each for each in controls.values() if not isinstance(each[1], bool))
    good = [packed(CAMERA), packed(CLICK), *(update(*each) for each in values)]
    draw = random.Random(seed)
    for number in range(count):
        raw = bytearray(draw.choice(good))
        for _ in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        cut = len(raw) if draw.random() < 0.7 else draw.randrange(len(raw))
        yield Hostile("mutations", f"mutation {number}", (bytes(raw[:cut]),), None)
