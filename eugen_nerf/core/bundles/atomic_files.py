"""Files and folders that are whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eugen_nerf.core.bundle_schema import BundleError


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, for a file or folder that takes its name when the block ends well.

    Raises:
        BundleError: the name is taken, or anything in the block raises OSError; nothing is left behind.
    """
    if path.exists() or path.is_symlink():
        raise BundleError(f"{path} exists: choose another name, or remove it first")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.rename(path)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}; free some space") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):  # such as a parent that is a file
                partial.unlink()
