"""Errors that nothing catches."""

import sys

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
