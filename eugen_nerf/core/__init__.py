"""EUGen layers in plain PyTorch: nothing here knows nerfstudio, and any model can use it."""

from eugen_nerf.core.activations import ACTIVATIONS, activation, polynomial_fit
from eugen_nerf.core.convert import Batch, ConversionConfig, LayerReport, convert_graph
from eugen_nerf.core.errors import ConfigError, DataError, EugenError, RunError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.graph import CollapsedGraph, LayerGraph
from eugen_nerf.core.layer import FeatureLayer
from eugen_nerf.core.nerf import VARIANTS, NeRFShape, Replacement, build_nerf, build_variant
from eugen_nerf.core.peers import DenseLinear, LowRankLinear, SNNKLinear
from eugen_nerf.core.projections import PROJECTIONS, sample_projection, seeded_generator
from eugen_nerf.core.solve import MomentSums, best_ridge, greedy_columns, ridge_solution
from eugen_nerf.core.spec import LayerSpec, count_parameters

__all__ = [
    "ACTIVATIONS",
    "PROJECTIONS",
    "VARIANTS",
    "Batch",
    "CollapsedGraph",
    "ConfigError",
    "ConversionConfig",
    "DataError",
    "DenseLinear",
    "EUGenConfig",
    "EUGenLinear",
    "EugenError",
    "FeatureLayer",
    "LayerGraph",
    "LayerReport",
    "LayerSpec",
    "LowRankLinear",
    "MomentSums",
    "NeRFShape",
    "Replacement",
    "RunError",
    "SNNKLinear",
    "activation",
    "best_ridge",
    "build_nerf",
    "build_variant",
    "convert_graph",
    "count_parameters",
    "greedy_columns",
    "polynomial_fit",
    "ridge_solution",
    "sample_projection",
    "seeded_generator",
]
