"""The photographs that renders are scored against, and the images that any method has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from eugen_nerf.core.errors import DataError
from eugen_nerf.evaluation.images.view_rendering import eval_dataset, images_hash, poses_hash
from eugen_nerf.methods.runs.image_metrics import Image8, quantise
from eugen_nerf.methods.runs.loading import Run


def ground_truth(run: Run, indices: Sequence[int]) -> list[Image8]:
    """The photographs of evaluation views, uint8 [H, W, 3], composited as the data set does.

    Where the data set leaves alpha in place (``alpha_color`` unset), the model's renderer supplies the background.
    """
    dataset = eval_dataset(run)
    return [quantise(composite(run, dataset.get_image_float32(index))) for index in indices]


def composite(run: Run, image: torch.Tensor) -> torch.Tensor:
    """An image without alpha: float [H, W, 3] from float [H, W, 3 or 4].

    A model without a fixed background (`random`, `last_sample`) was trained to leave transparent pixels black, as
    nerfstudio's loss has it.

    Raises:
        DataError: there is alpha, and the model has no renderer of colours to composite it with.
    """
    if image.shape[-1] == 3:
        return image
    renderer = getattr(run.model, "renderer_rgb", None)
    if renderer is None:
        raise DataError(
            f"{run.path}: images have alpha, and neither the data set nor the model composites it; convert them to RGB"
        )
    return renderer.blend_background(image)


def shared_truth(runs: Sequence[Run], names: Sequence[str], indices: Sequence[int]) -> list[Image8]:
    """The ground truth of the views, after checking that every run has these very views.

    Raises:
        DataError: two runs differ in the number, the size, the cameras or the photographs of their views.
    """
    truth = ground_truth(runs[0], indices)
    count, poses, images = len(eval_dataset(runs[0])), poses_hash(runs[0], indices), images_hash(truth)
    for name, run in zip(names[1:], runs[1:], strict=True):
        problem = None
        if len(eval_dataset(run)) != count:
            problem = f"{count} and {len(eval_dataset(run))} views"
        else:
            own = ground_truth(run, indices)
            sizes = [(first.shape[:2], second.shape[:2]) for first, second in zip(truth, own, strict=True)]
            different = [pair for pair in sizes if pair[0] != pair[1]]
            if different:
                problem = f"images of {_size(different[0][0])} and {_size(different[0][1])} pixels"
            elif poses_hash(run, indices) != poses:
                problem = "other camera poses (another scene, another order, or other pose scaling)"
            elif images_hash(own) != images:
                problem = "other photographs (another scene, or another background colour)"
        if problem:
            raise DataError(f"runs {names[0]!r} and {name!r} cannot be compared, their test views differ: {problem}")
    return truth


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def baseline_images(run: Run, truth: Sequence[Image8], notes: list[str]) -> dict[str, list[Image8]]:
    """What any method has to beat: the mean of the training images, and white, once for each view.

    Where training and test images differ in size, the mean image is a plane of the mean colour, and ``notes`` says so.
    """
    training = run.pipeline.datamanager.train_dataset
    assert training is not None  # the pipeline was built from it
    total, colour, alike = None, np.zeros(3), True
    for index in range(len(training)):
        image = composite(run, training.get_image_float32(index)).double()
        colour += image.mean(dim=(0, 1)).numpy() / len(training)
        alike = alike and all(tuple(image.shape) == view.shape for view in truth)
        if alike:
            total = image if total is None else total + image
    if alike and total is not None:
        mean = quantise(total / len(training))
        means = [mean for _ in truth]
    else:
        notes.append("mean-image: training and test images differ in size, so it is the mean training colour")
        rounded = np.floor(np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)
        means = [np.broadcast_to(rounded, view.shape).copy() for view in truth]
    return {"mean-image": means, "white": [np.full_like(view, 255) for view in truth]}
