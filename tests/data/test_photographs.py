"""Photographs without poses: cameras of a corner of a room, warped onto images, are found again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_photos import COUNT, FOCAL, HEIGHT, WIDTH, true_poses, write_corner

from eugen_nerf.cli.data import main
from eugen_nerf.core.errors import ConfigError, DataError, RunError
from eugen_nerf.data.photographs.camera_agreement import compare_cameras
from eugen_nerf.data.photographs.pose_estimation import (
    Capture,
    copy_upright,
    import_colmap,
    photograph_files,
    place_cameras,
    write_capture,
)


@pytest.fixture(scope="module")
def colmap() -> None:
    pytest.importorskip("pycolmap", reason="the extra `photos` is not installed")


def test_cameras_of_photographs_are_found(tmp_path: Path, colmap: None, capfd: pytest.CaptureFixture[str]) -> None:
    photos, output = write_corner(tmp_path / "photos"), tmp_path / "found"
    main(["photos", str(photos), "--output", str(output)])
    printed = capfd.readouterr()
    assert f"placed {COUNT} of {COUNT} photographs of {WIDTH}x{HEIGHT}" in printed.out
    assert f"ns-train eugen-zipnerf-small --data {output}" in printed.out
    assert "3 of 3 steps done" in printed.err
    assert "COLMAP" not in printed.err  # nor its log
    meta = json.loads((output / "transforms.json").read_text())
    assert [frame["file_path"] for frame in meta["frames"]] == [f"images/view_{n:02d}.png" for n in range(COUNT)]
    assert meta["fl_x"] == pytest.approx(FOCAL, rel=0.03)
    assert meta["fl_y"] == pytest.approx(FOCAL, rel=0.03)
    left = compare_cameras(np.array([frame["transform_matrix"] for frame in meta["frames"]]), true_poses())
    assert left.degrees.max() < 1.0
    assert left.distances.max() < 0.02
    assert {path.name for path in output.iterdir()} == {"images", "transforms.json", "sparse_pc.ply", "cameras.png"}
    assert Image.open(output / "cameras.png").size[0] > 800
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    outputs = NerfstudioDataParserConfig(data=output, load_3D_points=True).setup().get_dataparser_outputs("train")
    assert len(outputs.image_filenames) == 11  # a tenth is kept back
    assert len(outputs.metadata["points3D_xyz"]) > 100


def test_photographs_of_different_things_are_refused(
    tmp_path: Path, colmap: None, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(4):
        picture = cv2.resize(noise.integers(0, 255, (30, 40, 3), np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number}.png")
    with pytest.raises(SystemExit):
        main(["photos", str(tmp_path / "photos"), "--output", str(tmp_path / "found")])
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: only 0 of 4 photographs could be placed")
    assert "each showing two thirds of what the one before it shows" in last
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_points_are_written_with_their_colours(tmp_path: Path) -> None:
    import open3d  # an independent reader, and the one that nerfstudio loads points with

    rng = np.random.default_rng(0)
    points, colours = rng.normal(size=(50, 3)), rng.integers(0, 256, (50, 3)).astype(np.uint8)
    write_capture(Capture(["a.png"], [], np.eye(4)[None], [{"w": 8, "h": 6}], points, colours, 0.5), tmp_path)
    cloud = open3d.io.read_point_cloud(str(tmp_path / "sparse_pc.ply"))
    np.testing.assert_allclose(np.asarray(cloud.points), points, atol=1e-6)
    np.testing.assert_array_equal(np.rint(255 * np.asarray(cloud.colors)), colours)
    assert json.loads((tmp_path / "transforms.json").read_text())["ply_file_path"] == "sparse_pc.ply"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ConfigError, match=r"pip install -c constraints\.txt -e \"\.\[photos\]\""):
        import_colmap()


def test_copies_stand_upright_and_are_small_enough(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:, :10] = 255  # a white stripe on the left
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"  # held upright: to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(photos / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(pixels).save(photos / "small.png")
    Image.fromarray(np.zeros((200, 400, 3), np.uint8)).save(photos / "large.jpg")
    (photos / "notes.txt").touch()
    files = photograph_files(photos)
    assert [path.name for path in files] == ["large.jpg", "small.png", "turned.jpg"]
    copy_upright(files, tmp_path / "copies", largest=100)
    assert (tmp_path / "copies" / "small.png").read_bytes() == (photos / "small.png").read_bytes()
    assert Image.open(tmp_path / "copies" / "large.jpg").size == (100, 50)
    turned = Image.open(tmp_path / "copies" / "turned.jpg")
    assert turned.size == (60, 90)
    assert np.asarray(turned)[:8].min() > 200
    assert np.asarray(turned)[14:].max() < 50
    assert turned.getexif().get(0x0112, 1) == 1
    assert turned.getexif()[0x010F] == "Maker"
    (photos / "small.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"small\.png cannot be read as an image"):
        copy_upright(files, tmp_path / "again", largest=100)


def test_too_few_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of photographs"):
        photograph_files(tmp_path / "nowhere")
    (tmp_path / "a.HEIC").touch()
    (tmp_path / "b.JPG").touch()
    with pytest.raises(DataError, match=r"holds 1 photographs .* export others as JPEG"):
        photograph_files(tmp_path)


def test_agreement_knows_no_coordinates() -> None:
    true = true_poses()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    found = true.copy()
    found[:, :3, :3] = turn @ true[:, :3, :3]
    found[:, :3, 3] = 0.3 * true[:, :3, 3] @ turn.T + [1.0, -2.0, 3.0]
    left = compare_cameras(found, true)
    assert left.degrees.max() < 1e-5
    assert left.distances.max() < 1e-9
    angle = np.radians(2.0)
    roll = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    found[3, :3, :3] = found[3, :3, :3] @ roll
    left = compare_cameras(found, true)
    assert left.degrees[3] == pytest.approx(2.0, abs=1e-6)
    assert np.delete(left.degrees, 3).max() < 1e-5


def test_a_crash_of_colmap_is_one_line(tmp_path: Path, colmap: None) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(RunError, match=r"COLMAP ended with status 1: .*cannot identify image file"):
        place_cameras(tmp_path / "images", tmp_path / "work")
