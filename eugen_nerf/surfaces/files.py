"""Writes result files completely or not at all, and replaces an older one only on request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.errors import RunError


def check_new_file(path: Path, *, overwrite: bool) -> None:
    """Raises `RunError` early, before minutes of work, if a name is taken or cannot be written."""
    try:
        taken = path.exists()
    except OSError as error:
        raise RunError(f"cannot access {path}: {error.strerror}; choose another --output") from error
    if taken and not overwrite:
        raise RunError(f"{path} exists: choose another --output, or pass --overwrite to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {path.parent}: {error.strerror}; choose another --output") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise RunError(f"{path} cannot be written: choose another --output")


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
