"""Options under new names: the old ones keep working for this version, and a line on stderr says what to write."""

from __future__ import annotations

import sys
from collections.abc import Sequence

RENAMED: dict[str, dict[str, str]] = {
    "eugen-eval": {
        "--stop-opaque": "--early-stop",
        "--extras": "--auxiliary-outputs",
        "--save-pictures": "--save-images",
    },
    "eugen-data photos": {"--largest": "--max-size"},
    "eugen-view": {"--largest": "--max-size"},
}
"""New option by old option, by command (with its subcommand where it has some). `--no-X` follows from `--X`."""


def current_arguments(prog: str, args: Sequence[str]) -> list[str]:
    """The command line with every renamed option under its new name.

    Says on stderr, in one line, what to write from now on. Values stay as they are, in the next word or behind `=`.

    Args:
        prog: the command, with its subcommand where it has some.
        args: its command line.
    """
    renamed = {**RENAMED.get(prog, {})}
    renamed |= {_negated(old): _negated(new) for old, new in renamed.items()}
    current, notes = [], []
    for word in args:
        option, equals, value = word.partition("=")
        new = renamed.get(option.replace("_", "-")) if option.startswith("--") else None
        if new is not None:
            notes.append(f"{new} instead of {option}")
        current.append(word if new is None else f"{new}{equals}{value}")
    if notes:
        print(f"{prog}: write {', '.join(dict.fromkeys(notes))}; the old names end with this version", file=sys.stderr)
    return current


def _negated(option: str) -> str:
    """The option that switches another one off: `--no-x` of `--x`, `--part.no-x` of `--part.x`."""
    *parts, last = option.removeprefix("--").split(".")
    return "--" + ".".join([*parts, f"no-{last}"])
