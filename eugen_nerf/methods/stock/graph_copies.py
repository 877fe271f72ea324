"""Which stock models have a copy among ours, whose fields are graphs of layers."""

from __future__ import annotations

from nerfstudio.models.base_model import Model

from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.stock.nerf_copy import is_stock_nerf, nerf_copy
from eugen_nerf.methods.stock.nerfacto_copy import is_stock_nerfacto, nerfacto_copy


def has_graph_copy(model: Model) -> bool:
    """Whether `graph_copy` makes one."""
    return is_stock_nerf(model) or is_stock_nerfacto(model)


def graph_copy(model: Model) -> GraphModel | None:
    """A model of ours that renders as a stock one does, in evaluation mode, its weights copied.

    Args:
        model: of any method.

    Returns:
        None where there is none: for models of ours, of networks of tinycudann, and of methods other than vanilla-nerf,
        dnerf and nerfacto.
    """
    if is_stock_nerf(model):
        return nerf_copy(model)
    return nerfacto_copy(model) if is_stock_nerfacto(model) else None
