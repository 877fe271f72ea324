"""The viewer among raw clients: what they send is refused, leaves nothing behind, and does not reach the terminal."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_messages import CAMERA, hostile_messages, packed
from raw_clients import BROKEN_FRAMES, REQUESTS, Tab, attempt, opened, request, send_broken, until
from running_viewer import copy_run

from eugen_viewer.app import Viewer
from eugen_viewer.server import admission, incoming
from eugen_viewer.server.address import choose_port
from eugen_viewer.shown_runs import open_run

POOL = 32
"""Threads that viser makes once and keeps."""
EVERY = 5
"""Of the hostile messages one in so many is sent here, all of them by `scripts/reliability.py viewer`."""


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("attacked")
    config = copy_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(admission, "NEW_PER_SECOND", 1e6)
        run = open_run(config, "dense", device="cpu", data=None)
        port = choose_port("127.0.0.1", None)[0]
        viewer = Viewer([run], host="127.0.0.1", port=port, output=folder / "out", max_size=32)
        yield viewer
        viewer.close()


@pytest.fixture
def port(viewer: Viewer) -> int:
    return viewer.server.get_port()


@pytest.fixture(autouse=True)
def nothing_left_behind(viewer: Viewer, port: int, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """After each test the viewer serves a tab, holds no session, and has printed no traceback and no control."""
    with Tab(port) as first:
        until(lambda: first.images > 0, "a first image")
    until(lambda: not viewer.sessions, "the session ends")
    before = threading.active_count()
    yield
    with Tab(port) as tab:
        assert tab.image_after_move() is not None
    until(lambda: not viewer.sessions and not viewer.server._connected_clients, "sessions end")
    until(lambda: not viewer.server._websock_server._client_state_from_id, "connections end")
    until(lambda: threading.active_count() <= before + POOL, "threads end")
    said = "".join(capfd.readouterr())
    assert "Traceback" not in said
    assert all(character.isprintable() or character == "\n" for character in said)


def test_hostile_messages_are_closed_or_left_out(viewer: Viewer, port: int) -> None:
    with Tab(port) as tab:
        until(lambda: "Save path for ns-render" in tab.controls and tab.images > 0, "the page")
        before = {label: control._impl.value for label, control in _inputs(viewer).items()}
        everything = list(hostile_messages(tab.controls))
        assert len(everything) > 500
        tried = everything[::EVERY]
        outcomes = [attempt(port, hostile) for hostile in tried]
        assert tab.image_after_move() is not None
    assert [(h.kind, h.what, o) for h, o in zip(tried, outcomes, strict=True) if h.outcome not in (None, o)] == []
    for label, control in _inputs(viewer).items():  # a mutation may be a good value
        value = control._impl.value
        assert type(value) is type(before.get(label, value))
        assert not isinstance(value, float) or math.isfinite(value)
    assert not list(viewer.output.glob("*"))


def _inputs(viewer: Viewer) -> dict[str, Any]:
    return {handle._impl.label: handle for handle in viewer.server.gui._gui_input_handle_from_id.values()}


@pytest.mark.parametrize("kind", BROKEN_FRAMES)
def test_frames_that_are_none_end_the_connection(kind: str, port: int) -> None:
    assert send_broken(port, BROKEN_FRAMES[kind])


def test_who_leaves_before_being_let_in_leaves_no_session(viewer: Viewer, port: int) -> None:
    """viser handles a first camera in a thread: the tab may be gone by then."""
    for _ in range(60):
        client = opened(port)
        client.send(packed(CAMERA))
        client.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: not viewer.sessions and not viewer.server._connected_clients, "sessions end")


def test_buttons_that_are_hammered_are_pressed_a_few_times(viewer: Viewer, port: int) -> None:
    with Tab(port) as tab:
        until(lambda: "Add camera to path" in tab.controls and tab.images > 0, "the page")
        identifier, _ = tab.controls["Add camera to path"]
        for _ in range(200):
            tab.send(packed({"type": "GuiUpdateMessage", "id": identifier, "updates": {"value": True}}))
        until(lambda: len(viewer.record_panel.path.viewpoints) >= incoming.PRESS_BURST, "some are pressed")
        assert tab.image_after_move() is not None
        assert len(viewer.record_panel.path.viewpoints) < 3 * incoming.PRESS_BURST
    viewer.record_panel.path.viewpoints.clear()


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize(("headers", "path", "let_in"), REQUESTS)
def test_names_and_pages_over_the_wire(
    headers: list[tuple[str, str]], path: str, let_in: bool, websocket: bool, port: int
) -> None:
    status = request(port, headers, path, websocket=websocket)[9:12]
    assert status == ((b"101" if websocket else b"200") if let_in else b"403")


@pytest.mark.parametrize("path", ["/assets", "/" + "x" * 300, "/%00", "/absent"])
def test_pages_that_are_none_are_not_found(path: str, port: int) -> None:
    assert request(port, [("Host", f"127.0.0.1:{port}")], path)[9:12] in (b"403", b"404")


def test_pages_are_shown_in_no_frame_and_connect_to_their_own_server(port: int) -> None:
    answer = request(port, [("Host", f"127.0.0.1:{port}")]).decode("latin1")
    (policy,) = (line for line in answer.splitlines() if line.startswith("Content-Security-Policy: "))
    assert f"connect-src 'self' data: blob: ws://127.0.0.1:{port} wss://127.0.0.1:{port};" in policy
    assert "frame-ancestors 'none'" in policy
    assert "X-Frame-Options: DENY" in answer
    assert "Referrer-Policy: same-origin" in answer
