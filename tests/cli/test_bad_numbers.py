"""Every number that a command takes has a range, and what is out of it is one line before work begins."""

from __future__ import annotations

from dataclasses import fields

import pytest
from bad_options import COMMANDS, bad_values, count_of, hint_of, option_of

from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import check_numbers, number_settings


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_has_a_range_that_its_default_is_in(command: str) -> None:
    kind, required = COMMANDS[command]
    assert [name for name, allowed in number_settings(kind) if allowed is None] == []
    words = required if fields(kind) else []
    parse(kind, command, words)


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_out_of_range_end_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind, required = COMMANDS[command]
    for setting, allowed in number_settings(kind):
        assert allowed is not None
        hint = hint_of(kind, setting)
        for value in ("nan", list(bad_values(allowed))[-1]):
            words = [*required, option_of(hint, setting), *[value] * count_of(hint)]
            with pytest.raises((ConfigError, SystemExit)) as caught:
                print(parse(kind, command, words), "of", command, words)
            if isinstance(caught.value, SystemExit):
                assert caught.value.code == 2, words
            else:
                assert "\n" not in str(caught.value)
                assert len(str(caught.value)) < 300
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("command", COMMANDS)
def test_no_number_out_of_its_range_is_accepted(command: str) -> None:
    """All values, without the command line's parser, which takes most of the time."""
    kind, required = COMMANDS[command]
    made = parse(kind, command, required)
    for setting, allowed in number_settings(kind):
        assert allowed is not None
        outer, _, inner = setting.partition(".")
        target, name = (getattr(made, outer), inner) if inner else (made, outer)
        before, hint = getattr(target, name), hint_of(kind, setting)
        for text in bad_values(allowed):
            try:
                value = float(text) if "float" in str(hint) else int(text)
            except ValueError:
                continue  # the parser's business
            many = isinstance(before, tuple) or "tuple" in str(hint)
            object.__setattr__(target, name, (value,) * count_of(hint) if many else value)
            with pytest.raises(ConfigError, match=option_of(hint, setting)):
                check_numbers(made)
        object.__setattr__(target, name, before)
    check_numbers(made)
