"""The address at which the viewer listens, and a server that serves only the viewer."""

from __future__ import annotations

import contextlib
import getpass
import io
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import viser
from viser.infra import _infra

from eugen_nerf.core.errors import ConfigError

LOCAL = ("127.0.0.1", "localhost", "::1")
DEFAULT_PORT = 7007


def choose_port(host: str, port: int | None) -> tuple[int, str | None]:
    """Chooses a free port.

    Args:
        host: address to listen at.
        port: the requested one; None chooses `DEFAULT_PORT`, or the next free one.

    Returns:
        The port, and a note if it is not the default.

    Raises:
        ConfigError: the requested port is in use, or the address does not belong to this machine.
    """
    wanted = DEFAULT_PORT if port is None else port
    if not 0 < wanted < 1 << 16:
        raise ConfigError(f"a port must be between 1 and 65535, not {wanted}")
    if is_free(host, wanted):
        return wanted, None
    following = next((p for p in range(wanted + 1, min(wanted + 1000, 1 << 16)) if is_free(host, p)), None)
    if following is None:
        raise ConfigError(f"no port from {wanted} on is free at {host}: choose another --port, or another --host")
    if port is not None:
        raise ConfigError(f"port {port} is in use; {following} is free: pass --port {following}")
    return following, f"port {wanted} is in use: taking {following} (--port chooses another)"


def is_free(host: str, port: int) -> bool:
    """Whether the port is free.

    Raises:
        ConfigError: the address does not belong to this machine.
    """
    try:
        family, kind, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host!r} is no address: {error.strerror or error}; take 127.0.0.1") from error
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            if error.errno == 99:
                raise ConfigError(f"--host {host} is not an address of this machine: take 127.0.0.1") from error
            return False
    return True


def address_lines(host: str, port: int, note: str | None = None) -> dict[str, str]:
    """How to open the viewer: a line for each situation, by its name."""
    local = host in LOCAL
    everywhere = host in ("0.0.0.0", "::", "")
    machine = socket.gethostname()
    shown = machine if everywhere else f"[{host}]" if ":" in host else host
    lines = {"open": f"http://{shown}:{port}"}
    if local:
        lines["from another machine"] = f"ssh -L {port}:{host}:{port} {getpass.getuser()}@{machine}"
        lines["then open there"] = f"http://localhost:{port}"
    else:
        lines["warning"] = (
            "everyone who reaches this address can use the viewer, write runs with it and see your data; "
            "leave --host out and use ssh -L instead where you can"
        )
    if note:
        lines["note"] = note
    return lines


def start_server(host: str, port: int) -> viser.ViserServer:
    """A viser server that serves only its own files, and accepts only connections of its own pages."""
    with _refusing_requests(), contextlib.redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host=host, port=port, label="eugen-view", verbose=False)

    # viser can publish a server through a tunnel, at the push of a button in any tab; the button itself has to stay,
    # because without it viser 0.2.7's page breaks in narrow windows
    def refuse(verbose: bool = True) -> None:
        for client in server.get_clients().values():
            client.add_notification("Not published", "eugen-view is not shared through a tunnel: use ssh -L")

    server.request_share_url = refuse  # type: ignore[method-assign]
    server.gui.configure_theme(show_logo=False, dark_mode=True, control_layout="collapsible", control_width="large")
    return server


Response = tuple[HTTPStatus, list[Any], bytes]


def refusal(path: str, origin: str | None, host: str | None, websocket: bool) -> Response | None:
    """The response that rejects a request outside the folder of pages, or from another site's page; None accepts it.

    viser 0.2 joins a request's path to its folder unchecked, and browsers let any page open a WebSocket to any address.
    """
    plain = unquote(path.partition("?")[0])
    if ".." in plain.split("/") or "\\" in plain or plain.startswith("//"):
        return HTTPStatus.FORBIDDEN, [], b"403"
    if websocket and origin is not None and host is not None and urlsplit(origin).netloc != host:
        return HTTPStatus.FORBIDDEN, [], b"403"
    return None


@contextlib.contextmanager
def _refusing_requests() -> Iterator[None]:
    """Within it, servers that viser starts reject requests as `refusal` says."""
    server: Any = _infra.websockets.server
    served = server.serve

    def serve(*args: Any, process_request: Callable[..., Any] | None = None, **settings: Any) -> Any:
        async def checked(path: str, headers: Any) -> Any:
            upgrade = headers.get("Upgrade", "").lower() == "websocket"
            refused = refusal(path, headers.get("Origin"), headers.get("Host"), upgrade)
            if refused is not None or process_request is None:
                return refused
            return await process_request(path, headers)

        return served(*args, process_request=checked, **settings)

    server.serve = serve
    try:
        yield
    finally:
        server.serve = served
