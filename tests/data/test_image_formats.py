"""Blender's and COLMAP's sets by every parser, and nerfstudio's own reading where that is right."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_edits import both, drop, each, manager_of, masks, refusal
from painted_sphere import RIGHT, colour_error, picture, write_colmap, write_splits, write_transforms
from PIL import Image

from eugen_nerf.core.errors import DataError

BLENDER_READ = {
    "as Blender writes it": None,
    "extension in the name": each(lambda f, i: f.update(file_path=f["file_path"] + ".png")),
    "the lens in full": lambda d, r: d.update(fl_x=16.561, fl_y=16.561, cx=8.0, cy=6.0, w=16, h=12, k1=0.0),
}


@pytest.mark.parametrize("parser", ["blender-data", "nerfstudio-data", "instant-ngp-data"])
@pytest.mark.parametrize("name", BLENDER_READ)
def test_blender_sets_by_every_parser(name: str, parser: str, tmp_path: Path) -> None:
    root = write_splits(tmp_path / "set", BLENDER_READ[name], alpha=True)
    manager = manager_of(root, parser)
    assert colour_error(manager) < RIGHT
    assert len(manager.train_dataset), len(manager.eval_dataset) == (5, 2)
    assert len(manager_of(root, parser, "test").eval_dataset) == 3


def test_blender_lenses_are_used(tmp_path: Path) -> None:
    """A principal point off the centre, a focal length of its own along y, distortion: each beside camera_angle_x."""
    lens = {"w": 16, "h": 12, "fl_x": 8 / math.tan(0.45), "fl_y": 20.0, "cx": 5.0, "cy": 6.0, "k1": 0.08}

    def edit(document: dict, root: Path) -> None:
        document.update(cx=5.0, fl_y=20.0, k1=0.08)
        for frame in document["frames"]:
            picture(np.array(frame["transform_matrix"]), lens).save(root / (frame["file_path"] + ".png"))

    assert colour_error(manager_of(write_splits(tmp_path / "set", edit), "blender-data")) < RIGHT
    wrong = write_splits(tmp_path / "wrong", lambda d, r: d.update(fl_x=30.0))
    assert "'fl_x' and 'camera_angle_x' of" in refusal(wrong, "blender-data")


def test_blender_photographs_of_other_formats_and_splits_of_other_sizes(tmp_path: Path) -> None:
    root = write_splits(tmp_path / "set")
    for path in list(root.glob("*/r_*.png")):
        Image.open(path).save(path.with_suffix(".webp"), lossless=True)
        path.unlink()
    for path in root.glob("val/*"):
        Image.open(path).resize((8, 6)).save(path, lossless=True)
    manager = manager_of(root, "blender-data")
    assert colour_error(manager) < RIGHT
    assert manager.eval_dataset.cameras.width.unique().tolist() == [8]
    (root / "test/r_1.webp").unlink()
    with pytest.raises(DataError, match="1 of 3 image files of the test split are missing"):
        manager_of(root, "blender-data").check_test_split()


@pytest.mark.parametrize("missing", ["val", "test"])
@pytest.mark.parametrize("parser", ["blender-data", "nerfstudio-data"])
def test_a_held_out_split_serves_for_one_that_is_missing(
    missing: str, parser: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = write_splits(tmp_path / "set", alpha=True)
    (root / f"transforms_{missing}.json").unlink()
    manager = manager_of(root, parser)
    assert len(manager.eval_dataset) == {"val": 3, "test": 2}[missing]
    manager.check_test_split()
    assert f"has no {missing} split" in " ".join(capfd.readouterr().out.split())
    (root / "transforms_train.json").unlink()
    assert "transforms_train.json' is missing" in refusal(root, "blender-data")


COLMAP_READ = {
    "pinhole": {},
    "of ns-process-data": {"place": "colmap/sparse/0"},
    "without a number": {"place": "sparse"},
    "distorted": {"model": "OPENCV 16 12 14.0 13.0 7.5 6.5 0.1 -0.02 0.002 -0.003", "k1": 0.1, "k2": -0.02}
    | {"p1": 2e-3, "p2": -3e-3},
    "full model with nothing more": {"model": "FULL_OPENCV 16 12 14 13 7.5 6.5 0.1 0 0 0 0 0 0 0", "k1": 0.1},
    "fisheye": {"model": "OPENCV_FISHEYE 16 12 14 13 7.5 6.5 0.05 0.01 0 0", "kind": "fisheye", "k1": 0.05, "k2": 0.01},
    "thin prism with nothing more": {"model": "THIN_PRISM_FISHEYE 16 12 14 13 7.5 6.5 0.05 0 0 0 0 0 0 0"}
    | {"kind": "fisheye", "k1": 0.05},
}


@pytest.mark.parametrize("parser", ["colmap", "nerfstudio-data"])
@pytest.mark.parametrize("name", COLMAP_READ)
def test_colmap_sets_by_every_parser(name: str, parser: str, tmp_path: Path) -> None:
    assert colour_error(manager_of(write_colmap(tmp_path / "set", **COLMAP_READ[name]), parser)) < RIGHT


@pytest.mark.parametrize("model", ["FULL_OPENCV 16 12 14 13 8 6 0 0 0 0 0 0.1 0 0", "FOV 16 12 14 13 8 6 0.5"])
def test_colmap_lenses_that_rays_do_not_follow(model: str, tmp_path: Path) -> None:
    message = refusal(write_colmap(tmp_path / "set", model), "colmap")
    assert message.startswith(f"camera 1 of '{tmp_path}/set/sparse/0' is a lens {model.split()[0]} with ")
    assert "undistort the images (colmap image_undistorter" in message


def test_colmap_sets_that_are_incomplete(tmp_path: Path) -> None:
    root = write_colmap(tmp_path / "set")
    (root / "images/B3.PNG").unlink()
    assert "1 of 8 image files of the train split are missing" in refusal(root, "colmap")
    (root / "sparse/0/images.txt").write_text("1 0.5 nonsense\n")
    assert "images.txt' cannot be read as COLMAP's images" in refusal(root, "colmap")
    (root / "images").rename(root / "sparse/photographs")
    (root / "sparse/0/images.txt").write_text("1 1 0 0 0 0 0 0 1 B0.PNG\n\n")
    assert "images' is missing: it must hold the photographs" in refusal(root, "colmap")
    (root / "sparse").rename(root / "other")
    assert "has no camera poses" in refusal(root, "colmap")


def test_colmap_binaries(tmp_path: Path) -> None:
    from nerfstudio.data.utils import colmap_parsing_utils as parsing

    root = write_colmap(tmp_path / "set")
    model = root / "sparse/0"
    parsing.write_cameras_binary(parsing.read_cameras_text(model / "cameras.txt"), model / "cameras.bin")
    parsing.write_images_binary(parsing.read_images_text(model / "images.txt"), model / "images.bin")
    for name in ("cameras.txt", "images.txt"):
        (model / name).unlink()
    assert colour_error(manager_of(root, "colmap")) < RIGHT
    whole = (model / "images.bin").read_bytes()
    (model / "images.bin").write_bytes(whole[:100])
    assert "images.bin' cannot be read as COLMAP's images" in refusal(root, "colmap")


def test_colmap_lists_of_splits(tmp_path: Path) -> None:
    root = write_colmap(tmp_path / "set")
    (root / "train_list.txt").write_text("".join(f"B{i}.PNG\n" for i in range(7)))
    (root / "test_list.txt").write_text("B8.PNG\n")
    manager = manager_of(root, "colmap")
    assert [len(d.image_filenames) for d in (manager.train_dataset, manager.eval_dataset)] == [7, 1]
    (root / "test_list.txt").write_text("C8.PNG\n")
    assert "names 1 images that have no camera" in refusal(root, "colmap")


def same(ours: Any, theirs: Any) -> None:
    assert list(ours.image_filenames) == list(theirs.image_filenames)
    assert (ours.mask_filenames, ours.dataparser_scale) == (theirs.mask_filenames, theirs.dataparser_scale)
    assert bool((ours.dataparser_transform == theirs.dataparser_transform).all())
    assert bool((ours.scene_box.aabb == theirs.scene_box.aabb).all())
    assert (ours.alpha_color is None) == (theirs.alpha_color is None)
    names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "distortion_params", "camera_type", "times")
    for name in names:
        a, b = getattr(ours.cameras, name), getattr(theirs.cameras, name)
        assert (a is None) == (b is None), name
        assert a is None or (a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())), name


PLAIN: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "nerfstudio-data": (lambda r: write_transforms(r, k1=0.1, k2=0.01, p1=1e-3), {}),
    "blender-data": (write_splits, {"scale_factor": 0.7}),
    "dnerf-data": (lambda r: write_splits(r, times=True), {}),
    "instant-ngp-data": (lambda r: write_transforms(r, lambda d, _: d.update(aabb_scale=4), count=20, fl_y=14.0), {}),
    "colmap": (lambda r: write_colmap(r, place="colmap/sparse/0"), {"load_3D_points": False, "downscale_factor": 1}),
}


@pytest.mark.parametrize("parser", PLAIN)
def test_what_nerfstudio_reads_rightly_is_the_same_to_the_last_bit(parser: str, tmp_path: Path) -> None:
    from nerfstudio.configs.dataparser_configs import all_dataparsers

    from eugen_nerf.data.images.image_parser import ImageParser

    write, options = PLAIN[parser]
    config = type(all_dataparsers[parser])(data=write(tmp_path / "set"), **options)
    for split in ("train", "val", "test"):
        own = ImageParser(config.setup()).get_dataparser_outputs(split)
        same(own, config.setup().get_dataparser_outputs(split))


def test_settings_of_the_parser_are_heeded(tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    from eugen_nerf.data.images.image_parser import ImageParser

    edit = both(
        lambda d, r: d.update(applied_transform=[[0, 1, 0, 0.5], [1, 0, 0, 0], [0, 0, -1, 0]], applied_scale=2.0),
        masks(lambda i: Image.new("L", (16, 12), 255)),
    )
    root = write_transforms(tmp_path / "set", edit)
    for options in (
        {"orientation_method": "vertical", "center_method": "focus", "eval_mode": "interval", "eval_interval": 3},
        {"orientation_method": "pca", "auto_scale_poses": False, "scale_factor": 0.3, "eval_mode": "all"},
        {"orientation_method": "none", "center_method": "none", "scene_scale": 2.0},
    ):
        config = NerfstudioDataParserConfig(data=root / "transforms.json", **options)
        for split in ("train", "val"):
            own = ImageParser(config.setup()).get_dataparser_outputs(split)
            same(own, config.setup().get_dataparser_outputs(split))


def test_inference_needs_no_photographs(tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "set")
    for path in root.glob("images/*"):
        path.unlink()
    assert len(manager_of(root, test_mode="inference").train_dataset) == 9
    document = json.loads((root / "transforms.json").read_text())
    drop("w", "h")(document, root)
    (root / "transforms.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="are missing"):
        manager_of(root, test_mode="inference")


def test_sets_are_checked_without_a_data_parser(tmp_path: Path) -> None:
    from eugen_nerf.data.checks import check_image_directory

    summary = check_image_directory(write_transforms(tmp_path / "json"))
    assert (dict(summary.counts), summary.size) == ({"all": 10}, (16, 12))
    assert summary.angle_x == pytest.approx(2 * math.atan(8 / 14))
    root = write_colmap(tmp_path / "model")
    assert dict(check_image_directory(root).counts) == {"all": 10}
    Image.new("RGB", (8, 6)).save(root / "images/B4.PNG")
    with pytest.raises(DataError, match=r"B4.PNG' of the whole split is 8x6 pixels"):
        check_image_directory(root)
    with pytest.raises(DataError, match="has no camera poses"):
        check_image_directory(tmp_path)
