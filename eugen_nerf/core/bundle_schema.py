"""Validation of a bundle's files: the type, range and name of every entry is checked before it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from eugen_nerf.core.errors import EugenError


class BundleError(EugenError):
    """A bundle that cannot be read, written or trusted: missing, cut off, too large, of another version, changed.

    Examples:
        >>> from eugen_nerf.core import BundleError, load_bundle
        >>> try:
        ...     load_bundle("absent")
        ... except BundleError as error:
        ...     print(error)
        absent/bundle.json is not there or no file: a bundle is a folder with bundle.json and weights.safetensors
    """


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Args:
        text: UTF-8.
        where: the file's name, for errors.

    Raises:
        BundleError: no JSON object, a name given twice, NaN or infinity, nesting too deep.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise BundleError(f"{where} is nested too deeply to be a bundle's; {ADVICE}") from error
    except ValueError as error:  # no UTF-8, no JSON, endless digits, and what the hooks refuse
        raise BundleError(f"{where} is not valid JSON: {error}; {ADVICE}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{where} must hold a JSON object, not {_named(value)}; {ADVICE}")
    return value


ADVICE = "the file is damaged or no bundle: copy or write the bundle again"
"""The end of most messages."""


class Spec:
    """One object of bundle.json, read entry by entry; `close` refuses entries that were not read.

    Args:
        entries: the object.
        where: its place in the file, for errors.

    Raises:
        BundleError: no object. So do all methods, for entries that are missing, of another type or out of range.
    """

    def __init__(self, entries: object, where: str) -> None:
        if not isinstance(entries, dict):
            raise BundleError(f"{where} must be an object, not {_named(entries)}; {ADVICE}")
        self.where = where
        self._entries: dict[str, Any] = dict(entries)

    def text(self, key: str, allowed: Collection[str]) -> str:
        """One of the `allowed` words."""
        value = self._take(key)
        if not isinstance(value, str) or value not in allowed:
            raise self._wrong(key, value, f"one of {', '.join(sorted(allowed))}")
        return value

    def checked_text(self, key: str, check: Callable[[str], object]) -> str:
        """A text of at most 64 characters for which `check` raises no ValueError."""
        value = self._take(key)
        if not isinstance(value, str) or len(value) > 64:
            raise self._wrong(key, value, "a text of at most 64 characters")
        try:
            check(value)
        except ValueError as error:
            raise BundleError(f"{self.where}.{key}: {error}; {ADVICE}") from error
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return self._integer(key, self._take(key), low, high)

    def number(self, key: str, low: float, high: float) -> float:
        """A finite number from `low` to `high`."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self._wrong(key, value, f"a number from {low:g} to {high:g}")
        assert math.isfinite(value)
        return float(value)

    def optional_number(self, key: str, low: float, high: float) -> float | None:
        """As `number`, or None for null."""
        return None if self._is_null(key) else self.number(key, low, high)

    def numbers(self, key: str, low: float, high: float, count: int) -> tuple[float, ...]:
        """A list of `count` finite numbers, each from `low` to `high`."""
        return self.number_list(key, low, high, count, count)

    def number_list(self, key: str, low: float, high: float, least: int, most: int) -> tuple[float, ...]:
        """A list of `least` to `most` finite numbers, each from `low` to `high`."""
        values = Spec({str(i): v for i, v in enumerate(self._list(key, least, most))}, f"{self.where}.{key}")
        return tuple(values.number(i, low, high) for i in values.names())

    def optional_numbers(self, key: str, low: float, high: float, count: int) -> tuple[float, ...] | None:
        """As `numbers`, or None for null."""
        return None if self._is_null(key) else self.numbers(key, low, high, count)

    def name(self, key: str) -> str:
        """A text to show: 1 to 200 characters that can be printed, of which nothing is made but text."""
        value = self._take(key)
        if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
            raise self._wrong(key, value, "a text of 1 to 200 characters that can be printed")
        return value

    def flag(self, key: str) -> bool:
        """true or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def integers(self, key: str, low: int, high: int, most: int) -> tuple[int, ...]:
        """A list of 1 to `most` whole numbers, each from `low` to `high`."""
        return tuple(self._integer(key, v, low, high) for v in self._list(key, 1, most))

    def optional_integer(self, key: str, low: int, high: int) -> int | None:
        """As `integer`, or None for null."""
        value = self._take(key)
        return None if value is None else self._integer(key, value, low, high)

    def optional_integers(self, key: str, low: int, high: int, count: int) -> tuple[int | None, ...]:
        """A list of `count` entries, each as `optional_integer`."""
        values = self._list(key, count, count)
        return tuple(None if v is None else self._integer(key, v, low, high) for v in values)

    def part(self, key: str) -> Spec:
        """An object."""
        return Spec(self._take(key), f"{self.where}.{repr(_short(key))[1:-1]}")

    def optional_part(self, key: str) -> Spec | None:
        """An object, or None for null."""
        value = self._take(key)
        return None if value is None else Spec(value, f"{self.where}.{key}")

    def parts(self, key: str, most: int) -> list[Spec]:
        """A list of 1 to `most` objects."""
        return [Spec(v, f"{self.where}.{key}[{i}]") for i, v in enumerate(self._list(key, 1, most))]

    def listed(self, key: str, most: int) -> list[Spec]:
        """A list of up to `most` objects, none among the possibilities."""
        return [Spec(v, f"{self.where}.{key}[{i}]") for i, v in enumerate(self._list(key, 0, most))]

    def holds(self, key: str) -> bool:
        """Whether there is such an entry, for one that older files lack."""
        return key in self._entries

    def names(self) -> list[str]:
        """Names of the entries that were not read yet."""
        return list(self._entries)

    def close(self) -> None:
        """Refuses entries that were not read: a file with unknown entries would be misunderstood.

        Raises:
            BundleError: there are such entries.
        """
        if self._entries:
            unknown = ", ".join(repr(_short(k)) for k in list(self._entries)[:3])
            raise BundleError(f"{self.where} has entries that this version does not know: {unknown}; {ADVICE}")

    def _is_null(self, key: str) -> bool:
        """Whether an entry is null, which then counts as read."""
        null = key in self._entries and self._entries[key] is None
        if null:
            del self._entries[key]
        return null

    def _take(self, key: str) -> Any:
        if key not in self._entries:
            raise BundleError(f"{self.where} lacks {key!r}; {ADVICE}")
        return self._entries.pop(key)

    def _list(self, key: str, least: int, most: int) -> list[Any]:
        value = self._take(key)
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise self._wrong(key, value, f"a list of {least} to {most} entries")
        return value

    def _integer(self, key: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(key, value, f"a whole number from {low} to {high}")
        return value

    def _wrong(self, key: str, value: object, allowed: str) -> BundleError:
        return BundleError(f"{self.where}.{key} is {_named(value)}; it must be {allowed}; {ADVICE}")


class StoredTensors:
    """The tensors of a bundle by name, each taken once, with the shape that the description requires.

    Args:
        tensors: by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def take(self, name: str, shape: Sequence[int | None], *, integer: bool = False) -> Tensor:
        """The tensor called `name`.

        Args:
            name: preceded by the names of its modules, as in a state dict.
            shape: required size of each dimension; None allows any but 0.
            integer: whether it holds whole numbers instead of floating point ones.

        Raises:
            BundleError: none of that name, another shape or kind of number.
        """
        if name not in self._tensors:
            raise BundleError(f"the bundle's description needs the tensor {name!r}, which is not there; {ADVICE}")
        tensor = self._tensors.pop(name)
        sizes = zip(tensor.shape, shape, strict=False)
        fits = len(tensor.shape) == len(shape) and all(a == b or (b is None and a > 0) for a, b in sizes)
        if not fits or tensor.is_floating_point() == integer:
            dtype, sort = str(tensor.dtype).removeprefix("torch."), "whole" if integer else "floating point"
            wanted = ", ".join("any" if v is None else str(v) for v in shape)
            raise BundleError(
                f"tensor {name!r} is {dtype} {list(tensor.shape)}, the description needs {sort} [{wanted}]; {ADVICE}"
            )
        return tensor

    def close(self) -> None:
        """Refuses tensors that the description does not use.

        Raises:
            BundleError: there are such tensors.
        """
        if self._tensors:
            names = ", ".join(repr(_short(n)) for n in list(self._tensors)[:3])
            raise BundleError(f"the bundle holds tensors that its description does not use: {names}; {ADVICE}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name is given twice in one object")
    return entries


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number here")


def _named(value: object) -> str:
    """The value where it is short, else its kind."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 1 << 64:  # its digits may fill pages, or be refused by Python
        return "a very large number"
    return repr(_short(value)) if isinstance(value, str) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
