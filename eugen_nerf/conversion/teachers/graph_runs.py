"""A run this project can convert: ours as they are, stock vanilla-nerf and dnerf copied into dense models of ours."""

from __future__ import annotations

import copy

from nerfstudio.engine.trainer import TrainerConfig

from eugen_nerf.conversion.teachers.stock_copy import copy_stock
from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.stock.nerf_copy import is_stock_nerf


def has_graphs(run: Run) -> bool:
    """Whether `graph_model` takes a run: of other methods, linear layers are converted one by one."""
    return isinstance(run.trained_model, GraphModel) or is_stock_nerf(run.trained_model)


def graph_model(run: Run) -> tuple[TrainerConfig, GraphModel]:
    """The run's model as a `GraphModel`, and a trainer configuration that describes it.

    Args:
        run: of any method of ours, or stock vanilla-nerf or dnerf.

    Raises:
        RunError: a run of another method.
    """
    model = run.trained_model
    if isinstance(model, GraphModel):
        return copy.deepcopy(run.config), model
    if is_stock_nerf(model):
        return copy_stock(run, model)
    raise RunError(
        f"{run.path} is a run of {run.config.method_name}, whose fields are no graphs of layers: its "
        "linear layers are converted one by one"
    )
