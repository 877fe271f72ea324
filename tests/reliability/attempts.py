"""Commands whose system calls fail, one at a time, in processes of `fault_server.py`."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from system_faults import Fault

ENVIRONMENT = {"COLUMNS": "200", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Attempt:
    """What became of a command."""

    status: int
    """Its exit status; -9 where it was killed."""
    calls: list[str]
    """The counted system calls: name and path."""
    output: str
    errors: str

    @property
    def traceback(self) -> bool:
        """Whether a stack trace was printed."""
        return "Traceback (most recent call last)" in self.output + self.errors


@cache
def _server() -> subprocess.Popen[bytes]:
    words = [sys.executable, str(Path(__file__).with_name("fault_server.py"))]
    server = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **ENVIRONMENT}, bufsize=0
    )
    atexit.register(server.communicate)
    return server


def attempt(words: Sequence[object], folder: Path, fault: Fault | None = None) -> Attempt:
    """Runs a command in a folder, whose calls below it are counted.

    Args:
        words: as they are typed.
        folder: where it runs; its output is written beside it.
        fault: what happens at which call.
    """
    server, given = _server(), None if fault is None else (fault.kind, fault.at)
    request = json.dumps([[str(word) for word in words], str(folder.resolve()), given, ENVIRONMENT])
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{request}\n".encode())
    line = server.stdout.readline()
    assert line, "the server of commands ended"
    return Attempt(*json.loads(line))
