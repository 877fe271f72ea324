"""Wrong inputs of every command, a few of each; `python scripts/reliability.py inputs` tries all of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from bad_options import COMMANDS
from command_inputs import all_inputs, outcome, prepare, typed
from forked_commands import Ended, run

from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.errors import ConfigError

WORDS = {"eugen-data": 2, "eugen-sdf": 2}


def test_every_command_has_wrong_inputs_of_its_own_and_there_are_a_thousand(tmp_path: Path) -> None:
    prepare(tmp_path)
    tries = list(all_inputs(tmp_path))
    assert len(tries) >= 1000
    assert len({tuple(words) for words in tries}) == len(tries)
    commands = {" ".join(words[:2]) for words in tries} | {words[0] for words in tries}
    assert {typed(entry) for entry in COMMANDS} <= commands


def test_names_and_choices_are_refused_before_a_command_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: parsing alone, which is where they are refused."""
    from command_inputs import _names_and_choices

    prepare(tmp_path)
    seen = set()
    for words in _names_and_choices(tmp_path / "w"):
        option = (*words[:2], words[-1].partition("=")[0])
        entry = next(entry for entry in COMMANDS if words[: len(typed(entry).split())] == typed(entry).split())
        if option in seen or entry == "eugen-bench":
            continue  # one value each: all are tried by the script
        if entry in ("eugen-render", "eugen-view", "eugen-web") and words[-1].endswith("=maybe"):
            continue  # read as the path of a bundle, and refused as none when the command runs
        seen.add(option)
        with pytest.raises((ConfigError, SystemExit)) as caught:
            parse(COMMANDS[entry][0], entry, words[len(typed(entry).split()) :])
        assert "\n" not in str(caught.value)
    assert len(seen) > 20
    assert "Traceback" not in "".join(capsys.readouterr())


def test_some_are_typed_as_a_user_types_them(tmp_path: Path) -> None:
    """In processes of their own, which are forked from this one: those that end before anything heavy is imported."""
    prepare(tmp_path)
    light = [words for words in all_inputs(tmp_path) if words[0] in ("eugen-bench", "eugen-data", "eugen-render")]
    for words in itertools.islice(light, 0, None, max(1, len(light) // 12)):
        assert outcome(run(words, tmp_path / "w", warmed=False), words) == "clear"


@pytest.mark.parametrize(
    ("ended", "what"),
    [
        (Ended(1, "", "error: no run\n"), "clear"),
        (Ended(1, "", "a bar\nerror: no run\n"), "clear"),
        (Ended(2, "", "Parsing error"), "clear"),
        (Ended(1, "", "Traceback (most recent call last)\nerror: x\n"), "traceback"),
        (Ended(-11, "", ""), "traceback"),
        (Ended(0, "wrote x", ""), "nonsense"),
        (Ended(1, "", ""), "unclear"),
        (Ended(3, "", "something"), "unclear"),
    ],
)
def test_what_became_of_a_command_is_told_apart(ended: Ended, what: str) -> None:
    assert outcome(ended, ["eugen-x"]) == what
