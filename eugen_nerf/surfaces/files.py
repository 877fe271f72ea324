"""Writes result files completely or not at all, and replaces an older one only on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from eugen_nerf.core.atomic_paths import atomic_paths
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import RunError


def check_new_file(path: Path, *, overwrite: bool) -> None:
    """Raises `RunError` early, before minutes of work, if a name is taken or cannot be written."""
    check_place(path, "file")
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists: choose another --output, or pass --overwrite to replace it")


@contextmanager
def new_files(paths: Sequence[Path], *, overwrite: bool = False, obsolete: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """Temporary names for the files of one result, the one that stands for it first: see `atomic_paths`.

    Raises `RunError` if a name is taken, if the block raises OSError, or if it does not write every file.
    """
    for path in paths:
        check_new_file(path, overwrite=overwrite)
    try:
        with atomic_paths(paths, replace=overwrite, obsolete=obsolete) as partials:
            yield partials
    except OSError as error:
        raise RunError(
            f"cannot write {paths[0]}: {error.strerror or error}; free some space, or choose another --output"
        ) from error


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary file name with the same suffix beside `path`, renamed to it when the block succeeds.

    Raises `RunError` if the name is taken, if the block raises OSError, or if it does not write the file.
    """
    with new_files([path], overwrite=overwrite) as (partial,):
        yield partial


def write_texts(contents: Mapping[Path, str], *, overwrite: bool = False) -> None:
    """Writes the texts of one result, the one that stands for it first. Raises `RunError` as `new_files`."""
    with new_files(list(contents), overwrite=overwrite) as partials:
        for partial, text in zip(partials, contents.values(), strict=True):
            partial.write_text(text, encoding="utf8")
