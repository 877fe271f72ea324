"""Command lines of dataclasses: options in groups, each default said once, and the command by its own name.

A command is a dataclass with a docstring under each field. Its `--help` has groups: a field that is itself a dataclass
of settings is one, named as the field is, and `GROUPS` may name others with their fields. Other fields come first.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

import tyro

from eugen_nerf.cli.support.renamed_options import current_arguments
from eugen_nerf.core.checks.names import check_texts
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import check_numbers

MARKERS = (tyro.conf.OmitArgPrefixes,)
"""Names of groups are no part of options."""


def parse(command: type | Mapping[str, type], prog: str, args: Sequence[str] | None = None, text: str = "") -> Any:
    """A command as the command line describes it; ends the process after a mistake or --help.

    Options under old names are read as those that replace them (`renamed_options`).

    Args:
        command: its class, or the classes of its subcommands by their words.
        prog: what it is called.
        args: the command line without the command; the process's own by default.
        text: what the help of a command with subcommands begins with.

    Raises:
        ConfigError: an empty argument, a number out of its range, or a text that cannot be what its option says.
    """
    args = list(sys.argv[1:] if args is None else args)
    for before, word in zip([prog, *args], args, strict=False):
        if not word or (word.endswith("=") and word.startswith("--")):
            raise ConfigError(f"there is nothing after {(word or before).rstrip('=')}: an empty text is no value")
    if not isinstance(command, Mapping):
        args = current_arguments(prog, args)
        return _checked(tyro.cli(_grouped(command), prog=prog, args=args, config=MARKERS).command())
    args = [*args[:1], *current_arguments(" ".join([prog, *args[:1]]), args[1:])]
    union: Any = Union[  # noqa: UP007  (the members are not known before)
        tuple(Annotated[_grouped(kind), tyro.conf.subcommand(name=word)] for word, kind in command.items())
    ]
    return _checked(tyro.cli(union, prog=prog, description=text, args=args, config=MARKERS).command())


def _checked(command: Any) -> Any:
    """The command, whose numbers, names and paths are what its fields declare; raises `ConfigError` otherwise."""
    check_numbers(command)
    check_texts(command)
    return command


def _grouped(command: type) -> type:
    """A class with the command's fields in groups, whose `command()` makes the command."""
    groups: Mapping[str, Sequence[str]] = getattr(command, "GROUPS", {})
    hints, texts = get_type_hints(command, include_extras=True), field_texts(command)
    specs = {own.name: _spec(own, hints[own.name], texts.get(own.name, "")) for own in fields(command)}
    apart = {name for names in groups.values() for name in names}
    parts = [spec for name, spec in specs.items() if name not in apart]
    for title, names in groups.items():
        part = make_dataclass(title, [specs[name] for name in names], kw_only=True, namespace={"__doc__": " "})
        parts.append((title, part, field(default_factory=part)))

    def make(self: Any) -> Any:
        values = {name: getattr(self, name) for name in specs if name not in apart}
        for title, names in groups.items():
            values |= {name: getattr(getattr(self, title), name) for name in names}
        # made here and not by tyro, which would take our own errors for its own
        values |= {name: value.command() for name, value in values.items() if is_dataclass(hints[name])}
        return command(**values)

    doc = inspect.getdoc(command)
    return make_dataclass(command.__name__, parts, kw_only=True, namespace={"__doc__": doc, "command": make})


def _spec(own: Field[Any], hint: Any, text: str) -> tuple[str, Any, Any]:
    """A field as `make_dataclass` takes it, with its text and what the help says of its default."""
    new: Any = field()
    if own.default is not MISSING:
        new = field(default=own.default)
    elif own.default_factory is not MISSING:
        new = field(default_factory=own.default_factory)
    if is_dataclass(hint):
        part = _grouped(cast(type, hint))
        part.__doc__ = (inspect.getdoc(hint) or "").split("\n\n")[0]  # the rest is for callers in Python
        return own.name, part, field(default_factory=part)
    if own.default is MISSING and own.default_factory is MISSING:
        return own.name, _with(hint, tyro.conf.arg(help=text)), new
    words = _default_words(own.default, text)
    return own.name, _with(hint, tyro.conf.arg(help=text, help_behavior_hint=words, metavar=_value_words(hint))), new


def _with(hint: Any, settings: object) -> Any:
    """The hint with settings of tyro's; where it has some of its own, those win."""
    if get_origin(hint) is Annotated:
        return Annotated[(hint.__origin__, settings, *hint.__metadata__)]
    return Annotated[hint, settings]


def _default_words(default: object, text: str) -> str | Callable[[str], str]:
    """What follows an option's text: its default, unless the text says what happens without the option."""
    if default is None or default == () or "default" in text:
        return ""
    return lambda label: f"(default: {({'True': 'on', 'False': 'off'}).get(label, label)})"


def _value_words(hint: Any) -> str | None:
    """What stands for the value of an option that may be None, without tyro's `{None}|`; None leaves it to tyro.

    The word None is accepted, as by nerfstudio's commands; leaving the option out says the same.
    """
    if get_origin(hint) is Annotated:
        hint = hint.__origin__
    if get_origin(hint) is Annotated:
        hint = hint.__origin__
    if get_origin(hint) not in (Union, UnionType) or NoneType not in get_args(hint):
        return None
    (kind,) = (kind for kind in get_args(hint) if kind is not NoneType)
    kinds = get_args(kind) or (kind,)
    return " ".join(str(own.__name__).upper() for own in kinds)


def field_texts(command: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass and of those that it inherits from, each as one line."""
    texts: dict[str, str] = {}
    for kind in reversed(command.__mro__):
        if not is_dataclass(kind):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for own, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(own, ast.AnnAssign) and isinstance(own.target, ast.Name) and isinstance(text, ast.Expr):
                assert isinstance(text.value, ast.Constant)
                texts[own.target.id] = " ".join(str(text.value.value).split())
    return texts
