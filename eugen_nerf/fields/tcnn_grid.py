"""The hash grid interpolated by tiny-cuda-nn, where it is installed: same table, same checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nerfstudio.utils.external import TCNN_EXISTS, tcnn
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.hashgrid import HashGrid


class TcnnHashGrid(HashGrid):
    """`HashGrid` whose points are interpolated by tiny-cuda-nn.

    Args:
        resolutions: vertices along each side, by level, doubling.
        features: numbers a vertex: 1, 2, 4 or 8.
        log2_table_size: levels with more vertices than 2 to this power are hashed.
        init_range: the features start uniform in [-init_range, init_range].
        seed: of that start.

    Raises:
        ConfigError: tinycudann is not installed.
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
        if not TCNN_EXISTS or tcnn is None:
            raise ConfigError("grid 'tcnn' needs tinycudann, which is not installed; take --...grid torch")
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

    def pool(self, points: Tensor, known: Sequence[Tensor]) -> Tensor:
        """Weighted means of the groups' interpolated features: `[n, L, F]` for points `[n, J, 3]`."""
        encoding = self._encoding[0]
        encoding.params = self.table.flatten()
        n, group, _ = points.shape
        features = encoding(points.clamp(0, 1).reshape(-1, 3)).float()
        del encoding.params  # no leaf of the graph, and such a tensor cannot be copied with its module
        features = features.reshape(n, group, len(self.resolutions), self.features)
        return (features * torch.stack(list(known), dim=-1)[..., None]).mean(dim=1)
