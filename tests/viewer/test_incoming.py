"""Messages of browsers and of clients that only pretend to be one."""

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosedError

from eugen_viewer.server import incoming
from eugen_viewer.server.incoming import IncomingGuard, RateLimit
from eugen_viewer.server.messages import Control, MalformedMessageError, UnusableMessageError, check_message

CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (0.7, -0.7, 0.0, 0.0),
    "position": (0.0, -30.0, 10.0),
    "fov": 0.8,
    "aspect": 1.3,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 0.0, 1.0),
}
CONTROLS = {
    "slider": Control(0.5, 0.0, 1.0),
    "box": Control(True),
    "text": Control("name"),
    "menu": Control("a", options=("a", "b")),
    "vector": Control((0.0, 1.0)),
    "button": Control(False, button=True),
}


def packed(**message: Any) -> bytes:
    return msgspec.msgpack.encode(message)


def update(control: str, value: Any, **more: Any) -> bytes:
    return packed(type="GuiUpdateMessage", id=control, updates={"value": value, **more})


GOOD = {
    "camera": packed(**CAMERA),
    "slider": update("slider", 1),
    "box": update("box", False),
    "text": update("text", "another"),
    "menu": update("menu", "b"),
    "vector": update("vector", (2, 3.5)),
}
MALFORMED = {
    "nothing": b"",
    "noise": b"\xc1\xff\x00",
    "number": msgspec.msgpack.encode(3),
    "no type": packed(a=1),
    "unknown type": packed(type="Nonsense"),
    "type that is no text": packed(type=[1]),
    "missing field": packed(type="ViewerCameraMessage", fov=1.0),
    "other field": packed(**CAMERA, more=1),
    "message for browsers": packed(type="RunJavascriptMessage", source="1"),
    "upload": packed(type="FileTransferStart", source_component_id="a", transfer_uuid="b", filename="c", mime_type="d",
                     part_count=1, size_bytes=1),
    "camera of text": packed(**{**CAMERA, "position": ("a", 0.0, 0.0)}),
    "camera of two numbers": packed(**{**CAMERA, "position": (0.0, 0.0)}),
    "camera of nothing": packed(**{**CAMERA, "wxyz": None}),
    "camera that is not a number": packed(**{**CAMERA, "look_at": (math.nan, 0.0, 0.0)}),
    "infinite field of view": packed(**{**CAMERA, "fov": math.inf}),
    "text for a slider": update("slider", "1"),
    "slider that is not a number": update("slider", math.nan),
    "truth for a slider": update("slider", True),
    "list for a box": update("box", []),
    "number for a text": update("text", 4),
    "three numbers for two": update("vector", (1.0, 2.0, 3.0)),
    "another property": update("slider", 0.5, max=9.0),
    "no value": packed(type="GuiUpdateMessage", id="slider", updates={}),
    "control that is a list": packed(type="GuiUpdateMessage", id=[1], updates={"value": 1}),
    "updates that are a text": packed(type="GuiUpdateMessage", id="slider", updates="value"),
}  # fmt: skip
UNUSABLE = {
    "control that is gone": update("gone", 1),
    "beyond the range": update("slider", 1.5),
    "no option": update("menu", "c"),
    "long text": update("text", "x" * 5000),
    "text that moves the cursor": update("text", "\x1b[2J"),
    "camera without direction": packed(**{**CAMERA, "wxyz": (0.0, 0.0, 0.0, 0.0)}),
    "camera far away": packed(**{**CAMERA, "position": (1e30, 0.0, 0.0)}),
    "flat window": packed(**{**CAMERA, "aspect": 1e9}),
    "no window": packed(**{**CAMERA, "aspect": 0.0}),
    "closed eye": packed(**{**CAMERA, "fov": 0.0}),
}


@pytest.mark.parametrize("kind", GOOD)
def test_what_browsers_send_is_let_through(kind: str) -> None:
    check_message(GOOD[kind], CONTROLS.get)


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_no_browser_sends_is_malformed(kind: str) -> None:
    with pytest.raises(MalformedMessageError):
        check_message(MALFORMED[kind], CONTROLS.get)


@pytest.mark.parametrize("kind", UNUSABLE)
def test_values_without_use_are_left_out(kind: str) -> None:
    with pytest.raises(UnusableMessageError):
        check_message(UNUSABLE[kind], CONTROLS.get)


class FakeSocket:
    """Gives the messages of a list, then waits, or once closed raises: what had arrived is given before, as it is."""

    def __init__(self, messages: list[Any]) -> None:
        self.messages, self.closed = list(messages), None

    async def recv(self) -> Any:
        if self.messages:
            return self.messages.pop(0)
        if self.closed is None:
            await asyncio.sleep(3600)
        raise ConnectionClosedError(None, None)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = (code, reason)


def served(messages: list[Any], guard: Callable[..., IncomingGuard] = IncomingGuard) -> tuple[list[bytes], Any]:
    """What the handler received of a connection, and what the connection was closed with."""
    got: list[bytes] = []

    async def handler(websocket: Any) -> None:
        try:
            while True:
                got.append(await websocket.recv())
        except ConnectionClosedError:
            pass

    websocket = FakeSocket(messages)
    guarded = guard(handler, CONTROLS.get)
    asyncio.run(asyncio.wait_for(guarded(websocket), 20))
    assert guarded.open == 0
    return got, websocket.closed


@pytest.mark.parametrize("bad", [b"\xc1", "text", b"x" * (incoming.MAX_MESSAGE_BYTES + 1)])
def test_one_malformed_message_ends_the_connection(bad: Any) -> None:
    got, closed = served([GOOD["camera"], UNUSABLE["no option"], GOOD["slider"], bad, GOOD["box"]])
    assert got == [GOOD["camera"], GOOD["slider"]]  # and not the box, which had arrived behind
    assert closed is not None
    assert closed[0] in (1008, 1009)


def test_a_flood_ends_the_connection() -> None:
    got, closed = served([GOOD["camera"], *[GOOD["slider"]] * 5 * incoming.BURST])
    assert incoming.BURST <= len(got) < 2 * incoming.BURST
    assert closed == (1008, f"at most {incoming.MESSAGES_PER_SECOND:g} messages a second")


def test_a_client_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "HELLO_SECONDS", 0.01)
    assert served([]) == ([], (1001, "nothing was sent for long"))
    monkeypatch.setattr(incoming, "HELLO_SECONDS", 100.0)
    monkeypatch.setattr(incoming, "IDLE_SECONDS", 0.01)
    assert served([GOOD["camera"]]) == ([GOOD["camera"]], (1001, "nothing was sent for long"))


def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MAX_CONNECTIONS", 0)
    assert served([GOOD["camera"]]) == ([], (1013, "too many connections"))


@pytest.mark.parametrize("bad", [b"\xc1", b"x" * (incoming.MAX_MESSAGE_BYTES + 1)])
def test_who_is_thrown_out_is_reported(bad: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[int] = []
    guard = partial(IncomingGuard, thrown_out=lambda: reports.append(1))
    served([GOOD["camera"], bad], guard)
    assert len(reports) == 1
    monkeypatch.setattr(incoming, "MAX_CONNECTIONS", 0)
    served([GOOD["camera"]], guard)
    assert len(reports) == 1, "who finds no place has done nothing"


def test_tasks_of_a_connection_end_with_it() -> None:
    """As viser's senders, which wait for a next message to all."""
    waiting = []

    async def handler(websocket: Any) -> None:
        waiting.append(asyncio.ensure_future(asyncio.sleep(3600)))
        await asyncio.sleep(0)

    async def serve() -> None:
        await IncomingGuard(handler, CONTROLS.get)(FakeSocket([]))
        own = asyncio.ensure_future(asyncio.sleep(0))
        await own
        assert waiting[0].cancelled()
        assert not own.cancelled()

    asyncio.run(serve())


def test_nothing_counts_before_a_first_camera() -> None:
    got, _ = served([GOOD["slider"], GOOD["camera"], GOOD["box"], b"\xc1"])
    assert got == [GOOD["camera"], GOOD["box"]]


def test_hammered_buttons_are_pressed_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "PRESSES_PER_SECOND", 1e-9)
    got, _ = served([GOOD["camera"], *[update("button", True), GOOD["slider"]] * 30, b"\xc1"])
    assert got.count(update("button", True)) == incoming.PRESS_BURST
    assert got.count(GOOD["slider"]) == 30


@pytest.mark.parametrize(("limit", "value"), [("CAMERA_SECONDS", 0.2), ("CAMERAS_PER_SECOND", 5.0)])
def test_of_many_cameras_the_last_one_is_handled(monkeypatch: pytest.MonkeyPatch, limit: str, value: float) -> None:
    monkeypatch.setattr(incoming, limit, value)
    monkeypatch.setattr(incoming, "IDLE_SECONDS", 0.5)
    cameras = [packed(**{**CAMERA, "fov": 0.5 + 0.01 * number}) for number in range(50)]
    got, _ = served([*cameras, GOOD["slider"]])
    assert got == [cameras[0], GOOD["slider"], cameras[-1]]


def test_the_rate_limit_refills_with_time() -> None:
    now = [0.0]
    limit = RateLimit(rate=2.0, burst=3.0, clock=lambda: now[0])
    assert [limit.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 1.0
    assert [limit.take() for _ in range(3)] == [True, True, False]
    now[0] = 100.0
    assert [limit.take() for _ in range(4)] == [True, True, True, False]
