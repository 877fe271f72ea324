"""The settings of nerfstudio's data parsers on camera placement, in one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig


@dataclass(frozen=True)
class PlacementSettings:
    """Placement of cameras.

    Attributes:
        orientation, centre: nerfstudio's methods.
        fit: scale so that cameras lie within +-1.
        scale: further factor.
        box: half the side of the scene box.
        boxed_by_data: whether `box` is in the data set's own unit.
        like_blender: whether cameras are made as by nerfstudio's Blender parser.
    """

    orientation: str = "none"
    centre: str = "none"
    fit: bool = False
    scale: float = 1.0
    box: float = 1.0
    boxed_by_data: bool = False
    like_blender: bool = False


def placement_settings(config: Any) -> PlacementSettings:
    """The settings of a supported parser."""
    assert isinstance(config, DataParserConfig)
    if isinstance(config, BlenderDataParserConfig | DNeRFDataParserConfig):
        return PlacementSettings(scale=config.scale_factor, box=1.5, like_blender=True)
    if isinstance(config, InstantNGPDataParserConfig):
        return PlacementSettings(scale=config.scene_scale, box=0.5, boxed_by_data=True)
    options: Any = config  # nerfstudio's own or COLMAP's, which have these fields in common
    return PlacementSettings(
        options.orientation_method,
        options.center_method,
        options.auto_scale_poses,
        options.scale_factor,
        options.scene_scale,
    )
