"""Clients of the viewer that are no browsers: what they send is up to them."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from hostile_messages import CAMERA, Hostile, Outcome, packed
from viser.transforms import SO3
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0
"""Seconds for what a viewer does at once, on a machine with other work."""
END = "the end"
"""What an attempt sends last: it is text, and so closes what is still open, with a reason of its own."""
_END_REASON = "messages are binary"
_FULL = "too many connections"
"""Reason of a viewer that has had many new connections a second."""


def opened(port: int) -> ClientConnection:
    """A websocket without an origin, as programs open it."""
    return connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, open_timeout=PATIENCE, ping_interval=None)


def attempt(port: int, hostile: Hostile) -> Outcome:
    """What became of something hostile, in a connection of its own."""
    ends = not any(isinstance(frame, str) for frame in hostile.frames)
    with opened(port) as client:
        with contextlib.suppress(ConnectionClosed):
            for frame in [*([packed(CAMERA)] if hostile.hello else []), *hostile.frames, *([END] if ends else [])]:
                client.send(frame)
        try:
            while True:
                client.recv(PATIENCE)
        except ConnectionClosed as ended:
            reason = "" if ended.rcvd is None else ended.rcvd.reason
    if reason == _FULL:
        time.sleep(1.0)
        return attempt(port, hostile)
    return "left out" if ends and reason == _END_REASON else "closed"


class Tab:
    """A client that does what a browser's page does: it goes where the viewer sends it, and takes what it gets."""

    def __init__(self, port: int) -> None:
        self.images, self.ended = 0, False
        self.controls: dict[str, tuple[str, Any]] = {}
        """Identifier and value of the page's controls, by their label."""
        self._socket = opened(port)
        self._arrived = threading.Condition()
        self._camera, self._turn = dict(CAMERA), 0
        threading.Thread(target=self._read, daemon=True).start()
        self.send(packed(self._camera))

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, raw: bytes) -> None:
        """Sends a message."""
        self._socket.send(raw)

    def move(self) -> None:
        """Moves the camera, each time to another place."""
        self._turn += 1
        x, y, z = self._camera["position"]
        self.send(packed({**self._camera, "position": (x + 0.1 * self._turn, y, z)}))

    def image_after_move(self) -> float | None:
        """Seconds from a movement to the next image; None where none comes."""
        with self._arrived:
            known, start = self.images, time.monotonic()
            self.move()
            came = self._arrived.wait_for(lambda: self.images > known or self.ended, PATIENCE)
        return time.monotonic() - start if came and not self.ended else None

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for raw in self._socket:
                messages = msgspec.msgpack.decode(raw)
                moved = [self._take(message) for message in messages]
                if any(moved):
                    self.send(packed({**self._camera, "wxyz": _turned(self._camera)}))
        with self._arrived:
            self.ended = True
            self._arrived.notify_all()

    def _take(self, message: Mapping[str, Any]) -> bool:
        """Whether a message moves the camera."""
        kind = message["type"]
        if kind == "BackgroundImageMessage":
            with self._arrived:
                self.images += 1
                self._arrived.notify_all()
        elif kind.startswith("GuiAdd") and "label" in message:
            self.controls[message["label"]] = (message["id"], message.get("value", False))  # buttons have none
        elif kind in _MOVES:
            name, given = _MOVES[kind]
            self._camera[name] = message[given]
        return kind in _MOVES


_MOVES = {
    "SetCameraPositionMessage": ("position", "position"),
    "SetCameraLookAtMessage": ("look_at", "look_at"),
    "SetCameraUpDirectionMessage": ("up_direction", "position"),
    "SetCameraFovMessage": ("fov", "fov"),
}


def _turned(camera: Mapping[str, Any]) -> tuple[float, ...]:
    """The quaternion of a camera that looks at its target, its axes right, down and forward."""
    forward = np.subtract(camera["look_at"], camera["position"])
    right = np.cross(forward, camera["up_direction"])
    down = np.cross(forward, right)
    axes = np.stack([each / np.linalg.norm(each) for each in (right, down, forward)], axis=1)
    return tuple(SO3.from_matrix(axes).wxyz.tolist())


def request(port: int, headers: Sequence[tuple[str, str]], path: str = "/", *, websocket: bool = False) -> bytes:
    """The first bytes of the answer to a request with these headers, in which {port} stands for the port."""
    lines = _lines([*headers, *(_upgrade() if websocket else ())]).replace("{port}", str(port))
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin1"))
        return connection.recv(4096)


def handshake(port: int) -> bytes:
    """A request for a websocket, and a first camera."""
    lines = _lines([("Host", f"127.0.0.1:{port}"), *_upgrade()])
    return f"GET / HTTP/1.1\r\n{lines}\r\n".encode() + frame(2, packed(CAMERA))


def _upgrade() -> list[tuple[str, str]]:
    key = base64.b64encode(os.urandom(16)).decode()
    return [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key)]  # fmt: skip


def _lines(headers: Sequence[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers)


_OWN = ("Host", "127.0.0.1:{port}")
_EVIL = "http://evil.example"
REQUESTS: tuple[tuple[list[tuple[str, str]], str, bool], ...] = (
    ([_OWN], "/", True),
    ([("Host", "localhost:{port}"), ("Origin", "http://localhost:{port}")], "/", True),
    ([("host", "LOCALHOST:{port}"), ("ORIGIN", "http://localhost:{port}")], "/", True),
    ([("Host", "[::1]:{port}"), ("Origin", "http://[::1]:{port}")], "/", True),
    ([("Host", "localhost:8080"), ("Origin", "http://localhost:8080")], "/", True),  # through ssh -L 8080
    ([], "/", False),
    ([("Host", "")], "/", False),
    ([("Host", "localhost.:{port}"), ("Origin", "http://localhost.:{port}")], "/", False),
    ([("Host", "evil.example:{port}"), ("Origin", "http://evil.example:{port}")], "/", False),
    ([_OWN, ("Host", "evil.example")], "/", False),
    ([("Host", "evil.example"), _OWN], "/", False),
    ([_OWN, ("Origin", _EVIL)], "/", False),
    ([_OWN, ("Origin", "http://127.0.0.1:{port}"), ("Origin", _EVIL)], "/", False),
    ([_OWN, ("Origin", "http://127.0.0.1:80")], "/", False),
    ([_OWN, ("Origin", "null")], "/", False),
    ([("Host", "loc\talhost:{port}")], "/", False),
    ([("Host", "localhost:{port}?.evil.example")], "/", False),
    ([_OWN], "/?websocket=ws://evil.example", False),
    ([_OWN], "/?a&%70laybackPath=http://evil.example/x", False),
    ([_OWN], "/../../../../etc/passwd", False),
    ([_OWN], "//etc/passwd", False),
)
"""Headers and path of requests, and whether a viewer on 127.0.0.1 lets them in."""


def frame(opcode: int, content: bytes, *, masked: bool = True, first: int = 0x80) -> bytes:
    """A frame of a websocket (RFC 6455, Sec. 5.2)."""
    size = len(content)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
    head = bytes([first | opcode, length[0] | (0x80 if masked else 0)]) + length[1:]
    return head + (b"\0\0\0\0" if masked else b"") + content


BROKEN_FRAMES = {
    "not masked": frame(2, packed(CAMERA), masked=False),
    "reserved opcode": frame(11, b"x"),
    "reserved bit": frame(2, b"x", first=0xF0),
    "continuation of nothing": frame(0, b"x"),
    "long ping": frame(9, b"x" * 200),
    "close of one byte": frame(8, b"x"),
    "close that is not UTF-8": frame(8, struct.pack(">H", 1000) + b"\xff\x1b[2J"),
    "close of an unknown code": frame(8, struct.pack(">H", 7) + b"\x1b]0;x\x07"),
    "text that is not UTF-8": frame(1, b"\xff\xfe\x1b[2J"),
    "no frame": b"\x1b[31mGET / HTTP/1.1\r\n\r\n",
    "70,000 pieces": frame(2, b"", first=0) * 70_000,
}
"""Bytes in place of frames, after a handshake and a camera."""


def send_broken(port: int, content: bytes) -> bool:
    """Sends bytes after a handshake and a camera; whether the viewer ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        try:
            connection.sendall(handshake(port) + content)
            while connection.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True


def until(true: Callable[[], bool], what: str) -> None:
    """Waits for something to be so.

    Raises:
        AssertionError: it did not come to be.
    """
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"after {PATIENCE:g} s, not yet: {what}"
        time.sleep(0.05)
