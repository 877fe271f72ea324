"""Who may use the viewer: names it is reached by, pages that may open its socket, a token beyond this machine."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, unquote

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
EVERYWHERE = frozenset({"0.0.0.0", "::", ""})
COOKIE = "eugen_view"
REDIRECTING = frozenset({"websocket", "playbackPath"})
"""Queries by which viser's page takes its messages, which may hold scripts, from another server or file."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)

Response = tuple[HTTPStatus, list[tuple[str, str]], bytes]
"""Status, headers and body."""


@dataclass(frozen=True)
class Access:
    """Who may connect to a server that listens at an address.

    A browser lets any page open a socket to any address, and a name that a stranger owns can come to point at this
    machine (DNS rebinding). So requests have to name the server as its user does, and sockets have to come from its own
    pages. Where others can reach the address, they need the token of the address that was printed.

    Attributes:
        host: address that the server listens at.
        token: what a request has to bring, in its address or as a cookie; None where only this machine can connect.
    """

    host: str
    token: str | None = field(repr=False)

    @classmethod
    def to(cls, host: str) -> Access:
        """Access to an address: with a new token unless it is a loopback address."""
        return cls(host, None if host in LOOPBACK else secrets.token_urlsafe(16))

    def allows_name(self, host: str | None) -> bool:
        """Whether a `Host` header, with or without a port, names this server as its users do."""
        name = _name(host)
        if name is None:
            return False
        if name in LOOPBACK:
            return self.host in LOOPBACK | EVERYWHERE
        if self.host in EVERYWHERE:
            return _is_address(name) or name == socket.gethostname().lower()  # no stranger's name is an address
        return name == self.host.lower()

    def allows_token(self, path: str, cookies: str | None) -> bool:
        """Whether a request brings the token, in its address (`?token=`) or as the cookie that it was given there."""
        if self.token is None:
            return True
        given = _query(path).get("token", [])
        try:
            kept = SimpleCookie(cookies or "").get(COOKIE)
        except CookieError:
            kept = None
        given += [] if kept is None else [kept.value]
        return any(hmac.compare_digest(each.encode(), self.token.encode()) for each in given)

    def refusal(self, path: str, headers: Mapping[str, str]) -> Response | None:
        """What a request is refused with; None where it is let in.

        Args:
            path: of the request, with its query.
            headers: of the request.
        """
        plain = unquote(path.partition("?")[0])
        host, origin, cookies = (_single(headers, name) for name in ("Host", "Origin", "Cookie"))
        # viser 0.2 joins the path of a request to a folder as it comes, dots and all
        if ".." in plain.split("/") or "\\" in plain or "\0" in plain or not plain.startswith("/") or plain[1:2] == "/":
            return _refused("no such page")
        if REDIRECTING & set(_query(path)):
            return _refused("this page takes its messages from its own server alone")
        if not self.allows_name(host):
            return _refused("this server is not called so: open the address that eugen-view printed")
        own = (f"http://{host}".lower(), f"https://{host}".lower())  # the latter behind a proxy
        if origin is not None and origin.lower() not in own:
            return _refused("pages of other servers are not let in")
        if not self.allows_token(path, cookies):
            return _refused("open the address that eugen-view printed, with its token")
        return None

    def cookie(self) -> list[tuple[str, str]]:
        """Headers that keep the token in the browser: pages of other servers do not send it, scripts do not see it."""
        if self.token is None:
            return []
        return [("Set-Cookie", f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/")]


def page_limits(host: str | None) -> list[tuple[str, str]]:
    """Headers by which a browser keeps a page to itself: in no frame of others, connected to its own server alone.

    Args:
        host: the `Host` header of the request; one that `Access` let in.
    """
    sockets = "" if host is None else f" ws://{host} wss://{host}"
    policy = f"connect-src 'self' data: blob:{sockets}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    return [
        ("Content-Security-Policy", policy),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "same-origin"),  # the address of the page has the token
        ("X-Content-Type-Options", "nosniff"),
    ]


def _refused(reason: str) -> Response:
    return HTTPStatus.FORBIDDEN, [("Content-Type", "text/plain; charset=utf-8")], f"403: {reason}\n".encode()


def _single(headers: Mapping[str, str], name: str) -> str | None:
    """A header's value; None where there is none, empty (which is refused) where there are several."""
    try:
        return headers.get(name)
    except LookupError:  # of the headers of websockets
        return ""


def _query(path: str) -> dict[str, list[str]]:
    return parse_qs(path.partition("?")[2], keep_blank_values=True)


def _name(host: str | None) -> str | None:
    """The name in a `Host` header, in lower case and without port and brackets; None where there is none."""
    found = _HOST.fullmatch((host or "").lower())
    return found and found[1].strip("[]")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
