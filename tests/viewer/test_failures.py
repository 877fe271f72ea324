"""What the terminal says of failures that clients can cause: a line, in printable characters, not too often."""

import pytest

from eugen_viewer.server import failures
from eugen_viewer.server.failures import MAX_CHARACTERS, one_line, report_failure


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_written", [])


def raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_a_failure_is_one_line_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    report_failure("a change was left out", raised("no\nsuch\r\n  thing"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("a change was left out: ValueError: no such thing (test_failures.py:")


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;title\x07", "\u202eevil", "\u2028", "\x00", "\ud800", "\x9b31m"])
def test_control_characters_of_a_client_do_not_reach_the_terminal(text: str) -> None:
    line = one_line(raised(f"a{text}b"))
    assert line.isprintable()
    line.encode()


def test_a_long_text_is_cut() -> None:
    assert len(one_line(raised("x" * 100_000))) < MAX_CHARACTERS + 100


def test_a_flood_of_failures_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(1000):
        report_failure("a message was left out", raised("x"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == failures.LINES_PER_MINUTE + 1
    assert "further lines are left out" in lines[-1]
