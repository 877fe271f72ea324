"""Runs once more in less precise arithmetic, as rows of their own: what quantising alone gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from eugen_nerf.core import reduce_precision
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.quantized import PRECISIONS, Precision
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import Run


def parse_reduced(words: Sequence[str], names: Sequence[str]) -> list[tuple[str, Precision]]:
    """Pairs of a run's name and a precision.

    Args:
        words: such as "dense:bfloat16".
        names: of the runs.

    Raises:
        ConfigError: another form, an unknown run or precision, or one given twice.
    """
    pairs: list[tuple[str, Precision]] = []
    for word in words:
        name, mark, precision = word.rpartition(":")
        if not mark or name not in names or precision not in PRECISIONS:
            allowed = f"runs are {', '.join(names)}, precisions {', '.join(PRECISIONS)}"
            raise ConfigError(f"--reduced {word!r} is no RUN:PRECISION; {allowed}")
        pairs.append((name, precision))
    if len(set(pairs)) < len(pairs):
        raise ConfigError(f"--reduced {' '.join(words)} names one row twice")
    return pairs


def with_reduced(
    runs: Mapping[str, Run], pairs: Sequence[tuple[str, Precision]], load: Callable[[Run], Run], notes: list[str]
) -> dict[str, Run]:
    """The runs, each followed by itself in other precisions, called "RUN PRECISION".

    A precision that is not to be had here is left out, with a note.

    Args:
        runs: by name.
        pairs: from `parse_reduced`.
        load: loads a run a second time.
        notes: gets a line for what each row's arithmetic is, or why it is left out.

    Raises:
        ConfigError: a run whose fields are no graphs of layers.
    """
    result: dict[str, Run] = {}
    for name, run in runs.items():
        result[name] = run
        for precision in [p for other, p in pairs if other == name]:
            if not isinstance(run.model, GraphModel):
                raise ConfigError(f"--reduced takes runs of the eugen-* methods, and {name!r} is none")
            again = load(run)
            assert isinstance(again.model, GraphModel)
            try:
                networks = [field.network for field in again.model.graph_fields().values()]
                statements = {reduce_precision(network, precision): None for network in networks}
            except ConfigError as error:
                notes.append(f"{name} {precision} left out: {error}")
                continue
            notes += [f"{name} {precision}: {statement}" for statement in statements]
            result[f"{name} {precision}"] = again
    return result
