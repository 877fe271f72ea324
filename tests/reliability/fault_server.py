"""Commands in processes forked from this one, whose system calls fail: `python fault_server.py`.

It has imported what the commands need, so that a try takes as long as its work. A request is a line of JSON on standard
input, an answer is one on standard output.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import command_server
from system_faults import Fault, restrict, watch


def note_modules(path: Path) -> None:
    """Writes at the end which modules were imported."""
    atexit.register(lambda: path.write_text("\n".join(sys.modules)))


def import_modules(path: Path) -> None:
    """Imports here what a command has imported: the next one has it."""
    for name in path.read_text().split("\n") if path.exists() else ():
        if name not in sys.modules:
            with suppress(Exception):  # what only exists inside of another
                importlib.import_module(name)


def attempt(words: list[str], folder: str, fault: tuple[str, int] | None, environment: dict[str, str]) -> object:
    """One command in a folder: its exit status, the counted calls, and what it printed."""
    output, errors, modules = (f"{folder}.{name}" for name in ("output", "errors", "modules"))
    mine, its = socket.socketpair()
    child = os.fork()
    if not child:
        mine.close()
        os.setsid()
        restrict(its)
        for path in (output, errors):
            Path(path).write_text("")
        note_modules(Path(modules))
        command_server.run_and_end(words, {**os.environ, **environment, "RUN_IN": folder}, output, errors)
    its.close()
    watched = watch(child, mine, Path(folder), None if fault is None else Fault(*fault))  # type: ignore[arg-type]
    mine.close()
    import_modules(Path(modules))
    return watched.status, watched.calls, *(Path(path).read_text(errors="replace") for path in (output, errors))


if __name__ == "__main__":
    for line in sys.stdin:
        os.write(command_server.ANSWERS, f"{json.dumps(attempt(*json.loads(line)))}\n".encode())
