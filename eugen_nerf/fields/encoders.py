"""Frustum encoders: integrated frequencies, or grid features at the right scale."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from nerfstudio.field_components.encodings import NeRFEncoding
from nerfstudio.utils.math import generate_polyhedron_basis
from torch import Tensor, nn

from eugen_nerf.core import FrequencyEncoding, HashGrid, IntegratedEncoding
from eugen_nerf.core.encodings.frustum_points import alternating_hexagons, contracted_gaussians, frustum_multisamples
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums
from eugen_nerf.core.training.mixed_precision import full_precision

NUM_DIRECTIONS = 21
"""Vertices of the twice tessellated icosahedron, opposite ones counted once."""


def direction_encoding(frequencies: int) -> NeRFEncoding:
    """Sines and cosines of view directions `[..., 3]`, and the directions: `[..., 3 + 6 frequencies]`."""
    return NeRFEncoding(in_dim=3, num_frequencies=frequencies, min_freq_exp=0.0, max_freq_exp=4.0, include_input=True)


def plain_frequencies(encoding: NeRFEncoding) -> FrequencyEncoding:
    """The same encoding without nerfstudio, as bundles and plans have it; it includes its input."""
    assert encoding.include_input
    assert encoding.in_dim is not None
    return FrequencyEncoding(
        encoding.in_dim, encoding.num_frequencies, float(encoding.min_freq), float(encoding.max_freq)
    )


def cones(frustums: Frustums) -> ConeFrustums:
    """Frustums of nerfstudio as core has them, each round the middle of its pixel."""
    starts, ends, area = (v[..., 0] for v in (frustums.starts, frustums.ends, frustums.pixel_area))
    if area.stride(-1) == 0:  # all frustums of a ray share a cone
        area = area[..., :1]
    radius = (area / math.pi).sqrt()  # a disc as large as the pixel, as nerfstudio's Gaussians have it
    return ConeFrustums(frustums.origins, frustums.directions, starts, ends, radius)


class FrustumEncoder(nn.Module, ABC):
    """Features of conical frustums in contracted space."""

    out_features: int
    thinned = False
    """Whether inference may stand for a frustum by fewer points than training; no part of a checkpoint."""

    @abstractmethod
    def forward(self, ray_samples: RaySamples) -> Tensor:
        """Features `[..., out_features]` of samples `[...]`."""


class GaussianEncoder(FrustumEncoder):
    """Mip-NeRF 360's encoding: a Gaussian a frustum, contracted, its expected sines and cosines off-axis.

    nerfstudio's own integrated encodings scale the mean by 2 pi and the covariance by nothing.

    Args:
        num_frequencies: L; frequencies `2^0, ..., 2^(L - 1)` along each of the 21 directions.
    """

    def __init__(self, num_frequencies: int) -> None:
        super().__init__()
        directions = torch.as_tensor(generate_polyhedron_basis("icosahedron", 2)).to(torch.get_default_dtype())
        self.encoding = IntegratedEncoding(directions, num_frequencies)
        self.out_features = self.encoding.out_features

    @full_precision()
    def forward(self, ray_samples: RaySamples) -> Tensor:
        """Features `[..., 42 L]` in [-1, 1]."""
        return self.encoding(*self.gaussians(ray_samples.frustums))

    def gaussians(self, frustums: Frustums) -> tuple[Tensor, Tensor]:
        """Contracted means `[..., 3]` and covariances `[..., 3, 3]` of the Gaussians."""
        return contracted_gaussians(cones(frustums))


class MultisampleEncoder(FrustumEncoder):
    """Zip-NeRF's encoding: six Gaussians a frustum, contracted, and their mean grid features at the right scale.

    Training turns and mirrors every hexagon at random; evaluation turns and mirrors every other one along a ray, and
    takes two opposite corners alone where it is `thinned`.

    Args:
        grid: the pyramid of grids over the contracted ball, `[-2, 2]^3`.
    """

    def __init__(self, grid: HashGrid) -> None:
        super().__init__()
        self.grid = grid
        self.out_features = grid.out_features

    @full_precision()
    def forward(self, ray_samples: RaySamples) -> Tensor:
        """Features `[..., grid.out_features]`."""
        points, widths = self.multisamples(ray_samples.frustums)
        # the ball of radius 2 becomes the unit cube
        features = self.grid(((points + 2) / 4).flatten(0, -3), (widths / 4).flatten(0, -2))
        return features.reshape(*points.shape[:-2], self.out_features)

    def multisamples(self, frustums: Frustums) -> tuple[Tensor, Tensor]:
        """Contracted means `[..., J, 3]` and standard deviations `[..., J]` of the Gaussians, J = 6 or, thinned, 2."""
        parts = cones(frustums)
        starts = parts.starts
        if self.training:
            angle = torch.rand_like(starts) * (2 * math.pi)
            mirror = torch.rand_like(starts) < 0.5
        else:
            angle, mirror = alternating_hexagons(starts)
        return frustum_multisamples(parts, angle, mirror, thinned=self.thinned and not self.training)
