"""Where the viewer listens: ports, lines to type, and requests that are refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import viser

from eugen_nerf.core.errors import ConfigError
from eugen_viewer import address
from eugen_viewer.address import address_lines, choose_port, refusal, start_server


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
    assert "everyone who reaches this address" in wide["warning"]
    assert wide["note"] == "a note"
    assert ":7008" in wide["open"]
    assert "0.0.0.0" not in wide["open"]


@pytest.mark.parametrize("path", ["/../../secret", "/%2e%2e/x", "//etc/passwd", "/a/..\\b"])
def test_paths_out_of_the_folder_of_pages_are_refused(path: str, server: viser.ViserServer) -> None:
    assert refusal(path, None, None, False) is not None
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


def test_the_server_cannot_be_published(server: viser.ViserServer) -> None:
    assert server.request_share_url() is None
