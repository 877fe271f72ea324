"""A whole collapsed network in one launch of a Triton kernel, and the plain-PyTorch twin of that kernel."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from eugen_nerf.core.inference.packed_format import CHUNK_COLUMNS, InputChunk, PackedNetwork, PackedStage
from eugen_nerf.core.inference.sinusoids import Sinusoids
from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.layers.products import joined
from eugen_nerf.core.layers.stage import safe_sqrt

MAX_WARPS = 16
"""Warps of all programs that run at a time on a multiprocessor, as their registers allow."""
MAX_COLUMNS_AT_256_ROWS = 128
"""Columns that a program of 256 rows can keep at a time: from 160 on its threads run out of registers and spill to
memory (`scripts/kernel_registers.py`, docs/guides/gpu.md)."""
ALIGNMENT = 16
"""Bytes: triton compiles a kernel once for addresses that are multiples of it and once for others."""
MAX_RELATIVE_DIFFERENCE = 0.1
"""Largest difference between the kernel and its twin, over the largest output: rounding to bfloat16 makes less."""


class Launch(NamedTuple):
    """How the kernel is launched; it changes results by rounding alone."""

    rows: int
    """Rows of one program: 16 or a larger power of two."""
    warps: int
    """Warps of one program: a power of two."""
    window: int = 2
    """Tiles that are loaded ahead; at least as many as there are where a program keeps all in shared memory."""


def default_launch(packed: PackedNetwork, device: torch.device) -> Launch:
    """The launch by default: all tiles in shared memory where they fit, and as many rows of a program as registers
    allow."""
    size = packed.weights.element_size()
    half = (256, 128) if _columns_at_once(packed) <= MAX_COLUMNS_AT_256_ROWS else (128,)
    for rows in half if size == 2 else (64,):
        if _resident_bytes(packed, rows) <= _shared_bytes(device):
            return Launch(rows, 8, len(packed.tiles))
    return Launch(128, 8, 2) if size == 2 else Launch(64, 8, 1)


def program_count(packed: PackedNetwork, launch: Launch, count: int, device: torch.device) -> int:
    """Programs to launch for `count` rows: one a block, or as many as run at a time where they keep all tiles."""
    blocks = -(-count // launch.rows)
    if launch.window < len(packed.tiles) or device.type != "cuda":
        return blocks
    together = max(1, min(_shared_bytes(device) // _resident_bytes(packed, launch.rows), MAX_WARPS // launch.warps))
    return min(blocks, together * torch.cuda.get_device_properties(device).multi_processor_count)


def _columns_at_once(packed: PackedNetwork) -> int:
    """Most columns of chunks that a program keeps while it makes a stage: those read then or later, and the stage's."""
    sizes, last = [c.size for c in packed.inputs], {o.chunk: len(packed.stages) for o in packed.outputs}
    made = [stage.sizes if stage.blocks == 1 else 2 * stage.sizes for stage in packed.stages]
    for number, stage in enumerate(packed.stages):
        for chunk in stage.sources:
            last[chunk] = max(number, last.get(chunk, 0))
    most = 0
    for number, new in enumerate(made):
        most = max(most, sum(new) + sum(size for chunk, size in enumerate(sizes) if last.get(chunk, -1) >= number))
        sizes += new
    return most


def _resident_bytes(packed: PackedNetwork, rows: int) -> int:
    """Shared memory of a program that keeps all tiles and passes float32 rows of a chunk of inputs through it."""
    widest = max((c.size for c in packed.inputs if not c.coordinates), default=CHUNK_COLUMNS[packed.precision][-1])
    return packed.weights.numel() * packed.weights.element_size() + rows * widest * 4 + 1024


def _shared_bytes(device: torch.device) -> int:
    """Shared memory that one program can have."""
    if device.type != "cuda":
        return 0
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0))


def kernel_unavailable_reason(device: torch.device) -> str | None:
    """One line that says why the kernel cannot be launched on a device; None where it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"triton has no kernels for {device.type} (TRITON_INTERPRET=1 runs them there, slowly, as a check)"
    return None


def kernel_constants(packed: PackedNetwork, launch: Launch) -> dict[str, Any]:
    """The kernel's compile-time arguments, by name."""
    before = [sum(packed.output_widths[:i]) for i in range(len(packed.output_widths))]
    return {
        "INPUTS": tuple(map(tuple, packed.inputs)),
        "STAGES": tuple((s.sources, tuple(map(tuple, s.squares)), *s[2:]) for s in packed.stages),
        "OUTPUTS": tuple(
            (o.chunk, o.start, o.valid, packed.output_widths[o.output], before[o.output]) for o in packed.outputs
        ),
        "TILES": packed.tiles,
        "PRECISION": "tf32" if packed.precision == "tf32" else "tf32x3",
        "WIDEN": packed.precision == "bfloat16" and os.environ.get("TRITON_INTERPRET") == "1",
        "ROWS": launch.rows,
        "WINDOW": min(launch.window, len(packed.tiles)),
    }


def run_fused(packed: PackedNetwork, *inputs: Tensor, launch: Launch | None = None) -> tuple[Tensor, ...]:
    """The network by the Triton kernel, in one launch.

    Args:
        packed: the network, on the inputs' device.
        inputs: `[n, d_i]` of any floating point dtype and any strides; points where they are encoded.
        launch: `default_launch` where None; it changes results by rounding alone.

    Returns:
        Outputs `[n, width]`, float32.
    """
    from eugen_nerf.core.inference.fused_kernel import fused_kernel

    launch = default_launch(packed, inputs[0].device) if launch is None else launch
    rows = [aligned_rows(x) for x in inputs]
    count = len(rows[0])
    out = torch.empty(count * sum(packed.output_widths), dtype=torch.float32, device=rows[0].device)
    if count:
        kernel: Any = fused_kernel
        with torch.cuda.device_of(rows[0]):  # triton launches on the current device
            kernel[(program_count(packed, launch, count, rows[0].device),)](
                rows[0],
                rows[-1],
                rows[0].stride(0),
                rows[-1].stride(0),
                packed.weights,
                packed.biases,
                packed.tables,
                out,
                count,
                **kernel_constants(packed, launch),
                num_warps=launch.warps,
                enable_fp_fusion=True,  # triton's default changes with its version
            )
    parts = out.split([count * width for width in packed.output_widths])
    return tuple(part.view(count, width) for part, width in zip(parts, packed.output_widths, strict=True))


def aligned_rows(x: Tensor) -> Tensor:
    """Rows without gaps from an address that is a multiple of `ALIGNMENT`, copied where they are not: a part of a
    tensor that begins elsewhere would have the kernel compiled again, which takes seconds."""
    if x.stride(-1) == 1 and x.data_ptr() % ALIGNMENT == 0:
        return x
    return x.clone(memory_format=torch.contiguous_format)


def run_twin(packed: PackedNetwork, *inputs: Tensor) -> tuple[Tensor, ...]:
    """What `run_fused` computes, in plain PyTorch from the same packed numbers; tf32 is float32 here.

    Args:
        packed: the network, on the inputs' device.
        inputs: `[n, d_i]`; points where they are encoded.

    Returns:
        Outputs `[n, width]`, float32.
    """
    chunks = [_input(packed, c, inputs[c.input]) for c in packed.inputs]
    tape = _Tape(packed)
    for stage in packed.stages:
        chunks += _stage_outputs(tape, stage, [chunks[c].to(tape.dtype).float() for c in stage.sources])
    outputs = tuple(chunks[0].new_empty(len(inputs[0]), width) for width in packed.output_widths)
    for o in packed.outputs:
        outputs[o.output][:, o.start : o.start + o.valid] = chunks[o.chunk][:, : o.valid]
    return outputs


def check_fused(packed: PackedNetwork, *inputs: Tensor) -> None:
    """Compares the outputs of the kernel and of its twin, since compilers of kernels can be wrong.

    Raises:
        RuntimeError: they differ by more than rounding does.
    """
    check_outputs(run_fused(packed, *inputs), run_twin(packed, *inputs))


def check_outputs(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compares what a kernel computes and what PyTorch does.

    Raises:
        RuntimeError: they differ by more than rounding does.
    """
    for i, (y, truth) in enumerate(zip(outputs, expected, strict=True)):
        difference, largest = float((y - truth).abs().max()), float(truth.abs().max())
        if not difference <= MAX_RELATIVE_DIFFERENCE * largest:
            raise RuntimeError(
                f"output {i} of the kernel differs by {difference:.2g} from the same in PyTorch, at most {largest:.2g}"
            )


class _Tape:
    """Packed numbers, read in their order."""

    def __init__(self, packed: PackedNetwork) -> None:
        self.dtype = packed.weights.dtype
        self.weights, self.biases = packed.weights, packed.biases

    def tiles(self, *shape: int) -> Tensor:
        """The next tiles, float32."""
        tiles, self.weights = self.weights.tensor_split([torch.Size(shape).numel()])
        return tiles.view(shape).float()

    def vectors(self, *shape: int) -> Tensor:
        """The next biases or columns of the norm."""
        vectors, self.biases = self.biases.tensor_split([torch.Size(shape).numel()])
        return vectors.view(shape)


def _input(packed: PackedNetwork, chunk: InputChunk, x: Tensor) -> Tensor:
    """`[n, size]`, float32, rounded as the kernel rounds what it multiplies."""
    if not chunk.coordinates:
        return F.pad(x[:, chunk.start : chunk.start + chunk.valid].float(), (0, chunk.size - chunk.valid))
    rows = packed.tables[chunk.table :][: (chunk.coordinates + 2) * chunk.size].view(-1, chunk.size)
    return Sinusoids(rows[:-2], rows[-2], rows[-1] > 0)(x)


def _stage_outputs(tape: _Tape, stage: PackedStage, read: list[Tensor]) -> list[Tensor]:
    """The chunks of a stage, float32, from those that it reads: products of rounded numbers, sums in float32."""
    square = read[0].new_zeros(len(read[0]), 1)
    for q in stage.squares:
        if q.size:
            u = tape.vectors(q.size)
            for source in q.sources:
                u = u + read[source] @ tape.tiles(q.size, read[source].shape[1]).T
        else:
            u = read[q.sources[0]][:, : q.valid]
        square = square + u.square().sum(dim=1, keepdim=True)
    made = []
    for size in stage.sizes:
        u = tape.vectors(stage.blocks, 1, size)
        if stage.squares:
            u = u + safe_sqrt(square) * tape.vectors(stage.blocks, 1, size)
        for a in read:
            u = u + a @ tape.tiles(stage.blocks, size, a.shape[1]).mT
        products = [u[0]] if stage.blocks == 1 else [u[0], joined(u[-2], u[-1], stage.product)]
        made += [activation(stage.phi)(y) for y in products]
    return made
