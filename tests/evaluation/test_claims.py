"""Published claims against runs: what decides, and what does not."""

from __future__ import annotations

import pytest

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.statistics.claims import groups_of, judged, read_claims


def rows(**values: list[float]) -> list[dict[str, object]]:
    return [{"variant": f"{name}-s{seed}", "psnr": v} for name, found in values.items() for seed, v in enumerate(found)]


@pytest.mark.parametrize(
    ("claim", "word"),
    [
        ("psnr: ours > theirs", "confirmed"),
        ("psnr: ours < theirs", "NOT confirmed"),
        ("psnr: ours > theirs + 1.5", "NOT confirmed"),
        ("psnr: theirs > ours - 1.5", "confirmed"),
        ("psnr: ours > near", "not decided"),
    ],
)
def test_a_claim_is_decided_by_differences_of_one_seed(claim: str, word: str) -> None:
    runs = rows(ours=[20.0, 25.0, 30.0], theirs=[19.0, 24.1, 28.9], near=[19.0, 26.0, 29.9])
    found, figures = read_claims(claim, "here")[0].verdict(runs)
    assert found == word
    assert figures.endswith(", 3 seeds")


def test_differences_not_means_decide() -> None:
    # means differ by far less than each varies over seeds, and every seed says the same
    assert read_claims("psnr: a > b", "here")[0].verdict(rows(a=[10.1, 30.1], b=[10.0, 29.99]))[0] == "confirmed"


def test_one_run_is_said_to_be_one() -> None:
    runs = [{"variant": "a", "psnr": 2.0}, {"variant": "b", "psnr": 1.0}]
    assert read_claims("psnr: a > b", "here")[0].verdict(runs) == ("confirmed", "2 and 1, one seed")
    assert read_claims("psnr: b > a", "here")[0].verdict(runs)[0] == "NOT confirmed"
    assert read_claims("psnr: a > a", "here")[0].verdict(runs)[0] == "NOT confirmed"


def test_what_is_missing_cannot_be_judged() -> None:
    runs = [{"variant": "a", "psnr": 2.0}, {"variant": "b", "psnr": None}]
    assert read_claims("psnr: a > b", "here")[0].verdict(runs)[0] == "not in our run"


def test_names_with_commas_and_several_claims_in_several_groups() -> None:
    published = [
        {"text": "t", "source": "s", "claim": "mse: x, m = 3 < y; mse: y < x, m = 3"},
        {"text": "u", "source": "s"},
    ]
    groups = {
        "relu": [{"variant": "x, m = 3", "mse": 1.0}, {"variant": "y", "mse": 2.0}],
        "gelu": [{"variant": "x, m = 3", "mse": 3.0}, {"variant": "y", "mse": 2.0}],
    }
    first, second = judged(published, groups)
    assert first["verdict"] == (
        "mse of x, m = 3 < y: confirmed for relu (1 and 2, one seed), NOT confirmed for gelu (3 and 2, one seed); "
        "mse of y < x, m = 3: NOT confirmed for relu (2 and 1, one seed), confirmed for gelu (2 and 3, one seed)"
    )
    assert "verdict" not in second


@pytest.mark.parametrize("text", ["psnr: a", "a > b", "psnr: a >= b", "psnr: a > b;", ""])
def test_other_forms_are_refused_with_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"p\.yml: claim .* is not of the form"):
        read_claims(text, "p.yml")


def test_a_claim_is_written_as_it_is_read() -> None:
    for text in ("psnr of a, m = 3 > b - 0.1", "mse of a < b + 2", "mse of a < b"):
        assert str(read_claims(text.replace(" of", ":"), "here")[0]) == text


def test_rows_of_a_study_are_a_row_a_seed() -> None:
    study = [{"group": "relu", "variant": "a", "seeds": {"0": {"mse": 1.0}, "4": {"mse": 2.0}}, "mean": {}}]
    assert groups_of(study) == {"relu": [{"variant": "a-s0", "mse": 1.0}, {"variant": "a-s4", "mse": 2.0}]}
    assert groups_of([{"variant": "a", "psnr": 1.0}]) == {"": [{"variant": "a", "psnr": 1.0}]}
