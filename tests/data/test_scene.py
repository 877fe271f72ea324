"""The generated scene: determinism, geometry against numpy, the camera convention through nerfstudio's own parser."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eugen_nerf.core.errors import ConfigError, DataError, RunError
from eugen_nerf.data.synthetic import blender_format as blender
from eugen_nerf.data.synthetic import ray_casting as rendering
from eugen_nerf.data.synthetic.meshes import (
    box,
    cone,
    cylinder,
    merge,
    moved,
    plate,
    revolved,
    sphere,
    torus,
    torus_knot,
)
from eugen_nerf.data.synthetic.pinhole_cameras import Camera, look_at
from eugen_nerf.data.synthetic.ray_casting import Light, Scene, SceneObject, Tracer, render_rgba
from eugen_nerf.data.synthetic.static_scene import CAMERA_RADIUS, SceneConfig, generate_scene, scene_cameras
from eugen_nerf.data.synthetic.still_life import demo_scene
from eugen_nerf.data.synthetic.textures import (
    Checker,
    Material,
    Noise,
    PlainColour,
    Stripes,
    from_srgb,
    random_noise,
    to_srgb,
)

TINY = SceneConfig(resolution=(20, 16), num_train=3, num_val=1, num_test=2, supersample=2)
OVERHEAD = Light((0.0, 0.0, 1.0))


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_scene(tmp_path_factory.mktemp("scene") / "tiny", TINY)


def test_same_seed_same_bytes_other_seed_other_images(tiny: Path, tmp_path: Path) -> None:
    again = files_of(generate_scene(tmp_path / "again", TINY))
    assert again == files_of(tiny)
    other = files_of(generate_scene(tmp_path / "other", SceneConfig(**{**vars(TINY), "seed": 1})))
    assert other.keys() == again.keys()
    assert all(other[name] != again[name] for name in again)


def test_number_of_views_moves_no_other_camera() -> None:
    few, many = scene_cameras(TINY), scene_cameras(SceneConfig(num_train=7, num_val=1, num_test=2))
    for split in ("val", "test"):
        np.testing.assert_array_equal([c.pose for c in few[split]], [c.pose for c in many[split]])


def test_layout_is_that_of_the_format(tiny: Path) -> None:
    for split, count in TINY.counts.items():
        document = json.loads((tiny / f"transforms_{split}.json").read_text())
        assert 0.0 < document["camera_angle_x"] < np.pi
        assert [f["file_path"] for f in document["frames"]] == [f"./{split}/r_{i:03d}" for i in range(count)]
        for frame in document["frames"]:
            image = Image.open(tiny / (frame["file_path"] + ".png"))
            assert (image.mode, image.size) == ("RGBA", TINY.size)
    assert sorted(p.name for p in tiny.parent.iterdir()) == ["tiny"]


@pytest.mark.parametrize("seed", [0, 5])
def test_poses_are_rigid_look_at_the_origin_and_differ(seed: int) -> None:
    cameras = scene_cameras(SceneConfig(seed=seed))
    poses = np.array([camera.pose for split in cameras.values() for camera in split])
    assert len(poses) == 72
    rotation, position = poses[:, :3, :3], poses[:, :3, 3]
    np.testing.assert_allclose(
        rotation.transpose(0, 2, 1) @ rotation, np.broadcast_to(np.eye(3), (72, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(position, axis=-1), CAMERA_RADIUS)
    np.testing.assert_allclose(rotation[:, :, 2] * CAMERA_RADIUS, position, atol=1e-12)  # -z points at the origin
    assert (rotation[:, 2, 1] > 0.0).all(), "the image's up direction must have a part along the world's"
    assert (position[:, 2] > 0.0).all()
    distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
    assert distance[~np.eye(72, dtype=bool)].min() > 0.02


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_scene_lies_between_the_near_and_far_planes(seed: int) -> None:
    points = Tracer(demo_scene(seed)).vertices
    assert np.abs(points).max() <= 1.2
    assert np.linalg.norm(points, axis=-1).max() <= 1.7


def test_default_scene_is_no_toy() -> None:
    """Neither white nor the mean training image predicts test views, and the object fills a good part of the frame."""
    config = SceneConfig(resolution=32, num_train=24, supersample=2)
    tracer = Tracer(demo_scene(config.seed))
    images, coverage = {}, {}
    for split in ("train", "test"):
        rgba = np.array([render_rgba(tracer, c, supersample=2) for c in scene_cameras(config)[split]]) / 255.0
        images[split] = rgba[..., :3] * rgba[..., 3:] + 1.0 - rgba[..., 3:]
        coverage[split] = rgba[..., 3].mean()
    assert 0.35 < coverage["test"] < 0.5
    for guess in (np.ones(3), images["train"].mean(axis=0)):
        error = ((images["test"] - guess) ** 2).mean(axis=(1, 2, 3))
        assert (-10.0 * np.log10(error)).mean() < 17.0


def test_alpha_of_a_sphere_agrees_with_ray_sphere_intersection() -> None:
    """Oracle: |o|^2 - <o, d>^2 <= r^2 for the closest approach, on each of the 16 rays a pixel, in float64."""
    center, radius = np.array([0.15, -0.2, 0.1]), 0.9
    mesh = moved(sphere(radius, rings=256, segments=512), center)
    camera = Camera(look_at(np.array([1.5, -3.0, 1.8]), np.zeros(3)), 40, 30, 0.7)
    alpha = render_rgba(Tracer(Scene((SceneObject(mesh, Material()),), OVERHEAD)), camera, supersample=4)[..., 3]
    expected = np.zeros((30, 40))
    tangent = np.tan(0.35)
    for j in range(30):
        for i in range(40):
            for k in range(16):
                x = (2.0 * (i + (k % 4 + 0.5) / 4) / 40 - 1.0) * tangent
                y = (1.0 - 2.0 * (j + (k // 4 + 0.5) / 4) / 30) * tangent * 30 / 40
                direction = camera.pose[:3, :3] @ np.array([x, y, -1.0])
                direction /= np.linalg.norm(direction)
                offset = center - camera.pose[:3, 3]
                expected[j, i] += (offset @ offset - (offset @ direction) ** 2 <= radius**2) / 16
    difference = np.abs(alpha / 255.0 - expected)
    assert difference.max() <= 1 / 16 + 1 / 255  # one ray on the facets' edge
    assert (difference > 1 / 255).mean() < 0.005
    assert 0.1 < expected.mean() < 0.9


def test_alpha_is_straight() -> None:
    """A surface of one colour, ambient light only: that colour even in pixels it covers partly; 0 where nothing is."""
    light = Light((0.0, 0.0, 1.0), color=(0.0, 0.0, 0.0), sky=(1.0, 1.0, 1.0), ground=(1.0, 1.0, 1.0))
    color = np.array([0.8, 0.1, 0.4])
    scene = Scene((SceneObject(sphere(0.7), Material(PlainColour(tuple(color)))),), light)
    rgba = render_rgba(Tracer(scene), Camera(look_at(np.array([4.0, 0, 1]), np.zeros(3)), 24, 24, 0.6), supersample=3)
    covered = rgba[..., 3] > 0
    partly = covered & (rgba[..., 3] < 255)
    assert partly.sum() > 10
    expected = np.round(255 * to_srgb(color))
    assert np.abs(rgba[covered][:, :3] - expected).max() <= 1
    assert not rgba[~covered].any()


def test_lambert_shadow_and_specular_against_the_formula() -> None:
    """A floor lit from (0.6, 0, 0.8) below a box: albedo (sky + cos color) in the light, albedo sky in shadow."""
    light = Light((0.6, 0.0, 0.8), color=(0.5, 0.4, 0.3), sky=(0.2, 0.3, 0.4), ground=(0.0, 0.0, 0.0))
    albedo = np.array([0.5, 0.6, 0.7])
    floor = SceneObject(moved(box((4, 4, 0.1)), (0, 0, -0.05)), Material(PlainColour(tuple(albedo))))
    tracer = Tracer(Scene((floor, SceneObject(moved(box((0.4, 0.4, 0.1)), (0, 0, 1.0)), Material())), light))
    # The box's centre casts its shadow 1.0 * 0.6 / 0.8 = 0.75 away, against the light's direction.
    targets = np.array([[-0.75, 0.0, 0.0], [0.75, 0.0, 0.0]])
    origins = targets + np.array([0.0, -1.0, 2.0])
    directions = (targets - origins) / np.sqrt(5.0)
    hits = tracer.cast(origins, directions)
    np.testing.assert_allclose(hits.distance, np.sqrt(5.0), rtol=1e-6)
    np.testing.assert_allclose(hits.position, targets, atol=1e-6)
    color = tracer.shade(hits, directions)
    np.testing.assert_allclose(color[0], albedo * light.sky, rtol=1e-6)
    np.testing.assert_allclose(color[1], albedo * (np.array(light.sky) + 0.8 * np.array(light.color)), rtol=1e-6)
    shiny = Scene((SceneObject(floor.mesh, Material(PlainColour((0.0, 0.0, 0.0)), 0.9, 10.0)),), light)
    mirror = np.array([[0.6, 0.0, -0.8]])  # looking along the mirrored light: the lobe's peak
    peak = Tracer(shiny)
    found = peak.cast(-3.0 * mirror, mirror)
    np.testing.assert_allclose(peak.shade(found, mirror)[0], 0.9 * np.array(light.color), rtol=1e-6)


def test_nerfstudio_reads_a_known_point_at_the_pixel_where_it_is_seen(tmp_path: Path) -> None:
    """Small bright ball at a known place: nerfstudio's ray through the ball's pixel passes through the place."""
    from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

    place = np.array([0.5, -0.3, 0.7])
    tracer = Tracer(Scene((SceneObject(moved(sphere(0.08), place), Material()),), OVERHEAD))
    cameras = [
        Camera(look_at(np.array(p, dtype=float), np.zeros(3)), 96, 64, 0.7) for p in ((3, 2, 1.5), (-1, -3.5, 2))
    ]
    for split in ("train", "val", "test"):
        blender.write_split(tmp_path, split, ((camera, render_rgba(tracer, camera)) for camera in cameras))
    outputs = BlenderDataParserConfig(data=tmp_path).setup().get_dataparser_outputs("train")
    for index, name in enumerate(outputs.image_filenames):
        alpha = np.asarray(Image.open(name))[..., 3] / 255.0
        rows, columns = np.mgrid[:64, :96]
        row, column = ((v + 0.5) @ alpha.ravel() / alpha.sum() for v in (rows.ravel(), columns.ravel()))
        ray = outputs.cameras.generate_rays(index, coords=torch.tensor([[row, column]], dtype=torch.float32))
        origin, direction = ray.origins[0].double().numpy(), ray.directions[0].double().numpy()
        offset = place - origin
        assert offset @ direction > 0.0
        miss = np.linalg.norm(offset - (offset @ direction) * direction)
        assert miss < 0.2 * (offset @ direction) / float(outputs.cameras.fx[index])  # a fifth of a pixel


@pytest.mark.parametrize(
    ("mesh", "volume", "rtol"),
    [
        (sphere(0.5), 4.0 / 3.0 * np.pi * 0.125, 0.01),
        (box((0.2, 0.3, 0.4)), 0.024, 1e-12),
        (cylinder(0.3, 0.7), np.pi * 0.09 * 0.7, 0.01),
        (cone(0.3, 0.6), np.pi * 0.09 * 0.2, 0.01),
        (torus(0.6, 0.2), 2.0 * np.pi**2 * 0.6 * 0.04, 0.02),
        (revolved([(0.0, 0.0), (0.4, 0.2), (0.0, 0.4)]), 2.0 * np.pi * 0.16 * 0.2 / 3.0, 0.01),
        (plate(1.0, 0.2, lambda xy: 0.1 * xy[:, 0]), np.pi * 0.2, 0.01),
        (merge([box((1, 1, 1)), moved(box((1, 1, 1)), (3, 0, 0))]), 2.0, 1e-12),
        # Pappus: tube section times the length of the curve, measured here on its polygon.
        (torus_knot(2, 3, 0.4, 0.05), None, 0.02),
    ],
)
def test_meshes_are_closed_and_outward(mesh, volume, rtol) -> None:
    """The divergence theorem gives the solid's volume, positive if faces turn outwards; normals agree."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    if volume is None:
        t = np.linspace(0.0, 2.0 * np.pi, 4001)
        d = 0.4 * (1.0 + 0.5 * np.cos(3 * t))
        curve = np.stack([d * np.cos(2 * t), d * np.sin(2 * t), 0.2 * np.sin(3 * t)], -1)
        volume = np.pi * 0.05**2 * np.linalg.norm(np.diff(curve, axis=0), axis=-1).sum()
    np.testing.assert_allclose(np.einsum("nd,nd->n", a, np.cross(b, c)).sum() / 6.0, volume, rtol=rtol)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=-1), 1.0, atol=1e-9)
    cross = np.cross(b - a, c - a)
    real = np.linalg.norm(cross, axis=-1) > 1e-9
    for k in range(3):
        assert (np.einsum("nd,nd->n", cross[real], mesh.normals[mesh.faces[real, k]]) > 0.0).all()


def test_textures_against_scalar_formulas() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, size=(50, 3))
    low, high = (0.1, 0.2, 0.3), (0.9, 0.7, 0.5)
    noise = random_noise(np.random.default_rng(1), low, high, wavelength=0.5)
    assert isinstance(noise, Noise)
    assert np.all((noise(points) >= 0.1) & (noise(points) <= 0.9))
    lengths = 2 * np.pi / np.linalg.norm(noise.waves, axis=-1)
    assert ((lengths >= 0.35 - 1e-9) & (lengths <= 0.8 + 1e-9)).all()
    stripes = Stripes(low, high, (0.0, 0.0, 2.0), 0.5, sharpness=1e3)
    checker = Checker(low, high, 0.25)
    for index, point in enumerate(points):
        upper = (point[2] / 0.5) % 1.0 < 0.5
        np.testing.assert_allclose(stripes(points)[index], high if upper else low, atol=0.1)
        odd = sum(int(np.floor(x / 0.25)) for x in point) % 2
        np.testing.assert_array_equal(checker(points)[index], high if odd else low)
    grey = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(from_srgb(to_srgb(grey)), grey, atol=1e-6)
    assert to_srgb(np.array(0.5)) == pytest.approx(0.735357, abs=1e-6)


class FullDisk:
    """An image writer that works `good` times and then finds the disk full."""

    def __init__(self, good: int, error: BaseException) -> None:
        self.good, self.error, self.writer = good, error, blender.write_image

    def __call__(self, path: Path, rgba: np.ndarray) -> None:
        self.good -= 1
        if self.good < 0:
            raise self.error
        self.writer(path, rgba)


@pytest.mark.parametrize("overwrite", [False, True])
def test_full_disk_leaves_what_was_there(monkeypatch, tmp_path: Path, tiny: Path, overwrite: bool) -> None:
    output = tmp_path / "set"
    before: dict[str, bytes] = {}
    if overwrite:
        before = files_of(generate_scene(output, TINY))
    monkeypatch.setattr(blender, "write_image", FullDisk(2, OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(DataError, match=r"could not write .*set.*No space left on device.*--output"):
        generate_scene(output, TINY, overwrite=overwrite)
    assert files_of(tmp_path) == {f"set/{name}": content for name, content in before.items()}
    assert [p.name for p in tmp_path.iterdir()] == (["set"] if overwrite else [])


def test_interrupt_leaves_nothing(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(blender, "write_image", FullDisk(1, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        generate_scene(tmp_path / "set", TINY)
    assert not list(tmp_path.iterdir())


def test_nothing_has_the_final_name_while_it_is_written(monkeypatch, tmp_path: Path) -> None:
    """What a kill at any image would leave: no directory under the final name, or the whole old one."""
    output, seen = tmp_path / "set", []
    writer = blender.write_image

    def watched(path: Path, rgba: np.ndarray) -> None:
        seen.append(output.exists())
        writer(path, rgba)

    monkeypatch.setattr(blender, "write_image", watched)
    generate_scene(output, TINY)
    assert seen == [False] * 6
    assert (output / "transforms_test.json").is_file()


def test_taken_output_is_refused_and_replaced_only_when_asked(tmp_path: Path) -> None:
    output = tmp_path / "set"
    output.mkdir()
    generate_scene(output, TINY)  # an empty directory is free
    with pytest.raises(DataError, match=r"not empty: choose another --output, or pass --overwrite"):
        generate_scene(output, TINY)
    (output / "train" / "stale.png").write_bytes(b"")
    generate_scene(output, TINY, overwrite=True)
    assert not (output / "train" / "stale.png").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"no data set .* --overwrite does not replace"):
        generate_scene(home, TINY, overwrite=True)
    with pytest.raises(RunError, match=r"is a file, not a folder"):
        generate_scene(home / "thesis.txt", TINY, overwrite=True)
    with pytest.raises(RunError, match=r"--output"):
        generate_scene(home / "thesis.txt" / "below", TINY)
    assert (home / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "bad",
    [{"resolution": 0}, {"resolution": (64, -1)}, {"num_train": 0}, {"num_val": 0}, {"seed": -1}, {"supersample": 17}],
)
def test_bad_config_is_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match=r"--[a-z-]+ must be at least \d+ and at most \d+, not -?\d+"):
        SceneConfig(**bad)


def test_missing_open3d_is_one_clear_error(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "open3d", None)
    with pytest.raises(DataError, match=r"needs open3d.*apt-get install"):
        rendering.Tracer(demo_scene(0))
