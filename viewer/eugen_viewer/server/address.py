"""The address at which the viewer listens, and a server that serves only the viewer."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import io
import logging
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import viser
from viser import _messages
from viser.infra import _infra

from eugen_nerf.core.errors import ConfigError
from eugen_viewer.server.access import LOOPBACK, Access, page_limits
from eugen_viewer.server.admission import Admission
from eugen_viewer.server.failures import report_failure
from eugen_viewer.server.incoming import CLOSE_SECONDS, MAX_MESSAGE_BYTES, IncomingGuard, RateLimit
from eugen_viewer.server.messages import Control, FindControl

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


def address_lines(host: str, port: int, note: str | None = None, *, token: str | None = None) -> dict[str, str]:
    """How to open the viewer: a line for each situation, by its name."""
    local = host in LOOPBACK
    everywhere = host in ("0.0.0.0", "::", "")
    machine = socket.gethostname()
    shown = machine if everywhere else f"[{host}]" if ":" in host else host
    lines = {"open": f"http://{shown}:{port}" + ("" if token is None else f"/?token={token}")}
    if local:
        lines["from another machine"] = f"ssh -L {port}:{host}:{port} {getpass.getuser()}@{machine}"
        lines["then open there"] = f"http://localhost:{port}"
    else:
        lines["warning"] = (
            "everyone who has this address, with its token, can use the viewer, write runs and see your data; "
            "leave --host out and use ssh -L instead where you can"
        )
    if note:
        lines["note"] = note
    return lines


def start_server(host: str, port: int, access: Access | None = None) -> viser.ViserServer:
    """A viser server that serves its own files alone, to those whom `access` lets in.

    Args:
        host: address to listen at.
        port: a free one.
        access: who may connect; `Access.to(host)` by default.
    """
    started: list[viser.ViserServer] = []

    def find_control(identifier: str) -> Control | None:
        return _control(started[0], identifier)

    # a handshake that fails is the client's fault: websockets would print a traceback of each
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    _infra.error_print_wrapper = _report_in_one_line
    with _guarded(access or Access.to(host), find_control), contextlib.redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host=host, port=port, label="eugen-view", verbose=False)
    started.append(server)
    server.on_client_connect(_forget_if_gone)

    # viser can publish a server through a tunnel, at the push of a button in any tab; the button itself has to stay,
    # because without it viser 0.2.7's page breaks in narrow windows
    seldom = RateLimit(rate=0.2, burst=1)

    def refuse(verbose: bool = True) -> None:
        for client in server.get_clients().values() if seldom.take() else ():
            client.add_notification("Not published", "eugen-view is not shared through a tunnel: use ssh -L")

    server.request_share_url = refuse  # type: ignore[method-assign]
    server.gui.configure_theme(show_logo=False, dark_mode=True, control_layout="collapsible", control_width="large")
    return server


def has_left(client: viser.ClientHandle) -> bool:
    """Whether a tab was closed before its first camera was handled: viser then reports its arrival, and no end."""
    return client._websock_connection._state.message_buffer.done


def _forget_if_gone(client: viser.ClientHandle) -> None:
    if has_left(client):  # viser holds its lock while it calls this
        client._viser_server._connected_clients.pop(client.client_id, None)


def _control(server: viser.ViserServer, identifier: str) -> Control | None:
    """A control of the page. viser keeps the ranges of sliders in the message alone that added them to the page."""
    handle: Any = server.gui._gui_input_handle_from_id.get(identifier)
    if handle is None:
        return None
    sent = list(server._websock_server._broadcast_buffer.message_from_id.values())
    additions = (each for each in sent if isinstance(each, _messages._GuiAddInputBase))
    added = next((each for each in additions if each.id == identifier), None)
    low, high = getattr(added, "min", None), getattr(added, "max", None)
    state = handle._impl
    return Control(state.value, low, high, getattr(handle, "options", None), button=state.is_button)


@contextlib.contextmanager
def _guarded(access: Access, find_control: FindControl) -> Iterator[None]:
    """Within it, servers that viser starts let in whom `access` does, and see what browsers send alone."""
    server: Any = _infra.websockets.server
    served, admission = server.serve, Admission()

    def serve(handler: Any, *args: Any, process_request: Callable[..., Any], **settings: Any) -> Any:
        async def checked(path: str, headers: Any) -> Any:
            refused = access.refusal(path, headers)
            if refused is not None:
                return refused
            try:
                page = await process_request(path, headers)
            except Exception:  # a folder, a name too long, a header twice: viser checks nothing
                return HTTPStatus.NOT_FOUND, [], b"404"
            if page is None:
                wait = admission.wait()
                if wait is None:
                    return HTTPStatus.SERVICE_UNAVAILABLE, [], b"too many new connections: try again in some seconds"
                await asyncio.sleep(wait)
                return None
            status, given, body = page
            return status, [*dict(given).items(), *page_limits(headers["Host"]), *access.cookie()], body

        settings |= {"max_size": MAX_MESSAGE_BYTES, "close_timeout": CLOSE_SECONDS}
        asyncio.get_event_loop().set_exception_handler(_report_of_loop)
        return served(
            IncomingGuard(handler, find_control, admission.punish), *args, process_request=checked, **settings
        )

    server.serve = serve
    try:
        yield
    finally:
        server.serve = served


def _report_of_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Takes the place of asyncio's traceback, as of a connection for which no file is left."""
    error = context.get("exception")
    report_failure("the viewer's server", error if isinstance(error, Exception) else RuntimeError(context["message"]))


def _report_in_one_line(inner: Callable[[], Any]) -> Callable[[], None]:
    """What viser wraps its handlers in: a message that one of them cannot handle costs a line, not a traceback."""

    def handle() -> None:
        try:
            inner()
        except Exception as error:
            report_failure("a message of a browser was left out", error)

    return handle
