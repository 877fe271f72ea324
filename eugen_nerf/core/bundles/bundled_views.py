"""Test views of a bundle: their names and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec
from eugen_nerf.core.cameras.pinhole_camera import MAX_SIDE, PinholeCamera
from eugen_nerf.core.errors import ConfigError

MAX_VIEWS = 4096
"""Views of a bundle, at most."""
MAX_POSITION = 1e6
"""Largest coordinate of a camera, scene units."""
MAX_LENGTH = 1e6
"""Largest focal length and principal point, pixels."""
MAX_PSNR = 1e3
"""Of a view, dB."""


@dataclass(frozen=True, eq=False)
class BundledView:
    """A test view.

    Attributes:
        name: of its photograph.
        camera: without the distortion that its lens may have.
        psnr: of the bundle's image to the photograph, dB; None where it was not measured.
    """

    name: str
    camera: PinholeCamera
    psnr: float | None = None

    def describe(self) -> dict[str, Any]:
        """See `BundledField.describe`; the pose row after row."""
        camera = self.camera
        lengths = {key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy", "time")}
        measured = {} if self.psnr is None else {"psnr": self.psnr}
        return {"name": self.name, **lengths, "pose": camera.pose.flatten().tolist(), **measured}

    @classmethod
    def build(cls, spec: Spec) -> BundledView:
        """The view that `spec` describes; raises `BundleError` where it describes none."""
        name = spec.name("name")
        width, height = (spec.integer(key, 1, MAX_SIDE) for key in ("width", "height"))
        fx, fy, cx, cy = (spec.number(key, -MAX_LENGTH, MAX_LENGTH) for key in ("fx", "fy", "cx", "cy"))
        time = spec.optional_number("time", 0.0, 1.0)
        pose = torch.tensor(spec.numbers("pose", -MAX_POSITION, MAX_POSITION, 12)).view(3, 4)
        psnr = spec.number("psnr", -MAX_PSNR, MAX_PSNR) if spec.holds("psnr") else None
        spec.close()
        try:
            return cls(name, PinholeCamera(pose, fx, fy, cx, cy, width, height, time), psnr)
        except ConfigError as error:
            raise BundleError(f"{spec.where}: {error}; {ADVICE}") from error
