"""Weights of a field as a page holds them: packed without loss, as inert text or as a file beside the page."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass

PLANES = (1, 2, 4)
"""Bytes of a value whose planes may be stored one after the other: exponents are alike, and pack better together."""


@dataclass(frozen=True)
class PagePayload:
    """Bytes, as they are stored.

    Attributes:
        size: bytes before packing.
        stored: bytes after it.
        compression: ``gzip`` or ``none``.
        planes: into how many planes of bytes they were split before that; 1 for none.
    """

    size: int
    stored: bytes
    compression: str
    planes: int

    @classmethod
    def of(cls, data: bytes) -> PagePayload:
        """The smallest of the ways to store some bytes; the same bytes always give the same."""
        packed = {planes: gzip.compress(_split(data, planes), 9, mtime=0) for planes in PLANES if _fits(data, planes)}
        planes = min(packed, key=lambda each: len(packed[each]))
        if len(packed[planes]) >= len(data):
            return cls(len(data), data, "none", 1)
        return cls(len(data), packed[planes], "gzip", planes)

    def describe(self, file: str | None) -> dict[str, object]:
        """What the page's script has to know; `file` is the name beside the page, None where the text is in it."""
        text = len(self.text()) if file is None else len(self.stored)
        return {
            "bytes": self.size,
            "stored": text,
            "compression": self.compression,
            "planes": self.planes,
            "file": file,
        }

    def text(self) -> str:
        """As letters, digits, ``+``, ``/`` and ``=``, which no markup can be made of."""
        return base64.b64encode(self.stored).decode("ascii")


def _fits(data: bytes, planes: int) -> bool:
    return len(data) % planes == 0


def _split(data: bytes, planes: int) -> bytes:
    """First bytes of all values, then their second bytes, and so on."""
    return b"".join(data[plane::planes] for plane in range(planes))
