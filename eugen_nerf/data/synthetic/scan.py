"""Generates a room and a hand-held RGB-D scan of it, with the room's exact signed distance.

Layout: nerfstudio's `transforms.json` (with `depth_file_path`, `timestamp` and `depth_unit_scale_factor`), colour as
PNG, depth along the optical axis as PNG of 16 bits in millimetres (0: not measured), and `room.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import SEED, Range, check_numbers
from eugen_nerf.data.synthetic.blender_format import complete_directory
from eugen_nerf.data.synthetic.furniture import furnished_room
from eugen_nerf.data.synthetic.pinhole_cameras import Camera, look_at
from eugen_nerf.data.synthetic.room import ROOM_NAME, Room, write_room
from eugen_nerf.data.synthetic.solids import Array, Vector

CLEARANCE = 0.35
"""Minimum distance of the camera from all surfaces, metres."""
DEPTH_UNIT = 1e-3
LIGHT = np.array([0.4, 0.25, 0.88])
WALL_COLORS = {"floor": (0.55, 0.45, 0.35), "ceiling": (0.9, 0.9, 0.88), "x": (0.75, 0.8, 0.7), "y": (0.8, 0.72, 0.66)}


@dataclass(frozen=True)
class RoomConfig:
    """What to generate; these numbers determine every byte.

    Raises `ConfigError` for a value out of its range.
    """

    size: Annotated[Vector, Range(2.2, 30)] = (5.0, 4.0, 2.6)
    """Width, depth and height of the room in metres: 3 to 30, 3 to 30, 2.2 to 10."""
    num_objects: Annotated[int, Range(0, 60)] = 8
    """Pieces of furniture, 0 to 60."""
    num_frames: Annotated[int, Range(2, 100_000)] = 200
    """Frames of the scan, 2 to 100000."""
    resolution: Annotated[tuple[int, int], Range(8, 4096)] = (160, 120)
    """Image width and height in pixels, each 8 to 4096."""
    fov: Annotated[float, Range(20, 120)] = 75.0
    """Horizontal field of view in degrees, 20 to 120."""
    fps: Annotated[float, Range(0.1, 1000)] = 10.0
    """Frames per second, 0.1 to 1000; it affects only the timestamps."""
    depth_noise: Annotated[float, Range(0, 10)] = 0.0
    """Strength of the simulated sensor errors, 0 to 10: 0 is exact, 1 is like a Kinect."""
    seed: Annotated[int, SEED] = 0
    """Non-negative seed for furniture, colours, path and noise."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_numbers(self)
        sides = (("width", 3.0, 30.0), ("depth", 3.0, 30.0), ("height", 2.2, 10.0))
        for (name, low, high), value in zip(sides, self.size, strict=True):
            if not low <= value <= high:
                raise ConfigError(f"the {name} of the room (--size) must be {low:g} to {high:g} m, not {value:g}")


def generate_room(output: Path, config: RoomConfig | None = None, *, overwrite: bool = False) -> Path:
    """Writes a room, its scan and its exact signed distance; shows its progress on stderr.

    The same config gives the same bytes. The directory appears under its name when it is complete.

    Arguments:
        output: directory to make.
        config: what to generate, `RoomConfig()` by default.
        overwrite: replace a room that is already there, once the new one is complete.

    Returns `output`. Raises `DataError` if `output` is taken or cannot be written, `ConfigError` if there is no
    space for the furniture.
    """
    from rich.console import Console
    from rich.progress import Progress

    config = config or RoomConfig()
    room, cameras = make_room(config)
    width, height = config.resolution
    with complete_directory(output, overwrite=overwrite, marker=ROOM_NAME) as directory:
        (directory / "images").mkdir()
        (directory / "depth").mkdir()
        frames = []
        with Progress(console=Console(stderr=True), transient=True) as progress:
            for index, camera in enumerate(progress.track(cameras, description="scanning the room")):
                color, depth, incidence = render_rgbd(room, camera)
                if config.depth_noise > 0.0:
                    rng = np.random.default_rng(np.random.SeedSequence([config.seed, 2, index]))
                    depth = noisy_depth(depth, incidence, config.depth_noise, rng)
                names = f"images/frame_{index:05d}.png", f"depth/frame_{index:05d}.png"
                Image.fromarray(color).save(directory / names[0], format="PNG")
                stored = np.clip(np.rint(depth / DEPTH_UNIT), 0, 65534).astype(np.uint16)
                Image.fromarray(stored).save(directory / names[1], format="PNG")
                frame: dict[str, Any] = {"file_path": names[0], "depth_file_path": names[1]}
                frames.append({**frame, "timestamp": index / config.fps, "transform_matrix": camera.pose.tolist()})
        lens = {"fl_x": cameras[0].focal, "fl_y": cameras[0].focal, "cx": width / 2, "cy": height / 2}
        size = {"w": width, "h": height, "camera_model": "PINHOLE", "depth_unit_scale_factor": DEPTH_UNIT}
        text = json.dumps({**lens, **size, "frames": frames}, indent=1)
        (directory / "transforms.json").write_text(text + "\n", encoding="utf-8")
        write_room(room, directory / ROOM_NAME)
    return output


def make_room(config: RoomConfig) -> tuple[Room, list[Camera]]:
    """The room and the cameras of its scan. Raises `ConfigError` if there is no space for the furniture."""
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, 0]))
    cameras = scan_path(config, rng)
    path = np.stack([camera.pose[:3, 3] for camera in cameras])
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, 1]))
    return furnished_room(config.size, config.num_objects, path, CLEARANCE, rng), cameras


def scan_path(config: RoomConfig, rng: np.random.Generator) -> list[Camera]:
    """A hand-held walk once around the middle of the room while the camera turns twice, with slow sway and shake."""
    width, height = config.resolution
    t = np.linspace(0.0, 1.0, config.num_frames)
    start, turn = rng.uniform(0.0, 2.0 * np.pi, size=2)
    sense = rng.choice([-1.0, 1.0])
    angle = start + sense * 2.0 * np.pi * t

    def sway(amplitude: float, low: int, high: int) -> Array:
        """A sum of three slow waves [num_frames] of at most `amplitude`."""
        waves = rng.integers(low, high, size=3)
        phases = rng.uniform(0.0, 2.0 * np.pi, size=3)
        return amplitude / 3.0 * np.sin(2.0 * np.pi * t[:, None] * waves + phases).sum(-1)

    stretch = 1.0 + sway(0.15, 2, 5)
    x = 0.38 * config.size[0] / 2 * stretch * np.cos(angle)
    y = 0.38 * config.size[1] / 2 * stretch * np.sin(angle)
    z = np.minimum(1.45, config.size[2] - 1.0) + sway(0.25, 1, 6)
    yaw = turn + 2.0 * angle + sway(0.25, 3, 9)
    pitch = np.deg2rad(-14.0) + sway(0.35, 2, 7)
    look = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=-1)
    positions = np.stack([x, y, z], axis=-1)
    field_of_view = float(np.deg2rad(config.fov))
    return [
        Camera(look_at(position, position + ahead), width, height, field_of_view)
        for position, ahead in zip(positions, look, strict=True)
    ]


def render_rgbd(room: Room, camera: Camera) -> tuple[NDArray[np.uint8], Array, Array]:
    """One frame of a room, one ray through the middle of each pixel.

    Returns colour [h, w, 3] uint8, depth along the optical axis [h, w] in metres, and the cosine [h, w] of the angle
    between ray and surface normal.
    """
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    origins, directions = camera.rays(columns.ravel(), rows.ravel())
    distance, index = room.cast(origins, directions)
    points = origins + distance[:, None] * directions
    normals = _normals(room, points, index)
    incidence = -(normals * directions).sum(-1)
    depth = distance * (directions @ -camera.pose[:3, 2])
    shape = (camera.height, camera.width)
    return _shade(room, points, normals, index).reshape(*shape, 3), depth.reshape(shape), incidence.reshape(shape)


def noisy_depth(depth: Array, incidence: Array, strength: float, rng: np.random.Generator) -> Array:
    """Depth as a structured-light sensor measures it.

    * Gaussian error of the standard deviation that Nguyen, Izadi and Lovell (3DIMPVT 2012) fitted to a Kinect:
      0.0012 + 0.0019 (z - 0.4)^2 + 0.0001 / sqrt(z) * a^2 / (pi/2 - a)^2 metres, a the angle to the normal.
    * Steps of inverse depth of 2.85e-3 / m: the resolution that Khoshelham and Elberink (Sensors 2012) give.
    * Dropouts (our own model): none below 65 degrees to the normal, all above 85; none up to 3.5 m, all beyond 5.5 m or
      nearer than 0.4 m; in between, the probability rises linearly. Their rates do not depend on the strength.

    Arguments:
        depth: [h, w] metres along the optical axis.
        incidence: [h, w] cosine of the angle between ray and normal.
        strength: factor of the error and of the step.
        rng: for the errors.

    Returns depth [h, w] in metres, 0 where not measured.
    """
    angle = np.arccos(np.clip(incidence, 1e-3, 1.0))
    grazing = 1e-4 / np.sqrt(depth) * angle**2 / (np.pi / 2 - angle) ** 2
    deviation = 0.0012 + 0.0019 * (depth - 0.4) ** 2 + grazing
    measured = np.maximum(depth + strength * deviation * rng.normal(size=depth.shape), 0.05)
    step = 2.85e-3 * strength
    measured = 1.0 / np.maximum(np.rint(1.0 / (measured * step)) * step, step)
    steep, far = (np.rad2deg(angle) - 65.0) / 20.0, (depth - 3.5) / 2.0
    lost = (rng.uniform(size=depth.shape) < np.maximum(steep, far)) | (depth < 0.4)
    return np.where(lost, 0.0, measured)


def _normals(room: Room, points: Array, index: NDArray[np.int64]) -> Array:
    """Unit normals [N, 3] of the hit surfaces, out of the solid."""
    normals = -room.walls.distance_and_gradient(points)[1]
    for number in np.unique(index[index >= 0]):
        hit = index == number
        normals[hit] = room.parts[number].solid.distance_and_gradient(points[hit])[1]
    return normals


def _shade(room: Room, points: Array, normals: Array, index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Colours [N, 3]: the part's own, or the wall's, darker on every other cell of a grid, under one distant light."""
    on_x, upright = np.abs(normals[:, 0]) > 0.5, np.abs(normals[:, 2]) > 0.5
    side = np.where(on_x[:, None], WALL_COLORS["x"], WALL_COLORS["y"])
    level = np.where((normals[:, 2] > 0.0)[:, None], WALL_COLORS["floor"], WALL_COLORS["ceiling"])
    wall = np.where(upright[:, None], level, side)
    palette = np.array([part.color for part in room.parts] or [(0.0, 0.0, 0.0)])
    color = np.where((index < 0)[:, None], wall, palette[np.maximum(index, 0)])
    # cells are shifted off the planes of walls and floor, where rounding would decide
    cells = np.floor((points + 0.083) / np.where(index < 0, 0.5, 0.12)[:, None]).sum(-1) % 2
    light = 0.62 + 0.38 * normals @ (LIGHT / np.linalg.norm(LIGHT))
    return (255.0 * color * (light * (1.0 - 0.18 * cells))[:, None]).round().astype(np.uint8)
