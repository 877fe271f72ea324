"""From a model of ours to a bundle: its final field, collapsed, callable with points and without nerfstudio."""

from __future__ import annotations

from pathlib import Path

import torch

from eugen_nerf.core import BundledGraph, DistanceBundle, OffAxisEncoding, RadianceBundle, save_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_parts import Deformation, Occupancy
from eugen_nerf.core.encodings.cube_encodings import CubeEncoding, SphericalEncoding
from eugen_nerf.core.encodings.point_encodings import (
    BoxEncoding,
    ContractedEncoding,
    Encoding,
    PyramidEncoding,
)
from eugen_nerf.core.encodings.stored_grids import copy_grid
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.fields.deformation import DeformationField
from eugen_nerf.fields.encoders import FrustumEncoder, GaussianEncoder, MultisampleEncoder, plain_frequencies
from eugen_nerf.fields.graph_field import GraphField
from eugen_nerf.fields.hash import BoxEncoder, HashField
from eugen_nerf.fields.isdf import ISDFField
from eugen_nerf.fields.mipnerf360 import MipNeRF360Field
from eugen_nerf.fields.nerf import NeRFField
from eugen_nerf.fields.zipnerf import ZipNeRFField
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.nerf import EugenNerfModel
from eugen_nerf.methods.ngp import EugenNGPModel
from eugen_nerf.methods.stock.copied_hash import CopiedHashField


def bundle_of(model: GraphModel, name: str | None = None) -> BundledField:
    """A field of a model as a bundle, its networks collapsed; a copy, in evaluation mode.

    A field behind a deformation brings the deformation, a model with occupied cells the cells. A run of every width
    can be evaluated at each of them as a bundle too (`bundled_shares`); any other is as wide as it is evaluated now.

    Args:
        model: any of ours, dense or not.
        name: of one of `model.graph_fields()`; None is the last one, whose density and colour are rendered.

    Raises:
        ConfigError: no field of that name, or one that is no field on its own, as a deformation.
    """
    fields = model.graph_fields()
    chosen = list(fields)[-1] if name is None else name
    if chosen not in fields:
        raise ConfigError(f"there is no field {chosen!r}; there are {', '.join(fields)}")
    field = fields[chosen]
    if isinstance(field, DeformationField):
        others = ", ".join(n for n, f in fields.items() if not isinstance(f, DeformationField))
        raise ConfigError(f"{chosen!r} has offsets, no density: choose {others}, which bring it with them")
    # tensors made in inference mode could not be differentiated through later, as normals of a surface are
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(field, ISDFField):
            return _distance(field, model).eval()
        if isinstance(field, CopiedHashField):
            return _cube(field, model).eval()
        if isinstance(field, NeRFField | MipNeRF360Field | ZipNeRFField | HashField):
            return _radiance(field, model).eval()
    raise ConfigError(f"field {chosen!r} is a {type(field).__name__}, which bundles do not know")


def write_bundle(model: GraphModel, path: Path, onnx: bool = False) -> BundledField:
    """Writes the field that a model renders, and nothing that renders it, to a new folder; see `save_bundle`.

    Args:
        model: any of ours, dense or not.
        path: of a folder that does not exist yet.
        onnx: whether each network is written as ONNX as well, checked against torch.

    Returns:
        What was written.

    Raises:
        BundleError: the place is taken or cannot be written, a package is missing, or ONNX deviates from torch.
    """
    bundle = bundle_of(model)
    save_bundle(bundle, path, onnx=onnx)
    return bundle


def _distance(field: ISDFField, model: GraphModel) -> DistanceBundle:
    encoding = field.encoding
    position = OffAxisEncoding(encoding.phases.clone(), encoding.centre.clone(), encoding.scale)
    return DistanceBundle(position, _network(field, model), field.output_scale)


def _cube(field: CopiedHashField, model: GraphModel) -> RadianceBundle:
    stock, direction = field.encoder.cube, field.direction_encoding
    position = CubeEncoding(copy_grid(stock.grid), None if stock.aabb is None else stock.aabb.clone())
    towards = None if direction is None else SphericalEncoding(direction.levels)
    return RadianceBundle(position, _network(field, model), towards, density="exp", density_bias=field.density_bias)


def _radiance(field: NeRFField | MipNeRF360Field | ZipNeRFField | HashField, model: GraphModel) -> RadianceBundle:
    towards = field.direction_encoding
    density, bias, padding = "softplus", 0.0, 0.0
    if isinstance(field, NeRFField):
        position: Encoding = plain_frequencies(field.position_encoding)
    else:
        position, bias, padding = _frustum_encoding(field.encoder), field.density_bias, field.rgb_padding
        density = "exp" if isinstance(field, ZipNeRFField | HashField) else "softplus"
    return RadianceBundle(
        position,
        _network(field, model),
        None if towards is None else plain_frequencies(towards),
        density=density,
        density_bias=bias,
        colour_padding=padding,
        deformation=_deformation(model),
        occupancy=_occupancy(model),
    )


def _deformation(model: GraphModel) -> Deformation | None:
    fields = model.graph_fields()
    for name in model.displacing_fields():
        field = fields[name]
        assert isinstance(field, DeformationField)
        position, time = plain_frequencies(field.position_encoding), plain_frequencies(field.time_encoding)
        return Deformation(position, time, _network(field, model), field.anchored)
    return None


def _occupancy(model: GraphModel) -> Occupancy | None:
    grid = model.occupancy if isinstance(model, EugenNerfModel | EugenNGPModel) else None
    return None if grid is None else Occupancy(grid.cells.to(torch.uint8), grid.aabb.clone())


def _network(field: GraphField, model: GraphModel) -> BundledGraph:
    shares = bundled_shares(model) if field.shares else ()
    return BundledGraph(field.network.collapsed(), field.network.input_widths, shares)


def bundled_shares(model: GraphModel) -> tuple[float, ...]:
    """Shares at which a bundle of the model can be evaluated, from all features (1) downwards: those of its training,
    where it is evaluated with all features now and was trained with all of them too."""
    shares = model.trained_shares()
    whole = all(field.network.share == 1 for field in model.graph_fields().values() if field.shares)
    return shares if whole and len(shares) > 1 and shares[0] == 1 else ()


def _frustum_encoding(encoder: FrustumEncoder) -> Encoding:
    if isinstance(encoder, GaussianEncoder):
        return ContractedEncoding(encoder.encoding.directions.clone(), len(encoder.encoding.frequencies))
    if isinstance(encoder, MultisampleEncoder):
        return PyramidEncoding(copy_grid(encoder.grid))
    if isinstance(encoder, BoxEncoder):
        return BoxEncoding(copy_grid(encoder.grid), encoder.aabb.clone())
    raise ConfigError(f"encoder {type(encoder).__name__} is one that bundles do not know")
