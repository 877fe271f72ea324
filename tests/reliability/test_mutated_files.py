"""Files of every kind changed at random, a few of each; `python scripts/reliability.py mutations` tries 50,000."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutated_files import Kind, attempt
from mutations import KINDS, NEVER, tried

from eugen_nerf.core.errors import DataError

EXAMPLES = 25
pytest.importorskip("safetensors")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_changed_files_are_refused_in_one_line_or_read_and_sane(name: str, tmp_path: Path) -> None:
    kinds, _ = KINDS[name]
    whole = [tmp_path / f"whole-{number}" for number in range(len(kinds))]
    for kind, place in zip(kinds, whole, strict=True):
        place.mkdir()
        kind.prepare(place)
        kind.read(place)  # what was not changed is read

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.randoms(use_true_random=False), st.integers(0, len(kinds) - 1))
    def holds(chance: random.Random, number: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            outcome = attempt(kinds[number], whole[number], tmp_path / "changed", chance)
        assert outcome in ("refused", "accepted")

    holds()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "accepted"),
        (DataError("one line"), "refused"),
        (DataError("two\nlines"), "long message"),
        (DataError("x" * 5000), "long message"),
        (DataError("\ud800"), "UnicodeEncodeError"),
        (AssertionError(), "nonsense"),
        (KeyError("x"), "KeyError"),
        (RecursionError(), "RecursionError"),
    ],
)
def test_what_is_not_right_is_counted(error: Exception | None, outcome: str, tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        if error is not None:
            raise error

    kind = Kind(lambda folder: (folder / "file").write_text("x") and None, lambda folder, chance: None, read)
    (tmp_path / "whole").mkdir()
    kind.prepare(tmp_path / "whole")
    assert attempt(kind, tmp_path / "whole", tmp_path / "changed", random.Random(0)) == outcome
    shutil.rmtree(tmp_path / "changed")
    counts = tried([kind], 3, tmp_path / "all")
    wrong = sum(int(str(counts[key])) for key in NEVER)
    assert wrong == (0 if outcome in ("accepted", "refused") else 3)
    assert counts["tries"] == 3


def test_there_are_fifty_thousand() -> None:
    assert sum(tries for _, tries in KINDS.values()) >= 50_000
