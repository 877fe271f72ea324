"""System calls that fail, or that a process does not survive: what is written, created, renamed and removed below a
folder is counted, whoever makes the call: Python, torch, ffmpeg's libraries.

Linux alone, on x86-64, without privileges and without a compiler: the process gives itself a seccomp filter that asks
the process which started it before each of these calls (`man 2 seccomp_unotify`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

AVAILABLE = sys.platform == "linux" and platform.machine() == "x86_64"
REASON = "the filter is written for Linux on x86-64"

_BY_DESCRIPTOR = {
    "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "pwritev2": 328, "ftruncate": 77, "fallocate": 285,
    "fsync": 74, "fdatasync": 75,
}  # fmt: skip
"""Calls whose first argument is a file that is open."""
_BY_NAME = {"creat": 85, "mkdir": 83, "rename": 82, "unlink": 87, "rmdir": 84, "truncate": 76}
"""Calls whose first argument is a path."""
_BY_NAME_AT = {"mkdirat": 258, "renameat": 264, "renameat2": 316, "unlinkat": 263}
"""Calls whose second argument is a path, in a folder that the first names."""
_OPEN, _OPENAT = 2, 257
_NAMES = {number: name for calls in (_BY_DESCRIPTOR, _BY_NAME, _BY_NAME_AT) for name, number in calls.items()}
_NAMES |= {_OPEN: "open", _OPENAT: "openat"}
GIVES_BACK = {"unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2"}
"""Calls that a full disk does not refuse."""

_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE, _ANSWER = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI")
"""`struct seccomp_notif` and `struct seccomp_notif_resp`."""
_CONTINUE = 1
_HERE = 0xFFFFFF9C
"""AT_FDCWD: paths are relative to the working folder."""
_DRAIN = 60.0
"""Seconds that what a command started may outlive it."""


@dataclass(frozen=True)
class Fault:
    """What happens at one call, counted from 1."""

    kind: Literal["kill", "full"]
    """kill: the process and its group end before the call. full: from this call on the disk has no space."""
    at: int


@dataclass
class Watched:
    """What became of a process."""

    status: int
    calls: list[str]
    """The counted calls in order: name, and path below the folder."""


def restrict(link: socket.socket) -> None:
    """In the process that is to be watched: installs the filter and hands its listener to `watch`.

    Raises:
        OSError: the system has no such filters.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = _program()
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which only root may
    listener = libc.syscall(317, 1, 8, ctypes.byref(program))  # seccomp, SET_MODE_FILTER, FLAG_NEW_LISTENER
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    socket.send_fds(link, [b"."], [listener])
    os.close(listener)
    link.close()


def watch(child: int, link: socket.socket, folder: Path, fault: Fault | None) -> Watched:
    """Answers a restricted child's calls until it has ended, and all that it started.

    Args:
        child: its process; it leads a group of its own.
        link: the other end of the one that `restrict` got.
        folder: calls on files below it are counted; it must be resolved.
        fault: what happens, or nothing.
    """
    _, (listener, *_), _, _ = socket.recv_fds(link, 1, 1)
    calls: list[str] = []
    status: int | None = None
    end = float("inf")
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while time.monotonic() < end:
        events = poll.poll(50)
        if status is None:
            done, code = os.waitpid(child, os.WNOHANG)
            if done:
                status, end = os.waitstatus_to_exitcode(code), time.monotonic() + _DRAIN
        if events and events[0][1] & select.POLLHUP:
            break
        if events:
            _answer(listener, child, f"{folder}/", fault if status is None else None, calls)
    os.close(listener)
    if status is None:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Watched(status, calls)


def _program() -> bytes:
    """The filter: all calls above are asked about, `open` and `openat` where they may create or empty a file."""
    ask, allow, load, equal, has = (6, 0, 0, 0x7FC00000), (6, 0, 0, 0x7FFF0000), 0x20, 0x15, 0x45
    lines = [(load, 0, 0, 0)]
    for number in sorted(_NAMES.keys() - {_OPEN, _OPENAT}):
        lines += [(equal, 0, 1, number), ask]
    for number, flags in ((_OPEN, 24), (_OPENAT, 32)):  # where the flags are in `struct seccomp_data`
        lines += [(equal, 0, 4, number), (load, 0, 0, flags), (has, 0, 1, os.O_CREAT | os.O_TRUNC), ask, allow]
    return b"".join(struct.pack("HBBI", *line) for line in [*lines, allow])


def _answer(listener: int, child: int, below: str, fault: Fault | None, calls: list[str]) -> None:
    """Lets one call go on, fail, or end its process."""
    notice = bytearray(_NOTICE.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, notice)
    except OSError:  # its process has ended meanwhile
        return
    number, thread, _, call, *rest = _NOTICE.unpack(notice)
    name, result, flags = _NAMES[call], 0, _CONTINUE
    path = _path(thread, call, rest[2:])
    if path.startswith(below):
        calls.append(f"{name} {path.removeprefix(below)}")
        if fault is not None and fault.kind == "kill" and len(calls) == fault.at:
            os.killpg(child, signal.SIGKILL)
            return
        if fault is not None and fault.kind == "full" and len(calls) >= fault.at and name not in GIVES_BACK:
            result, flags = -errno.ENOSPC, 0
    with suppress(OSError):
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(number, 0, result, flags))


def _path(thread: int, call: int, arguments: list[int]) -> str:
    """The file that a call is about; an empty text where that cannot be read."""
    try:
        name = _NAMES[call]
        if name in _BY_DESCRIPTOR:
            return str(Path(f"/proc/{thread}/fd/{arguments[0]}").readlink())
        at = name in _BY_NAME_AT or call == _OPENAT
        folder, pointer = (arguments[0], arguments[1]) if at else (_HERE, arguments[0])
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
            memory.seek(pointer)
            text = os.fsdecode(memory.read(4096).partition(b"\0")[0])
        folder &= 0xFFFFFFFF
        base = Path(f"/proc/{thread}/cwd" if folder == _HERE else f"/proc/{thread}/fd/{folder}").readlink()
        return os.path.normpath(os.path.join(base, text))  # noqa: PTH118
    except OSError:
        return ""
