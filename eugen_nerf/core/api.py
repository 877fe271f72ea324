"""What `eugen_nerf.core` exports."""

from eugen_nerf.core.bundle_schema import BundleError
from eugen_nerf.core.bundles.bundle_files import load_bundle, save_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField, DistanceBundle, RadianceBundle
from eugen_nerf.core.bundles.onnx_export import export_onnx
from eugen_nerf.core.errors import ConfigError, DataError, EugenError, RunError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fitting.convert_graph import LayerReport, convert_graph
from eugen_nerf.core.fitting.importance import Batch, LayerMoments, gather_moments
from eugen_nerf.core.fitting.recipes import ConversionConfig
from eugen_nerf.core.inference.plan import InferencePlan, make_plan
from eugen_nerf.core.inference.quantized import ReducedGraph, reduce_precision
from eugen_nerf.core.layers.activations import ACTIVATIONS, activation, polynomial_fit
from eugen_nerf.core.layers.baselines import DenseLinear, LowRankLinear, MonarchLinear, SNNKLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.layers.projections import PROJECTIONS, sample_projection, seeded_generator
from eugen_nerf.core.least_squares import MomentSums, best_ridge, greedy_columns, ridge_solution
from eugen_nerf.core.modules.convert_modules import ModuleReport, convert_
from eugen_nerf.core.modules.rendered_call import rendered_call
from eugen_nerf.core.modules.shrinking import Weighted
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.core.networks.layer_graph import LayerGraph
from eugen_nerf.core.networks.nerf_mlp import VARIANTS, NeRFShape, Replacement, build_nerf, build_variant
from eugen_nerf.core.spec import LayerSpec, count_parameters

__all__ = [
    "ACTIVATIONS",
    "PROJECTIONS",
    "VARIANTS",
    "Batch",
    "BundleError",
    "BundledField",
    "CollapsedGraph",
    "ConfigError",
    "ConversionConfig",
    "DataError",
    "DenseLinear",
    "DistanceBundle",
    "EUGenConfig",
    "EUGenLinear",
    "EugenError",
    "FeatureLayer",
    "InferencePlan",
    "LayerGraph",
    "LayerMoments",
    "LayerReport",
    "LayerSpec",
    "LowRankLinear",
    "ModuleReport",
    "MomentSums",
    "MonarchLinear",
    "NeRFShape",
    "RadianceBundle",
    "ReducedGraph",
    "Replacement",
    "RunError",
    "SNNKLinear",
    "Weighted",
    "activation",
    "best_ridge",
    "build_nerf",
    "build_variant",
    "convert_",
    "convert_graph",
    "count_parameters",
    "export_onnx",
    "gather_moments",
    "greedy_columns",
    "load_bundle",
    "make_plan",
    "polynomial_fit",
    "reduce_precision",
    "rendered_call",
    "ridge_solution",
    "sample_projection",
    "save_bundle",
    "seeded_generator",
]
