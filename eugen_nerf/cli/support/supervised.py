"""Runs a command that ends with its parent, alone in its place.

    python -m eugen_nerf.cli.support.supervised PARENT LOCK LOG COMMAND ...

A process that is killed takes no children along: trainings would go on, and a second start would train beside them.
This one stands between: it holds a lock, looks whether the parent lives, and ends the command's whole process group.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

LOCKED = 75
"""Exit status where another process works in the same place (EX_TEMPFAIL of sysexits.h)."""
LOOK_EVERY = 0.3
"""Seconds between two looks at parent and command."""
LOCK_PATIENCE = 20.0
"""Seconds to wait for a lock: what a killed process left behind is ending meanwhile."""
END_PATIENCE = 10.0
"""Seconds that a command has to end by itself."""
_PR_SET_PDEATHSIG = 1


def supervised(command: Sequence[str], lock: Path, log: Path) -> list[str]:
    """The command line that runs a command under this module, as a child of the present process.

    Args:
        command: program and arguments.
        lock: file to lock while it runs.
        log: file that gets the command line and all output, once the lock is taken.
    """
    return [sys.executable, "-m", __name__, str(os.getpid()), str(lock), str(log), *command]


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Within it this process has a file's lock, and the file says who and since when; False where another has it.

    The system gives the lock back when the process ends, however it ends: no lock is ever stale.

    Args:
        path: the file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf8") as file:
        until = time.monotonic() + LOCK_PATIENCE
        while not _take(file.fileno()):
            if time.monotonic() > until:
                yield False
                return
            time.sleep(LOOK_EVERY)
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T %z")}, file)
        file.flush()
        yield True
        file.truncate(0)


def holder(path: Path) -> str:
    """Who has a lock, in words."""
    try:
        who = json.loads(path.read_text(encoding="utf8"))
        return f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit status, 128 + N where signal N ended it, `LOCKED` where it could not begin."""
    parent, lock, log, command = int(arguments[0]), Path(arguments[1]), Path(arguments[2]), list(arguments[3:])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    with locked(lock) as free:
        if not free:
            print(f"{holder(lock)} works in this place already (lock {lock}): stop it first", file=sys.stderr)
            return LOCKED
        with log.open("w", encoding="utf8") as file:
            file.write(" ".join(command) + "\n")
            file.flush()
            child = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # no threads here
            )
        try:
            while child.poll() is None and os.getppid() == parent:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(LOOK_EVERY)
        finally:
            _end_group(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end_with_parent() -> None:
    """Linux alone: the system ends this process where even its supervisor is killed by force."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Ends a command and whatever it started, at last by force."""
    until = time.monotonic() + END_PATIENCE
    _signal_group(child.pid, signal.SIGTERM)
    while _signal_group(child.pid, 0) and time.monotonic() < until:
        child.poll()  # else it stays in the table of processes, and its group with it
        time.sleep(0.05)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: int) -> bool:
    """Sends a signal to a process group; whether there is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
