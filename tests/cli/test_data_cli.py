"""eugen-data as a user runs it: what it prints, what it writes, how it refuses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from eugen_nerf.cli.data import DOWNLOADS, main
from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.core.errors import DataError

TINY = ["--resolution", "8", "--num-train", "2", "--num-val", "1", "--num-test", "1", "--supersample", "1"]


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line printed to stderr by a command that must fail with 1."""
    with pytest.raises(SystemExit) as caught:
        main(list(args))
    assert caught.value.code == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


def test_scene_then_check(tmp_path: Path, capsys) -> None:
    output = tmp_path / "scene"
    main(["scene", "--output", str(output), *TINY, "--resolution", "12", "8", "--seed", "3"])
    assert f"{output}: wrote train 2, val 1, test 1 views of 12x8" in capsys.readouterr().out
    main(["check", str(output)])
    printed = capsys.readouterr().out
    assert f"{output}: ok: train 2, val 1, test 1 images of 12x8, field of view 0.6911 rad" in printed
    message = refused(capsys, "scene", "--output", str(output), *TINY)
    assert "choose another --output, or pass --overwrite" in message
    main(["scene", "--output", str(output), *TINY, "--overwrite"])
    main(["check", str(output), "--splits", "train"])
    assert "ok: train 2 images of 8x8" in capsys.readouterr().out
    (output / "train" / "r_001.png").unlink()
    assert "1 of 2 image files of the train split are missing" in refused(capsys, "check", str(output))


def test_bad_numbers_are_refused(tmp_path: Path, capsys) -> None:
    message = refused(capsys, "scene", "--output", str(tmp_path / "x"), "--num-train", "0")
    assert "--num-train must be at least 1 and at most 100000, not 0" in message
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        main(["scene", "--resolution", "big"])
    assert caught.value.code == 2


def test_every_download_of_nerfstudio_is_offered() -> None:
    from nerfstudio.scripts.downloads import download_data, utils

    kinds = {
        name
        for name, item in vars(download_data).items()
        if isinstance(item, type) and issubclass(item, utils.DatasetDownload) and name.endswith("Download")
    } - {"DatasetDownload", "EyefulTowerDownload"}
    assert set(DOWNLOADS.values()) == kinds


def test_fetch_passes_capture_and_directory_on(tmp_path: Path, monkeypatch, capsys) -> None:
    from nerfstudio.scripts.downloads import download_data

    seen = []
    monkeypatch.setattr(download_data, "main", seen.append)
    main(["fetch", "--dataset", "nerfstudio", "--capture-name", "poster", "--save-dir", str(tmp_path)])
    main(["fetch", "--dataset", "sdfstudio", "--capture-name", "dtu", "--save-dir", str(tmp_path)])
    main(["fetch", "--save-dir", str(tmp_path)])
    assert [type(item).__name__ for item in seen] == ["NerfstudioDownload", "SDFstudioDemoDownload", "BlenderDownload"]
    assert (seen[0].capture_name, seen[1].dataset_name) == ("poster", "dtu")
    assert {item.save_dir for item in seen} == {tmp_path}
    message = refused(capsys, "fetch", "--dataset", "nerfstudio", "--capture-name", "nothing")
    assert re.search(r"no capture 'nothing': choose one with --capture-name from .*poster", message)
    assert "comes whole" in refused(capsys, "fetch", "--capture-name", "lego")


def test_fetch_failure_is_one_line_and_keeps_older_data(tmp_path: Path, monkeypatch, capsys) -> None:
    import gdown
    from nerfstudio.scripts.downloads import download_data

    args = ("fetch", "--save-dir", str(tmp_path))
    for error in (ConnectionError("no route\nto host"), subprocess.CalledProcessError(6, "curl"), SystemExit(1)):

        def fail(*_args: object, error: BaseException = error, **_options: object) -> None:
            raise error

        monkeypatch.setattr(gdown, "download", fail)
        assert "could not download blender" in refused(capsys, *args)
    # gdown that returns without a file: nerfstudio then opens an archive that is not there
    monkeypatch.setattr(gdown, "download", lambda *_args, **_options: None)
    assert "check the network connection" in refused(capsys, *args)
    (tmp_path / "blender").mkdir()
    (tmp_path / "blender" / "kept.txt").write_text("kept")
    monkeypatch.setattr(download_data, "main", lambda _dataset: pytest.fail("nerfstudio would delete the older data"))
    assert "exists and is not empty" in refused(capsys, *args)
    assert (tmp_path / "blender" / "kept.txt").read_text() == "kept"


def test_run_cli_exit_codes(capsys) -> None:
    def fail(error: BaseException) -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_cli(lambda: fail(DataError("two\nlines")))
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: two lines\n"
    with pytest.raises(SystemExit) as caught:
        run_cli(lambda: fail(KeyboardInterrupt()))
    assert caught.value.code == 130
    with pytest.raises(ZeroDivisionError):
        run_cli(lambda: fail(ZeroDivisionError()))
    run_cli(lambda: None)


def test_help_needs_neither_open3d_nor_nerfstudio() -> None:
    """Slow imports wait until a command needs them, so that help and refusals come at once."""
    code = (
        "import sys\nfrom eugen_nerf.cli.data import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'open3d', 'nerfstudio'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("scene", "fetch", "check"):
        assert command in done.stdout
