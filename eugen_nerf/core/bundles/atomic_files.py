"""Files and folders of bundles: whole or absent, and never in place of an older one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.bundle_schema import BundleError


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, for a file or folder that takes its name when the block ends well.

    Raises:
        BundleError: the name is taken, or anything in the block raises OSError; nothing is left behind.
    """
    if path.exists() or path.is_symlink():
        raise BundleError(f"{path} exists: choose another name, or remove it first")
    try:
        with atomic_path(path) as partial:
            yield partial
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}; free some space") from error
