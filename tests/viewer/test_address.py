"""Where the viewer listens: ports, lines to type, and requests that are refused."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
import viser
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from eugen_nerf.core.errors import ConfigError
from eugen_viewer.server import address
from eugen_viewer.server.access import Access
from eugen_viewer.server.address import address_lines, choose_port, start_server


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def server() -> Iterator[viser.ViserServer]:
    server = start_server("127.0.0.1", choose_port("127.0.0.1", None)[0])
    yield server
    server.stop()


def get(port: int, path: str, more: str = "") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{more}\r\n".encode())
        return connection.recv(4096)


def test_a_port_in_use_is_named_with_the_next_that_is_free(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=rf"port {taken} is in use; \d+ is free: pass --port"):
        choose_port("127.0.0.1", taken)
    monkeypatch.setattr(address, "DEFAULT_PORT", taken)
    port, note = choose_port("127.0.0.1", None)
    assert port > taken
    assert note is not None
    assert f"port {taken} is in use: taking {port}" in note


def test_addresses_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 and 65535"):
        choose_port("127.0.0.1", 70000)
    with pytest.raises(ConfigError, match="not an address of this machine"):
        choose_port("192.0.2.7", 7007)
    with pytest.raises(ConfigError, match="no address"):
        choose_port("no such host.", 7007)


def test_lines_have_the_url_and_the_tunnel_and_a_warning_where_others_can_come_in() -> None:
    lines = address_lines("127.0.0.1", 7007)
    assert lines["open"] == "http://127.0.0.1:7007"
    assert lines["from another machine"].startswith("ssh -L 7007:127.0.0.1:7007 ")
    assert "warning" not in lines
    wide = address_lines("0.0.0.0", 7008, "a note")
    assert "everyone who has this address, with its token," in wide["warning"]
    assert address_lines("0.0.0.0", 7008, token="abc")["open"].endswith(":7008/?token=abc")
    assert wide["note"] == "a note"
    assert ":7008" in wide["open"]
    assert "0.0.0.0" not in wide["open"]


@pytest.mark.parametrize("path", ["/../../secret", "/%2e%2e/x", "//etc/passwd", "/a/..\\b"])
def test_paths_out_of_the_folder_of_pages_are_refused(path: str, server: viser.ViserServer) -> None:
    assert b"403" in get(server.get_port(), path)[:20]


def test_the_servers_own_pages_are_handed_out(server: viser.ViserServer) -> None:
    assert get(server.get_port(), "/").startswith(b"HTTP/1.1 200")
    assert b"404" in get(server.get_port(), "/absent")[:20]


def test_a_page_of_another_site_cannot_open_a_websocket(server: viser.ViserServer) -> None:
    port = server.get_port()
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\n{key}"
    assert b"403" in get(port, "/", f"{upgrade}Origin: http://elsewhere.example\r\n")[:20]
    assert b"101" in get(port, "/", f"{upgrade}Origin: http://127.0.0.1:{port}\r\n")[:20]


def test_a_name_that_came_to_point_here_is_refused(server: viser.ViserServer) -> None:
    """DNS rebinding: host and origin match, and are a stranger's."""
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    lines = f"Upgrade: websocket\r\nConnection: Upgrade\r\n{key}Origin: http://evil.example\r\n"
    with socket.create_connection(("127.0.0.1", server.get_port()), timeout=5) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: evil.example\r\n{lines}\r\n".encode())
        assert b"403" in connection.recv(4096)[:20]


def test_a_token_opens_pages_and_sockets() -> None:
    server = start_server("127.0.0.1", choose_port("127.0.0.1", None)[0], Access("127.0.0.1", "secret"))
    port = server.get_port()
    assert b"403" in get(port, "/")[:20]
    page = get(port, "/?token=secret")
    assert page.startswith(b"HTTP/1.1 200")
    cookie = re.search(rb"Set-Cookie: ([^;]+);", page)
    assert cookie is not None
    assert get(port, "/", f"Cookie: {cookie[1].decode()}\r\n").startswith(b"HTTP/1.1 200")
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{port}")
    with connect(f"ws://127.0.0.1:{port}", additional_headers={"Cookie": cookie[1].decode()}) as client:
        assert client.recv(5)
    server.stop()


def camera(**changes: object) -> bytes:
    fields = {
        "type": "ViewerCameraMessage", "wxyz": (0.7, -0.7, 0.0, 0.0), "position": (0.0, -30.0, 10.0), "fov": 0.8,
        "aspect": 1.3, "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0),
    }  # fmt: skip
    return msgspec.msgpack.encode(fields | changes)


def test_a_client_that_sends_nonsense_is_closed_and_leaves_nothing_behind(
    server: viser.ViserServer, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"ws://127.0.0.1:{server.get_port()}"
    with connect(url) as good:
        good.send(camera())
        threads = threading.active_count()
        for nonsense in (b"\xc1", "text", camera(position=("a", 0, 0)), camera(fov=float("nan")), b"x" * 100_000):
            for first in ([], [camera()]):
                with connect(url) as bad:
                    for message in [*first, nonsense]:
                        bad.send(message)
                    with pytest.raises(ConnectionClosed):
                        drain(bad)
        until(lambda: len(server.get_clients()) == 1)
        until(lambda: len(server._websock_server._client_state_from_id) == 1)
        assert threading.active_count() <= threads + 32  # viser's own pool, which is made once
        good.send(camera(fov=0.9))
        until(lambda: next(iter(server.get_clients().values())).camera.fov == 0.9)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_value_that_a_handler_cannot_use_costs_a_line(
    server: viser.ViserServer, capfd: pytest.CaptureFixture[str]
) -> None:
    slider = server.gui.add_slider("share", 0.0, 1.0, 0.1, 0.5)

    @slider.on_update
    def _(_: object) -> None:
        raise RuntimeError("no such thing")

    with connect(f"ws://127.0.0.1:{server.get_port()}") as client:
        client.send(camera())
        for value in (7, 1):
            update = {"type": "GuiUpdateMessage", "id": slider._impl.id, "updates": {"value": value}}
            client.send(msgspec.msgpack.encode(update))
        until(lambda: slider.value == 1.0)
    said = ""

    def reported() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "left out" in said

    until(reported)
    (line,) = said.splitlines()
    assert line.startswith("a message of a browser was left out: RuntimeError: no such thing (test_address.py:")


def drain(client: ClientConnection) -> None:
    while True:
        client.recv(10)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20.0
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_the_server_cannot_be_published(server: viser.ViserServer) -> None:
    assert server.request_share_url() is None
