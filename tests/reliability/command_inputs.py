"""Wrong inputs of every command, for `scripts/reliability.py`: numbers, names, places, files, suites, data sets.

Each is wrong, so a command that ends well with one has used nonsense.
"""

from __future__ import annotations

import shutil
import typing
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin

from bad_options import COMMANDS, bad_values, count_of, hint_of, option_of
from broken_files import broken_data_sets, broken_runs, broken_suites, config_of
from forked_commands import Ended, run
from mutated_files import GOLDEN

from eugen_nerf.core.checks.names import is_name
from eugen_nerf.core.ranges import number_settings

NEVER = ("tracebacks", "nonsense", "unclear")
NAMES = ("../../up", "..", "/tmp/up", "a/b", "a\\b", "", "a\nb", "\x1b[2J", "x" * 300, "\u00e4" * 150, " ", "\udcff")
SUFFIXES = {
    "eugen-render": ".gif",
    "eugen-web": ".html",
    "eugen-sdf mesh": ".ply",
    "eugen-sdf slice": ".png",
    "eugen-sdf volume": ".npz",
}
"""Of what a command writes, where it is a file; of all others it is a folder, but for tables of figures."""
FILES = (*SUFFIXES, "eugen-bench speed", "eugen-bench roofline")
VALUES_EACH = 5
"""Of one number, at most."""
RUN = (
    "eugen-distill",
    "eugen-eval",
    "eugen-render",
    "eugen-sdf mesh",
    "eugen-sdf slice",
    "eugen-sdf evaluate",
    "eugen-view",
    "eugen-web",
)


def rows(folder: Path, most: int = 1 << 30) -> Iterator[dict[str, object]]:
    """A row for each command, of at most so many tries. `folder` is empty."""
    prepare(folder)
    inputs: dict[str, list[list[str]]] = {}
    for words in all_inputs(folder):
        name = " ".join(words[:2]) if words[0] in ("eugen-data", "eugen-sdf") else words[0]
        inputs.setdefault(name, []).append(words)
    for name, tries in ((name, tries[:most]) for name, tries in inputs.items()):
        counts = Counter(outcome(run(words, folder / "w"), words) for words in tries)
        yield {
            "what": f"`{name}`",
            "tries": len(tries),
            "refused in one line": counts["clear"],
            "tracebacks": counts["traceback"],
            "nonsense": counts["nonsense"],
            "unclear": counts["unclear"],
        }


def outcome(ended: Ended, words: list[str]) -> str:
    """clear, traceback, nonsense (it ended well), or unclear; what is not clear is printed."""
    if ended.traceback:
        found = "traceback"
    elif ended.status == 0:
        found = "nonsense"
    else:
        found = "clear" if ended.clear else "unclear"
    if found != "clear":
        print(f"{found}: {' '.join(words)!a:.300}: {ended.status}: {(ended.errors or ended.output)[-600:]}", flush=True)
    return found


def prepare(folder: Path) -> None:
    """Whole runs and data sets, from which broken ones are made, and places where nothing can be written."""
    work = folder / "w"
    work.mkdir()
    for name in ("runs", "data"):
        shutil.copytree(GOLDEN / name, work / name)
    (work / "file").write_text("a file")
    (work / "full").mkdir()
    (work / "full" / "something").touch()


def all_inputs(folder: Path) -> Iterator[list[str]]:
    """The words of every try, as they are typed in the folder `w` below."""
    work = folder / "w"
    yield from _numbers(work)
    yield from _names_and_choices(work)
    yield from _outputs(work)
    yield from _runs(work)
    yield from _suites(work)
    yield from _data_sets(work)


def base_words(command: str, work: Path, config: str = "") -> list[str]:
    """A command that would work."""
    isdf = command.startswith("eugen-sdf")
    own = config or config_of(work, "isdf-factors" if isdf else "nerf-dense")
    words = command.split()
    if command in ("eugen-bench speed", "eugen-bench roofline"):
        return words
    if command == "eugen-bench":
        return [*words, "suite.yml"]
    if words[0] == "eugen-data":
        required = {"check": ["data/scene"], "photos": ["data/scene/train"], "fetch": []}
        return [*words, *required.get(words[1], ["--output", "new"])]
    if command == "eugen-web":
        return [*words, own, "--output", "new.html"]
    more = {"eugen-render": ["--output", "new.gif"], "eugen-view": ["--timing"], "eugen-eval": ["--output", "new"],
            "eugen-distill": ["--output-dir", "out"]}  # fmt: skip
    return [*words, "--load-config", own, *more.get(command, [])]


def typed(command: str) -> str:
    """What is typed for an entry of `COMMANDS`."""
    return {"eugen-speed": "eugen-bench speed", "eugen-roofline": "eugen-bench roofline"}.get(command, command)


def _numbers(work: Path) -> Iterator[list[str]]:
    for entry, (kind, _) in COMMANDS.items():
        for setting, allowed in number_settings(kind):
            hint = hint_of(kind, setting)
            values = list(bad_values(allowed)) if allowed is not None else []
            for value in dict.fromkeys([*values[:2], *values[-VALUES_EACH + 2 :]]):
                option = option_of(hint, setting)
                yield [*base_words(typed(entry), work), *_given(option, [value] * count_of(hint))]


def _given(option: str, values: list[str]) -> list[str]:
    """Words of an option whose values may begin with a dash."""
    return [f"{option}={values[0]}"] if len(values) == 1 else [option, *values]


def _names_and_choices(work: Path) -> Iterator[list[str]]:
    for entry, (kind, _) in COMMANDS.items():
        hints = typing.get_type_hints(kind, include_extras=True)
        for own in fields(kind):
            option = f"--{own.name.replace('_', '-')}"
            if is_name(hints[own.name]):
                for name in NAMES:
                    yield [*base_words(typed(entry), work), f"{option}={name}"]
            elif _chooses(hints[own.name]):
                for text in ("nothing", "", "../x", "None" if "None" not in str(hints[own.name]) else "x y"):
                    yield [*base_words(typed(entry), work), f"{option}={text}"]
            elif hints[own.name] is bool:
                yield [*base_words(typed(entry), work), f"{option}=maybe"]


def _chooses(hint: Any) -> bool:
    """Whether an option takes one of some words."""
    return get_origin(hint) is typing.Literal or any(_chooses(each) for each in get_args(hint) if get_origin(each))


def _outputs(work: Path) -> Iterator[list[str]]:
    for entry, (kind, _) in COMMANDS.items():
        command = typed(entry)
        for option in ("output", "output_dir", "bundle", "save_dir"):
            if option not in {own.name for own in fields(kind)}:
                continue
            suffix = SUFFIXES.get(command, ".json" if command in FILES else "")
            places = ["file/below", "file/below/deeper", "/proc/nothing/x", "/dev/null/x", f"{'n' * 256}", "a\nb", ""]
            places = [place and place + suffix for place in places]
            places += ["full"] if suffix else ["file"]
            for place in places:
                yield [*base_words(command, work), f"--{option.replace('_', '-')}={place}"]


def _runs(work: Path) -> Iterator[list[str]]:
    broken = list(broken_runs(work))
    for command in RUN:
        sdf = command.startswith("eugen-sdf")
        for name, is_map in broken:
            if is_map == sdf:
                yield [*base_words(command, work, f"{name}/config.yml"), "--device", "cpu"]
        other = "data/scene" if sdf else "data/room"
        for data in ("nowhere", "file", "full", other, "file/below", "empty"):
            yield [*base_words(command, work), "--data", data, "--device", "cpu"]
        yield [*base_words(command, work), "--device", "nothing"]
        yield [*base_words(command, work, "full")]
        yield [*base_words(command, work, "nowhere/config.yml")]
        yield [*base_words(command, work, "/dev/null")]


def _suites(work: Path) -> Iterator[list[str]]:
    for name in broken_suites(work):
        yield ["eugen-bench", name]


def _data_sets(work: Path) -> Iterator[list[str]]:
    for number, name in enumerate(broken_data_sets(work)):
        yield ["eugen-data", "check", name]
        if number % 4 == 0:
            yield ["eugen-eval", "--load-config", config_of(work), "--data", name, "--output", "new"]
    for name in ("nowhere", "file", "full", "empty", "a\nb", "n" * 300):
        yield ["eugen-data", "check", name]
        yield ["eugen-data", "photos", name, "--output", "new"]
    for name in ("", "../up", "nothing"):
        yield ["eugen-data", "check", "data/scene", "--splits", name]
