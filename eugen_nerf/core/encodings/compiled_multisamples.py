"""Multisamples of frustums in one pass, compiled by numba for CPUs where it is installed.

PyTorch's operations write every one of some forty intermediate values of a point to memory and read it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eugen_nerf.core.encodings.multisample import ANGLES
from eugen_nerf.core.layers.loop_threads import COMPILES
from eugen_nerf.core.layers.plain_tensors import are_plain
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums


def can_place(frustums: ConeFrustums, *others: Tensor) -> bool:
    """Whether `place_compiled` takes these: float32 on a CPU that need no gradients, a cone a ray."""
    tensors = (frustums.origins, frustums.directions, frustums.starts, frustums.ends, frustums.radius, *others)
    plain = are_plain(*tensors) and all(x.dtype in (torch.float32, torch.bool) for x in tensors)
    one_cone = frustums.starts.ndim == 2 and all(
        _is_one(x) for x in (frustums.origins, frustums.directions, frustums.radius)
    )
    return COMPILES and plain and one_cone and not any(x.requires_grad for x in tensors)


def place_compiled(
    frustums: ConeFrustums, angle: Tensor, mirror: Tensor, axes: tuple[Tensor, Tensor, Tensor], chosen: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """`frustum_multisamples` without PyTorch's operations.

    Args:
        frustums: `[r, n]`.
        angle: `[r, n]`.
        mirror: bool `[r, n]`.
        axes: two unit vectors across each ray and its direction, `[r, 1, 3]` each.
        chosen: numbers of the points among the six.

    Returns:
        Contracted points `[r, n, J, 3]`, whose coordinates come first in memory, and widths `[r, n, J]`.
    """
    from eugen_nerf.core.encodings.multisample_kernels import multisamples

    shape = (*frustums.shape, len(chosen))
    points, widths = frustums.starts.new_empty(3, *shape), frustums.starts.new_empty(shape)
    turned = torch.tensor([[ANGLES[k] for k in chosen], [ANGLES[-1 - k] for k in chosen]])
    inputs = (
        frustums.origins[:, 0],
        torch.cat(axes, dim=1),
        frustums.starts,
        frustums.ends,
        frustums.radius[:, 0],
        torch.stack([angle.cos(), angle.sin()]),
        mirror,
        torch.tensor(tuple(chosen), dtype=torch.float32),
        torch.stack([turned.cos(), turned.sin()], dim=-1),
    )
    multisamples(*(x.detach().contiguous().numpy() for x in inputs), points.numpy(), widths.numpy())
    return points.movedim(0, -1), widths


def _is_one(values: Tensor) -> bool:
    """Whether all frustums of a ray share a value, by its second dimension."""
    return values.ndim > 1 and (values.shape[1] == 1 or values.stride(1) == 0)
