"""Numbers that a setting takes: declared beside the setting, checked in one place before work begins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from eugen_nerf.core.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """An interval of numbers, as metadata of an annotation. Infinities and NaN are in no range.

    Attributes:
        low: the smallest number.
        high: the largest number.
        above: whether `low` itself is left out.
        below: whether `high` itself is left out.

    Example:
        >>> from typing import Annotated
        >>> fps: Annotated[float, Range(0, 1000, above=True)] = 24.0
        >>> 0.0 in Range(0, 1000, above=True), 1000 in Range(0, 1000, above=True)
        (False, True)
        >>> print(Range(0, 1000, above=True))
        above 0 and at most 1000
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, number: float) -> bool:
        try:
            finite = math.isfinite(number)
        except OverflowError:  # an integer beyond float64
            return False
        over = number > self.low if self.above else number >= self.low
        under = number < self.high if self.below else number <= self.high
        return finite and over and under

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {_shown(self.low)}"
        high = f"{'below' if self.below else 'at most'} {_shown(self.high)}"
        if math.isinf(self.low):
            return "finite" if math.isinf(self.high) else f"finite and {high}"
        return f"finite and {low}" if math.isinf(self.high) else f"{low} and {high}"


COUNT = Range(1, 2**31 - 1)
"""Of things of which there is at least one."""
COUNT_OR_NONE = Range(0, 2**31 - 1)
"""Of things of which there may be none."""
SEED = Range(0, 2**63 - 1)
"""Of a generator: what torch and, folded, numpy take."""
QUALITY_RANGE = Range(0, 60, above=True)
"""Of dB of PSNR that rendering may lose."""
QUALITY = 0.05
"""dB that it may lose where nothing else is said."""
SHARE = Range(0, 1)
"""Of a whole."""
THREADS = Range(1, 1024)
"""Of a processor: torch ends in a segmentation fault where there are far too many."""
CELL = Range(1e-4, 1000)
"""Edge of a cell of a grid, metres."""
POSITIVE = Range(0, above=True)
"""Sizes, rates, times."""
NON_NEGATIVE = Range(0)
FINITE = Range()


def number_settings(kind: type, prefix: str = "") -> Iterator[tuple[str, Range | None]]:
    """The settings of a dataclass that are numbers, nested ones as `outer.inner`, with the range of each or None."""
    hints = get_type_hints(kind, include_extras=True)
    for own in fields(kind):
        hint = hints[own.name]
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if isinstance(plain, type) and is_dataclass(plain):
            yield from number_settings(plain, f"{prefix}{own.name}.")
        elif _holds_numbers(plain):
            yield f"{prefix}{own.name}", _range(hint)


def check_numbers(settings: Any) -> None:
    """Refuses the first number of a dataclass, or of one nested in it, that is out of its setting's range.

    Raises:
        ConfigError: names the option, what was given and what is allowed.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for own in fields(settings):
        value, allowed = getattr(settings, own.name), _range(hints[own.name])
        if is_dataclass(value) and not isinstance(value, type):
            check_numbers(value)
        elif allowed is not None:
            for number in value if isinstance(value, tuple | list) else (value,):
                if number is not None and number not in allowed:
                    option = _option(own.name, hints[own.name])
                    raise ConfigError(f"--{option} must be {allowed}, not {_shown(number)}")


def _option(name: str, hint: Any) -> str:
    """What a setting is called on the command line, where an annotation may give it another name."""
    names = [getattr(each, "name", None) for each in getattr(hint, "__metadata__", ())]
    return next((each for each in names if isinstance(each, str)), name).replace("_", "-")


def _range(hint: Any) -> Range | None:
    """The range in an annotation, also inside of an optional or of a tuple."""
    if get_origin(hint) is Annotated:
        for each in hint.__metadata__:
            if isinstance(each, Range):
                return each
        hint = get_args(hint)[0]
    found = [_range(each) for each in get_args(hint)] if get_origin(hint) in (Union, UnionType, tuple, list) else []
    return next((each for each in found if each is not None), None)


def _holds_numbers(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType, tuple, list):
        return any(_holds_numbers(each) for each in get_args(hint))
    return hint in (int, float)


def _shown(number: float) -> str:
    """As it was given, cut where it is long."""
    try:
        text = f"{number:.15g}" if isinstance(number, float) else str(number)
    except ValueError:  # an integer of more digits than Python writes
        text = "an integer of thousands of digits"
    return text if len(text) <= 30 else f"{text[:12]}... ({len(text)} characters)"
