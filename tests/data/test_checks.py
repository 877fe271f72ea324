"""Refusals of bad data sets, each with the message a user reads, and the data manager that makes them exits."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.checks import check_blender_directory, check_dataparser_outputs, check_pose

SPLITS = ("train", "val", "test")
COUNT = 3


def write_set(path: Path, *, times: bool = False) -> Path:
    """A valid data set of three 4x6 RGBA images a split, written without the package."""
    for split in SPLITS:
        (path / split).mkdir(parents=True)
        frames = []
        for index in range(COUNT):
            pixels = np.random.default_rng(index).integers(0, 256, size=(4, 6, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(path / split / f"r_{index}.png")
            pose = np.eye(4)
            pose[:3, 3] = (0.1 * index, 0.0, 4.0)
            frame = {"file_path": f"./{split}/r_{index}", "transform_matrix": pose.tolist()}
            frames.append({**frame, "time": index / 2} if times else frame)
        (path / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def edit(path: Path, split: str, change) -> None:
    name = path / f"transforms_{split}.json"
    document = json.loads(name.read_text())
    change(document)
    name.write_text(json.dumps(document))


def message_of(function, *args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_valid_set_passes_and_is_summed_up(data: Path) -> None:
    summary = check_blender_directory(data)
    assert dict(summary.counts) == {"train": 3, "val": 3, "test": 3}
    assert (summary.size, summary.angle_x) == ((6, 4), pytest.approx(0.7, abs=1e-12))


def test_missing_directory_file_as_directory_missing_transforms(data: Path, tmp_path: Path) -> None:
    assert "nowhere' does not exist: give its directory, or make one" in message_of(
        check_blender_directory, tmp_path / "nowhere"
    )
    assert "is a file: pass the directory" in message_of(check_blender_directory, data / "transforms_val.json")
    (data / "transforms_val.json").unlink()
    assert "transforms_val.json' is missing" in message_of(check_blender_directory, data)
    check_blender_directory(data, ("train", "test"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"frames": [', "is not valid JSON"),
        ("[]", "lacks 'frames'"),
        ('{"frames": [{"file_path": "train/r_0", "transform_matrix": [[1,0,0,0],[0,1,0,0],[0,0,1,0]]}]}', "no focal"),
        ('{"camera_angle_x": 0.7, "frames": {}}', "must be a list"),
        ('{"camera_angle_x": 0.7, "frames": []}', "its split is empty: at least one is needed"),
        ('{"camera_angle_x": 0.7, "frames": [3]}', "frame 0 of"),
        ('{"camera_angle_x": 0.7, "frames": [{"file_path": "a"}]}', "lacks 'transform_matrix'"),
    ],
)
def test_bad_transforms_file(data: Path, text: str, expected: str) -> None:
    (data / "transforms_train.json").write_text(text)
    message = message_of(check_blender_directory, data)
    assert expected in message
    assert "transforms_train.json" in message


@pytest.mark.parametrize("angle", [0.0, -0.5, 3.2, float("nan"), float("inf"), "wide", None, True])
def test_bad_field_of_view(data: Path, angle: object) -> None:
    edit(data, "val", lambda document: document.update(camera_angle_x=angle))
    said = {None: "null", True: "true"}.get(angle, repr(angle))
    assert f"'camera_angle_x' in '{data}/transforms_val.json' is {said}" in message_of(check_blender_directory, data)


def test_missing_images_are_counted_and_the_first_is_named(data: Path) -> None:
    (data / "test" / "r_1.png").unlink()
    (data / "test" / "r_2.png").unlink()
    message = message_of(check_blender_directory, data)
    assert "2 of 3 image files of the test split are missing" in message
    assert f"'{data}/test/r_1.png'" in message
    check_blender_directory(data, images="first")
    check_blender_directory(data, images="none")
    (data / "test" / "r_0.png").unlink()
    assert "1 of 1 image files" in message_of(check_blender_directory, data, images="first")


def test_damaged_images_are_named(data: Path) -> None:
    name = data / "train" / "r_2.png"
    whole = name.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], whole[:-20], b"not an image", whole[:50] + b"\0\0\0" + whole[53:]):
        name.write_bytes(broken)
        assert f"image '{name}' is damaged and cannot be decoded" in message_of(check_blender_directory, data)
    name.write_bytes(whole)
    check_blender_directory(data)


def test_wrong_size_and_pixel_format(data: Path) -> None:
    name = data / "val" / "r_1.png"
    Image.new("RGBA", (6, 5)).save(name)
    assert "is 6x5 pixels where its camera is 6x4 (1 of 3 images differ)" in message_of(check_blender_directory, data)
    Image.new("CMYK", (6, 4)).save(name, format="TIFF")
    assert "pixel format CMYK: grey, RGB, RGBA and palettes" in message_of(check_blender_directory, data)


def spoilt(change) -> np.ndarray:
    pose = np.eye(4)
    change(pose)
    return pose


BAD_POSES = {
    "nan": (spoilt(lambda p: p.__setitem__((1, 3), np.nan)), "NaN or infinite"),
    "infinite": (spoilt(lambda p: p.__setitem__((0, 0), np.inf)), "NaN or infinite"),
    "scaled": (spoilt(lambda p: p.__setitem__((slice(0, 3), slice(0, 3)), 2 * np.eye(3))), "not rigid"),
    "slightly scaled": (spoilt(lambda p: p.__setitem__((slice(0, 3), slice(0, 3)), 1.001 * np.eye(3))), "not rigid"),
    "sheared": (spoilt(lambda p: p.__setitem__((0, 1), 0.01)), "not rigid"),
    "mirrored": (spoilt(lambda p: p.__setitem__((0, 0), -1.0)), "determinant -1"),
    "zero": (np.zeros((3, 4)), "not rigid"),
    "last row": (spoilt(lambda p: p.__setitem__((3, 0), 1.0)), "last row"),
    "2x2": (np.eye(2), "shape [2, 2]"),
    "ragged": ([[1.0, 2.0], [3.0]], "no matrix of numbers"),
    "text": ("identity", "no matrix of numbers"),
}


@pytest.mark.parametrize("name", BAD_POSES)
def test_bad_pose_names_its_frame(data: Path, name: str) -> None:
    pose, expected = BAD_POSES[name]
    assert expected in message_of(check_pose, pose, "frame 7")
    listed = pose.tolist() if isinstance(pose, np.ndarray) else pose
    edit(data, "train", lambda document: document["frames"][1].update(transform_matrix=listed))
    message = message_of(check_blender_directory, data)
    assert expected in message
    assert f"frame 1 of '{data}/transforms_train.json'" in message


def test_rotations_within_tolerance_pass() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        pose = np.eye(4)
        pose[:3, :3] = np.round(rotation * np.sign(np.linalg.det(rotation)), 4)  # as some data sets are written
        pose[:3, 3] = rng.normal(size=3) * 1e3
        check_pose(pose, "a frame")
        check_pose(pose[:3], "a frame")


def test_times_are_asked_for_where_the_format_has_them(tmp_path: Path) -> None:
    data = write_set(tmp_path / "dynamic", times=True)
    check_blender_directory(data, times=True)
    edit(data, "train", lambda document: document["frames"][2].update(time=float("nan")))
    assert "'time' of frame 2" in message_of(check_blender_directory, data, times=True)
    edit(data, "train", lambda document: document["frames"][2].pop("time"))
    assert "lacks 'time'" in message_of(check_blender_directory, data, times=True)


@pytest.fixture
def outputs(data: Path):
    from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

    return BlenderDataParserConfig(data=data).setup().get_dataparser_outputs("train")


def test_good_outputs_pass(outputs) -> None:
    check_dataparser_outputs(outputs, split="train")


def test_bad_outputs(outputs, data: Path) -> None:
    empty = copy.copy(outputs)
    empty.image_filenames = []
    assert "the train split is empty" in message_of(check_dataparser_outputs, empty, split="train")
    fewer = copy.copy(outputs)
    fewer.image_filenames = outputs.image_filenames[:2]
    assert "2 images but camera poses of shape [3, 3, 4]" in message_of(check_dataparser_outputs, fewer, split="train")
    for bad in (0.0, -3.0, float("nan"), float("inf")):
        cameras = copy.deepcopy(outputs)
        cameras.cameras.fy = outputs.cameras.fy.clone()
        cameras.cameras.fy[1] = bad
        message = message_of(check_dataparser_outputs, cameras, split="train")
        assert f"focal length fy is {bad:g} pixels in frame 1 ('r_1.png') of the train split" in message
    moved = copy.deepcopy(outputs)
    moved.cameras.camera_to_worlds[2, 0, 3] = torch.nan
    assert "frame 2 ('r_2.png') of the train split has NaN" in message_of(
        check_dataparser_outputs, moved, split="train"
    )
    masked = copy.copy(outputs)
    masked.mask_filenames = [data / f"mask_{index}.png" for index in range(3)]
    assert "3 of 3 mask files" in message_of(check_dataparser_outputs, masked, split="train")
    (data / "train" / "r_0.png").unlink()
    assert "1 of 3 image files" in message_of(check_dataparser_outputs, outputs, split="train")
    check_dataparser_outputs(outputs, split="train", images="none")


def manager_of(data: Path | None, test_mode: str = "val", **options):
    from eugen_nerf.data.manager import EugenDataManagerConfig

    config = EugenDataManagerConfig(data=data, train_num_rays_per_batch=5, eval_num_rays_per_batch=5, **options)
    manager = config.setup(device="cpu", test_mode=test_mode)
    assert type(manager.train_dataset) is manager.dataset_type
    return manager


def test_manager_serves_rays_and_every_test_mode(data: Path) -> None:
    manager = manager_of(data)
    bundle, batch = manager.next_train(0)
    assert bundle.origins.shape == (5, 3)
    assert batch["image"].shape == (5, 3)
    assert manager_of(data, "test").test_split == "test"
    (data / "train" / "r_1.png").unlink()  # in inference mode the images are not needed
    assert len(manager_of(data, "inference").train_dataset) == 3


@pytest.mark.parametrize("parser_holds_path", [False, True])
def test_manager_ends_the_command_with_one_line(data: Path, parser_holds_path: bool) -> None:
    from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

    (data / "val" / "r_0.png").write_bytes(b"")
    parser = BlenderDataParserConfig(data=data) if parser_holds_path else BlenderDataParserConfig()
    with pytest.raises(DataError, match=r"^image '.*val/r_0.png' is damaged"):
        manager_of(None if parser_holds_path else data, dataparser=parser)
    assert manager_of(data, "test")  # does not read the validation split


def test_manager_checks_what_other_parsers_return(data: Path, tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    with pytest.raises(DataError, match=r"^data set '.*nowhere' does not exist"):
        manager_of(tmp_path / "nowhere", dataparser=NerfstudioDataParserConfig())
    with pytest.raises(DataError, match=r"^frame 0 .* lacks 'time'"):
        manager_of(data, dataparser=DNeRFDataParserConfig())
    frames = json.loads((data / "transforms_train.json").read_text())["frames"]
    for frame in frames:
        frame["file_path"] += ".png"
    frames[1]["transform_matrix"][0][0] = 2.0
    document = {"fl_x": 9.0, "fl_y": 9.0, "cx": 3.0, "cy": 2.0, "w": 6, "h": 4, "frames": frames}
    (data / "transforms.json").write_text(json.dumps(document))
    parser = NerfstudioDataParserConfig(orientation_method="none", center_method="none", downscale_factor=1)
    with pytest.raises(DataError, match=r"^the camera pose in frame .* is not rigid"):
        manager_of(data, dataparser=parser)
