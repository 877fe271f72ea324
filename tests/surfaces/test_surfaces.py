"""Meshes, slices and volumes of signed distances that are known in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.surfaces import distance_field as sdf_module
from eugen_nerf.surfaces import volume as volume_module
from eugen_nerf.surfaces.distance_field import SignedDistance
from eugen_nerf.surfaces.files import new_file
from eugen_nerf.surfaces.mesh import TriangleMesh, extract_mesh, to_open3d, write_mesh
from eugen_nerf.surfaces.slices import draw_slices, sample_slice
from eugen_nerf.surfaces.volume import Volume, load_volume, sample_volume, save_volume

CENTER, RADIUS = np.array([0.1, 0.2, 0.05]), 0.8
BOX = np.array([[-1.0, -1.0, -1.0], [1.2, 1.3, 1.1]])


class Ball:
    """A field whose zero level is a sphere; twice as steep on request, to be seen in gradients."""

    def __init__(self, slope: float = 1.0) -> None:
        self.slope = slope
        self.chunks: list[int] = []

    def distance(self, points: Tensor) -> Tensor:
        self.chunks.append(len(points))
        return self.slope * ((points - torch.tensor(CENTER, dtype=torch.float32)).norm(dim=-1) - RADIUS)

    def distance_and_gradient(self, points: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        offset = points - torch.tensor(CENTER, dtype=torch.float32)
        return self.distance(points), self.slope * torch.nn.functional.normalize(offset, dim=-1)


BALL = SignedDistance(Ball(), BOX)


def test_outputs_are_of_the_inputs_kind_and_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdf_module, "CHUNK_POINTS", 7)
    field = Ball(2.0)
    sdf = SignedDistance(field, BOX)
    points = np.random.default_rng(0).uniform(-1, 1, size=(4, 5, 3))
    truth = 2 * (np.linalg.norm(points - CENTER, axis=-1) - RADIUS)
    found = sdf.distance(points)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (np.float32, (4, 5))
    np.testing.assert_allclose(found, truth, atol=1e-6)
    assert field.chunks == [7, 7, 6]
    tensor = sdf.distance(torch.from_numpy(points))
    assert isinstance(tensor, Tensor)
    np.testing.assert_array_equal(tensor.numpy(), found)
    outward = (points - CENTER) / np.linalg.norm(points - CENTER, axis=-1, keepdims=True)
    np.testing.assert_allclose(sdf.gradient(points), 2 * outward, atol=1e-6)
    both = sdf.distance_and_gradient(points)
    np.testing.assert_array_equal(both[0], found)
    np.testing.assert_array_equal(both[1], sdf.gradient(points))
    assert sdf.distance(np.zeros((0, 3))).shape == (0,)
    assert sdf.gradient(torch.zeros(3)).shape == (3,)
    with pytest.raises(ConfigError, match=r"points of shape \[3, 2\] are given"):
        sdf.distance(np.zeros((3, 2)))


def test_a_model_without_a_signed_distance_is_refused() -> None:
    with pytest.raises(RunError, match="Linear has no signed distance"):
        SignedDistance.of_model(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("slab", [1 << 22, 20_000, 3_000])
def test_mesh_of_a_sphere_is_closed_and_has_its_radius(monkeypatch: pytest.MonkeyPatch, slab: int) -> None:
    monkeypatch.setattr(volume_module, "SLAB_POINTS", slab)
    shares: list[float] = []
    mesh = extract_mesh(BALL.distance, BOX, 0.05, shares.append)
    # linear along an edge of length h, a sphere's distance is off by at most h^2 / (8 R)
    assert np.abs(np.linalg.norm(mesh.vertices - CENTER, axis=-1) - RADIUS).max() < 0.05**2 / (8 * RADIUS) + 1e-4
    assert to_open3d(mesh).is_watertight()
    a, b, c = mesh.vertices[mesh.faces].astype(np.float64).transpose(1, 0, 2)
    volume = (np.cross(a, b) * c).sum() / 6  # positive: faces look outwards, into free space
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=5e-3)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


def test_a_room_is_meshed_with_faces_towards_its_inside() -> None:
    def hollow(points: np.ndarray) -> np.ndarray:
        return (0.7 - np.abs(points)).min(-1)

    mesh = extract_mesh(hollow, np.array([[-1.0] * 3, [1.0] * 3]), 0.1)
    a, b, c = mesh.vertices[mesh.faces].astype(np.float64).transpose(1, 0, 2)
    # beside edges and corners alone the cut cells are chamfered
    assert (np.cross(a, b) * c).sum() / 6 == pytest.approx(-(1.4**3), rel=0.02)
    # walls lie on grid points here, from which surfaces keep a thousandth of a cell away
    assert np.abs(mesh.vertices).max() == pytest.approx(0.7, abs=1.1e-4)


def test_mesh_refuses_what_has_no_surface() -> None:
    for constant in (1.0, -1.0):
        with pytest.raises(RunError, match="there is no surface in the box"):
            extract_mesh(lambda p, c=constant: np.full(len(p), c), BOX, 0.2)  # type: ignore[misc]
    with pytest.raises(RunError, match="not finite in the box"):
        extract_mesh(lambda p: np.full(len(p), np.nan), BOX, 0.2)
    with pytest.raises(ConfigError, match="a spacing of 0 m is given"):
        extract_mesh(BALL.distance, BOX, 0.0)
    with pytest.raises(ConfigError, match="is empty or not finite"):
        extract_mesh(BALL.distance, BOX[::-1], 0.1)


def test_cropping_keeps_whole_faces_and_used_vertices() -> None:
    mesh = extract_mesh(BALL.distance, BOX, 0.1)
    keep = mesh.vertices[:, 2] > 0.0
    half = mesh.cropped(keep)
    assert (half.vertices[:, 2] > 0.0).all()
    assert len(half.faces) == keep[mesh.faces].all(-1).sum()
    assert len(np.unique(half.faces)) == len(half.vertices)
    np.testing.assert_array_equal(half.vertices[half.faces], mesh.vertices[mesh.faces[keep[mesh.faces].all(-1)]])
    nothing = mesh.cropped(np.zeros(len(mesh.vertices), dtype=bool))
    assert nothing.vertices.shape == nothing.faces.shape == (0, 3)
    with pytest.raises(RunError, match="the mesh has no faces"):
        nothing.sample(np.random.default_rng(0), 3)


def test_samples_are_uniform_on_the_triangles() -> None:
    """Two triangles, one three times as large: shares, and the mean of each is its centroid."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5]], dtype=np.float32)
    mesh = TriangleMesh(vertices, np.array([[0, 1, 2], [3, 4, 5]]))
    points = mesh.sample(np.random.default_rng(0), 20_000)
    upper = points[:, 2] > 2
    assert upper.mean() == pytest.approx(0.75, abs=0.01)
    np.testing.assert_allclose(points[upper].mean(0), (1, 1 / 3, 5), atol=0.02)
    assert (points[~upper, :2].sum(-1) <= 1 + 1e-9).all()


def test_ply_holds_metres_and_normals_and_is_whole(tmp_path: Path) -> None:
    import open3d

    mesh = extract_mesh(BALL.distance, BOX, 0.1)
    normals = BALL.gradient(mesh.vertices)
    path = tmp_path / "new" / "ball.ply"
    write_mesh(mesh, path, normals=normals)
    read = open3d.io.read_triangle_mesh(str(path))
    np.testing.assert_allclose(np.asarray(read.vertices), mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(read.triangles), mesh.faces)
    np.testing.assert_allclose(np.asarray(read.vertex_normals), normals, atol=1e-6)
    with pytest.raises(RunError, match=r"ball.ply exists: choose another --output, or pass --overwrite"):
        write_mesh(mesh, path)
    assert [p.name for p in path.parent.iterdir()] == ["ball.ply"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_mesh_that_the_disk_had_no_space_for_is_no_mesh(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open3d says that it has written a file that is cut off."""
    import open3d

    mesh = extract_mesh(BALL.distance, BOX, 0.2)
    write = open3d.io.write_triangle_mesh

    def on_a_full_disk(name: str, geometry: object) -> bool:
        write(name, geometry)
        content = Path(name).read_bytes()
        Path(name).write_bytes(content[: int(share * len(content))])
        return True

    monkeypatch.setattr(open3d.io, "write_triangle_mesh", on_a_full_disk)
    with pytest.raises(RunError, match="the disk must have space"):
        write_mesh(mesh, tmp_path / "ball.ply")
    assert not list(tmp_path.iterdir())


def test_volume_is_the_distance_at_its_points_and_survives_the_file(tmp_path: Path) -> None:
    volume = sample_volume(BALL.distance, BOX, 0.25)
    shape = volume.distance.shape
    assert shape == (10, 11, 10)  # 2.2, 2.3 and 2.1 m
    assert volume.distance.dtype == np.float32
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = volume.origin + volume.spacing * index
    np.testing.assert_allclose(volume.distance, np.linalg.norm(points - CENTER, axis=-1) - RADIUS, atol=1e-6)
    assert (points[-1, -1, -1] >= BOX[1]).all()
    path = tmp_path / "v.npz"
    save_volume(volume, path)
    found = load_volume(path)
    for name in ("distance", "origin", "spacing"):
        np.testing.assert_array_equal(getattr(found, name), getattr(volume, name))
    with np.load(path, allow_pickle=False) as content:
        assert sorted(content) == ["axes", "distance", "origin", "spacing", "version"]
        assert (str(content["axes"]), int(content["version"])) == ("xyz", 1)
    with pytest.raises(RunError, match="exists"):
        save_volume(volume, path)
    save_volume(volume, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["v.npz"]


def test_no_other_file_is_read_as_a_volume(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    with pytest.raises(RunError, match="not a readable volume"):
        load_volume(path)
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(RunError, match="not a readable volume"):
        load_volume(path)
    np.savez(path, distance=np.array([{}], dtype=object), origin=np.zeros(3), spacing=np.ones(3), axes="xyz", version=1)
    with pytest.raises(RunError, match="not a readable volume"):  # a pickle is never opened
        load_volume(path)
    np.savez(path, distance=np.zeros((2, 2, 2)), origin=np.zeros(3), spacing=np.ones(3), axes="xyz", version=2)
    with pytest.raises(RunError, match="has version 2 and axes xyz"):
        load_volume(path)
    save_volume(Volume(np.zeros((2, 2), dtype=np.float32), np.zeros(3), np.ones(3)), path, overwrite=True)
    with pytest.raises(RunError, match="arrays of wrong shapes"):
        load_volume(path)


def test_a_failed_write_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail() -> None:
        with new_file(path, overwrite=True) as partial:
            partial.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]
    with pytest.raises(RunError, match="is a folder, not a file"), new_file(tmp_path, overwrite=True):
        pass


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_is_the_distance_on_its_plane(axis: int) -> None:
    piece = sample_slice(BALL.distance, BOX, axis, 0.3, 0.1)
    across, up = (i for i in range(3) if i != axis)
    left, right, bottom, top = piece.extent
    rows, columns = piece.values.shape
    assert (left, bottom) == (BOX[0, across], BOX[0, up])
    assert (right - left) / columns == pytest.approx(0.1)
    for row, column in ((0, 0), (3, 7), (rows - 1, columns - 1)):
        point = np.empty(3)
        point[axis] = 0.3
        point[across] = left + 0.1 * (column + 0.5)
        point[up] = bottom + 0.1 * (row + 0.5)
        assert piece.values[row, column] == pytest.approx(np.linalg.norm(point - CENTER) - RADIUS, abs=1e-5)
    assert top >= BOX[1, up] - 1e-9
    with pytest.raises(ConfigError, match="= 9 m is outside the box, which extends from"):
        sample_slice(BALL.distance, BOX, axis, 9.0, 0.1)
    with pytest.raises(ConfigError, match="makes a slice of"):
        sample_slice(BALL.distance, BOX, axis, 0.3, 5.0)


def test_drawn_slices_show_inside_blue_outside_red_and_the_surface_black(tmp_path: Path) -> None:
    piece = sample_slice(BALL.distance, BOX, 2, 0.05, 0.02)
    draw_slices({"ball": piece}, tmp_path / "s.png")
    pixels = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).astype(int)
    panel = pixels[60:-60, 60 : int(0.7 * pixels.shape[1])]
    middle = panel[panel.shape[0] // 2, panel.shape[1] // 2]
    assert middle[2] > middle[0] + 40  # deep inside
    red = (panel[..., 0] > panel[..., 2] + 40).mean()
    assert 0.05 < red < 0.5
    assert (panel.max(-1) < 30).sum() > 200
    draw_slices({f"run {i}": piece for i in range(4)}, tmp_path / "t.svg")
    assert (tmp_path / "t.svg").read_text().count("<image") >= 4
