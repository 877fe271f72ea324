"""What every command line tool of this package shares."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from eugen_nerf.core.errors import EugenError, full_disk
from eugen_nerf.core.memory import keep_freed_memory

if TYPE_CHECKING:
    from rich.console import Console


def run_cli(function: Callable[[], None]) -> None:
    """Runs a command, turning its errors into what a shell expects.

    An `EugenError` is printed to stderr as one line "error: ..." and exits with 1, and so is a disk that is full where
    nothing else says so; Ctrl-C exits with 130, SIGTERM with 143 and as cleanly, and where nobody reads the output any
    more (`| head`) the exit status is 141, without a word. Any other exception is our defect and keeps its traceback.
    The process keeps what memory it frees (`core/memory.py`).

    Arguments:
        function: the command; parsing its arguments inside is fine, tyro exits with 2 by itself.
    """
    keep_freed_memory()
    in_main_thread = threading.current_thread() is threading.main_thread()  # others cannot handle signals
    before = signal.signal(signal.SIGTERM, _terminate) if in_main_thread else None
    try:
        _flushed(function)
    except EugenError as error:
        rank = os.environ.get("RANK", "0")
        where = "" if rank == "0" else f" in process {rank}"
        print(f"error{where}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            sys.exit(141)
        if not (line := full_disk(error)):
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except _TerminatedError:
        print("terminated", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _flushed(function: Callable[[], None]) -> None:
    """Runs a command and writes what it printed, so that an error of the latter shows here and not at the very end."""
    try:
        function()
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _nobody_reads() -> bool:
    """Whether standard output is a pipe without a reader; from then on it goes nowhere."""
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # none, or one that a program has put in its place
        return False
    if not hasattr(select, "poll"):  # on Windows
        return False
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)
    os.close(nowhere)
    return True


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which is handled wherever Ctrl-C is."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def installed(command: str) -> str:
    """What to type for one of this package's commands: its name where the shell finds it, else its path."""
    own = Path(sys.executable).parent / command
    if shutil.which(command) is not None or not own.exists():
        return command
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


def print_lines(console: Console, lines: Mapping[str, object]) -> None:
    """Prints what to look at or type next, one unwrapped line each, so that paths and commands can be copied."""
    width = max(map(len, lines)) + 2
    for what, line in lines.items():
        console.print(f"{what + ':':{width}}{line}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def shared_by_torchrun() -> Iterator[None]:
    """Within it, processes that torchrun started know one another; without torchrun it does nothing.

    They sum with NCCL where each has a GPU of its own, else with gloo.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    from torch import cuda, distributed

    own = int(os.environ["LOCAL_RANK"]) < cuda.device_count()
    if own:
        cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if own else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()
