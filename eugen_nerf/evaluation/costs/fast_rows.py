"""Runs once more by their fast renderers, as rows of their own: what a viewer shows, and how much sooner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.methods.runs.fast_rendering import use_fast_renderer
from eugen_nerf.methods.runs.loading import Run


def check_fast(chosen: Sequence[str], names: Sequence[str]) -> None:
    """Raises ConfigError where a name is no run's, or given twice."""
    for name in chosen:
        if name not in names or list(chosen).count(name) > 1:
            raise ConfigError(f"--fast {name!r} is no run, or given twice; runs are {', '.join(names)}")


def with_fast(
    runs: Mapping[str, Run], chosen: Sequence[str], load: Callable[[Run], Run], notes: list[str]
) -> dict[str, Run]:
    """The runs, and behind each that is chosen itself by its fast renderer, called "RUN fast".

    A renderer that would lose more than it may is left out, with a note.

    Args:
        runs: by name.
        chosen: names of some.
        load: loads a run a second time.
        notes: gets a line for what each row is rendered by.

    Raises:
        ConfigError: a run of a method without a fast renderer.
    """
    result: dict[str, Run] = {}
    for name, run in runs.items():
        result[name] = run
        if name not in chosen:
            continue
        again = load(run)
        choice = use_fast_renderer(again)
        if choice is None:
            raise ConfigError(f"--fast takes runs with a fast renderer, and {type(run.model).__name__} has none")
        notes.append(f"{name} fast: {choice}")
        if choice.rate:
            result[f"{name} fast"] = again
    return result
