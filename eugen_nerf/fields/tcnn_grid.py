"""The hash grid interpolated by tiny-cuda-nn, where it can run: same table, same checkpoint, same features."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from nerfstudio.utils.external import TCNN_EXISTS, tcnn
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from eugen_nerf.core import HashGrid

_DEVICES = ("cuda",)
"""Kinds of devices that tiny-cuda-nn has kernels for."""


def tcnn_grid(resolutions: tuple[int, ...], features: int, log2_table_size: int, *, seed: int) -> HashGrid:
    """`TcnnHashGrid` where tinycudann is installed, else `HashGrid`, for the same checkpoints; a notice says so.

    Arguments are those of `HashGrid`.
    """
    if TCNN_EXISTS and tcnn is not None:
        return TcnnHashGrid(resolutions, features, log2_table_size, seed=seed)
    _print_fallback_once()
    return HashGrid(resolutions, features, log2_table_size, seed=seed)


@cache
def _print_fallback_once() -> None:
    CONSOLE.print("tinycudann is not installed: PyTorch interpolates the same hash grids, more slowly", markup=False)


class TcnnHashGrid(HashGrid):
    """`HashGrid` whose points are interpolated by tiny-cuda-nn where they are on CUDA.

    Args:
        resolutions: vertices along each side, by level, doubling.
        features: numbers a vertex: 1, 2, 4 or 8.
        log2_table_size: levels with more vertices than 2 to this power are hashed.
        init_range: the features start uniform in [-init_range, init_range].
        seed: of that start.
    """

    def __init__(
        self,
        resolutions: tuple[int, ...],
        features: int = 4,
        log2_table_size: int = 21,
        init_range: float = 1e-4,
        seed: int = 0,
    ) -> None:
        super().__init__(resolutions, features, log2_table_size, init_range, seed)
        assert tcnn is not None, "see tcnn_grid"
        encoding = tcnn.Encoding(
            n_input_dims=3,
            encoding_config={
                "otype": "HashGrid",
                "n_levels": len(resolutions),
                "n_features_per_level": features,
                "log2_hashmap_size": log2_table_size,
                "base_resolution": resolutions[0],
                "per_level_scale": 2.0,
                "interpolation": "Linear",
            },
            dtype=torch.float32,
        )
        # its parameters are ours, flattened: levels, then rows, then features
        assert encoding.params.numel() == self.table.numel()
        del encoding.params
        self._encoding: list[Any] = [encoding]  # in a list, so that it is no sub-module with parameters of its own

    def pool(self, points: Tensor, level_weights: Tensor) -> Tensor:
        """Weighted means of the groups' interpolated features: `[n, L, F]` for points `[n, J, 3]`."""
        if points.device.type not in _DEVICES:
            return super().pool(points, level_weights)
        encoding = self._encoding[0]
        encoding.params = self.table.flatten()
        n, group, _ = points.shape
        features = encoding(points.clamp(0, 1).reshape(-1, 3)).float()
        del encoding.params  # no leaf of the graph, and such a tensor cannot be copied with its module
        features = features.reshape(n, group, len(self.resolutions), self.features)
        return (features * level_weights.movedim(0, -1)[..., None]).mean(dim=1)
