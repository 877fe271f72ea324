"""Files and folders that are whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`, for a file or folder that takes its name when the block ends well.

    Nothing is left under the temporary name, whatever the block raises; a process that is killed leaves at most a
    hidden `.NAME.PID.partial`, and the older folder as `.NAME.PID.replaced` where it is killed between two renames.

    Args:
        path: file or folder to make; its parents are made too.
        replace: whether an older file or folder of that name is replaced, once the new one is whole.

    Raises:
        OSError: the name is taken and `replace` is off, or the block's own; the older file or folder is kept.
    """
    partial = _beside(path, "partial")
    replaced = _beside(path, "replaced")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if not replace and (path.exists() or path.is_symlink()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if path.is_dir():  # a rename replaces a file, and no folder with anything in it
            path.rename(replaced)
        try:
            partial.replace(path)
        except OSError:
            if replaced.exists():
                replaced.rename(path)
            raise
    finally:
        _remove(partial)
        _remove(replaced)


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}.{word}{path.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # not there, or its parent is a file
            path.unlink()
