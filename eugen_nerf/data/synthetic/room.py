"""A room of solids with its exact signed distance, and its file format.

Metres, z up, the floor at z = 0, the room's middle over the origin. The signed distance is positive in free space and
negative in walls and objects, as in the methods; it is exact in free space (see `solids.py`).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from eugen_nerf.core.checks.names import shown
from eugen_nerf.core.errors import DataError
from eugen_nerf.data.synthetic.solids import Array, Box, Cylinder, Solid, Sphere, Vector

ROOM_NAME = "room.json"
FORMAT_VERSION = 1
KINDS: dict[str, type[Solid]] = {"box": Box, "cylinder": Cylinder, "sphere": Sphere}
SURFACE_TOLERANCE = 1e-9  # metres: a point this near is on the surface, in float64


@dataclass(frozen=True)
class RoomPart:
    """One solid of an object: the name of the object, its shape, its colour (RGB in [0, 1])."""

    name: str
    solid: Solid
    color: Vector


@dataclass(frozen=True)
class Room:
    """A hollow box with solids in it.

    Attributes:
        walls: a box that contains all free space.
        parts: solids; they may overlap each other and the walls.
    """

    walls: Box
    parts: tuple[RoomPart, ...]

    def distance(self, points: Array) -> Array:
        """Signed distance [N] in metres at points [N, 3]; exact in free space."""
        nearest = -self.walls.distance(points)
        for part in self.parts:
            np.minimum(nearest, part.solid.distance(points), out=nearest)
        return nearest

    def distance_and_gradient(self, points: Array) -> tuple[Array, Array]:
        """Signed distance [N] and its gradient [N, 3] of unit length at points [N, 3]; exact in free space."""
        distance, gradient = self.walls.distance_and_gradient(points)
        distance, gradient = -distance, -gradient
        for part in self.parts:
            other, slope = part.solid.distance_and_gradient(points)
            nearer = other < distance
            distance = np.where(nearer, other, distance)
            gradient = np.where(nearer[:, None], slope, gradient)
        return distance, gradient

    def cast(self, origins: Array, directions: Array) -> tuple[Array, NDArrayInt]:
        """Casts rays that start in free space.

        Arguments:
            origins, directions: [N, 3]; directions need not be of unit length.

        Returns the distance [N] to the first surface in multiples of the direction, and the index [N] of its part, -1
        for walls.
        """
        nearest = self.walls.crossings(origins, directions)[1]
        index = np.full(len(origins), -1)
        for number, part in enumerate(self.parts):
            enter, _ = part.solid.crossings(origins, directions)
            nearer = (enter > 0.0) & (enter < nearest)
            nearest = np.where(nearer, enter, nearest)
            index[nearer] = number
        return nearest, index

    def surface_points(self, rng: np.random.Generator, count: int) -> Array:
        """Points [count, 3] uniform on the surface of free space.

        Drawn from all faces by area; points inside another solid or a wall are drawn again.
        """
        solids: list[Solid] = [self.walls, *(part.solid for part in self.parts)]
        areas = np.array([solid.area for solid in solids])
        kept: list[Array] = []
        missing = count
        while missing > 0:
            drawn = rng.multinomial(2 * missing, areas / areas.sum())
            points = np.concatenate([solid.surface_points(rng, n) for solid, n in zip(solids, drawn, strict=True)])
            points = points[np.abs(self.distance(points)) < SURFACE_TOLERANCE]
            points = points[rng.permutation(len(points))][:missing]
            kept.append(points)
            missing -= len(points)
        return np.concatenate(kept)


NDArrayInt = np.ndarray[Any, np.dtype[np.int64]]


def write_room(room: Room, path: Path) -> None:
    """Writes a room as plain data (JSON); raises OSError where that fails.

    Keys: `version`, `unit`, `walls` and `parts`; a solid has its `kind` (box, cylinder, sphere) and the fields of its
    class in `solids.py`.
    """
    document = {
        "version": FORMAT_VERSION,
        "unit": "metre",
        "walls": _solid_to_data(room.walls),
        "parts": [
            {"name": part.name, "color": list(part.color), "solid": _solid_to_data(part.solid)} for part in room.parts
        ],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_room(path: Path) -> Room:
    """Reads what `write_room` wrote, bit for bit the same numbers; raises `DataError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != FORMAT_VERSION:
            raise ValueError(f"version {shown(document['version'])}, not {FORMAT_VERSION}")
        walls = _solid_from_data(document["walls"])
        if not isinstance(walls, Box):
            raise ValueError("the walls are no box")
        parts = tuple(
            RoomPart(str(part["name"]), _solid_from_data(part["solid"]), _vector(part["color"]))
            for part in document["parts"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
        raise DataError(f"'{path}' is not a readable room ({reason}): make it again with eugen-data room") from error
    return Room(walls, parts)


def _solid_to_data(solid: Solid) -> dict[str, Any]:
    kind = next(name for name, type_ in KINDS.items() if type(solid) is type_)
    return {"kind": kind, **asdict(solid)}  # type: ignore[call-overload]


def _solid_from_data(data: dict[str, Any]) -> Solid:
    kind = KINDS[data["kind"]]
    vectors = {field.name for field in fields(kind) if field.type == "Vector"}  # type: ignore[arg-type]
    own = {key: value for key, value in data.items() if key != "kind"}
    solid = kind(**{key: _vector(value) if key in vectors else _number(value) for key, value in own.items()})
    sizes = [value for key in ("radius", "half", "half_height") for value in np.ravel(own.get(key, 1.0))]
    if min(sizes) <= 0:
        raise ValueError(f"a size of a {data['kind']} is {min(sizes):g}, not positive")
    return solid


def _vector(values: Any) -> Vector:
    x, y, z = (_number(value) for value in values)
    return x, y, z


def _number(value: Any) -> float:
    if isinstance(value, bool | str) or not math.isfinite(value):
        raise ValueError(f"{shown(value)} is no finite number")
    return float(value)
