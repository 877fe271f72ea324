"""Every number that a command takes has a range, and what is out of it is one line before work begins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from eugen_nerf.cli import data, sdf
from eugen_nerf.cli.bench import Bench
from eugen_nerf.cli.distill import Distill
from eugen_nerf.cli.eval import EvalCommand
from eugen_nerf.cli.render import RenderCommand
from eugen_nerf.cli.roofline import RooflineCommand
from eugen_nerf.cli.speed import SpeedCommand
from eugen_nerf.cli.support.options import parse
from eugen_nerf.cli.view import ViewCommand
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import Range, check_numbers, number_settings

DATA = {"fetch": [], "check": ["x"], "photos": ["x", "--output", "y"]}
COMMANDS: dict[str, tuple[type, list[str]]] = {
    "eugen-bench": (Bench, ["x.yml"]),
    "eugen-distill": (Distill, ["--load-config", "x"]),
    "eugen-eval": (EvalCommand, ["--load-config", "x"]),
    "eugen-render": (RenderCommand, ["--load-config", "x", "--output", "x.gif"]),
    "eugen-roofline": (RooflineCommand, []),
    "eugen-speed": (SpeedCommand, []),
    "eugen-view": (ViewCommand, ["--load-config", "x"]),
    **{f"eugen-data {word}": (kind, DATA.get(word, ["--output", "x"])) for word, kind in data.COMMANDS.items()},
    **{f"eugen-sdf {word}": (kind, ["--load-config", "x"]) for word, kind in sdf.COMMANDS.items()},
}
HUGE = "1" + "0" * 400


def hint_of(kind: type, setting: str) -> Any:
    outer, _, inner = setting.partition(".")
    hint = get_type_hints(kind, include_extras=True)[outer]
    return hint_of(hint, inner) if inner else hint


def option_of(hint: Any, setting: str) -> str:
    """The option of a setting, which may have a name of its own."""
    names = (getattr(each, "name", None) for each in getattr(hint, "__metadata__", ()))
    return "--" + next((n for n in names if isinstance(n, str)), setting.rpartition(".")[2]).replace("_", "-")


def count_of(hint: Any) -> int:
    """Numbers that an option takes."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    counts = [len(get_args(k)) for k in (hint, *get_args(hint)) if get_origin(k) is tuple and ... not in get_args(k)]
    return max(counts, default=1)


def bad_values(allowed: Range) -> Iterator[str]:
    yield from ("nan", "inf", "-inf", HUGE, f"-{HUGE}", "1e999", "x", "")
    if math.isfinite(allowed.low):
        yield from (f"{math.floor(allowed.low) - 1}", "-1" if allowed.low >= 0 else f"{10 * allowed.low - 1}")
        if allowed.above:
            yield f"{allowed.low:g}"
    if math.isfinite(allowed.high):
        yield from (f"{math.ceil(allowed.high) + 1}", f"{int(allowed.high) * 1000 + 7}")
        if allowed.below:
            yield f"{allowed.high:g}"


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
