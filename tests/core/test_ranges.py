"""Ranges of numbers: what is in them, and how a number that is not is refused."""

import doctest
import math
from dataclasses import dataclass, field
from typing import Annotated

import pytest

from eugen_nerf.core import ranges
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import COUNT, FINITE, POSITIVE, SEED, SHARE, Range, check_numbers, number_settings


@dataclass
class Inner:
    """Nested settings."""

    rate: Annotated[float, POSITIVE] = 1.0


@dataclass
class Settings:
    """One setting of each kind."""

    count: Annotated[int, COUNT] = 1
    limit: Annotated[float | None, FINITE] = None
    pair: tuple[Annotated[float, SHARE], Annotated[float, SHARE]] = (0.0, 1.0)
    many: Annotated[tuple[int, ...], SEED] = ()
    bare: int = 3
    name: str = "x"
    flag: bool = True
    inner: Inner = field(default_factory=Inner)


def test_settings_that_are_numbers_are_found_with_their_ranges() -> None:
    assert dict(number_settings(Settings)) == {
        "count": COUNT, "limit": FINITE, "pair": SHARE, "many": SEED, "bare": None, "inner.rate": POSITIVE,
    }  # fmt: skip


def test_defaults_are_in_their_ranges() -> None:
    check_numbers(Settings())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(count=0), "--count must be at least 1 and at most 2147483647, not 0"),
        (Settings(count=-(10**400)), "--count must be .*, not -10000000000... .402 characters"),
        (Settings(limit=math.nan), "--limit must be finite, not nan"),
        (Settings(limit=-math.inf), "--limit must be finite, not -inf"),
        (Settings(pair=(0.0, 1.5)), "--pair must be at least 0 and at most 1, not 1.5"),
        (
            Settings(many=(1, 2**63)),
            "--many must be .* at most 9223372036854775807, not 9223372036854775808",
        ),
        (Settings(inner=Inner(rate=0.0)), "--rate must be finite and above 0, not 0"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: Settings, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_numbers(settings)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400])
def test_no_range_holds_what_is_not_finite(bad: float) -> None:
    assert bad not in Range()


def test_ends_are_in_or_out_as_declared() -> None:
    assert [x in Range(0, 1, above=True, below=True) for x in (0, 1e-300, 1 - 1e-16, 1)] == [False, True, True, False]
    assert [x in Range(0, 1) for x in (-1e-300, 0, 1, 1 + 1e-15)] == [False, True, True, False]


def test_the_examples_run() -> None:
    assert doctest.testmod(ranges).failed == 0
