"""Sequences that cannot be used: one clear line each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rgbd_sequences import (
    COUNT,
    HEIGHT,
    LENS,
    WIDTH,
    message_of,
    poses,
    write,
)

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.rgbd.rgbd_sequence import read_sequence
from eugen_nerf.data.rgbd.rgbd_types import SequenceOptions
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig


def spoil_7scenes(change: str, path: Path) -> None:
    pose = path / "frame-000005.pose.txt"
    depth = path / "frame-000010.depth.png"
    match change:
        case "no pose":
            pose.unlink()
        case "no colour":
            (path / "frame-000015.color.jpg").unlink()
        case "nan pose":
            pose.write_text(pose.read_text().replace(pose.read_text().split()[0], "nan", 1))
        case "infinite pose":
            np.savetxt(pose, np.where(np.eye(4)[[1, 2, 0, 3]] > 0, np.inf, poses()[1]))
        case "scaled pose":
            np.savetxt(pose, np.diag([2.0, 2.0, 2.0, 1.0]))
        case "short pose":
            pose.write_text("1 2 3")
        case "no numbers":
            pose.write_text("lost")
        case "truncated":
            depth.write_bytes(depth.read_bytes()[:-30])
        case "larger colour":
            Image.new("RGB", (2 * WIDTH, WIDTH)).save(path / "frame-000010.color.jpg")
        case "no camera":
            (path / "camera-intrinsics.txt").unlink()
        case "no depth valid":
            for file in path.glob("*.depth.png"):
                Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype=np.uint16)).save(file)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("no pose", "frame-000005 in .* lacks its pose file: the sequence is incomplete"),
        ("no colour", "frame-000015 in .* lacks its color file: the sequence is incomplete"),
        ("nan pose", "the camera pose in the frame of '.*frame-000005.color.jpg' has NaN or infinite entries"),
        ("infinite pose", "frame-000005.color.jpg' has NaN or infinite entries"),
        ("scaled pose", "frame-000005.color.jpg' is not rigid"),
        ("short pose", "frame-000005.pose.txt' holds 3 numbers: a 4x4 pose is needed"),
        ("no numbers", "frame-000005.pose.txt' must hold numbers alone"),
        ("truncated", "frame-000010.depth.png' is damaged and cannot be decoded"),
        ("larger colour", "frame-000010.color.jpg' is 16x8 pixels but depth .* is 8x6: both must show the same view"),
        ("no camera", "camera-intrinsics.txt' is missing: copy it there, or pass --intrinsics"),
        ("no depth valid", "no depth image of the sequence has a valid pixel, the first is .*frame-000000.depth.png"),
    ],
)
def test_a_bad_sequence_is_refused_in_one_line(tmp_path: Path, change: str, expected: str) -> None:
    path = write(tmp_path / "set", "7scenes")
    spoil_7scenes(change, path)
    with pytest.raises(DataError, match=expected):
        EugenRGBDDataParserConfig(data=path).setup().get_dataparser_outputs("train")
    message_of(path)


def test_a_frame_without_valid_depth_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "set", "7scenes")
    Image.fromarray(np.full((HEIGHT, WIDTH), 65535, dtype=np.uint16)).save(path / "frame-000010.depth.png")
    outputs = EugenRGBDDataParserConfig(data=path, eval_interval=0).setup().get_dataparser_outputs("train")
    assert [p.name[6:12] for p in outputs.image_filenames] == ["000000", "000005", "000015"]
    assert "left out frames without valid depth: 1 of 4, the first is frame-000010.depth.png" in capsys.readouterr().out


def test_nothing_there_and_no_sequence_are_told_apart(tmp_path: Path) -> None:
    assert "nowhere' does not exist: give its directory, or make one" in message_of(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "file' is a file" in message_of(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "empty' holds no RGB-D sequence" in message_of(tmp_path / "empty")
    assert "has no frames" in message_of(tmp_path / "empty", layout="7scenes", intrinsics=LENS)


def test_bad_transforms_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "set", "transforms")
    name = path / "transforms.json"
    good = json.loads(name.read_text())

    def refusal(change: Callable[[dict], object]) -> str:
        document = json.loads(json.dumps(good))
        change(document)
        name.write_text(json.dumps(document))
        return message_of(path)

    assert "frame 1 of .* lacks depth_file_path".replace(".*", f"'{name}'") in refusal(
        lambda d: d["frames"][1].pop("depth_file_path")
    )
    late = refusal(lambda d: d["frames"][1].update(timestamp=999.0))
    assert "frames are out of order: '" in late
    assert "c2.png' has the time 100.333 s after 999 s" in late
    assert "frames are out of order" in refusal(lambda d: d["frames"][2].update(timestamp=d["frames"][1]["timestamp"]))
    assert "camera_model of frame 0 of" in refusal(lambda d: d.update(camera_model="EQUIRECTANGULAR"))
    assert "lacks a number fl_x, fl_y, cx or cy" in refusal(lambda d: d.pop("cx"))
    assert "the colour image" in refusal(lambda d: d["frames"][0].update(file_path="gone.png"))
    assert "'frames' of" in refusal(lambda d: d.update(frames=[]))
    name.write_text('{"frames": [')
    assert "is not valid JSON" in message_of(path)
    name.write_bytes(b"\xff\xfe")
    assert message_of(path).startswith(f"'{name}' cannot be read: ")


@pytest.mark.parametrize("value", ["late", None, True, float("nan"), float("inf")])
def test_what_is_no_number_in_transforms_is_named(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "set", "transforms")
    name = path / "transforms.json"
    good = name.read_text()

    def refusal(key: str, given: object, *, frame: bool = False) -> str:
        document = json.loads(good)
        (document["frames"][1] if frame else document)[key] = given
        name.write_text(json.dumps(document))
        return message_of(path)

    def said(given: object) -> str:
        return {None: "null", True: "true"}.get(given, repr(given))

    found = refusal("timestamp", value, frame=True)
    assert found.startswith(f"timestamp of frame 1 of '{name}' is {said(value)}: a finite number is needed")
    for key in ("fps", "depth_unit_scale_factor"):
        for bad in (value, 0, -1.0):
            assert refusal(key, bad).startswith(
                f"{key} of '{name}' is {said(bad)}: a positive, finite number is needed"
            )
    if value != "late":
        found = refusal("depth_file_path", value, frame=True)
        assert found.startswith(f"depth_file_path of frame 1 of '{name}' is {said(value)}: it must be text")
    if isinstance(value, float):
        assert "c0.png' has fx, fy, cx, cy = " in refusal("cx", value)
        assert "finite numbers and positive focal lengths are needed" in refusal("fl_y", -value)


def test_timestamps_are_in_all_frames_or_in_none(tmp_path: Path) -> None:
    path = write(tmp_path / "set", "transforms")
    name = path / "transforms.json"
    document = json.loads(name.read_text())
    del document["frames"][2]["timestamp"]
    name.write_text(json.dumps(document))
    assert message_of(path).startswith(f"frame 2 of '{name}' lacks timestamp (other frames have one): ")
    for frame in document["frames"]:
        frame.pop("timestamp", None)
    name.write_text(json.dumps({**document, "fps": 5}))
    found = read_sequence(path, SequenceOptions(intrinsics=LENS))
    np.testing.assert_allclose([frame.time for frame in found.frames], np.arange(COUNT) / 5)


def test_a_camera_that_looks_past_its_images_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "set", "7scenes")
    far = (LENS[0], LENS[1], 7.9, LENS[3])
    np.savetxt(path / "camera-intrinsics.txt", [[far[0], 0, far[2]], [0, far[1], far[3]], [0, 0, 1]])
    line = "the principal point 7.9, 2.9 of '.*frame-000000.color.jpg' is far from the middle of images of 8x6 pixels"
    assert re.match(line, message_of(path))
    EugenRGBDDataParserConfig(data=path, eval_interval=0, intrinsics=far).setup().get_dataparser_outputs("train")
    assert re.search(f"warning: {line}", capsys.readouterr().out)  # what the user gave is taken
    EugenRGBDDataParserConfig(data=path, eval_interval=0, intrinsics=LENS).setup().get_dataparser_outputs("train")
    assert "warning: the principal" not in capsys.readouterr().out


def test_bad_tum_lists_are_refused_and_lonely_frames_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "set", "tum")
    depth, truth = path / "depth.txt", path / "groundtruth.txt"
    lines = depth.read_text().splitlines()
    depth.write_text("\n".join([lines[0], *lines[2:]]) + "\n")  # the second colour image has no depth near it
    kept = read_sequence(path, SequenceOptions(intrinsics=LENS))
    assert [frame.color.stem for frame in kept.frames] == ["0", "2", "3"]
    np.testing.assert_allclose([frame.time for frame in kept.frames], [0.0, 2 / 6, 3 / 6], atol=1e-6)
    depth.write_text("\n".join([lines[1], lines[0]]) + "\n")
    assert "frames are out of order: line 2 of" in message_of(path)
    depth.write_text("\n".join(lines) + "\n")
    assert "within 0.0001 s" in message_of(path, max_time_difference=1e-4)
    good = truth.read_text()
    fields = good.splitlines()[1].split()
    truth.write_text(good.replace(" ".join(fields[1:]), " ".join([*fields[1:4], "0 0 0 0"])))
    assert "has a quaternion of length 0" in message_of(path)
    truth.write_text(good.replace(" ".join(fields[1:]), "1 2 3"))
    assert "is no pose: a time and 7 numbers" in message_of(path)
    truth.unlink()
    assert "groundtruth.txt' is missing" in message_of(path)


def test_bad_replica_sequences_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "set", "replica")
    trajectory = path / "traj.txt"
    good = trajectory.read_text()
    trajectory.write_text("\n".join(good.splitlines()[:-1]))
    assert "holds 3 poses of 16 numbers for 4 frames" in message_of(path)
    trajectory.write_text(good)
    (path / "cam_params.json").rename(tmp_path / "cam_params.json")  # above the sequence, as Replica has it
    assert len(read_sequence(path, SequenceOptions(intrinsics=LENS)).frames) == COUNT
    camera = json.loads((tmp_path / "cam_params.json").read_text())["camera"]
    (tmp_path / "cam_params.json").write_text(json.dumps({"camera": {**camera, "scale": -5}}))
    assert "cam_params.json' is -5: a positive, finite number is needed" in message_of(path)
    (tmp_path / "cam_params.json").write_text('{"camera": {"fx": 1}}')
    assert "must hold camera: fx, fy, cx, cy and scale" in message_of(path)
    (tmp_path / "cam_params.json").unlink()
    assert "pass --intrinsics and --depth-unit" in message_of(path)
    trajectory.unlink()
    assert message_of(path).startswith(f"'{trajectory}' is missing: ")
    trajectory.write_text(good)
    assert read_sequence(path, SequenceOptions(intrinsics=LENS, depth_unit=0.001)).depth_unit == 0.001
    (path / "results/depth000010.png").unlink()
    assert "number 10 in" in message_of(path)


@pytest.mark.parametrize(
    "bad", [{"depth_unit": 0.0}, {"depth_max": float("nan")}, {"intrinsics": (1.0, -1.0, 2.0, 2.0)}]
)
def test_settings_out_of_range_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match="but a positive, finite number is needed"):
        SequenceOptions(**bad)
