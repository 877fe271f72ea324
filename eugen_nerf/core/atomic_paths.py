"""Files and folders that are whole or absent."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

_TEMPORARY = re.compile(
    r"(?:\.|tmp-0\.)(?P<stem>.+)\.(?P<host>[0-9a-f]{6})-(?P<pid>\d+)\.(?P<word>partial|replaced)(?P<suffix>\.[^.]*)?"
)


@contextmanager
def atomic_path(path: Path, *, replace: bool = False, prefix: str = ".") -> Iterator[Path]:
    """A temporary name beside `path`, for a file or folder that takes its name when the block ends well.

    Nothing is left under the temporary name, whatever the block raises. Its content is on the disk before it takes its
    name. A process that is killed leaves at most a hidden `.NAME.HOST-PID.partial`, and, where a folder is replaced in
    two steps as the system has no single one, the older folder as `.NAME.HOST-PID.replaced`: the next call for any name
    in that folder clears both away, and gives an older folder its name back.

    Args:
        path: file or folder to make; its parents are made too.
        replace: whether an older file or folder of that name is replaced, once the new one is whole.
        prefix: what the temporary name begins with.

    Raises:
        OSError: the name is taken and `replace` is off, or the block's own; the older file or folder is kept.
    """
    partial = _beside(path, "partial", prefix)
    replaced = _beside(path, "replaced", prefix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path.parent)
        yield partial
        _flush(partial)
        if not replace and (path.exists() or path.is_symlink()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        # a rename replaces a file, and no folder with anything in it
        if not (path.is_dir() and _exchange(partial, path)):
            _replace(partial, path, replaced)
        with suppress(OSError):  # a file system that cannot; the content is on the disk
            _synchronise(path.parent)
    finally:
        _remove(partial)
        _remove(replaced)


@contextmanager
def atomic_paths(
    paths: Sequence[Path], *, replace: bool = False, obsolete: Sequence[Path] = ()
) -> Iterator[list[Path]]:
    """As `atomic_path`, for files that belong together: those that are there are always of one result.

    The first one stands for the result. Older ones of the others are removed just before it takes its name, and the new
    ones take theirs after it: a process that is killed in between leaves fewer files, and none that belongs to another.

    Args:
        paths: files to make, at least one.
        replace: whether older ones are replaced, once all new ones are whole.
        obsolete: further files of an older result, which the new one does not have.

    Raises:
        OSError: as `atomic_path`, before anything is removed.
    """
    first, *others = paths
    with ExitStack() as stack:
        partials = [stack.enter_context(atomic_path(path, replace=replace)) for path in others]
        with atomic_path(first, replace=replace) as partial:
            yield [partial, *partials]
            for each in partials:
                _flush(each)
            for path in (*others, *obsolete) if replace else ():
                path.unlink(missing_ok=True)


def _exchange(one: Path, other: Path) -> bool:
    """Whether two names have changed places, in one step: Linux can, on most file systems."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _replace(partial: Path, path: Path, replaced: Path) -> None:
    """Renames, in two steps where a folder is in the way; raises OSError, and the older one keeps its name."""
    if path.is_dir():
        path.rename(replaced)
    try:
        partial.replace(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise


def recover(folder: Path) -> None:
    """Clears away what processes of this host that are gone left in a folder; a folder that lost its name gets it back.

    Args:
        folder: where `atomic_path` made files or folders.

    Raises:
        OSError: a folder cannot be given its name back.
    """
    for left in list(folder.iterdir()) if folder.is_dir() else []:
        match = _TEMPORARY.fullmatch(left.name)
        if match is None or match["host"] != _host() or _is_running(int(match["pid"])):
            continue
        path = left.with_name(match["stem"] + (match["suffix"] or ""))
        if match["word"] == "replaced" and not path.exists():
            left.rename(path)
        else:
            _remove(left)


@cache
def _host() -> str:
    """Says which machine a process number is of, where several share a folder."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no number of a process
        return True
    return not _has_ended(pid)


def _has_ended(pid: int) -> bool:
    """Whether a process has ended and nobody has taken note of it yet, as happens in containers; False if unknown."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in (b"Z", b"X")


def _flush(path: Path) -> None:
    """Returns when a file, or a folder with all in it, is on the disk.

    Raises:
        OSError: it is not there, or the disk is full.
    """
    for each in [*(path.rglob("*") if path.is_dir() else ()), path]:
        _synchronise(each)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, word: str, prefix: str) -> Path:
    return path.with_name(f"{prefix}{path.stem}.{_host()}-{os.getpid()}.{word}{path.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # not there, or its parent is a file
            path.unlink()
