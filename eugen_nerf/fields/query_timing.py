"""Timing queries of fields: the same random queries for every field, device and call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from torch import nn

from eugen_nerf.core.timing import Ratio, medians, speed_ratios, synchronise, time_interleaved

__all__ = [
    "Ratio",
    "field_query_callable",
    "medians",
    "random_queries",
    "speed_ratios",
    "synchronise",
    "time_interleaved",
]


def random_queries(num_queries: int, *, seed: int, device: str | torch.device) -> RaySamples:
    """Random points, view directions and times as a field takes them, the same for every field, device and call.

    Positions are uniform in [-1, 1]^3, directions uniform on the sphere, times uniform in [0, 1]. Each point is the
    middle of a frustum 2e-3 long and about that wide, so that fields that integrate over a frustum get a proper one.

    Returns:
        RaySamples of shape [num_queries, 1], float32, with camera index 0.
    """
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(num_queries, 1, 3, generator=generator) * 2 - 1
    directions = nn.functional.normalize(torch.randn(num_queries, 1, 3, generator=generator), dim=-1)
    times = torch.rand(num_queries, 1, 1, generator=generator)
    ones = torch.ones(num_queries, 1, 1)
    samples = RaySamples(
        frustums=Frustums(
            origins=positions - directions,
            directions=directions,
            starts=ones - 1e-3,
            ends=ones + 1e-3,
            pixel_area=ones * 1e-6,
        ),
        camera_indices=torch.zeros(num_queries, 1, 1, dtype=torch.long),
        deltas=ones * 2e-3,
        times=times,
    )
    return samples.to(device)


def field_query_callable(
    field: nn.Module, num_queries: int, seed: int, device: str | torch.device, *, chunk_size: int = 4096
) -> Callable[[], None]:
    """A function that evaluates density and colour of a field at ``num_queries`` random points.

    Args:
        field: a nerfstudio field, or any module that is called like one, in evaluation mode.
        num_queries: points a call.
        seed: of the points.
        device: where the field is.
        chunk_size: points evaluated at once; compare fields only at the same size.
    """
    samples = random_queries(num_queries, seed=seed, device=device)
    chunks = [samples[start : start + chunk_size] for start in range(0, num_queries, chunk_size)]

    def query() -> None:
        with torch.inference_mode():
            for chunk in chunks:
                field(chunk)

    return query
