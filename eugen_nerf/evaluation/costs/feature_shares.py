"""Runs once more at shares of their features, as rows of their own: one training, networks of several widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.networks.feature_prefix import check_share
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import Run


def parse_shares(words: Sequence[str], names: Sequence[str]) -> list[tuple[str, float]]:
    """Pairs of a run's name and a share.

    Args:
        words: such as "eugen:0.5".
        names: of the runs.

    Raises:
        ConfigError: another form, an unknown run, a share that is none, or one given twice.
    """
    pairs: list[tuple[str, float]] = []
    for word in words:
        name, mark, number = word.rpartition(":")
        try:
            share = float(number)
            check_share(share)
        except ValueError as error:
            raise ConfigError(f"--shares {word!r} is no RUN:SHARE with a share above 0 and at most 1") from error
        if not mark or name not in names:
            raise ConfigError(f"--shares {word!r} is no RUN:SHARE; runs are {', '.join(names)}")
        pairs.append((name, share))
    if len(set(pairs)) < len(pairs):
        raise ConfigError(f"--shares {' '.join(words)} names one row twice")
    return pairs


def with_shares(
    runs: Mapping[str, Run], pairs: Sequence[tuple[str, float]], load: Callable[[Run], Run], notes: list[str]
) -> dict[str, Run]:
    """The runs, each followed by itself at shares of its features, called "RUN SHARE".

    Args:
        runs: by name.
        pairs: from `parse_shares`.
        load: loads a run a second time.
        notes: gets a line for each share that a run was not trained at.

    Raises:
        ConfigError: a run whose fields are no graphs of layers.
    """
    result: dict[str, Run] = {}
    for name, run in runs.items():
        result[name] = run
        for share in [s for other, s in pairs if other == name]:
            if not isinstance(run.model, GraphModel):
                raise ConfigError(f"--shares takes runs of the eugen-* methods, and {name!r} is none")
            again = load(run)
            assert isinstance(again.model, GraphModel)
            for label, field in again.model.graph_fields().items():
                field.network.share = share
                if share != 1 and share not in field.shares:
                    notes.append(f"{name} {share:g}: the field {label} was not trained at this share of its features")
            result[f"{name} {share:g}"] = again
    return result
