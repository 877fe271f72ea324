"""Names of lens models in all spellings of data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from eugen_nerf.core.errors import DataError

Kind = Literal["PERSPECTIVE", "FISHEYE", "EQUIRECTANGULAR", "FISHEYE624"]
"""Names of nerfstudio's camera types."""
_NAMES: dict[Kind, tuple[str, ...]] = {
    "PERSPECTIVE": (
        *("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE", "FULL_OPENCV", "FOV"),
        *("PLUMB_BOB", "RADTAN", "BROWN", "BROWN_CONRADY"),
    ),
    "FISHEYE": (
        *("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE", "FISHEYE", "EQUIDISTANT"),
        *("THIN_PRISM_FISHEYE", "KANNALA_BRANDT", "KANNALA_BRANDT4"),
    ),
    "EQUIRECTANGULAR": ("EQUIRECTANGULAR", "SPHERICAL", "PANORAMA", "EQUIRECT", "ERP"),
    "FISHEYE624": ("FISHEYE624",),
}
KINDS: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names}
"""Camera models by name. FULL_OPENCV, FOV and THIN_PRISM_FISHEYE are supported if their further coefficients are 0."""
_KEYS = ("camera_model", "camera_type", "lens_model", "lens_type", "distortion_model", "projection_model")
"""Entries that name only a model."""
_PATHS = ("file_path", "mask_path", "depth_file_path")
_FLAGS: dict[str, Kind] = {
    **dict.fromkeys(("is_fisheye", "fisheye"), "FISHEYE"),
    **dict.fromkeys(("is_equirectangular", "equirectangular", "is_panorama", "panorama"), "EQUIRECTANGULAR"),
}


def named_model(entries: Mapping[str, Any], where: str) -> str | None:
    """The model that entries name, in capitals; None if they name none.

    An entry with an unknown name is used if its value is the name of a model. Raises `DataError` for an unknown model,
    and for two models of different kinds.
    """
    found: dict[str, str] = {}
    for key, value in entries.items():
        name = str(value).strip().upper().replace("-", "_").replace(" ", "_")
        if key.lower() in _KEYS and value not in (None, ""):
            if name not in KINDS:
                raise DataError(
                    f"the camera model {value} of {where} is not supported: PINHOLE, OPENCV, OPENCV_FISHEYE, "
                    "EQUIRECTANGULAR, FISHEYE624 and COLMAP's simpler ones are; undistort the images (colmap "
                    "image_undistorter, ns-process-data) and write the cameras anew"
                )
            found[key] = name
        elif isinstance(value, str) and name in KINDS and key not in _PATHS:
            found[key] = name
    if len({KINDS[name] for name in found.values()}) > 1:
        text = " and ".join(f"'{key}' {name}" for key, name in found.items())
        raise DataError(f"{where} names several kinds of lens ({text}): remove the wrong one")
    return next(iter(found.values()), None)


def flagged_kind(entries: Mapping[str, Any]) -> Kind | None:
    """The kind set by entries such as `is_fisheye`; None if there are none."""
    no = ("", "0", "false", "no", "none", "null")
    return next((kind for key, kind in _FLAGS.items() if str(entries.get(key, "")).strip().lower() not in no), None)
