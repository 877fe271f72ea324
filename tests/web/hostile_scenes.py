"""Descriptions of scenes that are another program than a page's: what engines must refuse."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from eugen_nerf.web.scene_data import SceneData

HOSTILE = "relu; } @compute fn stolen() {"
CHANGES: list[tuple[tuple[Any, ...], Any]] = [
    (("field", "network", "steps", 0, "phi"), HOSTILE),
    (("field", "network", "steps", 0, "phi"), "constructor"),
    (("field", "density"), HOSTILE),
    (("field", "density_bias"), HOSTILE),
    (("field", "position", "kind"), HOSTILE),
    (("field", "network", "steps", 0, "degree"), 1e9),
    (("field", "network", "steps", 1, "reads"), [7]),
    (("renderer", "kind"), HOSTILE),
    (("renderer", "rate"), "1f; }"),
    (("renderer", "sides", 0), HOSTILE),
    (("info", "background"), ["0f); stolen(", 0, 0]),
    (("blocks", 0, 1), 1 << 40),
    (("version",), 99),
]
"""Where a description is changed, and what then stands there."""


def changed(data: SceneData, path: tuple[Any, ...], value: Any) -> SceneData:
    """A scene with another value at some place of its description."""
    description = copy.deepcopy(data.description)
    place = description
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return replace(data, description=description)
