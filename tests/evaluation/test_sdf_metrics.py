"""Scores of signed distances: zero for the exact one, the offset for a shifted one, brute force for Chamfer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.rgbd.depth_views import DepthViews, depth_views
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig
from eugen_nerf.data.synthetic.room import ROOM_NAME, Room, read_room
from eugen_nerf.data.synthetic.scan import RoomConfig, generate_room
from eugen_nerf.evaluation.sdf.sdf_comparison import SdfProtocol
from eugen_nerf.evaluation.sdf.sdf_metrics import (
    EXACT_KEYS,
    Truth,
    band_name,
    chamfer,
    measured_truth,
    room_truth,
    sdf_metrics,
)
from eugen_nerf.evaluation.sdf.tsdf_baseline import distances_to_mesh, fuse
from eugen_nerf.surfaces.mesh import TriangleMesh, extract_mesh

PROTOCOL = SdfProtocol(points=3000, rays=300, samples_per_ray=10, chamfer_points=3000)
BANDS = (0.1, 0.5)


class Shifted:
    """The exact distance plus a constant, its gradient stretched and turned upside down on request."""

    def __init__(self, room: Room, offset: float = 0.0, factor: float = 1.0) -> None:
        self.room, self.offset, self.factor = room, offset, factor

    def distance(self, points: np.ndarray) -> np.ndarray:
        return self.room.distance(np.asarray(points, dtype=np.float64)) + self.offset

    def distance_and_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance, gradient = self.room.distance_and_gradient(np.asarray(points, dtype=np.float64))
        return distance + self.offset, self.factor * gradient


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Room, DepthViews, DepthViews]:
    """A room with its training and held-out views."""
    config = RoomConfig(num_frames=24, resolution=(48, 36), num_objects=5, seed=3)
    path = generate_room(tmp_path_factory.mktemp("scan") / "room", config)
    parser = EugenRGBDDataParserConfig(data=path, eval_interval=6).setup()
    train, held = (depth_views(parser.get_dataparser_outputs(split)) for split in ("train", "test"))
    return read_room(path / ROOM_NAME), train, held


@pytest.fixture(scope="module")
def truth(scan: tuple[Room, DepthViews, DepthViews]) -> Truth:
    return room_truth(*scan, PROTOCOL)


def test_points_are_where_they_should_be(truth: Truth) -> None:
    assert truth.room is not None
    assert truth.volume is not None
    assert truth.surface is not None
    assert truth.along_rays is not None
    assert len(truth.volume.points) == len(truth.surface.points) == 3000
    assert len(truth.along_rays.points) == 300 * 10
    assert (truth.volume.distance > 0.0).all()
    assert truth.views.observed(truth.volume.points).all()
    assert np.abs(truth.surface.distance).max() < 1e-8
    assert (truth.along_rays.distance > -1e-9).all()
    # exact depth of held-out rays ends on the surface
    rays = truth.rays
    assert np.abs(truth.room.distance(rays.origins + rays.depth[:, None] * rays.directions)).max() < 1e-8


def test_the_exact_distance_scores_zero(truth: Truth) -> None:
    assert truth.room is not None
    found = sdf_metrics(Shifted(truth.room), truth, BANDS, 8.0)
    for key in ("volume_l1_cm", "surface_l1_cm", "ray_l1_cm", "heldout_l1_cm", "eikonal"):
        assert found[key] == pytest.approx(0.0, abs=1e-7)
    assert found["gradient_cosine"] == pytest.approx(1.0)
    assert found["surface_gradient_cosine"] == pytest.approx(1.0)
    assert found["depth_l1_cm"] < 0.01  # float32 along the ray
    assert found["depth_hits"] == 1.0
    assert list(found["volume_l1_bands_cm"]) == ["0-10 cm", "10-50 cm", "> 50 cm"]


@pytest.mark.parametrize("offset", [0.03, -0.05])
def test_a_shifted_distance_scores_its_shift(truth: Truth, offset: float) -> None:
    assert truth.room is not None
    found = sdf_metrics(Shifted(truth.room, offset, -1.5), truth, BANDS, 8.0)
    cm = 100 * abs(offset)
    for key in ("volume_l1_cm", "surface_l1_cm", "ray_l1_cm", "heldout_l1_cm"):
        assert found[key] == pytest.approx(cm)
    assert all(value == pytest.approx(cm) for value in found["volume_l1_bands_cm"].values())
    assert found["gradient_cosine"] == pytest.approx(-1.0)
    assert found["eikonal"] == pytest.approx(0.5)
    assert found["depth_median_cm"] >= 0.9 * cm  # a slanted wall moves farther along the ray


def test_bands_split_by_the_true_distance(truth: Truth) -> None:
    assert truth.room is not None
    assert truth.volume is not None

    class Proportional(Shifted):
        """Off by its own size: the mean error of a band is the band's mean distance."""

        def distance_and_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            distance, gradient = super().distance_and_gradient(points)
            return 2 * distance, gradient

    found = sdf_metrics(Proportional(truth.room), truth, (0.2,), 8.0)["volume_l1_bands_cm"]
    d = truth.volume.distance
    assert found == {
        "0-20 cm": pytest.approx(100 * d[d < 0.2].mean()),
        "> 20 cm": pytest.approx(100 * d[d >= 0.2].mean()),
    }
    far = sdf_metrics(Shifted(truth.room), truth, (50.0,), 8.0)["volume_l1_bands_cm"]
    assert far["> 5000 cm"] is None
    assert band_name(0.1, 0.5) == "10-50 cm"


def test_distance_to_a_mesh_is_that_to_its_nearest_point() -> None:
    rng = np.random.default_rng(0)
    vertices = rng.uniform(-1, 1, size=(12, 3)).astype(np.float32)
    mesh = TriangleMesh(vertices, np.arange(12).reshape(4, 3))
    points = rng.uniform(-2, 2, size=(300, 3))
    nearest, _ = cKDTree(mesh.sample(rng, 400_000)).query(points)
    found = distances_to_mesh(points, mesh)
    assert (found <= nearest + 1e-5).all()
    np.testing.assert_allclose(found, nearest, atol=0.02)
    assert distances_to_mesh(np.zeros((0, 3)), mesh).shape == (0,)


def test_chamfer_is_the_mean_of_both_ways(truth: Truth) -> None:
    """A mesh of the surface 4 cm inside free space: about 4 cm each way, by point sets drawn on both too."""
    assert truth.room is not None
    room = truth.room
    box = np.array([[-2.6, -2.1, -0.1], [2.6, 2.1, 2.7]])
    exact = extract_mesh(lambda p: Shifted(room).distance(p), box, 0.08)
    found = chamfer(exact, truth, np.random.default_rng(0), 2000)
    assert found["accuracy_cm"] < 0.5
    assert found["completion_cm"] < 2.0  # the grid misses thin parts
    shifted = extract_mesh(lambda p: Shifted(room, -0.04).distance(p), box, 0.08)
    found = chamfer(shifted, truth, np.random.default_rng(0), 2000)
    assert found["accuracy_cm"] == pytest.approx(4.0, abs=0.4)
    assert found["chamfer_cm"] == pytest.approx((found["accuracy_cm"] + found["completion_cm"]) / 2)
    seen = shifted.cropped(truth.views.observed(shifted.vertices, 0.1))
    cloud = seen.sample(np.random.default_rng(1), 150_000)
    back, _ = cKDTree(cloud).query(truth.reference)
    assert found["completion_cm"] == pytest.approx(100 * back.mean(), rel=0.1)
    nowhere = TriangleMesh(shifted.vertices + np.float32(50.0), shifted.faces)
    assert chamfer(nowhere, truth, np.random.default_rng(0), 10)["chamfer_cm"] is None


def images(views: DepthViews) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return zip(views.poses, views.lenses, views.depth, strict=True)


def test_fusion_finds_the_room_and_serves_as_reference(scan: tuple[Room, DepthViews, DepthViews], truth: Truth) -> None:
    """open3d's fused mesh lies on the exact surface: units, axes and pixel centres agree."""
    room, train, held = scan
    shares: list[float] = []
    fused = fuse([train], voxel=0.05, count=len(train), progress=shares.append)
    assert shares[-1] == 1.0
    parts = (replace(train, poses=p[None], lenses=k[None], depth=d[None]) for p, k, d in images(train))
    again = fuse(parts, voxel=0.05)
    np.testing.assert_array_equal(again.vertices, fused.vertices)
    np.testing.assert_array_equal(again.faces, fused.faces)
    assert np.median(np.abs(room.distance(fused.vertices.astype(np.float64)))) < 0.01
    found = chamfer(fused, truth, np.random.default_rng(0), 2000)
    assert found["accuracy_cm"] < 1.5
    measured = measured_truth(fused, train, held, PROTOCOL)
    scores = sdf_metrics(Shifted(room), measured, BANDS, 8.0)
    assert all(scores[key] is None for key in EXACT_KEYS)
    assert scores["depth_median_cm"] < 0.1  # depth is stored in millimetres
    assert scores["heldout_l1_cm"] < 0.1
    assert sdf_metrics(Shifted(room, 0.03), measured, BANDS, 8.0)["heldout_l1_cm"] == pytest.approx(3.0, abs=0.1)
    blind = replace(train, depth=np.full_like(train.depth, np.nan))
    with pytest.raises(DataError, match="gives no surface"):
        fuse([blind], voxel=0.05)
    with pytest.raises(DataError, match=r"observed only 0 of 3000 points of the volume"):
        room_truth(room, blind, held, PROTOCOL)


@pytest.mark.parametrize(
    "bad", [{"points": 0}, {"voxel": float("nan")}, {"warmup": -1}, {"bands": (0.5, 0.1)}, {"bands": (0.0,)}]
)
def test_settings_out_of_range_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match="must be"):
        SdfProtocol(**bad)
