"""RGB-D sequences in each layout: the same cameras come back; each kind of bad input is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.rgbd import SequenceOptions, load_depth, read_sequence
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig

COUNT, WIDTH, HEIGHT = 4, 8, 6
LENS = (7.0, 7.5, 4.2, 2.9)
KITCHEN = Path(__file__).resolve().parents[3] / "shared" / "data" / "7scenes-kitchen"
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def poses() -> list[np.ndarray]:
    """Camera-to-world with nerfstudio's axes."""
    found = []
    for index in range(COUNT):
        pose = np.eye(4)
        pose[:3, :3] = rotation(np.array([0.3, 1.0, -0.2 * index]), 0.4 + 0.5 * index)
        pose[:3, 3] = (0.1 * index, -0.2, 1.5 + index)
        found.append(pose)
    return found


def quaternion(matrix: np.ndarray) -> list[float]:
    """x, y, z, w from the eigenvector of Bar-Itzhack's matrix, another way than the reader's."""
    m = matrix
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m.trace()],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1].tolist()


def save(color: Path, depth: Path, index: int) -> None:
    rng = np.random.default_rng(index)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(color)
    stored = rng.integers(500, 3000, (HEIGHT, WIDTH)).astype(np.uint16)
    stored[0, :2] = 0, 65535
    Image.fromarray(stored).save(depth)


def write_7scenes(root: Path) -> None:
    for index, pose in enumerate(poses()):
        name = f"frame-{5 * index:06d}"
        save(root / f"{name}.color.jpg", root / f"{name}.depth.png", index)
        np.savetxt(root / f"{name}.pose.txt", pose @ FLIP)
    np.savetxt(root / "camera-intrinsics.txt", [[LENS[0], 0, LENS[2]], [0, LENS[1], LENS[3]], [0, 0, 1]])


def write_transforms(root: Path) -> None:
    frames = []
    for index, pose in enumerate(poses()):
        save(root / f"c{index}.png", root / f"d{index}.png", index)
        names = {"file_path": f"c{index}.png", "depth_file_path": f"d{index}.png"}
        frames.append({**names, "transform_matrix": pose.tolist(), "timestamp": 100.0 + index / 6})
    lens = dict(zip(("fl_x", "fl_y", "cx", "cy"), LENS, strict=True))
    (root / "transforms.json").write_text(json.dumps({**lens, "k1": 0.0, "frames": frames}))


def write_tum(root: Path) -> None:
    lists: dict[str, list[str]] = {"rgb": ["# time file"], "depth": [], "groundtruth": ["# time pose"]}
    for index, pose in enumerate(poses()):
        time = 1305031102.175304 + index / 6
        (root / "rgb").mkdir(exist_ok=True)
        (root / "depth").mkdir(exist_ok=True)
        save(root / f"rgb/{index}.png", root / f"depth/{index}.png", index)
        lists["rgb"].append(f"{time:.6f} rgb/{index}.png")
        lists["depth"].append(f"{time + 0.004:.6f} depth/{index}.png")
        opencv = pose @ FLIP
        numbers = [*opencv[:3, 3], *quaternion(opencv[:3, :3])]
        lists["groundtruth"].append(f"{time - 0.003:.6f} {' '.join(f'{v:.9f}' for v in numbers)}")
        lists["groundtruth"].append(f"{time + 0.05:.6f} 0 0 0 0 0 0 1")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_replica(root: Path) -> None:
    (root / "results").mkdir()
    rows = []
    for index, pose in enumerate(poses()):
        save(root / f"results/frame{5 * index:06d}.jpg", root / f"results/depth{5 * index:06d}.png", index)
        rows.append((pose @ FLIP).reshape(-1))
    np.savetxt(root / "traj.txt", rows)
    camera = {"w": WIDTH, "h": HEIGHT, "fx": LENS[0], "fy": LENS[1], "cx": LENS[2] - 0.5, "cy": LENS[3] - 0.5}
    (root / "cam_params.json").write_text(json.dumps({"camera": {**camera, "scale": 6553.5}}))


WRITERS: dict[str, tuple[Callable[[Path], None], float]] = {
    "7scenes": (write_7scenes, 1e-3),
    "transforms": (write_transforms, 1e-3),
    "tum": (write_tum, 1 / 5000),
    "replica": (write_replica, 1 / 6553.5),
}


def write(root: Path, layout: str) -> Path:
    root.mkdir()
    WRITERS[layout][0](root)
    return root


def message_of(path: Path, **options) -> str:
    """The one line with which a sequence is refused."""
    with pytest.raises(DataError) as caught:
        EugenRGBDDataParserConfig(data=path, **options).setup().get_dataparser_outputs("train")
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_cameras_in_metres(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / "set", layout)
    intrinsics = LENS if layout == "tum" else None
    config = EugenRGBDDataParserConfig(data=path, eval_interval=0, intrinsics=intrinsics)
    outputs = config.setup().get_dataparser_outputs("train")
    np.testing.assert_allclose(outputs.cameras.camera_to_worlds, np.stack(poses())[:, :3], atol=1e-6)
    found = [float(getattr(outputs.cameras, key)[2]) for key in ("fx", "fy", "cx", "cy")]
    np.testing.assert_allclose(found, LENS, rtol=1e-6)
    assert (int(outputs.cameras.width[0]), int(outputs.cameras.height[0])) == (WIDTH, HEIGHT)
    metadata = outputs.metadata
    assert metadata["depth_unit_scale_factor"] == pytest.approx(WRITERS[layout][1])
    np.testing.assert_allclose(metadata["timestamps"], np.arange(COUNT) / 6, atol=1e-6)
    assert outputs.dataparser_scale == 1.0
    assert torch.equal(outputs.dataparser_transform, torch.eye(4)[:3])
    assert [p.is_file() for p in [*outputs.image_filenames, *metadata["depth_filenames"]]] == [True] * 2 * COUNT
    # the box holds every measured point and camera, in metres
    box = outputs.scene_box.aabb.numpy()
    assert (box[0] <= np.stack(poses())[:, :3, 3].min(0) - 0.09).all()
    again = EugenRGBDDataParserConfig(data=path, layout=layout, depth_unit=0.01, intrinsics=LENS)  # type: ignore[arg-type]
    assert again.setup().get_dataparser_outputs("train").metadata["depth_unit_scale_factor"] == 0.01


def test_parsers_with_the_same_settings_share_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eugen_nerf.data import rgbd_parser

    path, readings = write(tmp_path / "set", "7scenes"), []
    inspect = rgbd_parser.inspect_sequence
    monkeypatch.setattr(rgbd_parser, "inspect_sequence", lambda *args: readings.append(args) or inspect(*args))

    def outputs(**options):
        return EugenRGBDDataParserConfig(data=path, **options).setup().get_dataparser_outputs("train")

    alone = outputs()
    with rgbd_parser.sequences_read_once():
        first, second = outputs(), outputs(eval_interval=2)
        assert len(readings) == 2
        assert outputs(depth_max=2.0).metadata["depth_max"] == 2.0
        assert len(readings) == 3
    assert torch.equal(first.cameras.camera_to_worlds, alone.cameras.camera_to_worlds)
    assert torch.equal(first.scene_box.aabb, alone.scene_box.aabb)
    assert len(second.image_filenames) == 2
    outputs()
    assert len(readings) == 4


def test_held_out_frames_come_by_an_interval(tmp_path: Path) -> None:
    path = write(tmp_path / "set", "transforms")

    def names(split: str, **options) -> list[str]:
        parser = EugenRGBDDataParserConfig(data=path, **options).setup()
        return [p.stem for p in parser.get_dataparser_outputs(split).image_filenames]

    assert (names("train", eval_interval=2), names("test", eval_interval=2)) == (["c0", "c2"], ["c1", "c3"])
    assert names("val", eval_interval=4) == ["c3"]
    assert names("train", eval_interval=2, train_on_all=True) == ["c0", "c1", "c2", "c3"]
    assert names("train", eval_interval=0) == names("test", eval_interval=0) == ["c0", "c1", "c2", "c3"]
    assert names("train", eval_interval=0, frame_step=3) == ["c0", "c3"]
    with pytest.raises(DataError, match=r"the test split of .* is empty"):
        names("test", eval_interval=8)
    with pytest.raises(ConfigError, match="frame_step 0"):
        names("train", frame_step=0)


def test_depth_is_metres_or_nan(tmp_path: Path) -> None:
    stored = np.array([[0, 1000, 65535], [2500, 12000, 7]], dtype=np.uint16)
    Image.fromarray(stored).save(tmp_path / "d.png")
    expected = np.array([[np.nan, 1.0, np.nan], [2.5, np.nan, np.nan]], dtype=np.float32)
    found = load_depth(tmp_path / "d.png", 1e-3, (0, 65535, 7), 10.0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.save(tmp_path / "d.npy", np.array([[1.5, -1.0, np.nan], [np.inf, 2.0, 11.0]]))
    found = load_depth(tmp_path / "d.npy", 2.0, (), 10.0)
    np.testing.assert_array_equal(found, np.array([[3.0, np.nan, np.nan], [np.nan, 4.0, np.nan]], dtype=np.float32))


def test_depth_of_a_wrong_kind_is_refused(tmp_path: Path) -> None:
    def refusal(name: str) -> str:
        with pytest.raises(DataError) as caught:
            load_depth(tmp_path / name, 1e-3, (0,), 10.0)
        return str(caught.value)

    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "rgb.png")
    assert "has the pixel format RGB: one channel of 16 bits is needed" in refusal("rgb.png")
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2)))
    assert "is an array [2, 2, 2] of float64" in refusal("a.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "is damaged and cannot be read" in refusal("o.npy")
    (tmp_path / "e.png").write_bytes(b"")
    assert "is damaged and cannot be decoded" in refusal("e.png")


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
            np.savetxt(pose, np.full((4, 4), -np.inf))
        case "scaled pose":
            np.savetxt(pose, np.diag([2.0, 2.0, 2.0, 1.0]))
        case "short pose":
            pose.write_text("1 2 3")
        case "no numbers":
            pose.write_text("lost")
        case "truncated":
            depth.write_bytes(depth.read_bytes()[:-30])
        case "larger colour":
            Image.new("RGB", (2 * WIDTH, 2 * HEIGHT)).save(path / "frame-000010.color.jpg")
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
        ("larger colour", "frame-000010.color.jpg' is 16x12 pixels but depth .* is 8x6: both must have one size"),
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
    assert "nowhere' does not exist: pass its directory with --data" in message_of(tmp_path / "nowhere")
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
    assert "k1 = 0.1): depth needs pinhole images" in refusal(lambda d: d.update(k1=0.1))
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

    found = refusal("timestamp", value, frame=True)
    assert found.startswith(f"timestamp of frame 1 of '{name}' is {value!r}: a finite number is needed")
    for key in ("fps", "depth_unit_scale_factor"):
        for bad in (value, 0, -1.0):
            assert refusal(key, bad).startswith(f"{key} of '{name}' is {bad!r}: a positive, finite number is needed")
    if value != "late":
        found = refusal("depth_file_path", value, frame=True)
        assert found.startswith(f"depth_file_path of frame 1 of '{name}' is {value!r}: it must be text")
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
    found = read_sequence(path, SequenceOptions())
    np.testing.assert_allclose([frame.time for frame in found.frames], np.arange(COUNT) / 5)


def test_a_camera_that_looks_past_its_images_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "set", "tum")
    EugenRGBDDataParserConfig(data=path, eval_interval=0).setup().get_dataparser_outputs("train")
    line = "warning: the principal point 320, 240 lies outside the images of 8x6 pixels: where they were resized, pass"
    assert line in capsys.readouterr().out
    EugenRGBDDataParserConfig(data=path, eval_interval=0, intrinsics=LENS).setup().get_dataparser_outputs("train")
    assert "warning" not in capsys.readouterr().out


def test_bad_tum_lists_are_refused_and_lonely_frames_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "set", "tum")
    depth, truth = path / "depth.txt", path / "groundtruth.txt"
    lines = depth.read_text().splitlines()
    depth.write_text("\n".join([lines[0], *lines[2:]]) + "\n")  # the second colour image has no depth near it
    kept = read_sequence(path, SequenceOptions())
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
    assert len(read_sequence(path, SequenceOptions()).frames) == COUNT
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


def test_nerfstudio_knows_the_parser() -> None:
    from nerfstudio.plugins.registry_dataparser import discover_dataparsers

    parsers, descriptions = discover_dataparsers()
    assert isinstance(parsers["eugen-rgbd"], EugenRGBDDataParserConfig)
    assert "metres" in descriptions["eugen-rgbd"]


@pytest.mark.skipif(not KITCHEN.is_dir(), reason="needs ../shared/data/7scenes-kitchen")
def test_kitchen_is_read_and_its_frames_agree_with_one_another() -> None:
    """Points measured by a frame lie where a neighbouring frame measures them too: units, axes and poses are right."""
    from eugen_nerf.data.views import depth_views

    outputs = EugenRGBDDataParserConfig(data=KITCHEN, frame_step=10, eval_interval=0).setup().get_dataparser_outputs()
    assert len(outputs.image_filenames) == 20
    assert outputs.metadata["timestamps"][1] == pytest.approx(50 / 30)
    size = np.diff(outputs.scene_box.aabb.numpy(), axis=0)[0]
    assert (size > 2.0).all()
    assert (size < 8.0).all()
    views = depth_views(outputs, stride=4)
    origins, directions, depth = views.measured(np.random.default_rng(0), 3000)
    points = origins + depth[:, None] * directions
    assert views.observed(points, 0.02).mean() > 0.99
    behind = origins + (depth[:, None] + 0.3) * directions
    assert views.observed(behind, 0.02).mean() < 0.4
