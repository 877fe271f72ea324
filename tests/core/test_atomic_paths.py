"""Files and folders are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eugen_nerf.core import atomic_paths as module
from eugen_nerf.core.atomic_paths import atomic_path, atomic_paths, recover


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


@pytest.fixture(params=["exchanged", "renamed twice"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders change places in one step, or in two where the system has no such call."""
    if request.param != "exchanged":
        monkeypatch.setattr(module, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("steps")
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


def killed_while_it_writes(path: Path, *, folder: bool, prefix: str = ".") -> None:
    """A process that ends inside of the block, as by SIGKILL."""
    child = os.fork()
    if not child:
        with atomic_path(path, replace=True, prefix=prefix) as partial:
            write(partial, "half", folder=folder)
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("prefix", [".", "tmp-0."])
def test_what_a_killed_process_left_is_cleared_away_by_the_next(tmp_path: Path, folder: bool, prefix: str) -> None:
    killed_while_it_writes(tmp_path / "another.name.c", folder=folder, prefix=prefix)
    (left,) = tmp_path.iterdir()
    number = re.search(r"-(\d+)", left.name.removeprefix("tmp-0"))[1]  # type: ignore[index]
    living = left.rename(left.with_name(left.name.replace(f"-{number}", f"-{os.getppid()}")))
    elsewhere = tmp_path / f".a.ffffff-{number}.partial.b"  # of another machine that shares the folder
    elsewhere.write_text("half")
    killed_while_it_writes(tmp_path / "another.name.c", folder=folder, prefix=prefix)
    with atomic_path(tmp_path / "a.b") as partial:
        assert set(tmp_path.iterdir()) == {living, elsewhere}
        partial.write_text("whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "a.b", living, elsewhere}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says that a process has ended")
def test_what_a_process_left_that_nobody_took_note_of_is_cleared_away_too(tmp_path: Path) -> None:
    """A container has often no first process that does: its number stays taken."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    while Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    left = tmp_path / f".a.{module._host()}-{ended.pid}.partial.json"
    left.write_text("half")
    running = tmp_path / f".b.{module._host()}-{os.getppid()}.partial.json"
    running.write_text("half")
    recover(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [running.name]
    ended.wait()


def test_a_folder_whose_process_was_killed_between_two_renames_gets_its_name_back(tmp_path: Path) -> None:
    killed_while_it_writes(tmp_path / "a.b", folder=True)
    (left,) = tmp_path.iterdir()
    write(tmp_path / left.name.replace("partial", "replaced"), "old", folder=True)
    recover(tmp_path)
    assert read(tmp_path / "a.b", folder=True) == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.b"]


@pytest.mark.skipif(sys.platform != "linux", reason="the call is Linux's")
def test_a_folder_never_lacks_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", "old", folder=True)
    moved: list[Path] = []
    monkeypatch.setattr(Path, "rename", lambda self, to: moved.append(self))
    monkeypatch.setattr(Path, "replace", lambda self, to: moved.append(self))
    with atomic_path(tmp_path / "a", replace=True) as partial:
        write(partial, "new", folder=True)
    assert read(tmp_path / "a", folder=True) == "new"
    assert not moved


def test_a_link_to_a_folder_is_replaced_and_the_folder_stays(tmp_path: Path) -> None:
    write(tmp_path / "old", "old", folder=True)
    (tmp_path / "a").symlink_to(tmp_path / "old")
    with atomic_path(tmp_path / "a", replace=True) as partial:
        write(partial, "new", folder=True)
    assert (read(tmp_path / "a", folder=True), read(tmp_path / "old", folder=True)) == ("new", "old")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "old"}


@pytest.mark.parametrize("full", [False, True])
def test_files_of_one_result_are_never_of_two(tmp_path: Path, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every rename and removal there are files of one result alone, the first one always."""
    paths, stages = [tmp_path / name for name in ("a", "b", "c")], []

    def there(*_: object) -> None:
        found = {path.name: path.read_text() for path in paths if path.exists()}
        assert len(set(found.values())) <= 1
        stages.append((set(found.values()), len(found)))

    def make(text: str) -> None:
        with atomic_paths(paths, replace=True) as partials:
            for partial in partials:
                partial.write_text(text)
            if text == "new" and full:
                raise OSError(errno.ENOSPC, "No space left on device")

    make("old")
    replace, unlink = Path.replace, Path.unlink
    monkeypatch.setattr(Path, "replace", lambda self, to: (there(), replace(self, to), there()))
    monkeypatch.setattr(Path, "unlink", lambda self, **_: (there(), unlink(self, missing_ok=True), there()))
    if full:
        with pytest.raises(OSError, match="No space"):
            make("new")
        assert all(stage == ({"old"}, 3) for stage in stages)
    else:
        make("new")
        assert ({"old"}, 1) in stages
        assert ({"new"}, 1) in stages
        assert all(number for _, number in stages)
        assert stages[-1] == ({"new"}, 3)
    assert set(tmp_path.iterdir()) == set(paths)


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
