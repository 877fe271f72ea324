"""Empty space, carved from the training images' alpha before the first step of a run that starts from nothing."""

from __future__ import annotations

from functools import partial

from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE

from eugen_nerf.data.visual_hull import carve
from eugen_nerf.fields.occupancy import OccupancyGrid


def carve_before_training(grid: OccupancyGrid, attributes: TrainingCallbackAttributes) -> TrainingCallback:
    """What carves a grid's cells at the first step, unless some are empty already, as in a run that is resumed.

    Args:
        grid: of the model.
        attributes: as nerfstudio hands them to a model.
    """
    pipeline, done = attributes.pipeline, False

    def carve_once(step: int) -> None:
        nonlocal done
        if done or not grid.cells.all():
            done = True
            return
        done = True
        assert pipeline is not None
        dataset = pipeline.datamanager.train_dataset
        assert isinstance(dataset, InputDataset)
        grid.cells.copy_(carve(dataset, grid.aabb, grid.resolution, partial(CONSOLE.print, markup=False)))

    return TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], carve_once)
