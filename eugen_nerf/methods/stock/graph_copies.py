"""Which stock models have a copy among ours, whose fields are graphs of layers."""

from __future__ import annotations

from nerfstudio.models.base_model import Model

from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.stock.nerf_copy import is_stock_nerf, nerf_copy


def graph_copy(model: Model) -> GraphModel | None:
    """A model of ours that renders as a stock one does, in evaluation mode, its weights copied.

    Args:
        model: of any method.

    Returns:
        None where there is none: models of ours, and of methods other than vanilla-nerf and dnerf.
    """
    return nerf_copy(model) if is_stock_nerf(model) else None
