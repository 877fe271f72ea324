"""The demonstration scene: a still life on a bumpy plate whose layout, colours, textures and light depend on a seed.

World units, z up; everything lies within [-1.2, 1.2]^3 and within 1.7 of the origin, where nerfstudio's near and far
planes for Blender scenes (2 and 6, cameras at distance 4) enclose it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eugen_nerf.data.synthetic.meshes import (
    Array,
    Mesh,
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
from eugen_nerf.data.synthetic.ray_casting import Light, Scene, SceneObject
from eugen_nerf.data.synthetic.textures import (
    Checker,
    Color,
    Material,
    Noise,
    PlainColour,
    Product,
    Stripes,
    hsv,
    random_noise,
)

PLATE_RADIUS = 1.16
FLOOR = -0.52
RING_RADIUS = 0.80


def demo_scene(seed: int) -> Scene:
    """The scene for a seed: a plate, a specular torus knot on a pedestal and six objects in a shuffled ring around it.

    Arguments:
        seed: non-negative; the same seed gives the same scene.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    hue = float(rng.uniform())
    objects = [_plate(rng, hue), *_centre_piece(rng, hue)]
    makers: list[Callable[[np.random.Generator, float], list[tuple[Mesh, Material]]]] = [
        _boulder,
        _twisted_boxes,
        _tower,
        _ring,
        _railing,
        _bowling,
    ]
    start = rng.uniform(0.0, 2.0 * np.pi)
    for slot, which in enumerate(rng.permutation(len(makers))):
        angle = start + 2.0 * np.pi * (slot + rng.uniform(-0.1, 0.1)) / len(makers)
        place = _placed(RING_RADIUS * np.cos(angle), RING_RADIUS * np.sin(angle), FLOOR, turn=angle)
        parts = makers[which](rng, hue + (slot + 0.5) / len(makers))
        objects += [SceneObject(mesh, material, place) for mesh, material in parts]
    azimuth, elevation = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.75, 0.95)
    flat = np.cos(elevation)
    direction = (float(flat * np.cos(azimuth)), float(flat * np.sin(azimuth)), float(np.sin(elevation)))
    return Scene(tuple(objects), Light(direction))


def _placed(x: float, y: float, z: float, *, turn: float) -> Array:
    """Object-to-world matrix [4, 4]: a rotation around z by `turn` radians, then a translation."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:3, 3] = (x, y, z)
    return matrix


def _turned(mesh: Mesh, axis: int, angle: float) -> Mesh:
    """The mesh rotated by `angle` radians around a coordinate axis (0: x, 1: y, 2: z)."""
    u, v = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[[u, u, v, v], [u, v, u, v]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return Mesh(mesh.vertices @ matrix.T, mesh.normals @ matrix.T, mesh.faces)


def _plate(rng: np.random.Generator, hue: float) -> SceneObject:
    """The base: a round plate with a wavy top, large checks shaded by noise."""
    waves = rng.normal(size=(6, 2)) * 5.0
    phases = rng.uniform(0.0, 2.0 * np.pi, size=6)

    def height(xy: Array) -> Array:
        bumps = np.sin(xy @ waves.T + phases).mean(-1)
        rim = np.clip((np.linalg.norm(xy, axis=-1) - 0.9 * PLATE_RADIUS) / (0.1 * PLATE_RADIUS), 0.0, 1.0)
        return 0.06 * bumps * (1.0 - rim) + 0.05 * rim**2

    checks = Checker(hsv(hue + 0.55, 0.75, 0.36), hsv(hue + 0.08, 0.35, 0.88), 0.29, (0.0, 0.0, 50.0))
    grain = random_noise(rng, (1.0, 1.0, 1.0), (0.35, 0.30, 0.30), wavelength=0.45)
    turn = float(rng.uniform(0.0, np.pi))
    return SceneObject(
        plate(PLATE_RADIUS, 0.14, height), Material(Product(checks, grain)), _placed(0.0, 0.0, FLOOR, turn=turn)
    )


def _centre_piece(rng: np.random.Generator, hue: float) -> list[SceneObject]:
    """A pedestal with a shiny (2, 3) torus knot above it: the part with view-dependent colour."""
    profile = [(0.0, -0.1), (0.34, -0.1), (0.30, 0.10), (0.14, 0.20), (0.12, 0.38), (0.24, 0.46), (0.0, 0.48)]
    bands = Stripes(hsv(hue + 0.1, 0.6, 0.85), hsv(hue + 0.62, 0.8, 0.30), (0.0, 0.0, 1.0), 0.16)
    knot = _turned(torus_knot(2, 3, 0.29, 0.095), 0, 0.45 * np.pi)
    color = random_noise(rng, hsv(hue + 0.02, 0.9, 0.80), hsv(hue + 0.16, 0.85, 0.95), wavelength=0.5)
    turn = float(rng.uniform(0.0, 2.0 * np.pi))
    return [
        SceneObject(revolved(profile), Material(bands), _placed(0.0, 0.0, FLOOR, turn=turn)),
        SceneObject(knot, Material(color, specular=1.1, shininess=24.0), _placed(0.0, 0.0, FLOOR + 0.93, turn=turn)),
    ]


def _boulder(rng: np.random.Generator, hue: float) -> list[tuple[Mesh, Material]]:
    """A sphere with veins of noise."""
    veins: Noise = random_noise(
        rng, hsv(hue, 0.85, 0.75), hsv(hue + 0.45, 0.5, 0.22), wavelength=0.22, waves=10, contrast=4.0
    )
    return [(moved(sphere(0.27), (0.0, 0.0, 0.24)), Material(veins))]


def _twisted_boxes(rng: np.random.Generator, hue: float) -> list[tuple[Mesh, Material]]:
    """Three boxes on top of one another, each turned against the one below."""
    twist = float(rng.uniform(0.3, 0.6))
    parts = []
    bottom = -0.06
    for level, size in enumerate((0.40, 0.30, 0.20)):
        mesh = moved(_turned(box((size, size, 0.24)), 2, twist * level), (0.0, 0.0, bottom + 0.12))
        colors: tuple[Color, Color] = (hsv(hue + 0.12 * level, 0.8, 0.9), hsv(hue + 0.12 * level + 0.5, 0.7, 0.25))
        parts.append((mesh, Material(Checker(*colors, 0.125 - 0.02 * level, (0.01, 0.02, 0.03)))))
        bottom += 0.24
    return parts


def _tower(rng: np.random.Generator, hue: float) -> list[tuple[Mesh, Material]]:
    """A striped cylinder under a pointed roof, a turret at its side."""
    tilt = float(rng.uniform(0.4, 0.9))
    spiral = Stripes(hsv(hue, 0.15, 0.93), hsv(hue, 0.9, 0.55), (tilt, 0.3, 1.0), 0.17, sharpness=9.0)
    walls = merge([moved(cylinder(0.15, 0.62), (0, 0, -0.06)), moved(cylinder(0.08, 0.36), (0.19, 0.06, -0.06))])
    roofs = merge([moved(cone(0.21, 0.30), (0, 0, 0.56)), moved(cone(0.12, 0.20), (0.19, 0.06, 0.30))])
    tiles = Stripes(hsv(hue + 0.5, 0.85, 0.45), hsv(hue + 0.55, 0.6, 0.80), (0.0, 0.0, 1.0), 0.09)
    return [(walls, Material(spiral)), (roofs, Material(tiles))]


def _ring(rng: np.random.Generator, hue: float) -> list[tuple[Mesh, Material]]:
    """An upright torus with a ball in its middle."""
    lean = float(rng.uniform(-0.3, 0.3))
    hoop = moved(_turned(_turned(torus(0.23, 0.075), 0, 0.5 * np.pi), 2, lean), (0.0, 0.0, 0.27))
    rings = Checker(hsv(hue, 0.9, 0.85), hsv(hue + 0.3, 0.2, 0.95), 0.12, (0.03, 0.06, 0.05))
    ball = moved(sphere(0.10, rings=24, segments=48), (0.0, 0.0, 0.27))
    return [(hoop, Material(rings)), (ball, Material(PlainColour(hsv(hue + 0.6, 0.8, 0.20)), 0.4, 40.0))]


def _railing(rng: np.random.Generator, hue: float) -> list[tuple[Mesh, Material]]:
    """Thin parts: posts under two beams."""
    count = 5
    heights = 0.42 + rng.uniform(-0.02, 0.12, size=count)
    spots = np.linspace(-0.28, 0.28, count)
    posts = merge(
        [
            moved(cylinder(0.022, float(h) + 0.06, segments=16), (0.0, float(y), -0.06))
            for y, h in zip(spots, heights, strict=True)
        ]
    )
    knobs = merge(
        [
            moved(sphere(0.05, rings=16, segments=32), (0.0, float(y), float(h)))
            for y, h in zip(spots, heights, strict=True)
        ]
    )
    beams = merge([moved(box((0.035, 0.64, 0.045)), (0.0, 0.0, z)) for z in (0.16, 0.34)])
    return [
        (posts, Material(PlainColour(hsv(hue, 0.5, 0.25)))),
        (knobs, Material(PlainColour(hsv(hue + 0.1, 0.9, 0.95)))),
        (beams, Material(Stripes(hsv(hue, 0.7, 0.6), hsv(hue + 0.5, 0.3, 0.95), (0.0, 1.0, 0.0), 0.16))),
    ]


def _bowling(rng: np.random.Generator, hue: float) -> list[tuple[Mesh, Material]]:
    """Three balls of different size leaning on one another."""
    spin = float(rng.uniform(0.0, 2.0 * np.pi))
    parts = []
    for index, (radius, distance) in enumerate(((0.17, 0.15), (0.13, 0.17), (0.10, 0.18))):
        angle = spin + 2.2 * index
        center = (distance * float(np.cos(angle)), distance * float(np.sin(angle)), radius - 0.03)
        bands = Stripes(
            hsv(hue + 0.2 * index, 0.85, 0.85),
            hsv(hue + 0.2 * index + 0.5, 0.6, 0.25),
            (float(np.cos(angle)), 0.5, 0.7),
            0.14,
        )
        parts.append((moved(sphere(radius, rings=32, segments=64), center), Material(bands)))
    return parts
