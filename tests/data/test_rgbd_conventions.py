"""What the files of an RGB-D sequence do not say, or say in their own way: found out, said, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rgbd_sequences import FLIP, LENS, quaternion
from rgbd_sequences import write as write_layout
from tiny_rgbd import FOCAL, SIZE, pose_at, write_sequence

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.rgbd.depth_rays import RGBDDataset
from eugen_nerf.data.rgbd.depth_views import depth_views
from eugen_nerf.data.rgbd.rgbd_images import same_view
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig

ANGLES = np.linspace(0.0, 3.0, 12)


def outputs_of(path: Path, split: str = "train", **options):
    options = {"eval_interval": 0, **options}
    return EugenRGBDDataParserConfig(data=path, **options).setup().get_dataparser_outputs(split)


def refusal(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        outputs_of(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, change: Callable[[dict], object]) -> Path:
    name = path / "transforms.json"
    document = json.loads(name.read_text())
    change(document)
    name.write_text(json.dumps(document))
    return path


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return write_sequence(tmp_path / "room", ANGLES)


def camera(outputs) -> list[float]:
    return [float(getattr(outputs.cameras, key)[0]) for key in ("fx", "fy", "cx", "cy")]


TRUE = [FOCAL, FOCAL, SIZE[0] / 2, SIZE[1] / 2]


def test_what_was_assumed_is_printed_once_with_its_option(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = EugenRGBDDataParserConfig(data=room, eval_interval=4).setup()
    parser.get_dataparser_outputs("train")
    parser.get_dataparser_outputs("val")
    said = capsys.readouterr().out
    assert "not said" not in said  # unit and times are in this file
    assert re.search(
        r"^depth: [\d.]+ to [\d.]+ m \(5 to 95 %\), median [\d.]+ m, at 0.001 m a stored unit$", said, re.M
    )
    edit(room, lambda d: (d.pop("depth_unit_scale_factor"), [f.pop("timestamp") for f in d["frames"]]))
    parser = EugenRGBDDataParserConfig(data=room, eval_interval=4).setup()
    parser.get_dataparser_outputs("train")
    parser.get_dataparser_outputs("val")
    line = "not stated by the files, assumed: 0.001 m a stored unit of depth (--depth-unit); 30 frames a second (--fps)"
    assert capsys.readouterr().out.count(line) == 1
    outputs_of(room, depth_unit=0.001)
    assert "stored unit of depth" not in capsys.readouterr().out


@pytest.mark.parametrize("written", [1.0, 0.01, 0.0002, 0.0001])
def test_a_wrong_unit_is_found_by_what_frames_see_of_each_other(room: Path, written: float) -> None:
    edit(room, lambda d: d.update(depth_unit_scale_factor=written))
    found = refusal(room, depth_max=1e6)
    assert f"at 0.001 m a stored unit of depth instead of {written:g}: pass --depth-unit 0.001" in found
    assert outputs_of(room, depth_unit=0.001).metadata["depth_unit_scale_factor"] == 0.001


def test_wrong_axes_and_inverted_poses_are_found(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = (room / "transforms.json").read_text()

    def change(function: Callable[[np.ndarray], np.ndarray]) -> None:
        document = json.loads(good)
        for frame in document["frames"]:
            frame["transform_matrix"] = function(np.array(frame["transform_matrix"])).tolist()
        (room / "transforms.json").write_text(json.dumps(document))

    change(lambda pose: pose @ FLIP)
    assert "with the cameras' other axes: pass --axes opencv" in refusal(room)
    np.testing.assert_allclose(
        outputs_of(room, axes="opencv").cameras.camera_to_worlds[3], pose_at(ANGLES[3])[:3], atol=1e-6
    )
    change(np.linalg.inv)
    assert "with inverted poses: these are world-to-camera" in refusal(room)
    change(lambda pose: np.linalg.inv(pose @ FLIP))
    assert "world-to-camera" in refusal(room, axes="opencv")
    rng = np.random.default_rng(0)  # nothing fits: refused unless a convention is stated
    change(lambda pose: pose_at(float(rng.uniform(0, 6))))
    capsys.readouterr()
    assert "images that were cropped need --intrinsics" in refusal(room)
    outputs_of(room, axes="nerfstudio")
    assert "warning: the depth images contradict one another at " in capsys.readouterr().out


def test_intrinsics_follow_the_images_they_belong_to(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    double = {"w": 2 * SIZE[0], "h": 2 * SIZE[1], "fl_x": 2 * FOCAL, "fl_y": 2 * FOCAL, "cx": SIZE[0], "cy": SIZE[1]}
    edit(room, lambda d: d.update(double))  # of images that were halved since
    assert camera(outputs_of(room)) == pytest.approx(TRUE)
    assert (
        "intrinsics of 64x48 images are scaled to depth's 32x24: fx, fy, cx, cy = 20, 20, 16, 12"
        in capsys.readouterr().out
    )
    edit(room, lambda d: (d.pop("w"), d.pop("h")))
    found = refusal(room)  # nothing says of which images they are
    assert "the principal point 32, 24 of" in found
    assert "pass --intrinsics fx fy cx cy in pixels of the depth images" in found
    assert camera(outputs_of(room, intrinsics=tuple(TRUE))) == pytest.approx(TRUE)
    for file in room.glob("color_*.png"):
        with Image.open(file) as image:
            image.resize((2 * SIZE[0], 2 * SIZE[1])).save(file)
    outputs = outputs_of(room)  # now colour has the size that the principal point fits
    assert camera(outputs) == pytest.approx(TRUE)
    assert "colour of 64x48 pixels is resized to depth's 32x24" in capsys.readouterr().out
    item = RGBDDataset(outputs)[0]
    assert item["image"].shape == (SIZE[1], SIZE[0], 3)
    assert item["depth_image"].shape == (SIZE[1], SIZE[0], 1)
    edit(room, lambda d: d.update(w=SIZE[1], h=SIZE[0], cx=12, cy=16))
    assert "w, h of" in refusal(room)
    assert "are 24x32 but depth" in refusal(room)
    assert refusal(room).endswith("they are swapped; correct them")
    edit(room, lambda d: d.update(w=40, h=24))
    assert "the images were cropped" in refusal(room)


def test_sizes_of_one_view() -> None:
    assert same_view((1296, 968), (640, 480))
    assert same_view((1920, 1440), (256, 192))
    assert same_view((129, 97), (64, 48))
    assert same_view((640, 480), (640, 480))
    assert not same_view((1280, 720), (640, 480))
    assert not same_view((480, 640), (640, 480))


def test_colour_is_turned_as_exif_says_where_depth_shows_it(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upright = RGBDDataset(outputs_of(room)).get_numpy_image(3)
    for file in room.glob("color_*.png"):
        with Image.open(file) as image:
            turned = image.transpose(Image.Transpose.ROTATE_90)  # against the clock; tag 6 says to turn it back
            exif = Image.Exif()
            exif[0x0112] = 6
            turned.save(file, exif=exif)
    capsys.readouterr()
    np.testing.assert_array_equal(RGBDDataset(outputs_of(room)).get_numpy_image(3), upright)
    assert "colour is rotated by its EXIF tag, 24x32 to 32x24" in capsys.readouterr().out


def test_masks_take_depth_away(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = depth_views(outputs_of(room)).depth
    kept = np.zeros(SIZE[::-1], dtype=np.uint8)
    kept[5:15, 4:20] = 1  # neither 255 nor all the same
    rgba = np.zeros((*SIZE[::-1], 4), dtype=np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, 255 * kept
    Image.fromarray(kept).save(room / "grey.png")
    Image.fromarray(np.repeat(255 * kept[..., None], 3, axis=2)).save(room / "rgb.png")
    Image.fromarray(rgba).save(room / "rgba.png")
    Image.fromarray(np.kron(kept, np.ones((2, 2), dtype=np.uint8))).save(room / "large.png")
    Image.fromarray(0 * kept).save(room / "black.png")
    names = ["grey.png", "rgb.png", "rgba.png", "large.png", None, "black.png"]
    capsys.readouterr()

    def mask(document: dict) -> None:
        for frame, name in zip(document["frames"], names, strict=False):
            frame.update({"mask_path": name} if name else {})

    outputs = outputs_of(edit(room, mask))
    said = capsys.readouterr().out
    assert "masks: depth is used where they are not 0, in 5 of 12 frames" in said
    assert "left out frames without valid depth: 1 of 12, the first is depth_005.png" in said
    depth = depth_views(outputs).depth
    for index in range(4):
        np.testing.assert_array_equal(depth[index], np.where(kept > 0, whole[index], np.nan))
    np.testing.assert_array_equal(depth[4], whole[4])
    (room / "grey.png").write_bytes((room / "grey.png").read_bytes()[:30])
    assert re.match("mask '.*grey.png' is missing or damaged and cannot be decoded", refusal(room))
    Image.fromarray(kept[:, :20]).save(room / "grey.png")
    assert "grey.png' is 20x24 pixels but the depth image is 32x24" in refusal(room)
    (room / "grey.png").unlink()
    assert re.match("the mask image '.*grey.png' is missing", refusal(room))


def test_lists_of_files_make_the_splits(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"color_{i:03d}.png" for i in range(12)]
    edit(room, lambda d: d.update(train_filenames=files[2:9], val_filenames=files[:2], test_filenames=files[9:11]))

    def found(split: str, **options) -> list[str]:
        return [p.name for p in outputs_of(room, split, eval_interval=3, **options).image_filenames]

    assert (found("train"), found("val"), found("test")) == (files[2:9], files[:2], files[9:11])
    assert found("train", train_on_all=True) == files[:11]
    line = "splits by the data set's lists of files: 7 train, 2 val, 2 test; left out 1 frames that are in no list"
    assert line in capsys.readouterr().out
    edit(room, lambda d: d.pop("test_filenames"))
    assert found("test") == files[:2]
    edit(room, lambda d: d.pop("val_filenames"))
    with pytest.raises(DataError, match=r"the val split of .* is empty: its lists of files .*; add val_filenames"):
        found("val")
    edit(room, lambda d: d.update(val_filenames=["other.png"]))
    assert "val_filenames of" in refusal(room)
    assert "other.png', which is file_path of no frame" in refusal(room)


def test_frames_are_found_by_the_names_that_others_write(room: Path) -> None:
    whole = outputs_of(room)

    def rename(document: dict) -> None:
        for index, frame in enumerate(document["frames"]):
            frame["file_path"] = f".\\sub\\color_{index:03d}.png" if index % 2 else f"./sub/color_{index:03d}"
            frame["depth_path"] = frame.pop("depth_file_path")
        document["integer_depth_scale"] = document.pop("depth_unit_scale_factor")

    edit(room, rename)
    (room / "sub").mkdir()
    for file in room.glob("color_*.png"):
        file.rename(room / "sub" / file.name)
    name = room / "transforms.json"
    name.write_bytes(b"\xef\xbb\xbf" + name.read_bytes())
    found = outputs_of(room)
    assert [p.name for p in found.image_filenames] == [p.name for p in whole.image_filenames]
    np.testing.assert_array_equal(depth_views(found).depth, depth_views(whole).depth)


def test_intrinsics_are_found_under_other_names(room: Path) -> None:
    def replaced(**keys) -> list[float]:
        def change(document: dict) -> None:
            for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", "K", "fx", "fy", "camera_angle_x"):
                document.pop(key, None)
            document.update(keys)

        return camera(outputs_of(edit(room, change)))

    matrix = [[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1]]
    assert replaced(K=matrix) == pytest.approx(TRUE)
    assert replaced(fx=FOCAL, fy=FOCAL, cx=SIZE[0] / 2, cy=SIZE[1] / 2) == pytest.approx(TRUE)
    assert replaced(camera_angle_x=2 * np.arctan(0.5 * SIZE[0] / FOCAL)) == pytest.approx(TRUE)
    edit(room, lambda d: (d.pop("camera_angle_x"), d["frames"][4].update(K=[[1, 2], [3, 4]]), d.update(K=matrix)))
    assert re.match(r"K of frame 4 of .* must be a matrix \[3, 3\]", refusal(room))


def test_very_large_coordinates_keep_millimetres(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near = outputs_of(room)
    far = np.array([512_345.25, 5_412_345.5, 321.0])

    def move(document: dict) -> None:
        for frame in document["frames"]:
            for row in range(3):
                frame["transform_matrix"][row][3] += far[row]

    outputs = outputs_of(edit(room, move))
    line = (
        "positions reach 5.41235e+06 m, where single precision keeps 0.5 m: the origin is moved to 512345, 5412346, 321"
    )
    assert line in capsys.readouterr().out
    back = outputs.cameras.camera_to_worlds[:, :, 3].double() - outputs.dataparser_transform[:, 3].double()
    np.testing.assert_allclose(back - far, near.cameras.camera_to_worlds[:, :, 3], atol=1e-6)
    np.testing.assert_allclose(np.diff(outputs.scene_box.aabb, axis=0), np.diff(near.scene_box.aabb, axis=0), atol=1e-5)
    assert near.dataparser_transform.tolist() == np.eye(4)[:3].tolist()


def test_poses_and_cameras_of_other_shapes_are_read(tmp_path: Path) -> None:
    path = write_layout(tmp_path / "set", "7scenes")
    whole = outputs_of(path)
    for file in path.glob("*.pose.txt"):
        np.savetxt(file, np.loadtxt(file)[:3])
    matrix = np.eye(4)
    matrix[:3, :3] = np.loadtxt(path / "camera-intrinsics.txt")
    np.savetxt(path / "camera-intrinsics.txt", matrix)
    found = outputs_of(path)
    np.testing.assert_array_equal(found.cameras.camera_to_worlds, whole.cameras.camera_to_worlds)
    assert camera(found) == camera(whole)


def test_frames_that_lost_track_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_layout(tmp_path / "set", "7scenes")
    np.savetxt(path / "frame-000005.pose.txt", np.full((4, 4), -np.inf))
    outputs = outputs_of(path)
    assert [p.name[6:12] for p in outputs.image_filenames] == ["000000", "000010", "000015"]
    line = "left out 1 of 4 frames whose pose is not finite (tracking lost), the first is 'frame-000005.color.jpg'"
    assert line in capsys.readouterr().out
    for file in path.glob("*.pose.txt"):
        np.savetxt(file, np.full((4, 4), np.nan))
    assert "no pose of the 7scenes sequence" in refusal(path)
    replica = write_layout(tmp_path / "replica", "replica")
    rows = np.loadtxt(replica / "traj.txt")
    rows[2] = np.nan
    np.savetxt(replica / "traj.txt", rows)
    assert len(outputs_of(replica).image_filenames) == 3


def write_tum(root: Path, missing: range = range(0), size: tuple[int, int] = SIZE) -> Path:
    """The room of `write_sequence` at 1/1000 m in TUM's lists, ground truth without the `missing` frames."""
    write_sequence(root, ANGLES)
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for index, angle in enumerate(ANGLES):
        time = 100.0 + index / 30
        lists["rgb"].append(f"{time:.4f} color_{index:03d}.png")
        lists["depth"].append(f"{time + 0.003:.4f} depth_{index:03d}.png")
        pose = pose_at(float(angle)) @ FLIP
        numbers = [*pose[:3, 3], *quaternion(pose[:3, :3])]
        if index not in missing:
            lists["groundtruth"].append(f"{time + 0.001:.4f} {' '.join(f'{v:.9f}' for v in numbers)}")
    (root / "transforms.json").unlink()
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_gaps_in_ground_truth_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tum(tmp_path / "set", range(4, 9))
    options = {"intrinsics": tuple(TRUE), "depth_unit": 0.001}
    outputs = outputs_of(path, **options)
    assert [p.stem[-3:] for p in outputs.image_filenames] == ["000", "001", "002", "003", "009", "010", "011"]
    np.testing.assert_allclose(outputs.cameras.camera_to_worlds[4], pose_at(ANGLES[9])[:3], atol=1e-6)
    said = capsys.readouterr().out
    line = (
        "left out 5 of 12 colour images: 5 without a pose within 0.02 s; the longest gap in groundtruth.txt is 0.2 s "
    )
    assert f"{line}after 100.101000 (--max-time-difference)" in said
    truth = path / "groundtruth.txt"
    lines = truth.read_text().splitlines()
    truth.write_text("\n".join([*lines[:2], lines[2].split()[0] + 7 * " nan", *lines[3:]]) + "\n")
    assert (
        "left out 6 of 12 colour images: 6 without a pose" in (outputs_of(path, **options), capsys.readouterr().out)[1]
    )
    depth = path / "depth.txt"
    depth.write_text("\n".join(depth.read_text().splitlines()[1:]) + "\n")
    outputs_of(path, **options)
    assert " 1 without a depth image of their own within 0.02 s" in capsys.readouterr().out


def test_the_tum_layout_without_a_camera_is_not_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tum(tmp_path / "set")
    found = refusal(path)
    assert "depth_000.png' is 32x24 pixels, so its camera is unknown" in found
    assert "pass --intrinsics fx fy cx cy" in found
    # the camera given, TUM's unit is found to be wrong
    assert "at 0.001 m a stored unit of depth instead of 0.0002: pass --depth-unit 0.001" in refusal(
        path, intrinsics=tuple(TRUE)
    )
    kinect = write_layout(tmp_path / "kinect", "tum")
    for file in kinect.glob("*/*.png"):
        with Image.open(file) as image:
            image.resize((640, 480), Image.Resampling.NEAREST).save(file)
    capsys.readouterr()
    assert camera(outputs_of(kinect)) == [525, 525, 320, 240]
    said = capsys.readouterr().out
    assert "a Kinect's fx, fy, cx, cy = 525, 525, 320, 240 (--intrinsics); 0.0002 m a stored unit of depth" in said
    assert LENS[0] != 525
