"""The fields of a stock nerfacto copied: hash grids, layers and appearance, each as it is evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from nerfstudio.field_components.encodings import HashEncoding, SHEncoding
from nerfstudio.fields.density_fields import HashMLPDensityField
from nerfstudio.fields.nerfacto_field import NerfactoField
from nerfstudio.models.nerfacto import NerfactoModel
from torch import Tensor, nn

from eugen_nerf.core import DenseLinear, HashGrid, LayerGraph
from eugen_nerf.core.encodings.cube_encodings import VERTEX_SHIFT, CubeEncoding, SphericalEncoding
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.methods.stock.copied_hash import CopiedHashField


def stock_networks(model: NerfactoModel) -> list[object]:
    """All networks of a stock nerfacto that rendering evaluates; None for one whose grid is not of PyTorch."""
    bases = [_after_grid(p.mlp_base) for p in model.proposal_networks if not p.use_linear]
    return [_after_grid(getattr(model.field.mlp_base, "model", None)), model.field.mlp_head, *bases]


def _after_grid(module: object) -> object:
    """The network of a hash encoding and a network, both of PyTorch; None for what is made otherwise."""
    if not isinstance(module, nn.Sequential) or getattr(module[0], "tcnn_encoding", True) is not None:
        return None
    return module[1]


def copied_proposal(stock: HashMLPDensityField) -> CopiedHashField:
    """A stock proposal as a graph."""
    linears = _linears(stock.linear if stock.use_linear else stock.mlp_base)
    layers, wiring = _trunk(linears[:-1])
    previous = list(layers)[-1] if layers else 0
    layers["density"], wiring["density"] = _dense(linears[-1], "identity"), [previous]
    network = LayerGraph(layers, wiring, (linears[0].in_features,), ("density",))
    return CopiedHashField(network, _cube(stock.encoding, stock), None, _bias(stock))


def copied_colours(stock: NerfactoField) -> CopiedHashField:
    """The stock field as a graph: its appearance, which evaluation has the same everywhere, goes into a bias."""
    linears, heads = _linears(stock.mlp_base), _linears(stock.mlp_head)
    layers, wiring = _trunk(linears[:-1])
    previous = list(layers)[-1] if layers else 0
    weight, bias = linears[-1].weight, linears[-1].bias
    for name, rows in (("density", slice(0, 1)), ("geometry", slice(1, None))):
        layers[name], wiring[name] = _layer(weight[rows], bias[rows], "identity"), [previous]
    assert isinstance(stock.direction_encoding, SHEncoding)
    direction = SphericalEncoding(stock.direction_encoding.levels)
    varying = direction.out_features + stock.geo_feat_dim
    first = heads[0]
    folded = first.bias + first.weight[:, varying:] @ _appearance(stock)
    reads: list[int | str] = [1, "geometry"]
    for number, linear in enumerate(heads):
        last = number == len(heads) - 1
        name, function = ("rgb", "identity") if last else (f"head_{number}", "relu")
        columns, offset = (linear.weight[:, :varying], folded) if number == 0 else (linear.weight, linear.bias)
        layers[name], wiring[name], reads = _layer(columns, offset, function), reads, [name]
    widths = (linears[0].in_features, direction.out_features)
    network = LayerGraph(layers, wiring, widths, ("density", "rgb"))
    encoding = stock.mlp_base.model[0]
    assert isinstance(encoding, HashEncoding)
    return CopiedHashField(network, _cube(encoding, stock), direction, _bias(stock))


def _linears(network: nn.Module) -> list[nn.Linear]:
    """Its linear layers, in order."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def _trunk(linears: Sequence[nn.Linear]) -> tuple[dict[str, FeatureLayer], dict[str, list[int | str]]]:
    """Layers with ReLU, one after another, and their wiring."""
    layers: dict[str, FeatureLayer] = {}
    wiring: dict[str, list[int | str]] = {}
    for number, linear in enumerate(linears):
        layers[f"trunk_{number}"] = _dense(linear, "relu")
        wiring[f"trunk_{number}"] = [f"trunk_{number - 1}" if number else 0]
    return layers, wiring


def _dense(linear: nn.Linear, function: str) -> DenseLinear:
    return _layer(linear.weight, linear.bias, function)


@torch.no_grad()
def _layer(weight: Tensor, bias: Tensor, function: str) -> DenseLinear:
    layer = DenseLinear(weight.shape[1], weight.shape[0], function).to(weight)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def _appearance(stock: NerfactoField) -> Tensor:
    """What evaluation appends to the inputs of every colour, `[appearance]`."""
    embedding = stock.embedding_appearance
    if embedding is None:
        return torch.zeros(0, device=stock.aabb.device)
    mean: Tensor = embedding.mean(dim=0)
    return mean if stock.use_average_appearance_embedding else torch.zeros_like(mean)


def _bias(stock: NerfactoField | HashMLPDensityField) -> float:
    return math.log(stock.average_init_density)


def _cube(stock: HashEncoding, field: NerfactoField | HashMLPDensityField) -> CubeEncoding:
    return CubeEncoding(copied_grid(stock), None if field.spatial_distortion is not None else field.aabb.clone())


@torch.no_grad()
def copied_grid(stock: HashEncoding) -> HashGrid:
    """The features of a stock encoding in PyTorch, which hashes every level; here levels that fit are dense.

    Args:
        stock: with a table of its own.
    """
    resolutions = tuple(int(scaling) + 1 for scaling in stock.scalings)
    grid = HashGrid(resolutions, stock.features_per_level, stock.log2_hashmap_size, shift=VERTEX_SHIFT)
    table, levels = torch.empty_like(grid.table), stock.hash_table.split(stock.hash_table_size)
    for ours, theirs, n, hashed in zip(table.split(grid.sizes), levels, resolutions, grid.hashed, strict=True):
        if hashed:
            ours.copy_(theirs)
        else:
            x, y, z = torch.cartesian_prod(*[torch.arange(n)] * 3).flip(1).unbind(dim=1)  # the first varies fastest
            rows = (x ^ (y * 2654435761) ^ (z * 805459861)) % stock.hash_table_size
            ours.zero_()
            ours[: n**3] = theirs[rows.to(theirs.device)]
    grid.table = nn.Parameter(table)
    return grid
