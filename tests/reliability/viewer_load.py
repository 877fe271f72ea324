"""Table `viewer-load` of `scripts/reliability.py`: a viewer under 100 clients, half of them hostile."""

from __future__ import annotations

import contextlib
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hostile_messages import CAMERA, packed
from raw_clients import PATIENCE, Tab, frame, handshake, opened, request, until
from running_viewer import RunningViewer, running_viewer
from websockets.exceptions import ConnectionClosed, InvalidHandshake

NEVER = ("tabs lost", "images missing", "tracebacks", "over twice the time", "threads left")
GOOD, HOSTILE = 50, 50
ROUNDS, MOVES = 2, 3
"""Turns of both loads, and movements of every good client in each."""
THINK = 0.3
"""Seconds between two movements of a good client."""


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The good clients alone and among hostile ones, in turns; then what is left of all."""
    with running_viewer(folder) as viewer:
        # what is kept once there were so many clients: Python's memory, and viser's pool of at most 32 threads
        with _tabs(viewer, GOOD + HOSTILE) as tabs, _attackers(viewer, HOSTILE):
            _round(tabs)
        _wait_for_quiet(viewer)
        threads, memory = viewer.threads(), viewer.megabytes()
        alone: list[float | None] = []
        among: list[float | None] = []
        with _tabs(viewer, GOOD) as tabs:
            for _ in range(ROUNDS):
                alone += _round(tabs)
                with _attackers(viewer, HOSTILE):
                    among += _round(tabs)
            lost = sum(tab.ended for tab in tabs)
        _wait_for_quiet(viewer)
        yield _row(f"{GOOD} good clients alone", alone, GOOD, 0)
        row = _row(f"{GOOD} good ones among {HOSTILE} hostile", among, GOOD, HOSTILE)
        ratio = _median(among) / _median(alone)
        yield {**row, "over twice the time": int(ratio > 2), "times alone": f"{ratio:.2f}", "tabs lost": lost}
        yield {
            "what": "the viewer afterwards",
            "tracebacks": viewer.said().count("Traceback"),
            "threads left": max(0, viewer.threads() - threads),
            "MB before": str(memory),
            "MB after": str(viewer.megabytes()),
        }


def _row(what: str, seconds: list[float | None], good: int, hostile: int) -> dict[str, Any]:
    came = sorted(each for each in seconds if each is not None)
    return {
        "what": what,
        "clients": str(good + hostile),
        "images": len(came),
        "images missing": len(seconds) - len(came),
        "median s": f"{_median(seconds):.2f}",
        "95 % below, s": f"{came[int(0.95 * (len(came) - 1))]:.2f}",
    }


def _median(seconds: list[float | None]) -> float:
    return statistics.median(PATIENCE if each is None else each for each in seconds)


@contextlib.contextmanager
def _tabs(viewer: RunningViewer, count: int) -> Iterator[list[Tab]]:
    with contextlib.ExitStack() as stack:
        tabs = []
        for _ in range(count):
            tabs.append(stack.enter_context(Tab(viewer.port)))
            time.sleep(0.11)
        for tab in tabs:
            until(lambda tab=tab: tab.images > 0, "every tab has an image")  # type: ignore[misc]
        yield tabs


def _round(tabs: list[Tab]) -> list[float | None]:
    """Seconds from each movement to its image, of all tabs at once."""

    def moves(tab: Tab) -> list[float | None]:
        seconds = []
        for _ in range(MOVES):
            time.sleep(THINK)
            seconds.append(tab.image_after_move())
        return seconds

    with ThreadPoolExecutor(len(tabs)) as pool:
        return [each for some in pool.map(moves, tabs) for each in some]


def _wait_for_quiet(viewer: RunningViewer) -> None:
    """Returns when the number of threads no longer falls."""
    last = -1
    while last != viewer.threads():
        last = viewer.threads()
        time.sleep(3.0)


@contextlib.contextmanager
def _attackers(viewer: RunningViewer, count: int) -> Iterator[None]:
    """Hostile clients, of every kind equally many, that connect anew when they are thrown out."""
    stop = threading.Event()

    def attack(number: int) -> None:
        kind, draw = ATTACKS[number % len(ATTACKS)], random.Random(number)
        while not stop.is_set():
            with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError, EOFError):
                kind(viewer.port, stop)
            stop.wait(draw.uniform(0.2, 1.0))

    threads = [threading.Thread(target=attack, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    stop.wait(3.0)
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)


def _flood(port: int, stop: threading.Event) -> None:
    """Cameras, as many as can be sent."""
    with opened(port) as client:
        while not stop.is_set():
            for _ in range(20):
                client.send(packed(CAMERA))
            time.sleep(0.05)


def _orbit(port: int, stop: threading.Event) -> None:
    """Another camera 60 times a second, which asks for as many images."""
    with opened(port) as client:
        turn = 0
        while not stop.wait(1 / 60):
            turn += 1
            client.send(packed({**CAMERA, "position": (0.1 * (turn % 50), -30.0, 10.0)}))


def _nonsense(port: int, stop: threading.Event) -> None:
    """A camera, and then what is no message."""
    with opened(port) as client:
        client.send(packed(CAMERA))
        client.send(b"\xc1")
        while True:
            client.recv(PATIENCE)


def _large(port: int, stop: threading.Event) -> None:
    """A message of a megabyte."""
    with opened(port) as client:
        client.send(packed(CAMERA))
        client.send(b"x" * (1 << 20))
        while True:
            client.recv(PATIENCE)


def _silent(port: int, stop: threading.Event) -> None:
    """A connection without a word."""
    with opened(port):
        stop.wait(5.0)


def _half(port: int, stop: threading.Event) -> None:
    """Half a request."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
        stop.wait(5.0)


def _deaf(port: int, stop: threading.Event) -> None:
    """Moves the camera and takes nothing of what is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(handshake(port))
        for turn in range(100):
            connection.sendall(frame(2, packed({**CAMERA, "position": (0.1 * turn, -30.0, 10.0)})))
            if stop.wait(0.2):
                return


def _rebound(port: int, stop: threading.Event) -> None:
    """The page of a stranger whose name has come to point here."""
    headers = [("Host", f"evil.example:{port}"), ("Origin", f"http://evil.example:{port}")]
    request(port, headers, websocket=True)


ATTACKS: tuple[Callable[[int, threading.Event], None], ...] = (
    _flood, _orbit, _nonsense, _large, _silent, _half, _deaf, _rebound,
)  # fmt: skip
