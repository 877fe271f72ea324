"""Writes result files completely or not at all, and replaces an older one only on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import RunError


def check_new_file(path: Path, *, overwrite: bool) -> None:
    """Raises `RunError` early, before minutes of work, if a name is taken or cannot be written."""
    check_place(path, "file")
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists: choose another --output, or pass --overwrite to replace it")


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary file name with the same suffix beside `path`, renamed to it when the block succeeds.

    Raises `RunError` if the name is taken, if the block raises OSError, or if it does not write the file.
    """
    check_new_file(path, overwrite=overwrite)
    try:
        with atomic_path(path, replace=overwrite) as partial:
            yield partial
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space, or choose another --output"
        ) from error
