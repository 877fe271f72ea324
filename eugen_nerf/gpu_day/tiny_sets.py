"""Tiny generated data sets under the names of the real ones, for a dry run."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from eugen_nerf.data.dynamic import DynamicConfig, generate_dynamic
from eugen_nerf.data.scan import RoomConfig, generate_room
from eugen_nerf.data.scene import SceneConfig, generate_scene

SIDE = 16
"""Pixels along each side of an image."""


def write_tiny_sets(folder: Path) -> None:
    """lego, dnerf-lego-tiny, 7scenes-kitchen, and the still life in nerfstudio's format as fox and as garden."""
    counts = {"resolution": SIDE, "num_train": 4, "num_val": 1, "num_test": 1, "supersample": 1}
    still = generate_scene(folder / "lego", SceneConfig(**counts))
    generate_dynamic(folder / "dnerf-lego-tiny", DynamicConfig(**counts))
    generate_room(folder / "7scenes-kitchen", RoomConfig(num_objects=1, num_frames=10, resolution=(SIDE, 12)))
    for name in ("fox", "garden"):
        write_capture(still, folder / name)


def write_capture(blender: Path, target: Path) -> None:
    """The views of a Blender-format data set in nerfstudio's format, without transparency."""
    (target / "images").mkdir(parents=True)
    document: dict[str, object] = {"camera_model": "OPENCV", "k1": 0.01, "k2": 0.0, "p1": 0.0, "p2": 0.0}
    frames = []
    for split in ("train", "val", "test"):
        content = json.loads((blender / f"transforms_{split}.json").read_text(encoding="utf8"))
        for frame in content["frames"]:
            source = blender / f"{frame['file_path']}.png"
            name = f"images/{split}_{source.stem}.png"
            with Image.open(source) as image:
                width, height = image.size
                image.convert("RGB").save(target / name)
            frames.append({"file_path": name, "transform_matrix": frame["transform_matrix"]})
            document.setdefault(f"{split}_filenames", []).append(name)  # type: ignore[attr-defined]
    lens = {"fl_x": 1.4 * width, "fl_y": 1.4 * width, "cx": width / 2, "cy": height / 2, "w": width, "h": height}
    (target / "transforms.json").write_text(json.dumps({**document, **lens, "frames": frames}), encoding="utf8")
