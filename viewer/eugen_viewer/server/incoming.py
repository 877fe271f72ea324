"""What browsers send, checked before viser acts on it: a raw client is not a browser."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from viser import _messages

MAX_CONNECTIONS = 128
"""Tabs and other clients at a time; each has a thread that renders."""
MAX_MESSAGE_BYTES = 1 << 16
"""Of one message: a browser's are below a kilobyte."""
MESSAGES_PER_SECOND = 300.0
"""That a client may send for long; a browser sends at most one a frame and control."""
BURST = 600
"""Messages that it may send at once."""
HELLO_SECONDS = 30.0
"""In which a client has to send its first message."""
IDLE_SECONDS = 3600.0
"""After which a client without a message is let go; a browser's tab connects anew by itself."""
MAX_TEXT = 4096
"""Characters of a text field."""
ASPECTS = (0.05, 20.0)
"""Width of a window by its height, smallest and largest."""
MAX_DISTANCE = 1e9
"""Of a camera from the origin, along each axis."""

_POLICY, _TRY_AGAIN, _GOING_AWAY, _TOO_BIG = 1008, 1013, 1001, 1009
"""Codes of a closed socket, RFC 6455 (Sec. 7.4.1)."""
_OTHERS = (
    _messages.GetRenderResponseMessage,
    _messages.ScenePointerMessage,
    _messages.SceneNodeClickMessage,
    _messages.TransformControlsUpdateMessage,
    _messages.ShareUrlRequest,
    _messages.ShareUrlDisconnect,
    _messages.FileTransferPartAck,
)


class MalformedMessageError(ValueError):
    """A message that no browser sends; its connection is closed."""


class UnusableMessageError(ValueError):
    """A message with a value that the viewer has no use for; it is left out."""


@dataclass(frozen=True)
class Control:
    """A control of the page: its value, and what it may be where that is limited."""

    value: Any
    low: float | None = None
    high: float | None = None
    options: tuple[str, ...] | None = None


FindControl = Callable[[str], Control | None]
"""A control by its identifier; None where it is gone."""


class Socket(Protocol):
    """What is used of a websocket."""

    async def recv(self) -> str | bytes:
        """The next message; raises `websockets.exceptions.ConnectionClosed` when there is none any more."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Ends the connection."""
        ...


@dataclass
class RateLimit:
    """A bucket of messages that fills with time."""

    rate: float = MESSAGES_PER_SECOND
    burst: float = BURST
    clock: Callable[[], float] = time.monotonic
    _left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._left, self._at = self.burst, self.clock()

    def take(self) -> bool:
        """Whether one more message is within the limit."""
        now = self.clock()
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class IncomingGuard:
    """Lets a server's handler of connections see good messages alone.

    Args:
        handler: viser's, of one connection.
        find_control: finds the controls of the page.
    """

    def __init__(self, handler: Callable[[Any], Awaitable[None]], find_control: FindControl) -> None:
        self.handler, self.find_control = handler, find_control
        self.open = 0

    async def __call__(self, websocket: Any) -> None:
        """Serves a connection until it ends."""
        if self.open >= MAX_CONNECTIONS:
            await websocket.close(_TRY_AGAIN, "too many connections")
            return
        self.open += 1
        websocket.recv = self._checked(websocket)
        try:
            await self.handler(websocket)
        finally:
            self.open -= 1

    def _checked(self, websocket: Socket) -> Callable[[], Awaitable[bytes]]:
        """`recv` of a connection, which closes it at the first message that no browser sends."""
        receive, limit, first = websocket.recv, RateLimit(), [True]

        async def refuse(code: int, reason: str) -> bytes:
            await websocket.close(code, reason)
            return cast(bytes, await receive())  # raises that the connection is closed

        async def checked() -> bytes:
            while True:
                try:
                    raw = await asyncio.wait_for(receive(), HELLO_SECONDS if first[0] else IDLE_SECONDS)
                except asyncio.TimeoutError:
                    return await refuse(_GOING_AWAY, "nothing was sent for long")
                first[0] = False
                if not isinstance(raw, bytes):
                    return await refuse(_POLICY, "messages are binary")
                if len(raw) > MAX_MESSAGE_BYTES:
                    return await refuse(_TOO_BIG, f"a message has at most {MAX_MESSAGE_BYTES} bytes")
                if not limit.take():
                    return await refuse(_POLICY, f"at most {MESSAGES_PER_SECOND:g} messages a second")
                try:
                    check_message(raw, self.find_control)
                except UnusableMessageError:
                    continue
                except MalformedMessageError as error:
                    return await refuse(_POLICY, str(error)[:100])
                return raw

        return checked


def check_message(raw: bytes, find_control: FindControl) -> None:
    """Raises for a message that viser should not see.

    Args:
        raw: as it came.
        find_control: finds the controls of the page.

    Raises:
        MalformedMessageError: not a message of a browser.
        UnusableMessageError: of a control that is gone, or a value out of its range.
    """
    try:
        message = _messages.Message.deserialize(raw)
    except Exception as error:  # whatever unpacking, a name or a constructor raises
        raise MalformedMessageError("not a message of this page") from error
    if isinstance(message, _messages.ViewerCameraMessage):
        _check_camera(message)
    elif isinstance(message, _messages.GuiUpdateMessage):
        _check_update(message, find_control)
    elif not isinstance(message, _OTHERS):
        raise MalformedMessageError(f"{type(message).__name__} is not for servers")


def _check_camera(message: _messages.ViewerCameraMessage) -> None:
    vectors = {"wxyz": 4, "position": 3, "look_at": 3, "up_direction": 3}
    for name, length in vectors.items():
        value = getattr(message, name)
        if not isinstance(value, tuple) or len(value) != length or not all(map(_is_number, value)):
            raise MalformedMessageError(f"{name} must be {length} numbers")
        if max(map(abs, value)) > MAX_DISTANCE:
            raise UnusableMessageError(f"{name} is too far away")
    if not (_is_number(message.fov) and _is_number(message.aspect)):
        raise MalformedMessageError("fov and aspect must be numbers")
    if not any(message.wxyz) or not 0 < message.fov < math.pi or not ASPECTS[0] <= message.aspect <= ASPECTS[1]:
        raise UnusableMessageError("no camera looks so")


def _check_update(message: _messages.GuiUpdateMessage, find_control: FindControl) -> None:
    if not isinstance(message.id, str) or not isinstance(message.updates, dict):
        raise MalformedMessageError("an update names a control and its value")
    if set(message.updates) != {"value"}:
        raise MalformedMessageError("only the value of a control can be changed")
    control = find_control(message.id)
    if control is None:
        raise UnusableMessageError("no such control")
    _check_value(message.updates["value"], control)


def _check_value(value: Any, control: Control) -> None:
    """Whether a value is one that a control can have: of the type of its present one, within its range or options."""
    present = control.value
    if isinstance(present, bool):
        good = isinstance(value, bool)
    elif isinstance(present, int | float):
        good = _is_number(value)
    elif isinstance(present, str):
        good = isinstance(value, str)
    elif isinstance(present, tuple):
        good = isinstance(value, tuple) and len(value) == len(present) and all(map(_is_number, value))
    else:
        good = False
    if not good:
        raise MalformedMessageError("a value of another type than its control's")
    if isinstance(value, str):
        if len(value) > MAX_TEXT or (control.options is not None and value not in control.options):
            raise UnusableMessageError("not one of the options, or too long")
    else:
        low, high = (math.inf * sign if end is None else end for end, sign in ((control.low, -1), (control.high, 1)))
        if not all(low <= number <= high for number in (value if isinstance(value, tuple) else (value,))):
            raise UnusableMessageError("out of the control's range")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
