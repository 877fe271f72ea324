"""Data sets that cannot be used are refused in one line, which names the file, the entry and the way out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from image_edits import both, drop, each, manager_of, masks, photographs, refusal
from painted_sphere import LENS, write_transforms
from PIL import Image

WHITE = Image.new("L", (16, 12), 255)
REFUSED = {
    "half": (photographs(lambda p: p.resize((8, 6))), "is 8x6 pixels where its camera is 16x12", "0.5 times the size"),
    "twice": (photographs(lambda p: p.resize((32, 24))), "32x24 pixels where its camera is 16x12", "2 times the size"),
    "off by one": (lambda d, r: d.update(w=17, h=13), "is 16x12 pixels where its camera is 17x13", "one was rounded"),
    "swapped": (lambda d, r: d.update(w=12, h=16), "its camera is 12x16", "width and height are swapped"),
    "one of another size": (
        photographs(lambda p: p.resize((11, 9)), 4),
        "a4.png' of the train split is 11x9",
        "(1 of 9",
    ),
    "one with alpha": (photographs(lambda p: p.convert("RGBA"), 3), "1 of 9 images", "a3.png"),
    "all transparent": (photographs(lambda p: Image.new("RGBA", p.size)), "are fully transparent", "a0.png"),
    "damaged": (lambda d, r: (r / "images/a2.png").write_bytes(b"no picture"), "a2.png' is damaged", "copy it again"),
    "mask too small": (masks(lambda i: WHITE.resize((8, 6))), "mask '", "m0.png' of the train split is 8x6 pixels"),
    "mask of colours": (masks(lambda i: Image.new("RGB", (16, 12), "red")), "m0.png' has colours", "white (used)"),
    "mask all black": (masks(lambda i: Image.new("L", (16, 12), 0 if i == 2 else 255)), "m2.png'", "black everywhere"),
    "mask damaged": (masks(lambda i: b"" if i == 5 else WHITE), "mask '", "m5.png' is damaged"),
    "mask missing": (masks(lambda i: WHITE if i != 7 else None), "1 of 10 images have no mask", "frame 7 of"),
    "not a number": (
        each(lambda f, i: f["transform_matrix"][0].__setitem__(3, math.nan if i == 6 else 1.0 + i)),
        "the camera pose in frame 6 of",
        "has NaN or infinite entries",
    ),
    "no lens": (drop(*LENS), "gives no focal length", "'camera_angle_x'"),
    "rational distortion": (lambda d, r: d.update(k4=0.1), "with k4 = 0.1", "undistort the images"),
    "unknown model": (lambda d, r: d.update(camera_model="RATIONAL"), "the camera model RATIONAL of", "OPENCV_FISHEYE"),
    "tangential fisheye": (lambda d, r: d.update(is_fisheye=True, p1=0.1), "with p1 = 0.1", "undistort"),
    "flag against model": (lambda d, r: d.update(is_fisheye=True, camera_model="OPENCV"), "FISHEYE by its flag", ""),
    "list of another order": (lambda d, r: d.update(distortion_params=[0.1, 0, 0, 0.2]), "has 4 numbers", "by name"),
    "two lenses": (lambda d, r: d.update(K=[[20, 0, 8], [0, 20, 6], [0, 0, 1]]), "'fl_x' and 'K' of", "disagree"),
    "folded lens": (lambda d, r: d.update(k1=-1.5), "cannot be undone for", "undistort the images"),
    "strong lens": (lambda d, r: d.update(k1=0.0, p1=0.6), "cannot be undone for", "p2 = 0, 0, 0, 0, 0.6, 0"),
    "fields of view": (
        both(drop("fl_x", "fl_y"), lambda d, r: d.update(camera_angle_x=0.9, camera_angle_y=0.4)),
        "mean pixels that are not square",
        "remove 'camera_angle_y'",
    ),
    "orientation": (lambda d, r: d.update(orientation_override="sideways"), "'sideways': pca, up, vertical", ""),
    "millimetres": (
        both(drop("fl_x", "fl_y"), lambda d, r: d.update(focal_length=4.5)),
        "'focal_length' of",
        "too short for pixels",
    ),
    "shares": (lambda d, r: d.update(fl_x=0.9, fl_y=1.1, cx=0.5, cy=0.5), "is not in pixels", "16x12"),
    "skew": (lambda d, r: d.update(K=[[14, 2, 7.5], [0, 13, 6.5], [0, 0, 1]]), "'K' of", "without skew"),
    "no number": (lambda d, r: d.update(fl_x="wide"), "'fl_x' of", "'wide'"),
    "no test images": (
        lambda d, r: d.update(train_filenames=[f"images/a{i}.png" for i in range(10)]),
        "the val split of",
        "(train 10)",
    ),
    "a list of what is not there": (
        lambda d, r: d.update(train_filenames=["images/b.png"], test_filenames=["images/a1.png"]),
        "'train_filenames' of",
        "names 1 images that have no camera",
    ),
    "one place": (
        each(lambda f, i: [row.__setitem__(3, 1.0) for row in f["transform_matrix"][:3]]),
        "all 10 cameras stand at one place",
        "",
    ),
    "no path": (each(lambda f, i: f.pop("file_path") if i == 3 else None), "frame 3 of", "lacks 'file_path'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str, tmp_path: Path) -> None:
    edit, *parts = REFUSED[name]
    message = refusal(write_transforms(tmp_path / "set", edit))
    for part in parts:
        assert part in message
    assert str(tmp_path / "set") in message or name == "one place"


def test_an_extension_that_two_files_fit(tmp_path: Path) -> None:
    def edit(document: dict, root: Path) -> None:
        document["frames"][2]["file_path"] = "images/a2"
        Image.open(root / "images/a2.png").save(root / "images/a2.jpg")

    assert "'images/a2' in frame 2 of" in refusal(write_transforms(tmp_path / "set", edit))


@pytest.mark.parametrize(("count", "share"), [(9, "0.88"), (3, "0.66")])
def test_a_share_that_leaves_nothing_to_evaluate_on(count: int, share: str, tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "set", count=count)
    assert f"write --train-split-fraction {share} after" in refusal(root)
    assert len(manager_of(root, train_split_fraction=float(share)).eval_dataset) == 1


def test_a_single_photograph(tmp_path: Path) -> None:
    assert "the only camera stands at one place" in refusal(write_transforms(tmp_path / "set", count=1))


def test_directories_of_other_formats_name_their_parser(tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "set")
    assert "write nerfstudio-data --data PATH" in refusal(root, "blender-data")
    (root / "transforms.json").rename(root / "meta_data.json")
    assert "write sdfstudio-data --data PATH" in refusal(root)
    (root / "meta_data.json").unlink()
    message = refusal(root)
    assert "has no camera poses" in message
    assert "holds images/" in message
    ours, theirs = (message.index(word) for word in ("eugen-data photos PHOTOS --output DIR", "ns-process-data images"))
    assert ours < theirs


def test_what_other_parsers_raise_is_one_line_too(tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "set")
    (root / "meta_data.json").write_text('{"frames": [{}]}')
    message = refusal(root, "sdfstudio-data")
    assert message.startswith(f"SDFStudio, the data parser, cannot read the train split of '{root}': KeyError: ")
