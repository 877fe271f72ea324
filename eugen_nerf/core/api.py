"""The public names of `eugen_nerf.core`: what a user of the library needs, in the groups of the reference page."""

from eugen_nerf.core.bundle_schema import BundleError
from eugen_nerf.core.bundles.bundle_files import load_bundle, save_bundle
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.bundles.distance_bundle import DistanceBundle
from eugen_nerf.core.bundles.onnx_export import export_onnx
from eugen_nerf.core.bundles.radiance_bundle import RadianceBundle
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.core.encodings.hash_grid import HashGrid
from eugen_nerf.core.encodings.integrated import IntegratedEncoding
from eugen_nerf.core.encodings.point_encodings import FrequencyEncoding, OffAxisEncoding
from eugen_nerf.core.errors import ConfigError, EugenError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fitting.convert_graph import LayerReport, convert_graph
from eugen_nerf.core.fitting.importance import Batch
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.inference.bundle_plans import plan_bundle
from eugen_nerf.core.inference.plan import InferencePlan, make_plan
from eugen_nerf.core.inference.quantized import reduce_precision
from eugen_nerf.core.layers.baselines import DenseLinear, LowRankLinear, MonarchLinear, SNNKLinear
from eugen_nerf.core.layers.data_start import start_from_data
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.modules.convert_modules import ModuleReport, convert_
from eugen_nerf.core.modules.rendered_call import rendered_call
from eugen_nerf.core.modules.shrinking import Weighted
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.core.networks.evaluation_mode import EvaluationMode
from eugen_nerf.core.networks.layer_graph import LayerGraph
from eugen_nerf.core.networks.nerf_mlp import NeRFShape, Replacement, build_nerf, build_variant
from eugen_nerf.core.spec import LayerSpec
from eugen_nerf.core.training.merged import merged_for_training
from eugen_nerf.core.training.muon import BatchedMuon, is_orthogonalised

__all__ = [  # noqa: RUF022  the groups are the sections of the reference page
    # Layers
    "EUGenConfig",
    "EUGenLinear",
    "DenseLinear",
    "LowRankLinear",
    "MonarchLinear",
    "SNNKLinear",
    "FeatureLayer",
    "LayerSpec",
    # Networks and collapse
    "LayerGraph",
    "CollapsedGraph",
    "EvaluationMode",
    "NeRFShape",
    "Replacement",
    "build_nerf",
    "build_variant",
    # Encodings
    "FrequencyEncoding",
    "IntegratedEncoding",
    "OffAxisEncoding",
    "HashGrid",
    # Conversion of PyTorch models
    "convert_",
    "rendered_call",
    "Weighted",
    "ModuleReport",
    # Conversion of layer graphs
    "convert_graph",
    "ConversionConfig",
    "Batch",
    "LayerReport",
    # Bundles
    "load_bundle",
    "save_bundle",
    "RadianceBundle",
    "DistanceBundle",
    "BundledGraph",
    "PinholeCamera",
    "export_onnx",
    # Inference plans
    "make_plan",
    "plan_bundle",
    "InferencePlan",
    "reduce_precision",
    # Training
    "BatchedMuon",
    "is_orthogonalised",
    "merged_for_training",
    "start_from_data",
    # Errors
    "EugenError",
    "ConfigError",
    "BundleError",
]
