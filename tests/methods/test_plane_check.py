"""What cameras look at, against scenes whose geometry is known; and photographs with alpha, trained and scored."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from painted_sphere import write_splits, write_transforms
from PIL import Image
from tiny_runs import shrink_nerf, tiny_config, train_unbounded

from eugen_nerf.core.errors import DataError
from eugen_nerf.evaluation.images.ground_truth import baseline_images, ground_truth
from eugen_nerf.methods.runs.loading import load_run
from eugen_nerf.methods.training.plane_check import check_planes, meeting_point


def ring(distance: float, *, turned: float = 1.0, spread: float = 1.0, **options) -> Cameras:
    """Ten cameras round the origin that look at it (turned -1: away); spread 0: side by side, all along -z."""
    poses = []
    for i in range(10):
        angle = 2 * math.pi * i / 10
        position = np.array([math.cos(angle), math.sin(angle), 0.4 * math.cos(2 * angle)])
        position *= distance / np.linalg.norm(position)
        back = turned * (spread * position / distance + (1 - spread) * np.array([0.0, 0.0, 1.0]))
        back /= np.linalg.norm(back)
        right = np.cross([0.1, 0.2, 1.0], back)
        right /= np.linalg.norm(right)
        poses.append(np.column_stack([right, np.cross(back, right), back, position]))
    return Cameras(torch.tensor(np.array(poses)).float(), 10.0, 10.0, 5.0, 5.0, 10, 10, **options)


def test_axes_meet_where_they_were_made_to() -> None:
    depths = meeting_point(ring(4.0))
    assert depths is not None
    assert torch.allclose(depths, torch.full((10,), 4.0, dtype=torch.float64), atol=1e-5)
    away = meeting_point(ring(4.0, turned=-1.0))
    assert away is not None
    assert float(away.max()) == pytest.approx(-4.0, abs=1e-5)
    assert meeting_point(ring(4.0, spread=0.0)) is None
    assert meeting_point(ring(4.0, camera_type=CameraType.EQUIRECTANGULAR)) is None


@pytest.mark.parametrize(("distance", "plane", "scale"), [(100.0, "far plane is", "0.04"), (1.0, "near plane is", "4")])
def test_objects_outside_the_planes_are_said_with_what_suits(distance: float, plane: str, scale: str) -> None:
    with pytest.raises(DataError, match=f"look at a point {distance:g} away.*{plane}.*--scale-factor {scale} "):
        check_planes(ring(distance), 2.0, 6.0)
    check_planes(ring(distance * float(scale)), 2.0, 6.0)
    check_planes(ring(distance), 0.1 * distance, 2 * distance)


def test_cameras_that_look_away_are_said(capfd: pytest.CaptureFixture[str]) -> None:
    check_planes(ring(4.0), 2.0, 6.0)
    assert not capfd.readouterr().out
    check_planes(ring(4.0, turned=-1.0), 2.0, 6.0)
    assert "look away from the point where their axes meet" in " ".join(capfd.readouterr().out.split())


def test_a_training_that_would_see_nothing_ends_before_its_first_step(tmp_path: Path) -> None:
    root = write_splits(tmp_path / "set", alpha=True)
    for path in root.glob("*.json"):
        document = json.loads(path.read_text())
        for frame in document["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[3] *= 40.0
        path.write_text(json.dumps(document))
    config = tiny_config("eugen-nerf", root, tmp_path / "out", 0, 2)
    shrink_nerf(config.pipeline.model)
    with pytest.raises(DataError, match="the far plane is at 6"):
        config.setup(local_rank=0, world_size=1).setup()
    (root / "test/r_0.png").unlink()
    with pytest.raises(DataError, match="1 of 3 image files of the test split are missing"):
        config.setup(local_rank=0, world_size=1).setup()


@pytest.mark.parametrize(("background", "shade"), [("last_sample", 0.0), ("random", 0.0), ("white", 1.0)])
def test_photographs_with_alpha_are_trained_and_scored(background: str, shade: float, tmp_path: Path) -> None:
    """The truth is composited with numpy on what the method leaves where it sees nothing."""

    def edit(document: dict, root: Path) -> None:
        for frame in document["frames"]:
            image = Image.open(root / frame["file_path"]).convert("RGBA")
            alpha = np.zeros((12, 16), np.uint8)
            alpha[3:9, 4:12] = 200
            image.putalpha(Image.fromarray(alpha))
            image.save(root / frame["file_path"])

    root = write_transforms(tmp_path / "set", edit)
    method = "eugen-zipnerf-small"
    path, _ = train_unbounded(root, tmp_path / "out", method=method, background_color=background)
    run = load_run(path, device="cpu")
    truth = ground_truth(run, [0])
    file = run.pipeline.datamanager.eval_dataset.image_filenames[0]
    pixels = np.asarray(Image.open(file), dtype=np.float64) / 255
    expected = pixels[..., :3] * pixels[..., 3:] + shade * (1 - pixels[..., 3:])
    assert np.abs(truth[0] - expected * 255).max() <= 0.5 + 1e-3
    assert baseline_images(run, truth, [])["mean-image"][0].shape == (12, 16, 3)
