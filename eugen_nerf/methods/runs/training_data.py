"""What a run remembers of the data it was trained on, so that another scene's is refused.

Every image of a run with another scene's cameras is wrong, and no weight says so. `training_data.json` beside
`config.yml` has where some training cameras are, and the colours of some photographs; nerfstudio's own
`dataparser_transforms.json` has where the scene was moved to.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.pipelines.base_pipeline import Pipeline
from torch import Tensor

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.errors import RunError

TRAINING_DATA, TRANSFORMS = "training_data.json", "dataparser_transforms.json"
_CAMERAS, _IMAGES, _SIDE = 32, 3, 4
"""Cameras that are kept, photographs that are kept, and cells along each side of such a photograph."""
_MOVED = 1e-3
"""Of the cameras' extent: other platforms differ by far less, other scenes by far more."""
_OTHER_COLOURS = 0.08
"""Mean difference of cells, of colours from 0 to 1; the same photographs at a quarter of the size differ by 0.01."""


def training_data(pipeline: Pipeline) -> dict[str, Any] | None:
    """Plain data that tell a pipeline's training views from another scene's; None where its parser is not known."""
    outputs = getattr(pipeline.datamanager, "train_dataparser_outputs", None)
    if not isinstance(outputs, DataparserOutputs):
        return None
    positions = outputs.cameras.camera_to_worlds[:, :3, 3].double().cpu()
    return {
        "version": 1,
        "cameras": len(positions),
        "positions": positions[_spread(len(positions), _CAMERAS)].tolist(),
        "colours": _colours(pipeline, outputs),
    }


def training_data_files(pipeline: Pipeline) -> dict[str, str]:
    """What a run trained or made on a pipeline's data keeps beside its `config.yml`: texts by file name."""
    content = training_data(pipeline)
    return {} if content is None else {TRAINING_DATA: json.dumps(content)}


def write_training_data(pipeline: Pipeline, folder: Path) -> None:
    """Writes `training_data.json` into a run's folder; raises `RunError` where that fails."""
    for name, text in training_data_files(pipeline).items():
        try:
            with atomic_path(folder / name, replace=True) as partial:
                partial.write_text(text, encoding="utf8")
        except OSError as error:
            raise RunError(f"cannot write {folder / name}: {error.strerror}; free some space") from error


def check_training_data(pipeline: Pipeline, folder: Path) -> None:
    """Refuses data that a run was not trained on, as far as the files in its folder tell.

    Args:
        pipeline: set up with the data.
        folder: of the run's `config.yml`; without the two files anything passes.

    Raises:
        RunError: another scene, or a file that says nothing of a scene.
    """
    outputs = getattr(pipeline.datamanager, "train_dataparser_outputs", None)
    if not isinstance(outputs, DataparserOutputs):
        return
    if saved := _read(folder / TRANSFORMS):
        mine = [*outputs.dataparser_transform.flatten().tolist(), outputs.dataparser_scale]
        theirs = _numbers(saved, ("transform", "scale"), folder / TRANSFORMS)
        if len(theirs) != 13:
            raise _damaged(folder / TRANSFORMS)
        if _differ(torch.tensor(mine).double(), torch.tensor(theirs).double()):
            raise _another(folder / TRANSFORMS, "its cameras are placed elsewhere or at another scale")
    if saved := _read(folder / TRAINING_DATA):
        path, now = folder / TRAINING_DATA, training_data(pipeline)
        assert now is not None
        there, here = (torch.tensor(_numbers(each, ("positions",), path)).double() for each in (saved, now))
        if saved.get("cameras") != now["cameras"]:
            raise _another(path, f"it has {now['cameras']} training cameras, the run's had {saved.get('cameras')}")
        if there.shape != here.shape:
            raise _damaged(path)
        if _differ(here, there):
            raise _another(path, "its training cameras are at other places")
        there, here = (torch.tensor(_numbers(each, ("colours",), path)) for each in (saved, now))
        if there.numel() and there.shape == here.shape and float((there - here).abs().mean()) > _OTHER_COLOURS:
            raise _another(path, "its photographs have other colours")


def _spread(count: int, most: int) -> list[int]:
    """At most so many indices, from the first to the last."""
    return [round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(min(count, most))]


def _colours(pipeline: Pipeline, outputs: DataparserOutputs) -> list[list[float]]:
    """Mean colours of the cells of some training photographs; none of those that are not read or not there."""
    dataset = getattr(pipeline.datamanager, "train_dataset", None)
    used = "depth_filenames" not in outputs.metadata and getattr(pipeline, "test_mode", "val") != "inference"
    if dataset is None or not used or not all(path.is_file() for path in outputs.image_filenames):
        return []
    cells = []
    for index in _spread(len(outputs.image_filenames), _IMAGES):
        image: Tensor = dataset.get_image_float32(index).permute(2, 0, 1)
        colour = image[:3] * image[3:4] if len(image) == 4 else image[:3]
        cells.append([round(x, 3) for x in torch.nn.functional.adaptive_avg_pool2d(colour, _SIDE).flatten().tolist()])
    return cells


def _differ(mine: Tensor, theirs: Tensor) -> bool:
    """Whether the largest difference is more than rounding, as a share of the largest value."""
    scale = max(1e-6, float(theirs.abs().max()))
    return float((mine - theirs).abs().max()) > _MOVED * scale


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict) or not content:
        raise _damaged(path)
    return content


def _numbers(content: dict[str, Any], keys: tuple[str, ...], path: Path) -> list[float]:
    """All numbers under some keys, in their order."""
    waiting, found = [content.get(key) for key in reversed(keys)], []
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and _finite(value):
            found.append(float(value))
        else:
            raise _damaged(path)
    return found


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def _damaged(path: Path) -> RunError:
    return RunError(f"{path} is damaged: copy it from where the run was trained, or remove it to open the run without")


def _another(path: Path, what: str) -> RunError:
    return RunError(
        f"this is not the data that the run was trained on: {what}; give that data with --data (what is known of it is "
        f"in {path}: without that file any data are taken)"
    )
