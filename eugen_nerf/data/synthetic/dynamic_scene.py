"""A scene that moves, in D-NeRF's format: frames with `time` in [0, 1], each with its own camera and time.

A ball rolls around a plate, a body in its middle bends and stretches, posts stand still. Every texture moves with its
object, so a deformation back to the canonical scene exists, except for the moving shadows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.ranges import Range
from eugen_nerf.data.synthetic.blender_format import complete_directory, write_split
from eugen_nerf.data.synthetic.meshes import (
    Array,
    Mesh,
    box,
    cone,
    cylinder,
    merge,
    moved,
    plate,
    smooth_normals,
    sphere,
)
from eugen_nerf.data.synthetic.pinhole_cameras import Camera
from eugen_nerf.data.synthetic.ray_casting import Light, Scene, SceneObject, Tracer, render_rgba
from eugen_nerf.data.synthetic.static_scene import SceneConfig, scene_cameras
from eugen_nerf.data.synthetic.textures import Checker, Material, Stripes, hsv

FLOOR = -0.55
PLATE_RADIUS = 1.1
BODY_HEIGHT = 1.05
BODY_RADIUS = 0.2
BALL_RADIUS = 0.2
BALL_DISTANCE = 0.78


@dataclass(frozen=True)
class DynamicConfig(SceneConfig):
    """What to generate; these numbers determine every view, and every view has its own time."""

    num_val: Annotated[int, Range(1, 100_000)] = 5
    """Number of validation views, at least 1."""
    num_test: Annotated[int, Range(1, 100_000)] = 10
    """Number of test views, at least 1."""


def dynamic_times(config: DynamicConfig) -> dict[str, list[float]]:
    """Times of each split's views, increasing: training from 0 to 1, n others in the middles of n equal intervals."""
    times = {"train": np.linspace(0.0, 1.0, config.num_train).tolist()}
    for split in ("val", "test"):
        count = config.counts[split]
        times[split] = ((np.arange(count) + 0.5) / count).tolist()
    return {split: [round(t, 6) for t in values] for split, values in times.items()}


def dynamic_scene(seed: int, time: float) -> Scene:
    """The scene at a time.

    Arguments:
        seed: non-negative, for layout, colours and light; the same seed gives the same scene.
        time: in [0, 1].
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 7]))
    hue, start, lean = rng.uniform(), rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.0, 2.0 * np.pi)
    objects = (
        _plate(hue),
        *_posts(hue, start),
        _ball(hue, start + 0.6, time),
        _body(hue, lean, time),
    )
    azimuth, elevation = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.95, 1.15)
    flat = np.cos(elevation)
    return Scene(objects, Light((float(flat * np.cos(azimuth)), float(flat * np.sin(azimuth)), np.sin(elevation))))


def generate_dynamic(output: Path, config: DynamicConfig | None = None, *, overwrite: bool = False) -> Path:
    """Renders the scene and writes it as a D-NeRF-format data set; shows its progress on stderr.

    The same config gives the same bytes. The directory appears under its name when it is complete.

    Arguments:
        output: directory to make.
        config: what to generate, `DynamicConfig()` by default.
        overwrite: replace a data set that is already there, once the new one is complete.

    Returns `output`. Raises `DataError` if `output` is taken or cannot be written.
    """
    from rich.console import Console
    from rich.progress import Progress

    config = config or DynamicConfig()
    times, cameras = dynamic_times(config), scene_cameras(config)
    with (
        complete_directory(output, overwrite=overwrite) as directory,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("rendering", total=sum(config.counts.values()))

        def views(split: str) -> Iterator[tuple[Camera, NDArray[np.uint8]]]:
            # neighbouring cameras have distant times, or a moving camera could explain a moving object
            order = np.random.default_rng(np.random.SeedSequence([config.seed, 11])).permutation(len(cameras[split]))
            for index, time in zip(order, times[split], strict=True):
                tracer = Tracer(dynamic_scene(config.seed, time))
                yield cameras[split][index], render_rgba(tracer, cameras[split][index], supersample=config.supersample)
                progress.advance(task)

        for split in cameras:
            progress.update(task, description=f"rendering {split}")
            write_split(directory, split, views(split), times[split])
    return output


def _placed(x: float, y: float, z: float) -> Array:
    matrix = np.eye(4)
    matrix[:3, 3] = (x, y, z)
    return matrix


def _plate(hue: float) -> SceneObject:
    checks = Checker(hsv(hue + 0.55, 0.55, 0.40), hsv(hue + 0.08, 0.25, 0.85), 0.37, (0.0, 0.0, 50.0))
    mesh = plate(PLATE_RADIUS, 0.12, lambda xy: np.zeros(len(xy)))
    return SceneObject(mesh, Material(checks), _placed(0.0, 0.0, FLOOR))


def _posts(hue: float, start: float) -> list[SceneObject]:
    """Static objects: three posts with pointed roofs, in the half that the ball does not reach."""
    objects = []
    for number in range(3):
        angle = start + 3.9 + 0.8 * number
        place = _placed(0.82 * np.cos(angle), 0.82 * np.sin(angle), FLOOR)
        walls = merge([cylinder(0.11, 0.34 + 0.12 * number), moved(box((0.3, 0.3, 0.06)), (0.0, 0.0, 0.03))])
        bands = Stripes(hsv(hue + 0.2 * number, 0.2, 0.9), hsv(hue + 0.2 * number, 0.8, 0.5), (0.0, 0.0, 1.0), 0.17)
        roof = moved(cone(0.17, 0.24), (0.0, 0.0, 0.34 + 0.12 * number))
        objects.append(SceneObject(walls, Material(bands), place))
        objects.append(SceneObject(roof, Material(Checker(hsv(hue + 0.5, 0.8, 0.5), hsv(hue, 0.5, 0.9), 0.13)), place))
    return objects


def _ball(hue: float, start: float, time: float) -> SceneObject:
    """A ball that rolls along a third of a circle without slipping: its rotation is distance over radius."""
    angle = start + 2.1 * time
    across, along = np.array([np.cos(angle), np.sin(angle), 0.0]), 2.1 * time * BALL_DISTANCE
    roll = along / BALL_RADIUS
    place = np.eye(4)
    # in its moving frame, it rotates about the axis that points outwards
    cos, sin = np.cos(-roll), np.sin(-roll)
    frame = np.stack([across, np.cross([0.0, 0.0, 1.0], across), [0.0, 0.0, 1.0]], axis=-1)
    place[:3, :3] = frame @ np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    place[:3, 3] = BALL_DISTANCE * across + np.array([0.0, 0.0, FLOOR + BALL_RADIUS])
    bands = Checker(hsv(hue + 0.3, 0.85, 0.9), hsv(hue + 0.75, 0.7, 0.35), 0.17, (0.03, 0.05, 0.02))
    return SceneObject(sphere(BALL_RADIUS, rings=32, segments=64), Material(bands), place)


def _body(hue: float, lean: float, time: float) -> SceneObject:
    """A rounded column, its foot fixed, that bends to one side and grows taller and thinner at constant volume."""
    rest = sphere(1.0, rings=48, segments=64)
    height = 0.5 * BODY_HEIGHT * (rest.vertices[:, 2] + 1.0)
    points = np.column_stack([BODY_RADIUS * rest.vertices[:, :2], height])
    # a superellipsoid is blunter than an ellipsoid: fuller where it stands
    points[:, :2] *= 1.0 + 0.35 * (1.0 - rest.vertices[:, 2:] ** 2)
    stretch = 1.0 + 0.25 * time
    bent = points * np.array([stretch**-0.5, stretch**-0.5, stretch])
    bend = 0.55 * np.sin(np.pi * time) * (bent[:, 2] / (BODY_HEIGHT * 1.25)) ** 2
    bent[:, :2] += bend[:, None] * np.array([np.cos(lean), np.sin(lean)])
    mesh = Mesh(bent, smooth_normals(bent, rest.faces), rest.faces)
    spiral = Stripes(hsv(hue + 0.9, 0.85, 0.85), hsv(hue + 0.15, 0.35, 0.95), (0.6, 0.2, 1.0), 0.26)
    return SceneObject(mesh, Material(spiral), _placed(0.0, 0.0, FLOOR - 0.05), rest=points)
