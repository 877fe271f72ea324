"""Text and JSON files of RGB-D sequences, read with one clear line about what is wrong in them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from eugen_nerf.core.checks.names import shown
from eugen_nerf.core.errors import DataError
from eugen_nerf.core.ranges import Range
from eugen_nerf.data.rgbd.rgbd_types import Array


def read_text(path: Path) -> str:
    """A text file, with or without a byte-order mark; raises `DataError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise DataError(f"'{path}' {what}: this layout needs it; copy it there, or choose another --layout") from error


def read_numbers(path: Path) -> Array:
    """All numbers of a text file, float64 [n]; raises `DataError`."""
    words = read_text(path).replace(",", " ").split()
    try:
        return np.array([float(value) for value in words])
    except ValueError as error:
        raise DataError(f"'{path}' must hold numbers alone ({error}): correct it") from error


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; raises `DataError`."""
    text = read_text(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is not valid JSON ({error}): write it again") from error
    if not isinstance(document, dict):
        raise DataError(f"'{path}' must hold an object: write it again")
    return document


def number(values: dict[str, Any], key: str, default: float, where: str, *, positive: bool = False) -> float:
    """A finite number of a JSON object, or the default where it has none; raises `DataError`."""
    value = values.get(key, default)
    if isinstance(value, str):  # some writers quote their numbers
        with suppress(ValueError):
            value = float(value)
    good = isinstance(value, int | float) and not isinstance(value, bool) and value in Range()
    if not good or (positive and value <= 0):
        needed = "a positive, finite number" if positive else "a finite number"
        raise DataError(f"{key} of {where} is {shown(value)}: {needed} is needed; correct it, or remove it everywhere")
    return float(value)


def list_of_objects(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """The list of objects, at least one, under a key of a JSON object; raises `DataError`."""
    entries = document.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"'{key}' of '{path}' must be a list of at least one frame: write it again")
    return entries
