"""The generated dynamic scene: the same bytes each time, every view at its own moment, textures that stick."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from eugen_nerf.cli import data as cli
from eugen_nerf.core.errors import DataError
from eugen_nerf.data.checks import check_blender_directory
from eugen_nerf.data.synthetic.dynamic_scene import (
    BALL_DISTANCE,
    BALL_RADIUS,
    FLOOR,
    DynamicConfig,
    dynamic_scene,
    dynamic_times,
    generate_dynamic,
)
from eugen_nerf.data.synthetic.pinhole_cameras import Camera, look_at
from eugen_nerf.data.synthetic.ray_casting import Scene, SceneObject, Tracer, render_rgba
from eugen_nerf.data.synthetic.textures import to_srgb

SMALL = DynamicConfig(resolution=12, num_train=5, num_val=2, num_test=3, supersample=1, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_dynamic(tmp_path_factory.mktemp("dynamic") / "scene", SMALL)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_the_same_settings_give_the_same_bytes(data: Path, tmp_path: Path) -> None:
    again = generate_dynamic(tmp_path / "again", SMALL)
    assert digest(again) == digest(data)
    assert len(digest(data)) == 3 + 10


def test_every_view_has_a_time_and_a_camera_of_its_own(data: Path) -> None:
    assert check_blender_directory(data, times=True).counts == {"train": 5, "val": 2, "test": 3}
    times, poses = {}, set()
    for split in ("train", "val", "test"):
        frames = json.loads((data / f"transforms_{split}.json").read_text())["frames"]
        times[split] = [frame["time"] for frame in frames]
        poses |= {str(frame["transform_matrix"]) for frame in frames}
    assert times["train"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert times == dynamic_times(SMALL)
    assert all(len(set(values)) == len(values) for values in times.values())
    assert len(poses) == 10


def _object(scene: Scene, number: int) -> SceneObject:
    return scene.objects[number]


def test_what_stands_stands_and_what_moves_moves() -> None:
    first, last = dynamic_scene(0, 0.0), dynamic_scene(0, 1.0)
    moves = []
    for number, (a, b) in enumerate(zip(first.objects, last.objects, strict=True)):
        if not (np.array_equal(a.mesh.vertices, b.mesh.vertices) and np.array_equal(a.transform, b.transform)):
            moves.append(number)
    assert moves == [len(first.objects) - 2, len(first.objects) - 1], "the ball and the body"
    assert first.light == last.light


@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_the_ball_rolls_without_slipping(time: float) -> None:
    """The velocity of the ball's lowest point is zero: centre's velocity plus rotation, by finite differences."""
    step = 1e-5
    a, b = (_object(dynamic_scene(0, time + s), -2).transform for s in (0.0, step))
    down = a[:3, :3].T @ np.array([0.0, 0.0, -BALL_RADIUS])
    centre = (b[:3, 3] - a[:3, 3]) / step
    contact = ((b[:3, :3] @ down + b[:3, 3]) - (a[:3, :3] @ down + a[:3, 3])) / step
    # besides rolling it turns with its path, about the vertical, which does not move the lowest point
    assert np.linalg.norm(contact) < 1e-3 * np.linalg.norm(centre)
    assert np.linalg.norm(centre) == pytest.approx(2.1 * BALL_DISTANCE, rel=1e-4)
    assert a[2, 3] - BALL_RADIUS == pytest.approx(FLOOR)
    np.testing.assert_allclose(a[:3, :3] @ a[:3, :3].T, np.eye(3), atol=1e-12)


def test_the_body_bends_on_a_fixed_foot_at_constant_volume() -> None:
    def volume(item: SceneObject) -> float:
        corners = item.mesh.vertices[item.mesh.faces]
        return float(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)

    bodies = {time: _object(dynamic_scene(0, time), -1) for time in (0.0, 0.5, 1.0)}
    rest = bodies[0.0].rest
    assert rest is not None
    np.testing.assert_allclose(bodies[0.0].mesh.vertices, rest, atol=1e-12)
    for time, body in bodies.items():
        foot = rest[:, 2] < 1e-9
        np.testing.assert_allclose(body.mesh.vertices[foot][:, :2], 0, atol=1e-9)
        assert np.array_equal(body.rest, rest), "the texture goes by where the vertices were"
        # shear along z and a stretch keep it
        assert volume(body) == pytest.approx(volume(bodies[0.0]), rel=1e-6), time
        assert body.mesh.vertices[:, 2].max() == pytest.approx(rest[:, 2].max() * (1 + 0.25 * time))
    tip = bodies[0.5].mesh.vertices[np.argmax(rest[:, 2])]
    assert np.linalg.norm(tip[:2]) > 0.3


def test_textures_stick_to_a_deformed_mesh() -> None:
    """A flat patch moved along itself: with `rest` its picture moves along, without it the picture stays."""
    from eugen_nerf.data.synthetic.meshes import Mesh
    from eugen_nerf.data.synthetic.textures import Checker, Material

    scene = dynamic_scene(0, 0.0)
    corners = np.array([[-4.0, -4.0, 0.0], [4.0, -4.0, 0.0], [4.0, 4.0, 0.0], [-4.0, 4.0, 0.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    checks = Material(Checker((0.1, 0.1, 0.1), (0.8, 0.8, 0.8), 1.0, (0.0, 0.0, 0.5)))

    def see(shift: float, rest: bool) -> np.ndarray:
        moved = corners + np.array([shift, 0.0, 0.0])
        mesh = Mesh(moved, np.tile([0.0, 0.0, 1.0], (4, 1)), faces)
        item = SceneObject(mesh, checks, rest=corners if rest else None)
        # off the middle, so that no ray meets the edge of a check
        camera = Camera(look_at(np.array([0.23, 0.271, 3.0]), np.array([0.23, 0.27, 0.0])), 9, 9, 0.6)
        return render_rgba(Tracer(Scene((item,), scene.light)), camera, supersample=1)[..., 0]

    still = see(0.0, True)
    assert len(np.unique(still)) > 1
    assert np.array_equal(see(1.0, False), still)
    assert not np.array_equal(see(1.0, True), still), "one check further, black and white change places"
    assert to_srgb(np.array(0.5)) > 0.5


@pytest.mark.parametrize("time", [1.5, -0.1, float("nan"), "now", True, None])
def test_times_outside_are_one_line(time: object, data: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(data, tmp_path / "data"))
    document = json.loads((copied / "transforms_val.json").read_text())
    document["frames"][1]["time"] = time
    (copied / "transforms_val.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"'time' of frame 1 of '.*transforms_val\.json' is .*from 0 to 1") as caught:
        check_blender_directory(copied, times=True)
    assert "\n" not in str(caught.value)
    check_blender_directory(copied)  # a static method does not read it


def test_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "made")
    small = ["--resolution", "8", "--num-train", "3", "--num-val", "1", "--num-test", "1", "--supersample", "1"]
    cli.main(["dynamic", "--output", place, *small])
    assert f"{place}: wrote train 3, val 1, test 1 views of 8x8, times 0 to 1" in capfd.readouterr().out
    cli.main(["check", place])
    assert "train 3, val 1, test 1 images of 8x8" in (line := capfd.readouterr().out)
    assert line.rstrip().endswith(", with times")
    meta = Path(place) / "transforms_test.json"
    meta.write_text(meta.read_text().replace('"time": 0.5', '"time": 2'))
    with pytest.raises(SystemExit):
        cli.main(["check", place])
    assert "error: 'time' of frame 0 of" in capfd.readouterr().err
