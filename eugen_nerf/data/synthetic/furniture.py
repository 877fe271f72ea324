"""A furnished room by seed: pieces made of boxes, cylinders and balls, apart from each other and from a path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.data.synthetic.room import Room, RoomPart
from eugen_nerf.data.synthetic.solids import Array, Box, Cylinder, Sphere, Vector
from eugen_nerf.data.synthetic.textures import hsv

OVERLAP = 0.02
"""Overlap of pieces with floor and walls in metres, so that no two faces coincide."""
MIN_GAP = 0.06
"""Minimum distance between pieces, metres."""
MAX_TRIES = 400

Piece = tuple[list[RoomPart], float]
"""Parts around the origin, standing on the floor and facing +x, and the radius of the circle they occupy."""


def furnished_room(size: Vector, num_objects: int, path: Array, clearance: float, rng: np.random.Generator) -> Room:
    """A room of the given size with pieces placed at random.

    Arguments:
        size: width (x), depth (y) and height (z) in metres.
        num_objects: number of pieces; every other one stands against a wall.
        path: points [N, 3] in metres that must stay clear.
        clearance: minimum distance to the path, metres.
        rng: the same state gives the same room.

    Raises `ConfigError` if there is no space for a piece.
    """
    walls = Box((0.0, 0.0, 0.5 * size[2]), (0.5 * size[0], 0.5 * size[1], 0.5 * size[2]))
    hue = float(rng.uniform())
    parts: list[RoomPart] = []
    taken: list[tuple[float, float, float]] = []
    standing = [_FREE[i] for i in rng.permutation(len(_FREE))]
    leaning = [_AGAINST_WALL[i] for i in rng.permutation(len(_AGAINST_WALL))]
    for number in range(num_objects):
        kind, at_wall = number // 2, number % 2 == 0
        makers = leaning if at_wall else standing
        for _ in range(MAX_TRIES):
            piece, radius = makers[kind % len(makers)](rng, hue + number / num_objects)
            x, y, turn = _at_wall(rng, size, piece) if at_wall else _free(rng, size, radius)
            placed = [_moved(part, x, y, turn) for part in piece]
            crowded = any(np.hypot(x - a, y - b) < radius + r + MIN_GAP for a, b, r in taken)
            if not crowded and min(part.solid.distance(path).min() for part in placed) >= clearance:
                break
        else:
            raise ConfigError(
                f"{num_objects} objects do not fit into a room of {size[0]:g} x {size[1]:g} x {size[2]:g} m: give a "
                "smaller --num-objects, a larger --size, or another --seed"
            )
        parts += placed
        taken.append((x, y, radius))
    return Room(walls, tuple(parts))


def _free(rng: np.random.Generator, size: Vector, radius: float) -> tuple[float, float, float]:
    """A position (x, y in metres, rotation in radians) away from the walls."""
    x, y = rng.uniform(-1.0, 1.0, size=2) * (np.array(size[:2]) / 2 - radius - 0.1)
    return float(x), float(y), float(rng.uniform(0.0, 2.0 * np.pi))


def _at_wall(rng: np.random.Generator, size: Vector, piece: list[RoomPart]) -> tuple[float, float, float]:
    """A position with the piece's back (its lowest x) slightly inside one of the four walls."""
    turn = int(rng.integers(4))  # facing +x, +y, -x, -y
    back = -min(_lowest_x(part) for part in piece)
    away, along = size[turn % 2] / 2, size[1 - turn % 2] / 2 - 0.6
    normal = -(away - back + OVERLAP) * (1.0 if turn < 2 else -1.0)
    side = float(rng.uniform(-along, along))
    x, y = (normal, side) if turn % 2 == 0 else (side, normal)
    return x, y, turn * np.pi / 2


def _lowest_x(part: RoomPart) -> float:
    solid = part.solid
    assert isinstance(solid, Box | Cylinder | Sphere)
    return solid.center[0] - (solid.half[0] if isinstance(solid, Box) else solid.radius)


def _moved(part: RoomPart, x: float, y: float, turn: float) -> RoomPart:
    """The part rotated around the vertical axis, then moved horizontally."""
    solid = part.solid
    c, s = np.cos(turn), np.sin(turn)
    assert isinstance(solid, Box | Cylinder | Sphere)
    a, b, z = solid.center
    center = (float(x + c * a - s * b), float(y + s * a + c * b), z)
    if isinstance(solid, Box):
        return RoomPart(part.name, Box(center, solid.half, solid.yaw + turn), part.color)
    if isinstance(solid, Cylinder):
        return RoomPart(part.name, Cylinder(center, solid.radius, solid.half_height), part.color)
    return RoomPart(part.name, Sphere(center, solid.radius), part.color)


def _block(name: str, low: Vector, high: Vector, color: Vector, yaw: float = 0.0) -> RoomPart:
    """A box between two corners; one that starts at the floor extends into it."""
    bottom = low[2] - OVERLAP if low[2] == 0.0 else low[2]
    center = tuple((a + b) / 2 for a, b in zip((*low[:2], bottom), high, strict=True))
    half = tuple((b - a) / 2 for a, b in zip((*low[:2], bottom), high, strict=True))
    return RoomPart(name, Box(center, half, yaw), color)  # type: ignore[arg-type]


def _post(name: str, x: float, y: float, low: float, high: float, radius: float, color: Vector) -> RoomPart:
    """An upright cylinder; one that starts at the floor extends into it."""
    bottom = low - OVERLAP if low == 0.0 else low
    return RoomPart(name, Cylinder((x, y, (bottom + high) / 2), radius, (high - bottom) / 2), color)


def _table(rng: np.random.Generator, hue: float) -> Piece:
    a, b, height = rng.uniform(0.32, 0.45), rng.uniform(0.28, 0.38), rng.uniform(0.55, 0.75)
    wood, dark = hsv(hue, 0.5, 0.7), hsv(hue, 0.6, 0.4)
    legs = [_post("table", i * (a - 0.05), j * (b - 0.05), 0.0, height, 0.03, dark) for i in (-1, 1) for j in (-1, 1)]
    return [_block("table", (-a, -b, height - 0.04), (a, b, height), wood), *legs], float(np.hypot(a, b))


def _stool(rng: np.random.Generator, hue: float) -> Piece:
    radius, height = rng.uniform(0.18, 0.24), rng.uniform(0.42, 0.52)
    seat = _post("stool", 0.0, 0.0, height - 0.05, height, radius, hsv(hue, 0.8, 0.8))
    foot = _post("stool", 0.0, 0.0, 0.0, 0.04, radius * 0.8, hsv(hue, 0.2, 0.4))
    return [seat, foot, _post("stool", 0.0, 0.0, 0.0, height, 0.04, hsv(hue, 0.2, 0.5))], float(radius)


def _ball(rng: np.random.Generator, hue: float) -> Piece:
    radius = float(rng.uniform(0.18, 0.32))
    return [RoomPart("ball", Sphere((0.0, 0.0, radius - OVERLAP), radius), hsv(hue, 0.85, 0.85))], radius


def _crates(rng: np.random.Generator, hue: float) -> Piece:
    a, b = rng.uniform(0.22, 0.28), rng.uniform(0.14, 0.19)
    h = rng.uniform(0.34, 0.46)
    lower = _block("crates", (-a, -a, 0.0), (a, a, h), hsv(hue, 0.6, 0.75))
    top = h + rng.uniform(0.25, 0.35)
    upper = _block("crates", (-b, -b, h - OVERLAP), (b, b, top), hsv(hue + 0.1, 0.7, 0.6), float(rng.uniform(0.2, 0.7)))
    return [lower, upper], float(a * np.sqrt(2.0))


def _plant(rng: np.random.Generator, hue: float) -> Piece:
    pot, crown = rng.uniform(0.13, 0.18), rng.uniform(0.22, 0.28)
    leaves = RoomPart("plant", Sphere((0.0, 0.0, float(0.55 + crown)), float(crown)), hsv(0.33, 0.7, 0.5))
    stem = _post("plant", 0.0, 0.0, 0.3, 0.6, 0.03, hsv(0.1, 0.6, 0.4))
    return [_post("plant", 0.0, 0.0, 0.0, 0.32, pot, hsv(hue, 0.7, 0.7)), stem, leaves], float(crown)


def _shelf(rng: np.random.Generator, hue: float) -> Piece:
    width, deep, height = rng.uniform(0.35, 0.5), 0.15, rng.uniform(1.3, 1.8)
    wood = hsv(hue, 0.45, 0.65)
    sides = [
        _block("shelf", (-deep, s * width - 0.02, 0.0), (deep, s * width + 0.02, height), wood) for s in (-1.0, 1.0)
    ]
    levels = np.linspace(0.12, height - 0.03, 4)
    boards = [_block("shelf", (-deep, -width, z - 0.02), (deep, width, z + 0.02), wood) for z in levels]
    box = _block("shelf", (-0.1, -0.2, levels[1]), (0.1, 0.05, levels[1] + 0.22), hsv(hue + 0.4, 0.8, 0.7))
    back = _block("shelf", (-deep, -width, 0.0), (-deep + 0.03, width, height), hsv(hue, 0.45, 0.5))
    return [*sides, *boards, back, box], float(np.hypot(deep, width))


def _sofa(rng: np.random.Generator, hue: float) -> Piece:
    width, seat = rng.uniform(0.6, 0.8), rng.uniform(0.38, 0.44)
    cloth = hsv(hue, 0.55, 0.6)
    base = _block("sofa", (-0.4, -width, 0.0), (0.4, width, seat), cloth)
    back = _block("sofa", (-0.4, -width, 0.0), (-0.18, width, seat + 0.42), cloth)
    arms = [_block("sofa", (-0.4, s * width - 0.08, 0.0), (0.4, s * width + 0.08, seat + 0.2), cloth) for s in (-1, 1)]
    cushion = RoomPart("sofa", Sphere((0.0, float(width * 0.4), float(seat)), 0.16), hsv(hue + 0.5, 0.7, 0.8))
    return [base, back, *arms, cushion], float(np.hypot(0.4, width + 0.08))


def _cabinet(rng: np.random.Generator, hue: float) -> Piece:
    width, height = rng.uniform(0.4, 0.6), rng.uniform(0.7, 1.0)
    body = _block("cabinet", (-0.2, -width, 0.0), (0.2, width, height), hsv(hue, 0.4, 0.8))
    vase = _post("cabinet", 0.02, float(width * 0.5), height - OVERLAP, height + 0.28, 0.07, hsv(hue + 0.5, 0.8, 0.6))
    bowl = RoomPart("cabinet", Sphere((0.0, float(-width * 0.4), float(height + 0.08)), 0.13), hsv(hue + 0.3, 0.7, 0.9))
    return [body, vase, bowl], float(np.hypot(0.2, width))


def _lamp(rng: np.random.Generator, hue: float) -> Piece:
    height = rng.uniform(1.5, 1.75)
    pole = _post("lamp", 0.0, 0.0, 0.0, height, 0.025, hsv(hue, 0.1, 0.3))
    foot = _post("lamp", 0.0, 0.0, 0.0, 0.03, 0.16, hsv(hue, 0.1, 0.3))
    return [pole, foot, _post("lamp", 0.0, 0.0, height - 0.25, height, 0.17, hsv(0.13, 0.35, 0.95))], 0.2


_FREE: list[Callable[[np.random.Generator, float], Piece]] = [_table, _ball, _crates, _plant, _stool]
_AGAINST_WALL: list[Callable[[np.random.Generator, float], Piece]] = [_shelf, _sofa, _cabinet, _lamp]
