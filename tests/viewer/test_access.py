"""Who may connect to the viewer: names, pages and tokens."""

import socket
from http import HTTPStatus

import pytest

from eugen_viewer.server import access as access_module
from eugen_viewer.server.access import COOKIE, Access, page_limits

LOCAL = Access("127.0.0.1", None)
OPEN = Access("0.0.0.0", "secret")


@pytest.mark.parametrize("host", ["127.0.0.1:7007", "localhost:7007", "LOCALHOST:8", "localhost", "[::1]:7007"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_loopback_names_and_their_own_pages_are_let_in(host: str, scheme: str) -> None:
    assert LOCAL.refusal("/", {"Host": host}) is None
    assert LOCAL.refusal("/", {"Host": host, "Origin": f"{scheme}://{host}"}) is None


@pytest.mark.parametrize(
    "host",
    ["localhost.:7007", "local\thost", "localhost?.evil.example", "localhost#evil.example", "localhost:7007:80",
     "evil.example:7007", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example@localhost", "10.0.0.3:7007",
     "[::1", "", "127.1:7007", "0.0.0.0:7007", None],
)  # fmt: skip
def test_other_names_are_refused_even_where_the_origin_matches(host: str | None) -> None:
    """DNS rebinding: a stranger's page whose name has come to point at this machine."""
    headers = {} if host is None else {"Host": host, "Origin": f"http://{host}"}
    refused = LOCAL.refusal("/", headers)
    assert refused is not None
    assert refused[0] == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://localhost:7008", "null", "http://localhost", "file://", "http://localhost:7007@evil",
     "http://[bad"],
)  # fmt: skip
def test_pages_of_other_servers_are_refused(origin: str) -> None:
    try:
        refused = LOCAL.refusal("/", {"Host": "localhost:7007", "Origin": origin})
    except ValueError:
        pytest.fail("a malformed origin ends in an exception")
    assert refused is not None


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/x", "//etc/passwd", "/a\\b", "/%00", "relative", ""])
def test_paths_out_of_the_pages_are_refused(path: str) -> None:
    assert LOCAL.refusal(path, {"Host": "localhost:7007"}) is not None


@pytest.mark.parametrize(
    "query", ["websocket=ws://evil.example", "a=1&playbackPath=x", "%77ebsocket=ws://evil.example", "playbackPath="]
)
def test_the_page_cannot_be_pointed_at_another_server(query: str) -> None:
    """viser's page would run the scripts of that server as its own."""
    for access in (LOCAL, OPEN):
        assert access.refusal(f"/?token=secret&{query}", {"Host": "localhost:7007"}) is not None
    assert LOCAL.refusal("/?darkMode", {"Host": "localhost:7007"}) is None


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(access_module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    assert not OPEN.allows_token("/?token=sec", f"{COOKIE}=wrong")
    assert compared == [(b"sec", b"secret"), (b"wrong", b"secret")]


def test_pages_do_not_hand_on_their_address_and_stand_in_no_frame() -> None:
    limits = dict(page_limits("localhost:7007"))
    assert limits["Referrer-Policy"] == "same-origin"
    assert limits["X-Frame-Options"] == "DENY"
    assert (
        "connect-src 'self' data: blob: ws://localhost:7007 wss://localhost:7007;" in limits["Content-Security-Policy"]
    )


def test_others_need_the_token_and_keep_it_as_a_cookie() -> None:
    headers = {"Host": "192.168.1.7:7007"}
    assert OPEN.refusal("/", headers) is not None
    assert OPEN.refusal("/?token=wrong", headers) is not None
    assert OPEN.refusal("/?token=secret", headers) is None
    name, value = OPEN.cookie()[0]
    assert name == "Set-Cookie"
    assert "HttpOnly" in value
    assert "SameSite=Strict" in value
    assert OPEN.refusal("/", {**headers, "Cookie": f"other=1; {COOKIE}=secret"}) is None
    assert OPEN.refusal("/", {**headers, "Cookie": f"{COOKIE}=secre"}) is not None
    assert OPEN.refusal("/?token=%C3%A9", headers) is not None
    assert LOCAL.cookie() == []


def test_an_open_server_is_called_by_an_address_or_this_machines_name() -> None:
    for host in ("10.1.2.3:7007", "[fe80::1]:7007", f"{socket.gethostname()}:7007", "localhost:7007"):
        assert OPEN.refusal("/?token=secret", {"Host": host}) is None, host
    assert OPEN.refusal("/?token=secret", {"Host": "evil.example:7007"}) is not None


def test_a_named_host_is_called_by_its_name_alone() -> None:
    access = Access("box.lan", "t")
    assert access.refusal("/?token=t", {"Host": "BOX.lan:7007"}) is None
    assert access.refusal("/?token=t", {"Host": "localhost:7007"}) is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_addresses_need_no_token(host: str) -> None:
    assert Access.to(host).token is None


def test_tokens_are_new_each_time_and_not_in_the_text_of_the_object() -> None:
    first, second = Access.to("0.0.0.0"), Access.to("0.0.0.0")
    assert first.token is not None
    assert first.token != second.token
    assert len(first.token) >= 20
    assert first.token not in repr(first)
