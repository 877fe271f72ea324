"""A whole collapsed network in one launch of a Triton kernel, and the plain-PyTorch twin of that kernel."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eugen_nerf.core.packed import PackedNetwork

ROWS = 64
"""Rows of one program, what the tensor cores of recent devices take at once."""


def kernel_problem(device: torch.device) -> str | None:
    """In one line why the kernel cannot be launched on a device, or None where it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"triton has no kernels for {device.type} (TRITON_INTERPRET=1 runs them there, slowly, as a check)"
    return None


def run_fused(packed: PackedNetwork, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The network by the Triton kernel, in one launch.

    Args:
        packed: the network, on the inputs' device.
        inputs: `[n, d_i]` of any floating point dtype and any strides.

    Returns:
        Outputs `[n, width]`, float32.
    """
    from eugen_nerf.core.fused_kernel import fused_kernel

    rows = [x if x.stride(-1) == 1 else x.contiguous() for x in inputs]
    count = len(rows[0])
    out = torch.empty(count * sum(packed.output_widths), dtype=torch.float32, device=rows[0].device)
    if count:
        before = [sum(packed.output_widths[:i]) for i in range(len(packed.output_widths))]
        outputs = tuple(
            (o.chunk, o.start, o.valid, packed.output_widths[o.output], before[o.output]) for o in packed.outputs
        )
        reads = max(len(step.sources) for step in packed.steps)
        kernel: Any = fused_kernel
        with torch.cuda.device_of(rows[0]):  # triton launches on the current device
            kernel[((count + ROWS - 1) // ROWS,)](
                rows[0],
                rows[-1],
                rows[0].stride(0),
                rows[-1].stride(0),
                packed.weights,
                packed.biases,
                out,
                count,
                INPUTS=tuple(tuple(chunk) for chunk in packed.inputs),
                STEPS=tuple(tuple(step) for step in packed.steps),
                OUTPUTS=outputs,
                PRECISION="tf32" if packed.precision == "tf32" else "ieee",
                WIDEN=packed.precision == "bfloat16" and os.environ.get("TRITON_INTERPRET") == "1",
                ROWS=ROWS,
                num_warps=4 if reads <= 2 else 8,  # wide values need the registers of more threads
            )
    parts = out.split([count * width for width in packed.output_widths])
    return tuple(part.view(count, width) for part, width in zip(parts, packed.output_widths, strict=True))


def run_twin(packed: PackedNetwork, *inputs: Tensor) -> tuple[Tensor, ...]:
    """What `run_fused` computes, in plain PyTorch from the same packed numbers; tf32 is float32 here.

    Args:
        packed: the network, on the inputs' device.
        inputs: `[n, d_i]`.

    Returns:
        Outputs `[n, width]`, float32.
    """
    dtype, at_weight, at_bias = packed.weights.dtype, 0, 0
    chunks = []
    for c in packed.inputs:
        part = inputs[c.input][:, c.start : c.start + c.valid].to(dtype).float()
        chunks.append(F.pad(part, (0, c.size - c.valid)))
    for step in packed.steps:
        u = packed.biases[at_bias : at_bias + step.blocks * step.size].view(step.blocks, 1, step.size)
        at_bias += step.blocks * step.size
        for source in step.sources:
            read = chunks[source].to(dtype).float()  # products of rounded numbers, sums in float32
            taken = step.blocks * read.shape[1] * step.size
            tiles = packed.weights[at_weight : at_weight + taken].view(step.blocks, read.shape[1], step.size)
            u, at_weight = u + read @ tiles.float(), at_weight + taken
        made = [u[0]] if step.blocks == 1 else [u[0], u[-2] * u[-1]]
        chunks += [y.relu() if step.relu else y for y in made]
    outputs = tuple(chunks[0].new_empty(len(inputs[0]), width) for width in packed.output_widths)
    for o in packed.outputs:
        outputs[o.output][:, o.start : o.start + o.valid] = chunks[o.chunk][:, : o.valid]
    return outputs
