"""Who may connect to the viewer: names, pages and tokens."""

import socket
from http import HTTPStatus

import pytest

from eugen_viewer.server.access import COOKIE, Access

LOCAL = Access("127.0.0.1", None)
OPEN = Access("0.0.0.0", "secret")


@pytest.mark.parametrize("host", ["127.0.0.1:7007", "localhost:7007", "LOCALHOST:8", "localhost", "[::1]:7007"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_loopback_names_and_their_own_pages_are_let_in(host: str, scheme: str) -> None:
    assert LOCAL.refusal("/", {"Host": host}) is None
    assert LOCAL.refusal("/", {"Host": host, "Origin": f"{scheme}://{host}"}) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example:7007", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example@localhost", "10.0.0.3:7007",
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
