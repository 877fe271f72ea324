"""The generated room: its files, its depth, its path, its noise, and the exact distance kept beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eugen_nerf.cli.data import main
from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.synthetic.pinhole_cameras import Camera, look_at
from eugen_nerf.data.synthetic.room import ROOM_NAME, Room, RoomPart, read_room, write_room
from eugen_nerf.data.synthetic.scan import CLEARANCE, RoomConfig, generate_room, make_room, noisy_depth, render_rgbd
from eugen_nerf.data.synthetic.solids import Box, Sphere

TINY = RoomConfig(num_frames=3, resolution=(16, 12), num_objects=4, seed=5)


def digest(path: Path) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file())).hexdigest()


def test_depth_of_a_frame_is_that_of_plane_and_ball_by_hand() -> None:
    """A camera at (0, 0, 1) looks along +x at a wall at x = 3 with a ball of radius 0.5 at x = 2."""
    room = Room(
        Box((0.0, 0.0, 1.0), (3.0, 3.0, 3.0)), (RoomPart("ball", Sphere((2.0, 0.0, 1.0), 0.5), (1.0, 0.0, 0.0)),)
    )
    camera = Camera(look_at(np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0])), 31, 31, np.pi / 2)
    color, depth, incidence = render_rgbd(room, camera)
    offset = (np.arange(31) + 0.5 - 15.5) / 15.5
    across, up = np.meshgrid(offset, -offset)
    a, b = 1.0 + across**2 + up**2, 2.0  # |t (1, across, up) - (2, 0, 0)| = 0.5
    root = b * b - a * (4.0 - 0.25)
    expected = np.where(root >= 0.0, (b - np.sqrt(np.maximum(root, 0.0))) / a, 3.0)
    np.testing.assert_allclose(depth, expected, atol=1e-12)
    assert depth[15, 15] == pytest.approx(1.5)
    assert incidence[15, 15] == pytest.approx(1.0)
    assert color[15, 15, 0] > 3 * color[15, 15, 1]
    corner = np.array([1.0, across[0, 0], up[0, 0]])
    assert incidence[0, 0] == pytest.approx(1.0 / np.linalg.norm(corner))


def test_a_scan_is_complete_deterministic_and_measures_the_room(tmp_path: Path) -> None:
    first, second = (generate_room(tmp_path / name, TINY) for name in ("a", "b"))
    assert digest(first) == digest(second)
    assert digest(generate_room(tmp_path / "c", RoomConfig(**{**TINY.__dict__, "seed": 6}))) != digest(first)
    document = json.loads((first / "transforms.json").read_text())
    room = read_room(first / ROOM_NAME)
    assert [frame["timestamp"] for frame in document["frames"]] == [0.0, 0.1, 0.2]
    for frame in document["frames"]:
        depth = np.asarray(Image.open(first / frame["depth_file_path"])) * document["depth_unit_scale_factor"]
        assert Image.open(first / frame["file_path"]).size == (16, 12) == depth.shape[::-1]
        pose = np.array(frame["transform_matrix"])
        rows, columns = np.mgrid[:12, :16]
        local = np.stack(
            [
                (columns + 0.5 - document["cx"]) / document["fl_x"],
                -(rows + 0.5 - document["cy"]) / document["fl_y"],
                -np.ones((12, 16)),
            ],
            axis=-1,
        )
        points = pose[:3, 3] + (depth[..., None] * local) @ pose[:3, :3].T
        length = np.linalg.norm(local, axis=-1).max()
        assert np.abs(room.distance(points.reshape(-1, 3))).max() <= 0.5e-3 * length + 1e-9  # stored in millimetres


def test_the_room_file_keeps_every_number_and_no_other_file_is_read(tmp_path: Path) -> None:
    room, _ = make_room(TINY)
    write_room(room, tmp_path / "r.json")
    assert read_room(tmp_path / "r.json") == room
    for text in ("{", "[]", '{"version": 9}', '{"version": 1, "walls": {"kind": "torus"}, "parts": []}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=r"^'.*bad\.json' is not a readable room"):
            read_room(tmp_path / "bad.json")


@pytest.mark.parametrize("seed", range(6))
def test_the_path_stays_in_free_space_and_is_smooth(seed: int) -> None:
    room, cameras = make_room(RoomConfig(seed=seed))
    positions = np.stack([camera.pose[:3, 3] for camera in cameras])
    assert room.distance(positions).min() >= CLEARANCE
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
    assert steps.max() < 0.12
    ahead = np.stack([-camera.pose[:3, 2] for camera in cameras])
    assert np.rad2deg(np.arccos((ahead[1:] * ahead[:-1]).sum(-1).clip(-1, 1))).max() < 12.0
    names = {part.name for part in room.parts}
    assert len(names) == 8
    for name in names:  # nothing hangs below the floor or reaches through the ceiling by more than it is sunk
        bottom = min(part.solid.center[2] for part in room.parts if part.name == name)  # type: ignore[attr-defined]
        assert bottom > -0.03


def test_noise_has_the_published_deviation_steps_and_dropouts() -> None:
    rng = np.random.default_rng(0)
    for z in (0.8, 1.5, 3.0):
        flat = np.full((200, 200), z)
        found = noisy_depth(flat, np.ones_like(flat), 1.0, rng)
        assert (found > 0.0).all()
        expected = np.hypot(0.0012 + 0.0019 * (z - 0.4) ** 2, 2.85e-3 * z * z / np.sqrt(12.0))
        assert found.std() == pytest.approx(expected, rel=0.15)
        np.testing.assert_allclose(found.mean(), z, atol=3e-3)
        steps = 1.0 / found / 2.85e-3
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    flat = np.full((100, 100), 2.0)
    lost = [
        (noisy_depth(flat, np.full_like(flat, np.cos(np.deg2rad(a))), 1.0, rng) == 0.0).mean() for a in (60, 75, 86)
    ]
    assert lost[0] == 0.0
    assert lost[1] == pytest.approx(0.5, abs=0.05)
    assert lost[2] == 1.0
    assert (noisy_depth(np.full((9, 9), 0.3), np.ones((9, 9)), 1.0, rng) == 0.0).all()
    assert (noisy_depth(np.full((9, 9), 5.6), np.ones((9, 9)), 1.0, rng) == 0.0).all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"size": (2.0, 4.0, 2.6)}, r"--size must be at least 2\.2 and at most 30, not 2"),
        ({"size": (5.0, 2.5, 2.6)}, r"the depth of the room \(--size\) must be 3 to 30 m, not 2.5"),
        ({"num_frames": 1}, "--num-frames must be at least 2 and at most 100000, not 1"),
        ({"depth_noise": float("nan")}, "--depth-noise must be .*, not nan"),
        ({"resolution": (16, 4)}, "--resolution must be at least 8 and at most 4096, not 4"),
        ({"fov": 170.0}, "--fov must be at least 20 and at most 120, not 170"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        RoomConfig(**change)


def test_a_room_too_full_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"60 objects do not fit into a room of 3 x 3 x 2\.6 m"):
        make_room(RoomConfig(size=(3.0, 3.0, 2.6), num_objects=60))


def test_the_command_writes_a_noisy_room_and_replaces_only_rooms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--num-frames", "2", "--resolution", "16", "12", "--num-objects", "3", "--depth-noise", "1"]
    main(["room", "--output", str(tmp_path / "room"), *args])
    assert "wrote 2 RGB-D frames of 16x12 and the room's exact signed distance" in capsys.readouterr().out
    before = digest(tmp_path / "room")
    main(["room", "--output", str(tmp_path / "room"), *args, "--overwrite"])
    assert digest(tmp_path / "room") == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "transforms.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["room", "--output", str(other), *args, "--overwrite"])
    assert "has no room.json" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
