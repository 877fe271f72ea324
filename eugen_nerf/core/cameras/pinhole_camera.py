"""A pinhole camera, and the rays through the middles of its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError

MAX_SIDE = 1 << 14
"""Pixels along a side of an image, at most."""
MAX_PIXELS = 1 << 26
"""Pixels of an image, at most."""
MAX_SKEW = 1e-2
"""Largest deviation of a pose's axes from unit length and right angles."""


@dataclass(frozen=True, eq=False)
class PinholeCamera:
    """A camera without distortion; axes as nerfstudio's and OpenGL's: x right, y up, z back.

    Raises:
        ConfigError: an image without pixels or beyond `MAX_PIXELS`, a focal length that is not positive, a pose whose
            axes are not orthonormal, or numbers that are not finite.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import PinholeCamera
        >>> pose = torch.eye(4)[:3]  # at the origin, looks along -z
        >>> camera = PinholeCamera(pose, fx=2.0, fy=2.0, cx=1.5, cy=0.5, width=3, height=1)
        >>> origins, directions = camera.rays()
        >>> origins.shape, directions[1].tolist()
        (torch.Size([3, 3]), [0.0, 0.0, -1.0])
    """

    pose: Tensor
    """Camera to scene, `[3, 4]`: the axes as columns, then the position in scene units."""
    fx: float
    """Focal length along x, pixels."""
    fy: float
    """Along y."""
    cx: float
    """Column of the optical axis, pixels from the left border."""
    cy: float
    """Row of the optical axis, pixels from the upper border."""
    width: int
    """Pixels along x."""
    height: int
    """Pixels along y."""
    time: float | None = None
    """In [0, 1], for a scene that moves."""

    def __post_init__(self) -> None:
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise ConfigError(f"a camera has 1 to {MAX_SIDE} pixels a side, got {self.width} x {self.height}")
        if self.width * self.height > MAX_PIXELS:
            raise ConfigError(f"an image has at most {MAX_PIXELS} pixels, got {self.width} x {self.height}")
        numbers = (self.fx, self.fy, self.cx, self.cy, 0.0 if self.time is None else self.time)
        if not all(map(math.isfinite, numbers)) or self.fx <= 0 or self.fy <= 0:
            raise ConfigError(
                "a camera has positive focal lengths, a finite principal point and a finite time, got "
                f"fx {self.fx:g}, fy {self.fy:g}, cx {self.cx:g}, cy {self.cy:g}, time {self.time}"
            )
        if not isinstance(self.pose, Tensor) or self.pose.shape != (3, 4) or not bool(self.pose.isfinite().all()):
            raise ConfigError(f"a camera's pose is a finite tensor [3, 4], got {self.pose}")
        axes = self.pose[:, :3].double()
        skew = float((axes.T @ axes - torch.eye(3, dtype=axes.dtype, device=axes.device)).abs().max())
        if skew > MAX_SKEW:
            raise ConfigError(f"the axes of a camera's pose are orthonormal; these deviate by {skew:.2g}")

    def resized(self, height: int) -> PinholeCamera:
        """The same view with another number of rows, and columns in proportion."""
        scale = height / self.height
        width = max(1, round(self.width * scale))
        across = width / self.width
        return replace(
            self,
            fx=self.fx * across,
            fy=self.fy * scale,
            cx=self.cx * across,
            cy=self.cy * scale,
            width=width,
            height=height,
        )

    def rays(
        self, first: int = 0, last: int | None = None, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Rays through pixels, which are numbered row after row.

        Args:
            first: number of the first pixel.
            last: one past the last; all by default.
            device: of the rays.

        Returns:
            Origins `[n, 3]` in scene units and unit directions `[n, 3]`, float32.
        """
        directions = self._directions(first, last, device)
        return self.pose[:, 3].to(directions).expand_as(directions), directions

    def pixel_areas(self, first: int = 0, last: int | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Areas of pixels at distance 1, `[n]`: products of the steps to the next pixels along x and y."""
        middle = self._directions(first, last, device)
        across, down = (self._directions(first, last, device, *step) for step in ((1, 0), (0, 1)))
        return (across - middle).norm(dim=-1) * (down - middle).norm(dim=-1)

    def _directions(
        self, first: int, last: int | None, device: torch.device | str, right: int = 0, down: int = 0
    ) -> Tensor:
        """Unit vectors `[n, 3]` through the middles of pixels, or of those so many further."""
        pixel = torch.arange(first, self.width * self.height if last is None else last, device=device)
        x = ((pixel % self.width).float() + 0.5 - self.cx + right) / self.fx
        y = -((pixel // self.width).float() + 0.5 - self.cy + down) / self.fy
        pose = self.pose.to(device, torch.float32)
        ahead = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
        directions = (ahead[:, None] * pose[:, :3]).sum(dim=-1)
        return directions / directions.norm(dim=-1, keepdim=True)
