"""What the pretended device counts, and the place in the sources that made it happen."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(str(ROOT / folder) + "/" for folder in ("eugen_nerf", "viewer", "scripts"))
OTHERS = ("/nerfstudio/", "/torchmetrics/", "/viser/")

Place = str
"""A source file, from the repository or from site-packages on, and the function in it."""


class DeviceMixError(RuntimeError):
    """What a GPU would refuse."""


@dataclass
class Counts:
    """What went on since the pretence began, or since `reset`."""

    launches: Counter[Place] = field(default_factory=Counter)
    """Operations on device tensors that are neither views nor allocations, copies from and to the device included."""
    waits: Counter[tuple[str, Place]] = field(default_factory=Counter)
    """Times that the host waited for the device, by what made it wait."""
    moved_bytes: int = 0
    """What the operations read and wrote, each tensor once an operation."""
    doubles: Counter[tuple[str, Place]] = field(default_factory=Counter)
    """Operations whose results are float64 tensors of more than one number: a GPU does them slowly."""
    _thread: threading.local = field(default_factory=threading.local)

    @property
    def pretending(self) -> bool:
        """False while the pretence itself works, in the thread that it works in: others make batches meanwhile."""
        return bool(getattr(self._thread, "pretending", True))

    def reset(self) -> None:
        """Forgets all."""
        self.launches, self.waits, self.doubles, self.moved_bytes = Counter(), Counter(), Counter(), 0

    def launch(self, moved_bytes: int = 0) -> None:
        """Counts a launch."""
        self.launches[place()] += 1
        self.moved_bytes += moved_bytes

    def wait(self, what: str) -> None:
        """Counts a wait."""
        self.waits[what, place()] += 1

    def double(self, what: str) -> None:
        """Counts a float64 operation."""
        self.doubles[what, place()] += 1

    def refuse(self, why: str) -> None:
        """Raises `DeviceMixError` with the line of the call."""
        raise DeviceMixError(f"{why} [{line()}]")

    def summary(self) -> dict[str, int]:
        """The totals."""
        return {
            "launches": self.launches.total(),
            "waits": self.waits.total(),
            "bytes": self.moved_bytes,
            "float64_operations": self.doubles.total(),
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it nothing is checked, marked or counted."""
        before, self._thread.pretending = self.pretending, False
        try:
            yield
        finally:
            self._thread.pretending = before


def place() -> Place:
    """Where the work is: the innermost function of the repository, of nerfstudio or of what it uses."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _known(frame.f_code)[0]:
            return f"{_known(frame.f_code)[0]}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def line() -> str:
    """The innermost line of the repository, outside its tests."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        shown, ours = _known(frame.f_code)
        if ours:
            return f"{shown}:{frame.f_lineno}"
        frame = frame.f_back
    return "not from the repository's code"


@cache  # it is called for every frame of every launch
def _known(code: CodeType) -> tuple[str, bool]:
    """How the file of a function is shown, "" where it is not, and whether it is the repository's."""
    name, ours = code.co_filename, code.co_filename.startswith(OURS)
    if not ours and not any(part in name for part in OTHERS):
        return "", False
    return name.removeprefix(f"{ROOT}/").removeprefix("viewer/").rpartition("site-packages/")[2], ours
