"""Finds the files that a data set names, however their names are written."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from eugen_nerf.core.checks.names import check_path_text
from eugen_nerf.core.errors import ConfigError, DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
OTHER_SUFFIXES = (".heic", ".heif", ".avif", ".gif", ".ppm", ".pgm", ".tga", ".jp2", ".jxl", ".exr", ".dng", ".npy")
"""Further extensions in names: a converted file may have the same stem."""


class ImageFinder:
    """Finds the files that a data set names.

    Backslashes separate folders, an extension may be missing, different or of different case, as long as exactly one
    file matches. Of an absolute path on another machine, the part that exists here is used. Accented letters may be in
    either of Unicode's normal forms.

    Arguments:
        root: directory to which names are relative.
        suffixes: extensions to try where a name has none or another one.
    """

    def __init__(self, root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
        self.root, self.suffixes = root, suffixes
        self._names: dict[Path, list[Path]] = {}

    def find(self, text: str, suffix: str, where: str) -> Path:
        """The file of a name; the path as written if none matches.

        Arguments:
            text: the name.
            suffix: extension that the format appends to names, "" for none.
            where: the entry that has the name, for error messages.

        Raises `DataError` if several files match, or for what can be the name of no file.
        """
        try:
            check_path_text(Path(text), f"the file name in {where}")
        except ConfigError as error:
            raise DataError(f"{error}; correct or remove the entry") from error
        for name in _spellings(self.root, text):
            plain = self.root / name
            appended = plain.with_name(plain.name + suffix) if plain.name else plain
            found = next((path for path in (appended, plain) if path.is_file()), None) or self._similar_file(
                plain, text, where
            )
            if found is not None:
                return found
        plain = self.root / next(_spellings(self.root, text))
        known = plain.suffix.lower() in (*self.suffixes, *OTHER_SUFFIXES)
        return plain if known or not plain.name else plain.with_name(plain.name + suffix)

    def _similar_file(self, plain: Path, text: str, where: str) -> Path | None:
        """The only file whose name differs by its extension or by case alone."""
        folder = plain.parent
        if folder not in self._names:
            self._names[folder] = [p for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        stem = plain.stem if plain.suffix.lower() in (*self.suffixes, *OTHER_SUFFIXES) else plain.name
        fitting = [p for p in self._names[folder] if p.name.lower() == plain.name.lower()]
        fitting = fitting or [p for p in self._names[folder] if p.stem == stem and p.suffix.lower() in self.suffixes]
        if len(fitting) > 1:
            raise DataError(
                f"'{text}' in {where} may be '{min(fitting).name}' or '{max(fitting).name}': write the whole name"
            )
        return fitting[0] if fitting else None


def _spellings(root: Path, text: str) -> Iterator[str]:
    """Candidate spellings of a name, the most literal first."""
    slashed = text.replace("\\", "/") if "\\" in text and not (root / text).is_file() else text
    yield slashed
    if not slashed.isascii():
        yield from (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
    drive = slashed[1:3] == ":/"
    if slashed.startswith("/") or drive:  # an absolute path on another machine
        parts = PurePosixPath(slashed).parts[1:]
        yield from ("/".join(parts[start:]) for start in range(len(parts)))
