"""What browsers send, checked before viser acts on it: a raw client is not a browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

from eugen_viewer.server.messages import (
    CameraReport,
    ControlUpdate,
    FindControl,
    MalformedMessageError,
    PageMessage,
    UnusableMessageError,
    check_message,
)

MAX_CONNECTIONS = 128
"""Tabs and other clients at a time; each has a thread that renders."""
MAX_MESSAGE_BYTES = 1 << 16
"""Of one message: a browser's are below a kilobyte."""
MESSAGES_PER_SECOND = 100.0
"""That a client may send for long; viser's page sends at most 50 cameras and 20 values of a control a second."""
BURST = 400
"""Messages that it may send at once."""
CAMERA_SECONDS = 1 / 30
"""Between two cameras of a tab that are handled; of those between, the last one is, when it is due."""
CAMERAS_PER_SECOND = 240.0
"""That are handled of all tabs together: with many, each has to wait longer between two."""
PRESSES_PER_SECOND = 2.0
"""Of buttons, which start work or write files; further ones are left out."""
PRESS_BURST = 8
"""Presses at once."""
CLOSE_SECONDS = 2.0
"""For a client to agree to the end of its connection; a hostile one does not."""
HELLO_SECONDS = 30.0
"""In which a client has to send its first message."""
IDLE_SECONDS = 3600.0
"""After which a client without a message is let go; a browser's tab connects anew by itself."""

_POLICY, _TRY_AGAIN, _GOING_AWAY, _TOO_BIG = 1008, 1013, 1001, 1009
"""Codes of a closed socket, RFC 6455 (Sec. 7.4.1)."""
_connection_tasks: ContextVar[WeakSet[asyncio.Future[Any]] | None] = ContextVar("connection_tasks", default=None)
"""What runs for the connection of the present task; None outside of one."""


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
        thrown_out: called for each connection that is ended for what it sent.
    """

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[None]],
        find_control: FindControl,
        thrown_out: Callable[[], None] = lambda: None,
    ) -> None:
        self.handler, self.find_control, self._thrown_out = handler, find_control, thrown_out
        self.open = 0

    async def __call__(self, websocket: Any) -> None:
        """Serves a connection until it ends, and leaves no task of it behind."""
        if self.open >= MAX_CONNECTIONS:
            await websocket.close(_TRY_AGAIN, "too many connections")
            return
        self.open += 1
        websocket.recv = self._checked(websocket)
        tasks: WeakSet[asyncio.Future[Any]] = WeakSet()
        _connection_tasks.set(tasks)
        asyncio.get_running_loop().set_task_factory(_remember_task)
        try:
            await self.handler(websocket)
        finally:
            self.open -= 1
            # viser's senders of a connection that has ended wait for a next message to all, its timers for ever
            for task in list(tasks):
                task.cancel()

    def _checked(self, websocket: Socket) -> Callable[[], Awaitable[bytes]]:
        """`recv` of a connection, which closes it at the first message that no browser sends."""
        receive, limit, presses = websocket.recv, RateLimit(), RateLimit(PRESSES_PER_SECOND, PRESS_BURST)
        first, introduced = True, False
        held: bytes | None = None
        due = 0.0

        async def refuse(code: int, reason: str) -> NoReturn:
            self._thrown_out()
            await websocket.close(code, reason)
            while True:  # over what had arrived before, until it raises that the connection is closed
                await receive()

        async def checked() -> bytes:
            nonlocal first, introduced, held, due
            while True:
                patience = HELLO_SECONDS if first else IDLE_SECONDS
                try:
                    raw = await asyncio.wait_for(receive(), patience if held is None else due - time.monotonic())
                except asyncio.TimeoutError:
                    if held is not None:
                        camera, held, due = held, None, time.monotonic() + self._camera_seconds()
                        return camera
                    await refuse(_GOING_AWAY, "nothing was sent for long")
                first = False
                if not isinstance(raw, bytes):
                    await refuse(_POLICY, "messages are binary")
                if len(raw) > MAX_MESSAGE_BYTES:
                    await refuse(_TOO_BIG, f"a message has at most {MAX_MESSAGE_BYTES} bytes")
                if not limit.take():
                    await refuse(_POLICY, f"at most {MESSAGES_PER_SECOND:g} messages a second")
                try:
                    message = check_message(raw, self.find_control)
                except UnusableMessageError:
                    continue
                except MalformedMessageError as error:
                    await refuse(_POLICY, str(error)[:100])
                introduced = introduced or isinstance(message, CameraReport)
                if not introduced:  # viser knows no tab before its first camera
                    continue
                if isinstance(message, CameraReport):
                    if time.monotonic() < due:
                        held = raw
                        continue
                    held, due = None, time.monotonic() + self._camera_seconds()
                if not self._is_button(message) or presses.take():
                    return raw

        return checked

    def _camera_seconds(self) -> float:
        return max(CAMERA_SECONDS, self.open / CAMERAS_PER_SECOND)

    def _is_button(self, message: PageMessage) -> bool:
        control = self.find_control(message.id) if isinstance(message, ControlUpdate) else None
        return control is not None and control.button


def _remember_task(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
    """Makes a task, as the loop does, and notes for which connection."""
    task = asyncio.Task(coro, loop=loop, **more)
    tasks = _connection_tasks.get()
    if tasks is not None:
        tasks.add(task)
    return task
