"""What an evaluation may write where: checks that come before anything is loaded, and need nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.surfaces.files import check_new_file

JSON_NAME, HTML_NAME, SLICES_NAME = "report.json", "report.html", "slices.png"
CameraPath = Literal["fixed", "orbit", "spiral"]
"""What the camera of a film does."""
FILM_SUFFIXES = (".mp4", ".gif", ".png", "")
"""A film, an animation, a strip of frames side by side, a folder of images."""


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse early, before hours of measuring, a folder that holds an older result or cannot be made. Makes nothing.

    Raises:
        RunError: there is a result and ``overwrite`` is False, or the folder cannot be written.
    """
    check_place(folder, "folder")
    older = [folder / name for name in (JSON_NAME, HTML_NAME) if (folder / name).exists()]
    if older and not overwrite:
        raise RunError(f"{older[0]} exists: choose another --output, or pass --overwrite to replace it")


def check_sdf_report(folder: Path, *, overwrite: bool) -> None:
    """Refuses early a folder that holds an older report or cannot be written; raises `RunError`."""
    check_place(folder, "folder")
    for name in (JSON_NAME, HTML_NAME, SLICES_NAME):
        check_new_file(folder / name, overwrite=overwrite)


def check_film_output(output: Path, *, overwrite: bool) -> None:
    """Refuses, before anything is rendered, what cannot be written.

    Raises:
        ConfigError: a file of another kind.
        RunError: it is there already and `overwrite` is off; a folder with anything in it is never replaced.
    """
    if output.suffix.lower() not in FILM_SUFFIXES:
        raise ConfigError(f"{output} is no .mp4, .gif or .png (a strip of frames), nor a folder: choose one of these")
    check_place(output, "file" if output.suffix else "folder")
    if output.is_dir() and any(output.iterdir()):
        raise RunError(f"the folder {output} is not empty: choose another --output")
    if output.is_file() and not (overwrite and output.suffix):
        raise RunError(f"{output} exists: choose another --output, or pass --overwrite")
