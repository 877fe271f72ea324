"""Reads a run's `config.yml` without running code that it names.

nerfstudio writes the file as YAML with Python tags and reads it with ``yaml.Loader``, which calls whatever the tags
name: a stranger's `config.yml` is a stranger's program. The loader here builds configuration objects of nerfstudio and
of this package, tuples, paths and enumerations, and refuses everything else.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import pathlib
from collections.abc import Iterator
from functools import cache
from typing import Any, get_origin, get_type_hints

import torch
import yaml
from typeguard import CollectionCheckStrategy, ForwardRefPolicy, TypeCheckError, check_type

from eugen_nerf.core.checks.names import shown
from eugen_nerf.methods.runs.strict_yaml import StrictLoader

PACKAGES = tuple(
    f"{package}."
    for package in (
        *(f"eugen_nerf.{room}" for room in ("core", "data", "fields", "methods")),
        *(f"nerfstudio.{room}" for room in ("cameras", "configs", "data", "engine", "field_components", "fields")),
        *(f"nerfstudio.{room}" for room in ("model_components", "models", "pipelines", "utils.writer")),
    )
)
"""Where the classes of a configuration live. nerfstudio's scripts, for one, do not belong to it."""

_FUNCTIONS = frozenset({"nerfstudio.data.utils.nerfstudio_collate.nerfstudio_collate"})
_PATHS = frozenset({f"pathlib{inner}.{kind}Path" for inner in ("", "._local") for kind in ("Posix", "Windows")})
_SUBSCRIPTS = frozenset({"operator.getitem", "_operator.getitem"})  # VanillaDataManager[DepthDataset]
_PREFIX = "tag:yaml.org,2002:python/"


class RefusedConfigError(ValueError):
    """A tag, a field or a value of a `config.yml` that does not belong to a configuration; the message names it."""


def load_config(text: str) -> Any:
    """The object that a `config.yml` describes, as ``yaml.Loader`` would build it, but no code of the file is run.

    Classes are looked up by name in the modules of `PACKAGES` alone. An object gets its fields as unpickling would set
    them: no ``__init__``, no ``__post_init__``, and ``__setstate__`` only of this package's own classes.

    Args:
        text: the content of the file.

    Returns:
        A nerfstudio ``TrainerConfig``, or whatever else the file holds: the caller checks that.

    Raises:
        RefusedConfigError: a tag that no configuration has, a class, function or field that is not on the list, or a
            value of another type than its field.
        yaml.YAMLError: the text is not YAML, or a key stands twice.

    Example:
        >>> load_config("!!python/object/apply:os.system ['true']")
        Traceback (most recent call last):
        ...
        eugen_nerf.methods.runs.config_loader.RefusedConfigError: it calls os.system
    """
    try:
        config = yaml.load(text, Loader=_Loader)
        _check_types(config, set())
    except RecursionError as error:
        raise RefusedConfigError("it is nested too deeply") from error
    return config


class _Loader(StrictLoader):
    """`StrictLoader` and the few Python tags of a configuration."""


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    return tuple(_sequence(loader, node, "a tuple"))


def _sequence(loader: _Loader, node: yaml.Node, what: str) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise RefusedConfigError(f"{what} is written in a form that no configuration has")
    return list(loader.construct_sequence(node, deep=True))


def _object(loader: _Loader, name: str, node: yaml.Node) -> Iterator[Any]:
    cls = _named(name)
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        raise RefusedConfigError(f"it builds {name}, which is no class of a configuration")
    if not isinstance(node, yaml.MappingNode):
        raise RefusedConfigError(f"{name} has no fields")
    made = cls.__new__(cls)
    yield made  # before its fields: an anchor may refer to it
    state = loader.construct_mapping(node, deep=True)
    unknown = [str(key) for key in state if key not in {field.name for field in dataclasses.fields(cls)}]
    if unknown:
        raise RefusedConfigError(f"{name} has no field {unknown[0]!r}")
    restore = getattr(made, "__setstate__", None)
    if restore is not None and cls.__module__.startswith("eugen_nerf."):
        restore(state)
    else:
        for key, value in state.items():
            object.__setattr__(made, str(key), value)  # as unpickling does, for frozen classes too


def _name(loader: _Loader, name: str, node: yaml.Node) -> Any:
    return _named(name)


def _call(loader: _Loader, name: str, node: yaml.Node) -> Any:
    """A path, a member of an enumeration, or a class with its parameter: the only calls of a configuration."""
    if name in _PATHS:
        return pathlib.Path(*(str(part) for part in _sequence(loader, node, name)))
    if name in _SUBSCRIPTS:
        arguments = _sequence(loader, node, name)
        if len(arguments) == 2 and isinstance(arguments[0], type):
            parameter = arguments[1]
            inner = parameter if isinstance(parameter, tuple) else (parameter,)
            if inner and all(isinstance(each, type) for each in inner):
                return arguments[0][parameter]  # type: ignore[index]
    elif name.startswith(PACKAGES):
        found = _named(name)
        arguments = _sequence(loader, node, name)
        plain = len(arguments) == 1 and isinstance(arguments[0], str | int | float)
        if isinstance(found, type) and issubclass(found, enum.Enum) and plain:
            try:
                return found(arguments[0])
            except ValueError as error:
                raise RefusedConfigError(f"{name} has no member {shown(arguments[0])}") from error
    raise RefusedConfigError(f"it calls {name}")


def _refuse(loader: _Loader, rest: str, node: yaml.Node) -> Any:
    raise RefusedConfigError(f"it holds the tag !!python/{rest}")


def _named(name: str) -> Any:
    """A class (or one of `_FUNCTIONS`) by its full name, looked up in modules and never in other objects."""
    module, _, attribute = name.rpartition(".")
    plain = all(part.isidentifier() and not part.startswith("__") for part in name.split("."))
    if not plain or not name.startswith((*PACKAGES, "torch.optim.")):
        raise RefusedConfigError(f"it names {name}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RefusedConfigError(f"it names {name}, which is not installed here") from error
    if name in _FUNCTIONS:
        return found
    if isinstance(found, type):
        own = f"{found.__module__}.".startswith(PACKAGES)
        if own or (found.__module__.startswith("torch.optim.") and issubclass(found, torch.optim.Optimizer)):
            return found
    raise RefusedConfigError(f"it names {name}, which is no class of a configuration")


for _tag, _constructor in (("object:", _object), ("name:", _name), ("object/apply:", _call), ("", _refuse)):
    _Loader.add_multi_constructor(_PREFIX + _tag, _constructor)
_Loader.add_constructor(f"{_PREFIX}tuple", _tuple)


def _check_types(value: Any, checked: set[int]) -> None:
    """Raises `RefusedConfigError` for the first field whose value is not of the type that its class declares."""
    if id(value) in checked:
        return
    checked.add(id(value))
    if isinstance(value, dict):
        children: list[Any] = list(value.values())
    elif isinstance(value, list | tuple):
        children = list(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        children = [_checked_field(value, field) for field in dataclasses.fields(value)]
    else:
        return
    for child in children:
        _check_types(child, checked)


def _checked_field(config: Any, field: dataclasses.Field[Any]) -> Any:
    cls: type = type(config)
    where = f"{cls.__name__}.{field.name}"
    try:
        value = getattr(config, field.name)
    except AttributeError as error:  # a field without a default that the file leaves out
        raise RefusedConfigError(f"{where} is missing") from error
    try:
        check_type(
            value,
            _field_types(cls)[field.name],
            forward_ref_policy=ForwardRefPolicy.IGNORE,
            collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS,
        )
    except TypeCheckError as error:
        raise RefusedConfigError(f"{where} is not what it must be: {error}") from error
    if field.name == "_target" and not _is_target(value, field):
        raise RefusedConfigError(f"{where} cannot be {shown(value)}")
    return value


@cache
def _field_types(cls: type) -> dict[str, Any]:
    """Once a class: looking names up takes longer than all else of reading a configuration."""
    return get_type_hints(cls)


def _is_target(value: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a class is of the kind that its configuration builds by default, a model for instance."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    built, expected = get_origin(value) or value, get_origin(default) or default
    if not isinstance(built, type) or not isinstance(expected, type):
        return False
    kind = [base for base in expected.__mro__ if f"{base.__module__}.".startswith((*PACKAGES, "torch.optim."))][-1]
    return issubclass(built, kind)
