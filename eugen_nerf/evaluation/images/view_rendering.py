"""Rendering the test views of a run, and their ground truth, as 8-bit images."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from rich.console import Console

from eugen_nerf.core.errors import DataError, RunError
from eugen_nerf.evaluation.stage_lines import counted
from eugen_nerf.fields.query_timing import synchronise
from eugen_nerf.methods.runs.image_metrics import Image8, quantise
from eugen_nerf.methods.runs.loading import Run


@dataclass(frozen=True)
class Rendered:
    """Renders of views: images uint8 [H, W, 3], and seconds each (one pass without warm-up: not the reported time)."""

    images: list[Image8]
    seconds: list[float]


def eval_dataset(run: Run):  # nerfstudio's InputDataset, or a plugin's own
    """The evaluation data set of a run.

    Raises:
        DataError: the data manager has none.
    """
    dataset = getattr(run.pipeline.datamanager, "eval_dataset", None)
    if dataset is None or len(dataset) == 0:
        raise DataError(f"{run.path}: the run's data manager has no evaluation views")
    return dataset


def view_camera(run: Run, index: int) -> Cameras:
    """The camera of one evaluation view on the pipeline's device, at the data manager's resolution."""
    return eval_dataset(run).cameras[index : index + 1].to(run.pipeline.device)


def render_rgb(run: Run, camera: Cameras) -> torch.Tensor:
    """Render one view: float [H, W, 3], from the output ``rgb`` or, where a model has none, ``rgb_fine``.

    Raises:
        RunError: the model emits neither.
    """
    outputs = run.model.get_outputs_for_camera(camera)
    for name in ("rgb", "rgb_fine"):
        if name in outputs:
            return outputs[name]
    raise RunError(f"{run.path}: the model emits neither `rgb` nor `rgb_fine`, only {', '.join(sorted(outputs))}")


def render_views(run: Run, indices: Sequence[int], *, label: str = "views", console: Console | None = None) -> Rendered:
    """Render evaluation views in turn, and say how far that is on ``console`` (standard error by default)."""
    images, seconds = [], []
    device = run.pipeline.device
    with counted(f"rendering {label}", len(indices), console) as done:
        for index in indices:
            camera = view_camera(run, index)
            synchronise(device)
            start = time.perf_counter()
            rgb = render_rgb(run, camera)
            synchronise(device)
            seconds.append(time.perf_counter() - start)
            images.append(quantise(rgb))
            done()
    return Rendered(images, seconds)


def poses_hash(run: Run, indices: Sequence[int]) -> str:
    """SHA-256 over the cameras of views: poses, intrinsics, sizes, and times where there are any."""
    cameras = eval_dataset(run).cameras
    digest = hashlib.sha256()
    for index in indices:
        camera = cameras[index]
        for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "distortion_params", "times"):
            value = getattr(camera, name)
            digest.update(name.encode())
            if value is not None:
                digest.update(np.ascontiguousarray(value.detach().cpu().double().numpy()).tobytes())
    return digest.hexdigest()


def images_hash(images: Sequence[Image8]) -> str:
    """SHA-256 over 8-bit images in their order, sizes included."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(str(image.shape).encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
