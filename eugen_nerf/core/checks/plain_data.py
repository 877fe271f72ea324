"""Plain data of a file as a dataclass: every value of the type and in the range that its field declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from eugen_nerf.core.checks.names import NAME_BYTES, FileName, check_path_text, name_problem, shown, text_problem
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import Range

T = TypeVar("T")
MOST = 1000
"""Entries of a list or of a mapping."""
TEXT_BYTES = 20_000
"""Of one text: a process takes arguments of some six times that."""


def from_plain_data(kind: type[T], content: Any, where: str) -> T:
    """A dataclass from a mapping of its fields' names.

    Fields may be texts, paths, numbers with a `Range`, booleans, literals, sequences and mappings of those, and
    optional. Keys of a mapping are names, and so are texts whose annotation has a `FileName`.

    Args:
        kind: the dataclass.
        content: what a file of YAML or JSON held.
        where: what errors begin with.

    Raises:
        ConfigError: names the key, what was given and what is allowed.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Point:
        ...     x: float
        >>> from_plain_data(Point, {"x": [1]}, "here")
        Traceback (most recent call last):
        ...
        eugen_nerf.core.errors.ConfigError: here: x is [1]; allowed is a number
    """
    known = {own.name: own for own in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: it is {shown(content)}; allowed is a mapping with keys of {', '.join(known)}")
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}: there is no key {shown(key)}; the keys are {', '.join(known)}")
    for name, own in known.items():
        if name not in content and own.default is MISSING and own.default_factory is MISSING:
            raise ConfigError(f"{where}: the key {name} is missing; allowed is {allowed(_hints(kind)[name])}")
    return kind(**{key: _value(content[key], _hints(kind)[key], key, where) for key in content})


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _value(value: Any, hint: Any, key: str, where: str) -> Any:
    """The value, with paths for texts where the hint says so."""
    plain, marks = _taken_apart(hint)
    own = next((each for each in marks if isinstance(each, Range)), None)
    name = any(isinstance(each, FileName) for each in marks)
    origin, inner = get_origin(plain), get_args(plain)
    refused = ConfigError(f"{where}: {key} is {shown(value)}; allowed is {allowed(hint)}")
    if plain is Any:  # checked by whoever knows more
        return value
    if origin in (Union, UnionType):
        if value is None:
            if NoneType in inner:
                return None
            raise refused
        (plain,) = (each for each in inner if each is not NoneType)
        return _value(value, Annotated[(plain, *marks)] if marks else plain, key, where)
    if origin is Literal:
        if isinstance(value, str) and value in inner:
            return value
    elif origin in (Sequence, tuple):
        if isinstance(value, list | tuple):
            if len(value) > MOST:
                raise ConfigError(f"{where}: {key} has {len(value)} entries of at most {MOST}")
            kind = Annotated[(inner[0], *marks)] if marks else inner[0]
            made = [_value(each, kind, f"{key}[{i}]", where) for i, each in enumerate(value)]
            return tuple(made) if origin is tuple else made
    elif origin is Mapping:
        if isinstance(value, Mapping):
            return _mapping(value, inner, key, where)
    elif plain is bool:
        if isinstance(value, bool):
            return value
    elif plain in (int, float):
        numbers = (int,) if plain is int else (int, float)
        if isinstance(value, numbers) and not isinstance(value, bool) and value in (own or Range()):
            return value
    elif isinstance(value, str):
        return _text(value, plain, name, key, where)
    raise refused


def _mapping(value: Mapping[Any, Any], inner: tuple[Any, ...], key: str, where: str) -> dict[str, Any]:
    if len(value) > MOST:
        raise ConfigError(f"{where}: {key} has {len(value)} entries of at most {MOST}")
    made = {}
    for name, each in value.items():
        _value(name, inner[0], f"a key of {key}", where)
        made[name] = _value(each, inner[1], f"{key}.{name[:60]}", where)
    return made


def _text(text: str, plain: Any, name: bool, key: str, where: str) -> str | Path:
    problem = name_problem(text) if name else text_problem(text)
    if problem is None and len(text.encode()) > TEXT_BYTES:
        problem = f"it has {len(text.encode())} bytes of at most {TEXT_BYTES}"
    if problem is None and plain is Path and not text:
        problem = "it is empty"
    if problem:
        raise ConfigError(f"{where}: {key} is {shown(text)}, which cannot be {'a name' if name else 'read'}: {problem}")
    if plain is Path:
        check_path_text(Path(text), f"{where}: {key}")
        return Path(text)
    return text


def _taken_apart(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without its metadata, and these."""
    return (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def allowed(hint: Any, *, many: bool = False) -> str:
    """What an annotation allows, in words."""
    plain, marks = _taken_apart(hint)
    origin, inner = get_origin(plain), get_args(plain)
    if origin in (Union, UnionType):
        (kind,) = (each for each in inner if each is not NoneType)
        return f"{allowed(Annotated[(kind, *marks)] if marks else kind, many=many)} or null"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Sequence, tuple):
        inside = allowed(Annotated[(inner[0], *marks)] if marks else inner[0], many=True)
        return f"{'lists' if many else 'a list'} of {inside}"
    if origin is Mapping:
        return (
            f"{'mappings' if many else 'a mapping'} of {allowed(inner[0], many=True)} to {allowed(inner[1], many=True)}"
        )
    if any(isinstance(each, FileName) for each in marks):
        return f"{'names' if many else 'a name'} (a text of at most {NAME_BYTES} bytes without slashes)"
    if plain is Any:
        return "anything"
    word = {str: "text", Path: "path", int: "whole number", float: "number", bool: "boolean"}[plain]
    limits = "".join(f", {each}" for each in marks if isinstance(each, Range))
    quoted = " (in quotes, where YAML takes it for something else)" if plain is str and not many else ""
    return f"{word}s{limits}" if many else f"a {word}{limits}{quoted}"
