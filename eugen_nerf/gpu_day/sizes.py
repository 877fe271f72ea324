"""Tiny sizes of a dry run: the same wiring and code, so small that a CPU is through in seconds."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from eugen_nerf.benchmarks.network_speed import Family

TINY: dict[str, Any] = {
    "trunk_width": 16,
    "bottleneck_width": 16,
    "head_width": 16,
    "hidden_dim": 16,
    "hidden_dim_color": 16,
    "hidden_dim_transient": 16,
    "position_frequencies": 4,
    "position_max_exponent": 3.0,
    "time_frequencies": 2,
    "time_max_exponent": 1.0,
    "num_coarse_samples": 6,
    "num_importance_samples": 6,
    "num_proposal_samples": (6, 5),
    "num_samples": 4,
    "num_stratified_samples": 5,
    "num_surface_samples": 3,
    "proposal_resolutions": (32, 64),
    "max_resolution": 64,
    "max_res": 64,
    "log2_table_size": 9,
    "log2_hashmap_size": 9,
    "num_nerf_samples_per_ray": 4,
    "num_proposal_samples_per_ray": (6, 5),
    "train_num_rays_per_batch": 16,
    "eval_num_rays_per_batch": 16,
    "check_rays": 8,
    "steps_on_frame": 1,
    "steps_on_keyframe": 1,
    "steps_on_first": 1,
    "normal_step": 1,
}
"""What a setting of that name becomes where a method has it."""
FEATURES = 6
"""Features of an EUGen layer."""


def tiny_family(family: Family) -> Family:
    """The architecture with as many layers and inputs, each 16 wide."""
    shape = family.shape
    small = replace(
        shape,
        trunk_width=16,
        bottleneck_width=16 if shape.bottleneck_width else 0,
        head_width=16 if shape.head_width else 0,
    )
    published = None if family.published is None else (family.published[0], 16)
    return replace(family, shape=small, features=(8, 4), published=published)


def shrink(config: Any) -> None:
    """Makes a configuration tiny in place, and those inside it."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in TINY:
            setattr(config, field.name, TINY[field.name])
        elif field.name == "num_features":
            config.num_features = (FEATURES,) * len(value)
        elif field.name == "proposal_net_args_list":
            config.proposal_net_args_list = [{**net, "hidden_dim": 16, "log2_hashmap_size": 9} for net in value]
        elif is_dataclass(value) and not isinstance(value, type):
            shrink(value)
