"""A part of what `scripts/reliability.py writes` tries: commands that die, or meet a full disk, where they write."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import attempt
from system_faults import AVAILABLE, REASON, Fault, Watched, restrict, watch
from write_tries import NEVER, Tries, chosen, row_of
from written_commands import DENSE, WRITERS, OneOf, converted, evaluated, trained

pytestmark = pytest.mark.skipif(not AVAILABLE, reason=REASON)
TRIED = {
    "eugen-data scene": 2,
    "ns-train eugen-nerf-small": 3,
    "eugen-distill eugen-nerf-small": 2,
    "eugen-eval": 4,
    "eugen-sdf volume": 2,
    "eugen-render film.gif": 2,
}
"""Tries of a kind with each command here."""


def watched(folder: Path, work: Callable[[], None], fault: Fault | None = None) -> Watched:
    """Work in a forked process whose calls are watched; exit status 7 where it raises that the disk is full."""
    mine, its = socket.socketpair()
    child = os.fork()
    if not child:
        status = 1
        try:
            mine.close()
            os.setsid()
            restrict(its)
            work()
            status = 0
        except OSError as error:
            status = 7 if error.errno == errno.ENOSPC else 1
        finally:
            os._exit(status)
    its.close()
    result = watch(child, mine, folder, fault)
    mine.close()
    return result


def write_in_many_ways(folder: Path) -> None:
    """Python's file, the C library behind it, another process."""
    (folder / "a").write_text("a")
    library = ctypes.CDLL(None)
    descriptor = library.creat(str(folder / "b").encode(), 0o600)
    assert library.write(descriptor, b"b", 1) == 1, os.strerror(errno.ENOSPC)
    os.chdir(folder)
    os.system("echo c > c")
    Path("a").rename("d")
    (folder / "b").unlink()


CALLS = ["openat a", "write a", "creat b", "write b", "openat c", "write c", "rename a", "unlink b"]


def test_all_that_writes_is_counted_whoever_does_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere").mkdir()
    result = watched(tmp_path / "folder", lambda: write_in_many_ways(tmp_path / "folder"))
    assert (result.status, result.calls) == (0, CALLS)
    assert watched(tmp_path / "folder", lambda: write_in_many_ways(tmp_path / "elsewhere")).calls == []


@pytest.mark.parametrize("at", range(1, len(CALLS) + 1))
def test_a_process_ends_before_a_call(tmp_path: Path, at: int) -> None:
    result = watched(tmp_path, lambda: write_in_many_ways(tmp_path), Fault("kill", at))
    assert (result.status, result.calls) == (-9, CALLS[:at])
    assert (tmp_path / "a").exists() == (1 < at <= 7)
    assert (tmp_path / "d").exists() == (at > 7)


def test_a_full_disk_refuses_what_takes_space_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "old").touch()

    def work() -> None:
        (tmp_path / "old").rename(tmp_path / "new")
        (tmp_path / "a").write_text("a")

    assert watched(tmp_path, work, Fault("full", 1)).status == 7
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_of_many_writes_to_a_file_three_are_chosen() -> None:
    calls = ["openat a", *["write a"] * 8, "rename a", "mkdir b"]
    assert chosen(calls) == [1, 6, 10, 11]
    assert chosen(calls, 2) == [1, 11]


@pytest.mark.parametrize("what", TRIED)
def test_nothing_is_lost_or_broken(tmp_path: Path, what: str) -> None:
    (writer,) = (each for each in WRITERS if each.what == what)
    row = row_of(Tries(writer, tmp_path), TRIED[what])
    assert {name: row[name] for name in NEVER} == dict.fromkeys(NEVER, 0)
    assert (row["kills"], row["full disks"]) == (TRIED[what],) * 2
    assert row["clear"] > 0


def test_a_run_without_its_bundle_gets_it_from_the_same_command(tmp_path: Path) -> None:
    writer = converted(DENSE, bundle=True)
    tries = Tries(writer, tmp_path)
    at = next(i for i, call in enumerate(tries.calls, 1) if ".bundle." in call and call.startswith("write"))
    folder = writer.folder(tmp_path / "folder")
    failed = attempt(writer.words, folder, Fault("full", at))
    assert failed.status == 1
    assert "error: the run is written, new/" in failed.errors
    assert "No space left on device" in failed.errors
    assert not (folder / "bundle").exists()
    (run,) = folder.glob("new/*/*/t/config.yml")
    before = run.stat().st_mtime_ns
    again = attempt(writer.words, folder)
    assert again.status == 0
    assert "its bundle alone is made" in again.output
    assert run.stat().st_mtime_ns == before
    assert writer.check(folder) == ""
    bundles = [(place / "bundle" / "weights.safetensors").read_bytes() for place in (folder, tmp_path / "try")]
    assert bundles[0] == bundles[1], "that of the run is that of the conversion"
    assert attempt((*writer.words[:-1], "another"), folder).status == 1, "nothing is pending, and the run is there"


def test_what_is_not_whole_is_found(tmp_path: Path) -> None:
    """The checks of all tries, on what a plain write leaves when it is cut off."""
    one = OneOf("a", ("unused",))
    one.known.add("another digest")
    (tmp_path / "a").write_text("half")
    assert one(tmp_path) == "a is neither the old nor the new"
    run = tmp_path / "new" / "x" / "m" / "run"
    (run / "nerfstudio_models").mkdir(parents=True)
    (run / "config.yml").write_bytes(Path(__file__).parents[1].joinpath("golden", DENSE).read_bytes())
    assert trained(tmp_path) is None
    (run / "nerfstudio_models" / "step-000000002.ckpt").write_bytes(b"PK")
    with pytest.raises(ValueError, match="cannot be read"):
        trained(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text("")
    with pytest.raises(ValueError, match=r"is no report\.json"):
        evaluated(tmp_path)
