"""Files and folders that are whole or absent."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`, for a file or folder that takes its name when the block ends well.

    Nothing is left under the temporary name, whatever the block raises. Its content is on the disk before it takes its
    name. A process that is killed leaves at most a hidden `.NAME.PID.partial`, and the older folder as
    `.NAME.PID.replaced` where it is killed between two renames: the next call for the same name clears both away, and
    gives an older folder its name back.

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
        recover(path)
        yield partial
        _flush(partial)
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


def recover(path: Path) -> None:
    """Clears away what processes that are gone left beside a name; a folder that lost it gets it back.

    Args:
        path: file or folder that `atomic_path` makes.

    Raises:
        OSError: a folder cannot be given its name back.
    """
    pattern = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)\.(partial|replaced){re.escape(path.suffix)}")
    for left in list(path.parent.iterdir()) if path.parent.is_dir() else []:
        match = pattern.fullmatch(left.name)
        if match is None or _is_running(int(match[1])):
            continue
        if match[2] == "replaced" and not path.exists():
            left.rename(path)
        else:
            _remove(left)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no number of a process
        return True
    return True


def _flush(path: Path) -> None:
    """Returns when a file, or a folder with all in it, is on the disk.

    Raises:
        OSError: it is not there, or the disk is full.
    """
    for each in [*(path.rglob("*") if path.is_dir() else ()), path]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}.{word}{path.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # not there, or its parent is a file
            path.unlink()
