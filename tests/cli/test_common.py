"""What the commands share."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eugen_nerf.cli.support.common import installed, run_cli


def test_commands_are_named_as_the_shell_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "env" / "bin" / "eugen-view"
    own.parent.mkdir(parents=True)
    own.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(own.with_name("python")))
    monkeypatch.setenv("PATH", str(own.parent))
    assert installed("eugen-view") == "eugen-view"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed("eugen-view") == str(own)
    monkeypatch.chdir(tmp_path)
    assert installed("eugen-view") == "env/bin/eugen-view"
    assert installed("eugen-missing") == "eugen-missing"


def test_what_torch_will_drop_does_not_stand_before_our_messages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eugen_nerf.cli.eval", "--load-config", str(tmp_path / "config.yml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no run at ")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_other_errors_are_ours(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(number: int) -> None:
        raise OSError(number, os.strerror(number), "out/results")

    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: fail(errno.ENOSPC))
    assert ended.value.code == 1
    text = "error: No space left on device (out/results): free some space and start again; "
    assert capsys.readouterr().err == f"{text}what was written whole is still there\n"
    with pytest.raises(OSError, match="Permission denied"):
        run_cli(lambda: fail(errno.EACCES))


def test_sigterm_ends_a_command_as_cleanly_as_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run_cli(command)
    assert caught.value.code == 143
    assert cleaned
    assert capsys.readouterr().err == "terminated\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("arguments", [["--help"], ["scene", "--help"]])
def test_output_that_nobody_reads_ends_a_command_quietly(arguments: list[str]) -> None:
    code = f"import sys; sys.argv = ['eugen-data', *{arguments!r}]; from eugen_nerf.cli.data import main; main()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, "")


def test_a_broken_pipe_of_another_kind_is_our_defect() -> None:
    def broken() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_cli(broken)
