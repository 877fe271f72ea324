"""Names of files as data sets write them, and the files that they mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from eugen_nerf.core.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FOREIGN = (".heic", ".heif", ".avif", ".gif", ".ppm", ".pgm", ".tga", ".jp2", ".jxl", ".exr", ".dng", ".npy")
"""Further extensions in names: what comes before them may be the name of a converted file."""


class ImageFinder:
    """Finds the files that a data set names, as its writer meant them.

    Backslashes separate folders, an extension may be left out, be another one or differ in case, as long as one file
    alone fits. Of a whole path on another machine, the part that is here counts; letters with accents may be written
    in either of Unicode's ways.

    Arguments:
        root: what the names start from.
        suffixes: extensions of the files that are looked for where a name has none or another one.
    """

    def __init__(self, root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
        self.root, self.suffixes = root, suffixes
        self._names: dict[Path, list[Path]] = {}

    def find(self, text: str, suffix: str, where: str) -> Path:
        """The file of a name; the name itself where none fits.

        Arguments:
            text: the name.
            suffix: what the format appends to a name, "" for nothing.
            where: what names it, for the message.

        Raises `DataError` where several files fit.
        """
        for name in _readings(self.root, text):
            plain = self.root / name
            appended = plain.with_name(plain.name + suffix) if plain.name else plain
            found = next((path for path in (appended, plain) if path.is_file()), None) or self._near(plain, text, where)
            if found is not None:
                return found
        plain = self.root / next(_readings(self.root, text))
        known = plain.suffix.lower() in (*self.suffixes, *FOREIGN)
        return plain if known or not plain.name else plain.with_name(plain.name + suffix)

    def _near(self, plain: Path, text: str, where: str) -> Path | None:
        """The one file that differs from a name by its extension or by case alone."""
        folder = plain.parent
        if folder not in self._names:
            self._names[folder] = [p for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        stem = plain.stem if plain.suffix.lower() in (*self.suffixes, *FOREIGN) else plain.name
        fitting = [p for p in self._names[folder] if p.name.lower() == plain.name.lower()]
        fitting = fitting or [p for p in self._names[folder] if p.stem == stem and p.suffix.lower() in self.suffixes]
        if len(fitting) > 1:
            raise DataError(
                f"'{text}' in {where} may be '{min(fitting).name}' or '{max(fitting).name}': write the whole name"
            )
        return fitting[0] if fitting else None


def _readings(root: Path, text: str) -> Iterator[str]:
    """Ways to read a name, the most literal first."""
    slashed = text.replace("\\", "/") if "\\" in text and not (root / text).is_file() else text
    yield slashed
    if not slashed.isascii():
        yield from (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
    drive = slashed[1:3] == ":/"
    if slashed.startswith("/") or drive:  # of the machine where the set was written
        parts = PurePosixPath(slashed).parts[1:]
        yield from ("/".join(parts[start:]) for start in range(len(parts)))
