"""Errors that nothing catches."""

import errno
import os
import sys
import threading

import pytest

from eugen_nerf.core.errors import DataError, report_uncaught_in_one_line


def test_our_errors_are_one_line_and_others_as_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: others.append(error))
    report_uncaught_in_one_line()
    hook = sys.excepthook
    report_uncaught_in_one_line()
    assert sys.excepthook is hook
    for error in (DataError("no image\n  in x: copy it"), KeyError("k")):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "error: no image in x: copy it\n"
    assert [type(error) for error in others] == [KeyError]


def test_a_full_disk_is_one_line_wherever_it_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thread of a library writes logs, and raises what it met where its work is waited for."""
    others: list[object] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: others.append(error))
    monkeypatch.setattr(threading, "excepthook", lambda arguments: others.append(arguments.exc_value))
    report_uncaught_in_one_line()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), b"runs/events")

    def run(error: Exception) -> None:
        raise error

    for error in (full, ValueError("v")):
        thread = threading.Thread(target=run, args=(error,))
        thread.start()
        thread.join()
    sys.excepthook(OSError, full, None)
    sys.excepthook(OSError, missing := FileNotFoundError(errno.ENOENT, "not there"), None)
    text = "error: No space left on device (runs/events): free some space and start again; "
    assert capsys.readouterr().err == f"{text}what was written whole is still there\n"
    assert [type(error) for error in others] == [ValueError, FileNotFoundError]
    assert others[1] is missing
