"""Where a run lies: checks of a path that need no torch, so that a wrong one is an error at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from eugen_nerf.core.errors import ConfigError, RunError

_BUNDLE_FILE = "bundle.json"
_START = 4096
"""Bytes of a file that are looked at."""


def check_config_paths(paths: Iterable[Path]) -> None:
    """Raises `RunError` for the first path that is no file, or another one than a configuration of nerfstudio's."""
    for path in paths:
        if (path / _BUNDLE_FILE).is_file():
            raise RunError(
                f"{path} is a bundle: eugen-view and eugen-render take it without an option; other commands take the "
                "config.yml of the run that it was made of"
            )
        if path.is_dir():
            raise RunError(f"{path} is a folder: give the config.yml inside it")
        if not path.is_file():
            raise RunError(f"no run at {path}: give the path of the config.yml that training wrote")
        try:
            with path.open("rb") as file:
                start = file.read(_START)
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from error
        if b"!!python/object" not in start:
            raise RunError(f"{path} is no configuration of a run: give the path of the config.yml that training wrote")


def is_bundle(path: Path) -> bool:
    """Whether a path is meant as a bundle: a folder, for runs are given by the file in theirs."""
    return path.is_dir()


def check_bundle_paths(paths: Iterable[Path], *, exact: bool) -> None:
    """Refuses what is no bundle before anything slow is imported.

    Args:
        paths: of bundles.
        exact: whether the samplers of training are to render, which bundles do not hold.

    Raises:
        RunError: there is no folder of a bundle, or it is to be rendered exactly.
    """
    for path in paths:
        if not (path / _BUNDLE_FILE).is_file():
            raise RunError(f"{path} is no bundle: give a folder with {_BUNDLE_FILE}, or a run by --load-config")
        if exact:
            raise RunError(f"{path} is a bundle, without the samplers of training: leave out --exact, or open its run")


def check_data_path(path: Path | None) -> None:
    """Raises `RunError` where a data set is named that is not there."""
    if path is not None and not path.exists():
        raise RunError(f"--data {path} does not exist: give the folder of the data set")


def check_names(names: Sequence[str], count: int, *, kind: str = "runs", reserved: Sequence[str] = ()) -> None:
    """Refuses names that do not tell runs apart.

    Args:
        names: given by the user; none are fine.
        count: number of runs.
        kind: what they name, for the message.
        reserved: names that stand for something else.

    Raises:
        ConfigError: not one for each run, or one that is empty, repeated or reserved.
    """
    if names and len(names) != count:
        raise ConfigError(f"--names has {len(names)} names for {count} {kind}: give each a name of its own, in order")
    taken = [name for name in names if name in reserved or list(names).count(name) > 1 or not name.strip()]
    if taken:
        raise ConfigError(f"the name {taken[0]!r} is empty, repeated or reserved: give each a name of its own")


def run_names(paths: Sequence[Path], given: Sequence[str], *, reserved: Sequence[str] = ()) -> list[str]:
    """Names for runs: those given, else the shortest distinct parts of their paths; of bundles the last parts.

    Args:
        paths: of the runs.
        given: by the user, checked.
        reserved: names that no part of a path may be, as they stand for something else.
    """
    if given:
        return list(given)
    names: list[str] = []
    for length in (1, 2, 3, 4):
        names = ["/".join(_named_parts(path, length)) for path in paths]
        if len({*names, *reserved}) == len(names) + len(reserved):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def _named_parts(path: Path, length: int) -> tuple[str, ...]:
    """So many parts of a path by which it is called: experiment, method and time of a run, a bundle's own folder."""
    if is_bundle(path):
        return path.resolve().parts[-length:]
    parts = path.resolve().parent.parts
    return parts[-3 : -3 + length] if length < 3 else parts[-length:]
