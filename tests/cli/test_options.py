"""Command lines of dataclasses: what options accept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from eugen_nerf.cli.support.options import parse


@dataclass
class _Command:
    """A command."""

    places: tuple[Path, ...] = ()
    """Any number."""
    share: float | None = 0.5
    """A number or none."""
    place: Path | None = None
    """A path or none."""
    box: tuple[float, float] | None = None
    """Two numbers or none."""
    named: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Has a word of its own for its value."""
    count: int = 3
    """A number."""


def parsed(*words: str) -> _Command:
    command = parse(_Command, "command", words)
    assert isinstance(command, _Command)
    return command


def test_none_is_a_value_of_what_may_be_none() -> None:
    words = ("--share", "None", "--place", "None", "--box", "None", "--named", "None")
    assert parsed(*words) == _Command(share=None)
    assert parsed() == _Command(share=0.5)
    assert parsed("--share", "2", "--place", "a", "--box", "1", "2", "--named", "4") == _Command(
        share=2.0, place=Path("a"), box=(1.0, 2.0), named=4
    )


@pytest.mark.parametrize("words", [("--count", "None"), ("--share", "nothing"), ("--box", "1")])
def test_other_words_are_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*words)
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_help_says_what_a_value_is_and_not_that_it_may_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    text = capsys.readouterr().out
    for option in ("--share FLOAT", "--place PATH", "--box FLOAT FLOAT", "--named N", "--count INT"):
        assert option in text
    assert "None" not in text
