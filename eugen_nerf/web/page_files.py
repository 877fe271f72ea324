"""Pages on the disk: whole or absent."""

from __future__ import annotations

from pathlib import Path

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.web.page import WebPage

INDEX = "index.html"
"""The page in a folder that has its weights beside it."""
SUFFIXES = (".html", ".htm")


def check_page_path(path: Path, *, folder: bool = False, overwrite: bool = False, option: str = "--output") -> None:
    """Refuses early what no page can be written to.

    Args:
        path: of the page, or of the folder.
        folder: whether a folder is made.
        overwrite: whether an older page is replaced.
        option: what a message says to change.

    Raises:
        ConfigError: a file that browsers would not open as a page.
        RunError: it cannot be written, or is there; a folder that holds no page is never replaced.
    """
    if not folder and path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} is no .html file, which browsers open as a page: choose such a name for {option}")
    check_place(path, "folder" if folder else "file", option)
    if folder and path.is_dir() and any(path.iterdir()) and not (path / INDEX).is_file():
        raise RunError(f"the folder {path} holds other files and no page: choose another {option}")
    if path.exists() and not overwrite and not (folder and not any(path.iterdir())):
        raise RunError(f"{path} exists: choose another {option}, or pass --overwrite to replace it")


def write_page(page: WebPage, path: Path, *, overwrite: bool = False) -> int:
    """Writes a page as one file, or as a folder where it has files beside it.

    Args:
        page: as `web_page` made it.
        path: of the file or folder.
        overwrite: whether an older one is replaced.

    Returns:
        Bytes written.

    Raises:
        ConfigError, RunError: as `check_page_path`, and where the disk is full.
    """
    folder = bool(page.beside)
    check_page_path(path, folder=folder, overwrite=overwrite)
    contents = {INDEX: page.html.encode(), **page.beside}
    try:
        with atomic_path(path, replace=overwrite or folder) as partial:
            if folder:
                partial.mkdir()
            for name, content in contents.items():
                (partial / name if folder else partial).write_bytes(content)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; free some space") from error
    return sum(map(len, contents.values()))
