"""How many rows a network is evaluated on at a time: as many as fit the second-level caches at its widest step."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph

DEFAULT_L2_BYTES = 1 << 20
"""Size of a second-level cache that the system does not report."""
L2_FACTOR = 4
"""Size of a chunk over that of the second-level caches of a CPU's cores; the rest lies in the third level. Measured:
with less, calls are too small; with more, values go to memory."""
CHUNK_LIMITS = {"cpu": (256, 1 << 16), "cuda": (1 << 16, 1 << 20)}
"""Fewest and most rows of a chunk: enough to pay for a launch, few enough to need little memory."""


def chunk_rows(graph: CollapsedGraph, input_widths: Sequence[int], dtype: torch.dtype, device: torch.device) -> int:
    """Rows, a power of two, for which inputs and outputs of the widest step fit the second-level caches in use."""
    widths = [*input_widths, *(stage.num_features for stage, _ in graph.steps)]
    numbers = max([sum(widths[v] for v in reads) + stage.weight.shape[0] for stage, reads in graph.steps] or [1])
    rows = max(1, _cache_bytes(device) // (numbers * dtype.itemsize))
    least, most = CHUNK_LIMITS.get(device.type, CHUNK_LIMITS["cuda"])
    return min(most, max(least, 1 << (rows.bit_length() - 1)))


def _cache_bytes(device: torch.device) -> int:
    """Second-level cache: all of a CUDA device's, of a CPU that of the cores which threads use, `L2_FACTOR` times."""
    if device.type == "cuda":
        return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or DEFAULT_L2_BYTES
    names = getattr(os, "sysconf_names", {})  # not on every system
    size = os.sysconf("SC_LEVEL2_CACHE_SIZE") if "SC_LEVEL2_CACHE_SIZE" in names else 0
    return L2_FACTOR * (size if size > 0 else DEFAULT_L2_BYTES) * torch.get_num_threads()
