"""Photographs with cameras in one JSON file, as people have them: every ray has its colour."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_edits import both, drop, each, manager_of, refusal
from painted_sphere import LENS, RIGHT, colour_error, picture, poses, write_transforms
from PIL import Image

MATRIX = [[14.0, 0.0, 7.5], [0.0, 13.0, 6.5], [0.0, 0.0, 1.0]]
LENS_NAMES = ("fl_x", "fl_y", "cx", "cy")
READ = {
    "as nerfstudio has it": {},
    "backslashes": {"edit": each(lambda f, i: f.update(file_path=f"images\\a{i}.png"))},
    "no extension": {"edit": each(lambda f, i: f.update(file_path=f"images/a{i}"))},
    "another extension": {"edit": each(lambda f, i: f.update(file_path=f"./images/a{i}.jpg"))},
    "another case": {"edit": each(lambda f, i: f.update(file_path=f"images/A{i}.PNG"))},
    "no size": {"edit": drop("w", "h")},
    "matrix of each frame": {"edit": both(drop(*LENS_NAMES, "w", "h"), each(lambda f, i: f.update(K=MATRIX)))},
    "matrix that wins": {
        "edit": both(lambda d, r: d.update(fl_x=9.0, fl_y=9.0), each(lambda f, i: f.update(K=MATRIX)))
    },
    "nine numbers": {"edit": both(drop(*LENS_NAMES), lambda d, r: d.update(intrinsics=np.ravel(MATRIX).tolist()))},
    "other names": {
        "edit": both(
            drop(*LENS),
            lambda d, r: d.update(width=16, image_height="12", fx=14, fy=13, principal_point_x=7.5, c_y=6.5),
        )
    },
    "one focal length": {"fl_y": 14.0, "edit": both(drop("fl_x", "fl_y"), lambda d, r: d.update(focal=14.0))},
    "field of view alone": {
        "fl_x": 15.0,
        "fl_y": 15.0,
        "cx": 8.0,
        "cy": 6.0,
        "edit": both(drop(*LENS), lambda d, r: d.update(camera_angle_x=2 * math.atan(8 / 15))),
    },
    "degrees": {
        "fl_x": 15.0,
        "fl_y": 15.0,
        "cx": 8.0,
        "cy": 6.0,
        "edit": both(drop(*LENS), lambda d, r: d.update(x_fov=math.degrees(2 * math.atan(8 / 15)))),
    },
    "pose of three rows": {"edit": each(lambda f, i: f.update(transform_matrix=f["transform_matrix"][:3]))},
    "distortion": {"k1": 0.1, "k2": -0.02, "p1": 2e-3, "p2": -3e-3},
    "distortion of each frame": {
        "k1": 0.1,
        "p2": 5e-3,
        "edit": both(lambda d, r: d.update(k1=0.0, p2=0.0), each(lambda f, i: f.update(k1=0.1, p2=5e-3))),
    },
    "distortion as a list": {
        "k1": 0.1,
        "p2": 5e-3,
        "edit": both(drop("k1", "p2"), each(lambda f, i: f.update(distortion_params=[0.1, 0, 0, 0, 0, 5e-3]))),
    },
    "fisheye of each frame": {"kind": "fisheye", "edit": each(lambda f, i: f.update(camera_model="OPENCV_FISHEYE"))},
    "fisheye by a flag": {"kind": "fisheye", "k1": 0.05, "edit": lambda d, r: d.update(is_fisheye=True)},
    "fisheye with a pixel on its axis": {
        "kind": "fisheye",
        "cx": 7.5,
        "cy": 6.5,
        "edit": lambda d, r: d.update(camera_model="OPENCV_FISHEYE"),
    },
    "panorama": {"kind": "panorama", "edit": lambda d, r: d.update(camera_model="EQUIRECTANGULAR")},
    "panorama without lens": {
        "kind": "panorama",
        "edit": both(drop(*LENS), lambda d, r: d.update(camera_model="EQUIRECTANGULAR")),
    },
}


@pytest.mark.parametrize("name", READ)
def test_read_rightly(name: str, tmp_path: Path) -> None:
    assert colour_error(manager_of(write_transforms(tmp_path / "set", **READ[name]))) < RIGHT


def test_the_oracle_tells_a_wrong_lens(tmp_path: Path) -> None:
    """A pixel's shift of the principal point, and a fisheye taken for a pinhole, are far beyond the tolerance."""
    off = write_transforms(tmp_path / "off", lambda d, r: d.update(cx=8.5))
    assert colour_error(manager_of(off)) > 5 * RIGHT
    assert colour_error(manager_of(write_transforms(tmp_path / "fisheye", kind="fisheye"))) > 5 * RIGHT


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(encoding: str, tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "set")
    text = (root / "transforms.json").read_text()
    (root / "transforms.json").write_bytes(text.encode(encoding))
    assert colour_error(manager_of(root)) < RIGHT


def test_a_panorama_covers_the_sphere_whatever_its_shape(tmp_path: Path) -> None:
    edit = both(drop(*LENS), lambda d, r: d.update(camera_model="equirectangular"))
    assert colour_error(manager_of(write_transforms(tmp_path / "set", edit, kind="panorama", w=20, h=10))) < RIGHT


def test_coordinates_of_a_country_keep_their_precision(tmp_path: Path) -> None:
    place = np.array([441_547.5, 5_121_946.5, 2_345.0])

    def move(frame: dict, index: int) -> None:
        for row in range(3):
            frame["transform_matrix"][row][3] += place[row]

    root = write_transforms(tmp_path / "set", each(move))
    manager = manager_of(root)
    outputs = manager.train_dataparser_outputs
    outputs.dataparser_transform[:, 3] += outputs.dataparser_transform[:, :3] @ outputs.dataparser_transform.new_tensor(
        place
    )
    assert colour_error(manager) < RIGHT
    back = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds, "opengl")
    assert np.abs(back[0].numpy() - poses(10)[0][:3]).max() < 1e-5
    assert "which float32 coordinates cannot hold: centre them" in refusal(root, center_method="none")


def sized(document: dict, root: Path) -> None:
    """Every third photograph half as large, each frame with its own lens and a mask of its lower part."""
    drop(*LENS)(document, root)
    (root / "masks").mkdir()
    for i, frame in enumerate(document["frames"]):
        scale = 1.0 if i % 3 else 0.5
        lens = {name: value * scale for name, value in LENS.items()}
        lens["w"], lens["h"] = int(lens["w"]), int(lens["h"])
        picture(poses(10)[i], lens).save(root / frame["file_path"])
        mask = np.zeros((lens["h"], lens["w"]), np.uint8)
        mask[lens["h"] // 2 :] = 255
        Image.fromarray(mask).save(root / f"masks/{i}.png")
        frame.update(lens, mask_path=f"masks\\{i}")


def test_each_photograph_has_its_size_and_its_mask(tmp_path: Path) -> None:
    manager = manager_of(write_transforms(tmp_path / "set", sized))
    assert colour_error(manager) < RIGHT
    rays, _ = manager.next_train(0)
    rows = manager.train_dataset.cameras.height[rays.camera_indices[:, 0]]
    assert len(rows.unique()) == 2
    _, batch = manager.next_train(1)
    height = manager.train_dataset.cameras.height[batch["indices"][:, 0], 0]
    assert bool((batch["indices"][:, 1] >= height // 2).all())


def test_a_mask_of_fewer_pixels_than_a_batch(tmp_path: Path) -> None:
    def edit(document: dict, root: Path) -> None:
        mask = np.zeros((12, 16), np.uint8)
        mask[3, 4] = 1
        Image.fromarray(mask).save(root / "mask.png")
        each(lambda f, i: f.update(mask_path="mask.png"))(document, root)

    manager = manager_of(write_transforms(tmp_path / "set", edit))
    _, batch = manager.next_train(0)
    assert batch["indices"][:, 1:].unique(dim=0).tolist() == [[3, 4]]
    assert len(batch["indices"][:, 0].unique()) == 9


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_photographs_are_turned_by_exif_where_their_cameras_count_that_in(turn: int, tmp_path: Path) -> None:
    """The stored pixels are those that the EXIF standard's table turns into the picture that the camera describes."""
    stored = {
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }

    def edit(document: dict, root: Path) -> None:
        for frame in document["frames"]:
            tags = Image.Exif()
            tags[0x0112] = turn
            image = Image.open(root / frame["file_path"])
            image.transpose(stored[turn]).save(root / frame["file_path"], exif=tags)

    assert colour_error(manager_of(write_transforms(tmp_path / "set", edit))) < RIGHT


@pytest.mark.parametrize("rounding", [math.floor, math.ceil])
def test_smaller_copies_have_the_lens_of_their_own_size(rounding: Callable, tmp_path: Path) -> None:
    full = {"w": 33, "h": 25, "fl_x": 29.0, "fl_y": 27.0, "cx": 16.0, "cy": 13.0}

    def edit(document: dict, root: Path) -> None:
        width, height = rounding(33 / 2), rounding(25 / 2)
        x, y = width / 33, height / 25
        lens = {"w": width, "h": height, "fl_x": 29 * x, "fl_y": 27 * y, "cx": 16 * x, "cy": 13 * y}
        (root / "images_2").mkdir()
        for i, pose in enumerate(poses(10)):
            picture(pose, lens).save(root / f"images_2/a{i}.png")

    root = write_transforms(tmp_path / "set", edit, **full)
    assert colour_error(manager_of(root, downscale_factor=2)) < RIGHT
    Image.new("RGB", (15, 12)).save(root / "images_2/a1.png")
    assert "'a1.png' is 15x12 pixels".replace("'a1.png'", f"'{root}/images_2/a1.png'") in refusal(
        root, downscale_factor=2
    )
    assert "images_4/a0.png' is missing" in refusal(root, downscale_factor=4)


def test_a_fisheye_is_used_inside_its_circle(tmp_path: Path) -> None:
    def edit(document: dict, root: Path) -> None:
        document.update(camera_model="OPENCV_FISHEYE", fisheye_crop_radius=4.0)

    manager = manager_of(write_transforms(tmp_path / "set", edit, kind="fisheye"))
    assert colour_error(manager) < RIGHT
    pixels = manager.next_train(0)[1]["indices"][:, 1:].double() + 0.5
    assert float((pixels - pixels.new_tensor([6.0, 8.0])).norm(dim=-1).max()) < 4.0 + math.sqrt(0.5)


def test_pictures_that_exif_would_turn_and_cameras_do_not_are_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def edit(document: dict, root: Path) -> None:
        for frame in document["frames"]:
            tags = Image.Exif()
            tags[0x0112] = 3
            Image.open(root / frame["file_path"]).save(root / frame["file_path"], exif=tags)

    assert colour_error(manager_of(write_transforms(tmp_path / "set", edit))) < RIGHT
    assert "9 images of the train split are used as stored" in " ".join(capfd.readouterr().out.split())
