"""Files and folders are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eugen_nerf.core.atomic_paths import atomic_path, recover


def write(path: Path, text: str, *, folder: bool) -> None:
    if folder:
        path.mkdir()
        path /= "content"
    path.write_text(text)


def read(path: Path, *, folder: bool) -> str:
    return (path / "content" if folder else path).read_text()


@pytest.mark.parametrize("folder", [False, True])
def test_it_takes_its_name_at_the_end_and_not_before(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "new" / "a.b"
    with atomic_path(path) as partial:
        assert partial.suffix == ".b"
        write(partial, "whole", folder=folder)
        assert not path.exists()
    assert read(path, folder=folder) == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("replace", [False, True])
def test_an_older_one_is_replaced_only_where_that_is_said(tmp_path: Path, folder: bool, replace: bool) -> None:
    path = tmp_path / "a"
    write(path, "old", folder=folder)
    if replace:
        with atomic_path(path, replace=True) as partial:
            write(partial, "new", folder=folder)
    else:
        with pytest.raises(FileExistsError), atomic_path(path) as partial:
            write(partial, "new", folder=folder)
    assert read(path, folder=folder) == ("new" if replace else "old")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_older_one_and_nothing_else(
    tmp_path: Path, folder: bool, error: type[BaseException]
) -> None:
    path = tmp_path / "a"
    write(path, "old", folder=folder)

    def fail() -> None:
        with atomic_path(path, replace=True) as partial:
            write(partial, "half", folder=folder)
            raise error

    with pytest.raises(error):
        fail()
    assert read(path, folder=folder) == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", [False, True])
def test_a_block_that_writes_nothing_fails_and_keeps_the_older_one(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "a"
    write(path, "old", folder=folder)
    with pytest.raises(FileNotFoundError), atomic_path(path, replace=True):
        pass
    assert read(path, folder=folder) == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_cleared_away_by_the_next(tmp_path: Path, gone: int) -> None:
    (tmp_path / f".a.{gone}.partial.b").write_text("half")
    (tmp_path / f".a.{os.getppid()}.partial.b").write_text("of a process that works")
    (tmp_path / f".other.{gone}.partial.b").write_text("of another name")
    with atomic_path(tmp_path / "a.b") as partial:
        partial.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.b", f".a.{os.getppid()}.partial.b", f".other.{gone}.partial.b",
    }  # fmt: skip


def test_a_folder_whose_process_was_killed_between_two_renames_gets_its_name_back(tmp_path: Path, gone: int) -> None:
    write(tmp_path / f".a.{gone}.replaced", "old", folder=True)
    write(tmp_path / f".a.{gone}.partial", "new", folder=True)
    recover(tmp_path / "a")
    assert read(tmp_path / "a", folder=True) == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_disk_that_is_full_when_the_bytes_are_flushed_keeps_the_older_one(
    tmp_path: Path, folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write(path, "old", folder=folder)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"), atomic_path(path, replace=True) as partial:
        write(partial, "new", folder=folder)
    assert read(path, folder=folder) == "old"
    assert list(tmp_path.iterdir()) == [path]
