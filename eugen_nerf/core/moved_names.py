"""Names that `eugen_nerf.core` exported before and that are imported from their modules now; gone with version 0.2."""

MOVED = {
    "ACTIVATIONS": "layers.activations",
    "BundledField": "bundles.bundled_field",
    "DataError": "errors",
    "LayerMoments": "fitting.importance",
    "MomentSums": "least_squares",
    "PROJECTIONS": "layers.projections",
    "ReducedGraph": "inference.quantized",
    "RunError": "errors",
    "VARIANTS": "networks.nerf_mlp",
    "activation": "layers.activations",
    "best_ridge": "least_squares",
    "count_parameters": "spec",
    "gather_moments": "fitting.importance",
    "greedy_columns": "least_squares",
    "polynomial_fit": "layers.activations",
    "ridge_solution": "least_squares",
    "sample_projection": "layers.projections",
    "seeded_generator": "layers.projections",
}
"""Module of each name, within `eugen_nerf.core`."""
