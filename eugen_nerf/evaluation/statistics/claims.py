"""What was published, checked against our own runs and said in plain words: confirmed, not confirmed, or not decided.

A claim is a text such as `psnr: eugen-96 > lowrank` or `psnr: eugen-96 > dense - 0.1`: a metric, two variants, and
perhaps what is added to the right side. Several are separated by semicolons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.statistics.seeds import mean_and_spread, name_and_seed

_FORM = re.compile(
    r"(?P<metric>\w+): (?P<left>.+?) (?P<sign>[<>]) (?P<right>.+?)(?: (?P<operation>[+-]) (?P<margin>\d+(\.\d+)?))?"
)


@dataclass(frozen=True)
class Claim:
    """`left` is greater (or less) than `right` plus `margin`."""

    metric: str
    left: str
    greater: bool
    right: str
    margin: float = 0.0

    def __str__(self) -> str:
        """As it is written."""
        margin = "" if self.margin == 0 else f" {'+' if self.margin > 0 else '-'} {abs(self.margin):g}"
        return f"{self.metric} of {self.left} {'>' if self.greater else '<'} {self.right}{margin}"

    def verdict(self, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """Confirmed, NOT confirmed, not decided or not in our run; and the figures.

        Args:
            rows: with `variant` (of several seeds: NAME-s0, NAME-s1, ...) and the metric. Runs of one seed are compared
                with one another, and a mean difference that is not larger than its standard deviation decides nothing.
        """
        ours, theirs = self._by_seed(rows, self.left), self._by_seed(rows, self.right)
        shared = [seed for seed in ours if seed in theirs]
        if not shared:
            return "not in our run", "-"
        mean, spread = mean_and_spread([ours[seed] - theirs[seed] - self.margin for seed in shared])
        left, right = (mean_and_spread([values[seed] for seed in shared])[0] for values in (ours, theirs))
        if len(shared) > 1 and abs(mean) <= spread:
            word = "not decided"
        else:
            word = "confirmed" if (mean > 0) == self.greater and mean != 0 else "NOT confirmed"
        seeds = "one seed" if len(shared) == 1 else f"{len(shared)} seeds"
        return word, f"{left:.4g} and {right:.4g}, {seeds}"

    def _by_seed(self, rows: Sequence[Mapping[str, Any]], name: str) -> dict[str | None, float]:
        by_seed: dict[str | None, float] = {}
        for row in rows:
            if row.get(self.metric) is None:
                continue
            if row["variant"] == name:
                return {None: float(row[self.metric])}
            stem, seed = name_and_seed(row)
            if stem == name:
                by_seed[seed] = float(row[self.metric])
        return by_seed


def read_claims(text: str, where: str) -> list[Claim]:
    """Claims of a text.

    Raises:
        ConfigError: a part that has another form; `where` says where it stands.
    """
    claims = []
    for part in text.split(";"):
        match = _FORM.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"{where}: claim {part.strip()!r} is not of the form 'psnr: VARIANT > VARIANT - 0.1'")
        margin = float(match["margin"] or 0) * (-1 if match["operation"] == "-" else 1)
        claims.append(Claim(match["metric"], match["left"], match["sign"] == ">", match["right"], margin))
    return claims


def groups_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of a report by what a claim is judged in: all runs, or the groups of a study, a row a seed."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "seeds" in row and "group" in row:
            own = [{**numbers, "variant": f"{row['variant']}-s{seed}"} for seed, numbers in row["seeds"].items()]
            groups.setdefault(str(row["group"]), []).extend(own)
        else:
            groups.setdefault("", []).append(dict(row))
    return groups


def judged(
    published: Sequence[Mapping[str, str]], groups: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, str]]:
    """Published rows with a `verdict` where they have a `claim`.

    Args:
        published: see `evaluation/statistics/published.py`.
        groups: rows of our runs by the name of what they belong to; a claim is judged in each, the name is left out
            where it is empty.
    """
    result = []
    for row in published:
        claims = read_claims(row["claim"], "a published row") if "claim" in row else []
        texts = [_in_groups(claim, groups) for claim in claims]
        result.append({**row, "verdict": "; ".join(texts)} if texts else dict(row))
    return result


def _in_groups(claim: Claim, groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    by_verdict: dict[str, list[str]] = {}
    for name, rows in groups.items():
        word, figures = claim.verdict(rows)
        by_verdict.setdefault(word, []).append(f"{name} ({figures})" if name else f"({figures})")
    parts = [f"{word} {'for ' if '' not in groups else ''}{', '.join(names)}" for word, names in by_verdict.items()]
    return f"{claim}: {', '.join(parts)}"
