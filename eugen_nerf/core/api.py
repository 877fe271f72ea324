"""What `eugen_nerf.core` exports."""

from eugen_nerf.core.activations import ACTIVATIONS, activation, polynomial_fit
from eugen_nerf.core.bundle import load_bundle, save_bundle
from eugen_nerf.core.bundle_spec import BundleError
from eugen_nerf.core.bundled import BundledField, DistanceBundle, RadianceBundle
from eugen_nerf.core.collapsed import CollapsedGraph
from eugen_nerf.core.convert import LayerReport, convert_graph
from eugen_nerf.core.errors import ConfigError, DataError, EugenError, RunError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fit import ConversionConfig
from eugen_nerf.core.graph import LayerGraph
from eugen_nerf.core.layer import FeatureLayer
from eugen_nerf.core.modules import ModuleReport, convert_
from eugen_nerf.core.narrowing import Weighted
from eugen_nerf.core.nerf import VARIANTS, NeRFShape, Replacement, build_nerf, build_variant
from eugen_nerf.core.onnx import export_onnx
from eugen_nerf.core.peers import DenseLinear, LowRankLinear, MonarchLinear, SNNKLinear
from eugen_nerf.core.plan import InferencePlan, make_plan
from eugen_nerf.core.precision import ReducedGraph, reduce_precision
from eugen_nerf.core.preview import Batch, LayerMoments, gather_moments
from eugen_nerf.core.projections import PROJECTIONS, sample_projection, seeded_generator
from eugen_nerf.core.rendered import rendered_call
from eugen_nerf.core.solve import MomentSums, best_ridge, greedy_columns, ridge_solution
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
