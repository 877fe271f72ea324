"""Result files that are whole or absent, and never replace an older one unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eugen_nerf.core.errors import RunError


def check_new_file(path: Path, *, overwrite: bool) -> None:
    """Refuses early, before minutes of work, a name that is taken or cannot be written; raises `RunError`."""
    try:
        taken = path.exists()
    except OSError as error:
        raise RunError(f"cannot look at {path}: {error.strerror}; choose another --output") from error
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
    """A temporary name with the same ending, beside `path`, that takes its name when the block ends well.

    Raises `RunError` where the name is taken, or if anything in the block raises OSError or ends without the file.
    """
    check_new_file(path, overwrite=overwrite)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space, or choose another --output"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
