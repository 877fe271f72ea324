"""Places that a command is to write: whether it can, before work begins."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from eugen_nerf.core.checks.names import check_path_text
from eugen_nerf.core.errors import RunError


def check_place(path: Path, kind: Literal["file", "folder"], option: str = "--output") -> None:
    """Refuses a place where no such file or folder can be written. Makes nothing that stays.

    Whether an older result may be replaced is the caller's question: one of the same kind passes.

    Args:
        path: what is to be written; its parents need not be there.
        kind: what it will be.
        option: what the message says to change.

    Raises:
        ConfigError: it can be no path.
        RunError: it is something else, lies below a file, or its folder cannot be written.
    """
    check_path_text(path, option)
    other = f"choose another {option}"
    try:
        if path.is_dir() != (kind == "folder") and path.exists():
            raise RunError(f"{path} exists and is {_kind(path)}, not a {kind}: {other}")
        if kind == "file" and path.exists() and not path.is_file():
            raise RunError(f"{path} is {_kind(path)}: {other}")
        lower = path.absolute() if kind == "folder" else path.absolute().parent
        there = next(each for each in (lower, *lower.parents) if each.exists() or each.is_symlink())
        if not there.is_dir():
            raise RunError(f"{path} cannot be made, as {there} is {_kind(there)}: {other}")
        with tempfile.TemporaryFile(dir=there):  # what permissions say is not all: file systems may be read-only
            pass
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}; {other}") from error


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    if path.is_file():
        return "a file"
    return "a device or pipe" if path.exists() else "a link that leads nowhere"
