"""RGB-D sequences in each layout: the same cameras come back; each kind of bad input is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rgbd_sequences import (
    COUNT,
    HEIGHT,
    LENS,
    WIDTH,
    WRITERS,
    poses,
    write,
)

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.rgbd.rgbd_images import load_depth
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig

KITCHEN = Path(__file__).resolve().parents[3] / "shared" / "data" / "7scenes-kitchen"


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


def test_nerfstudio_knows_the_parser() -> None:
    from nerfstudio.plugins.registry_dataparser import discover_dataparsers

    parsers, descriptions = discover_dataparsers()
    assert isinstance(parsers["eugen-rgbd"], EugenRGBDDataParserConfig)
    assert "metres" in descriptions["eugen-rgbd"]


@pytest.mark.skipif(not KITCHEN.is_dir(), reason="needs ../shared/data/7scenes-kitchen")
def test_kitchen_is_read_and_its_frames_agree_with_one_another() -> None:
    """Points measured by a frame lie where a neighbouring frame measures them too: units, axes and poses are right."""
    from eugen_nerf.data.rgbd.depth_views import depth_views

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
