"""Plain data as dataclasses: every key of every type, given every value, is what was declared or one clear line."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from eugen_nerf.core.checks.names import NAME
from eugen_nerf.core.checks.plain_data import MOST, from_plain_data
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import Range


@dataclass(frozen=True)
class Settings:
    """A key of every kind."""

    text: str = "t"
    name: Annotated[str, NAME] = "n"
    path: Path | None = None
    count: Annotated[int, Range(1, 9)] = 1
    share: Annotated[float, Range(0, 1)] = 0.5
    maybe: Annotated[int | None, Range(1, 9)] = None
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    texts: Sequence[str] = ()
    numbers: tuple[Annotated[int, Range(0, 3)], ...] = ()
    runs: Mapping[Annotated[str, NAME], Sequence[str]] = dataclasses.field(default_factory=dict)
    rows: Sequence[Mapping[str, str]] = ()
    more: Any = None


GOOD: dict[str, list[Any]] = {
    "text": ["", "a/b", "{x}"],
    "name": ["a"],
    "path": [None, "../x", "/x"],
    "count": [1, 9],
    "share": [0, 1, 0.25],
    "maybe": [None, 1, 9],
    "flag": [True, False],
    "kind": ["a", "b"],
    "texts": [[], ["a", "b"]],
    "numbers": [[], [0, 3]],
    "runs": [{}, {"a": []}, {"a": ["--x", "1"], "b": []}],
    "rows": [[], [{"text": "t"}]],
    "more": [1, None, [object]],
}
STRANGE: list[Any] = [
    *(None, True, False, 0, 1, -1, 10, 10**400, 0.5, 1.5, math.nan, math.inf, "", "a", "a/b", "..", "\0", "\ud800"),
    *("x" * 300, "x" * 30_000, [], [None], [1], ["a"], [["a"]], [{}], {}, {"a": None}, {"a": "b"}, {1: []}, {"/": []}),
    *({"a": [1]}, {None: []}, b"bytes", datetime.date(2026, 1, 1), {"a", "b"}, ["a"] * (MOST + 1), ["\ud800"]),
]


@pytest.mark.parametrize("key", GOOD)
def test_what_is_declared_is_taken_and_all_else_is_refused_with_its_key(key: str) -> None:
    for value in GOOD[key]:
        made = getattr(from_plain_data(Settings, {key: value}, "here"), key)
        assert made == (Path(value) if key == "path" and value else tuple(value) if key == "numbers" else value)
    for value in STRANGE:
        try:
            made = getattr(from_plain_data(Settings, {key: value}, "here.yml"), key)
        except ConfigError as error:
            message = str(error)
            assert message.startswith("here.yml: ")
            assert key in message
            assert "\n" not in message
            assert len(message) < 500
            assert message.isprintable()
        else:
            good = GOOD[key]
            kinds = {type(each) for each in good}
            assert key == "more" or type(value) in kinds, (key, value)  # a boolean is no number, a list no text
            if isinstance(value, int | float) and key != "more" and not isinstance(value, bool):
                assert min(g for g in good if g is not None) <= value <= max(g for g in good if g is not None)


@pytest.mark.parametrize("content", [None, [], "text", 3, {"other": 1}, {3: 1}, {"\n": 1}])
def test_other_keys_and_other_documents_are_refused(content: object) -> None:
    with pytest.raises(ConfigError, match=r"here: .*(keys are|keys of) text, name") as caught:
        from_plain_data(Settings, content, "here")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named_with_what_is_allowed() -> None:
    @dataclass
    class Needs:
        count: Annotated[int, Range(1, 9)]

    Needs.__annotations__["count"] = Annotated[int, Range(1, 9)]
    with pytest.raises(
        ConfigError, match="here: the key count is missing; allowed is a whole number, at least 1 and at most 9"
    ):
        from_plain_data(Needs, {}, "here")
