"""Commands that end with their parent: whoever is killed, and however, nothing runs on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eugen_nerf.cli.support import supervised as module
from eugen_nerf.cli.support.supervised import LOCKED, holder, locked, supervised

PATIENCE = 30.0
# a command that starts another, as trainings start workers; both write their numbers, and the inner one ignores SIGTERM
INNER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, getattr(signal, sys.argv[2]))
open(sys.argv[1] + "/inner.new", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + "/inner.new", sys.argv[1] + "/inner")
time.sleep(300)
"""
FAMILY = f"""
import os, subprocess, sys, time
open(sys.argv[1] + "/outer", "w").write(str(os.getpid()))
subprocess.Popen([sys.executable, "-c", {INNER!r}, *sys.argv[1:]])
time.sleep(300)
"""
PARENT = """
import subprocess, sys
from pathlib import Path
from eugen_nerf.cli.support.supervised import supervised
folder = Path(sys.argv[1])
subprocess.Popen(supervised([sys.executable, "-c", *sys.argv[2:]], folder / "lock", folder / "log")).wait()
"""


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


@pytest.mark.parametrize(("number", "handler"), [(signal.SIGKILL, "SIG_DFL"), (signal.SIGTERM, "SIG_IGN")])
def test_nothing_outlives_a_parent_that_is_killed(
    number: signal.Signals, handler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where a process of the command ignores SIGTERM."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), FAMILY, str(tmp_path), handler])
    until(lambda: (tmp_path / "inner").exists())
    pids = [int((tmp_path / name).read_text()) for name in ("outer", "inner")]
    assert all(map(lives, pids))
    assert str(pids[0]) not in holder(tmp_path / "lock")  # the supervisor has it, not the command
    assert "process" in holder(tmp_path / "lock")
    parent.send_signal(number)
    parent.wait(PATIENCE)
    until(lambda: not any(map(lives, pids)))
    monkeypatch.setattr(module, "LOCK_PATIENCE", PATIENCE)
    with locked(tmp_path / "lock") as free:  # given back when the last of them is gone
        assert free


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_command_ends_with_its_supervisor(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        supervised([sys.executable, "-c", FAMILY, str(tmp_path), "SIG_DFL"], tmp_path / "lock", tmp_path / "log")
    )
    until(lambda: (tmp_path / "inner").exists())
    outer, inner = (int((tmp_path / name).read_text()) for name in ("outer", "inner"))
    supervisor.kill()
    supervisor.wait(PATIENCE)
    until(lambda: not lives(outer))
    os.kill(inner, signal.SIGKILL)


def run(command: list[str], lock: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        supervised(command, lock, lock.with_name("log")), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize(("code", "status"), [("pass", 0), ("raise SystemExit(3)", 3)])
def test_the_commands_status_is_handed_on(code: str, status: int, tmp_path: Path) -> None:
    code = f"print('said'); {code}"
    assert run([sys.executable, "-c", code], tmp_path / "deep" / "lock").returncode == status
    assert (tmp_path / "deep" / "log").read_text().splitlines() == [f"{sys.executable} -c {code}", "said"]


def test_a_command_that_a_signal_ended_says_which(tmp_path: Path) -> None:
    assert run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], tmp_path / "lock").returncode == 137


def test_two_in_one_place_are_one_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE", 0.0)
    with locked(tmp_path / "lock") as first:
        assert first
        with locked(tmp_path / "lock") as second:
            assert not second
        arguments = [str(os.getppid()), str(tmp_path / "lock"), str(tmp_path / "log"), sys.executable, "-c", "pass"]
        assert module.main(arguments) == LOCKED
        assert not (tmp_path / "log").exists()
        assert f"process {os.getpid()} on " in holder(tmp_path / "lock")
    assert holder(tmp_path / "lock") == "another process"


def test_a_lock_file_of_nonsense_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("{")
    with locked(tmp_path / "lock") as free:
        assert free
        assert str(os.getpid()) in holder(tmp_path / "lock")
