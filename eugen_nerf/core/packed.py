"""A collapsed network in the form of the fused kernel: one buffer of weights, and what to do with it as plain numbers.

Alphabet: a *chunk* is some columns of an input or of a step's features, 16, 32 or 64 wide, the last ones perhaps
padding; a *tile* is the part `[K, N]` of a step's matrix from one chunk to another. A value of any width is a few
chunks: widths are padded to multiples of 16 and no further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.graph import CollapsedGraph
from eugen_nerf.core.stage import Affine, MergedStage

FusedPrecision = Literal["float32", "tf32", "bfloat16", "float16"]
FUSED_PRECISIONS: tuple[FusedPrecision, ...] = ("float32", "tf32", "bfloat16", "float16")
WIDEST_VALUE = 256
"""Columns of an input, or features of a step, that a program can keep in registers."""
MOST_COLUMNS = 64
"""Of one chunk; a tile of as many rows is then 16 KiB in float32."""


class InputChunk(NamedTuple):
    """Columns `start` to `start + valid` of an input."""

    input: int
    start: int
    valid: int
    size: int


class PackedStep(NamedTuple):
    """`blocks` projections of the same chunks to `size` columns each.

    One block makes the chunk `phi(u_0)`, two make `phi(u_0)` and `phi(u_0 u_1)`, three `phi(u_0)` and `phi(u_1 u_2)`.
    """

    sources: tuple[int, ...]
    """Chunks that it reads: those of the inputs come first, then all that steps make, in order."""
    size: int
    blocks: int
    relu: bool
    """Whether phi is relu; it is the identity otherwise."""


class OutputChunk(NamedTuple):
    """A chunk that is columns `start` to `start + valid` of an output."""

    chunk: int
    output: int
    start: int
    valid: int


@dataclass(frozen=True)
class PackedNetwork:
    """A collapsed network as the kernel reads it; it does not follow later changes of the graph's weights."""

    weights: Tensor
    """All tiles, row by row, in the order of use: step by step, source by source, block by block; one dimension."""
    biases: Tensor
    """float32, `size` numbers for each step and block."""
    inputs: tuple[InputChunk, ...]
    steps: tuple[PackedStep, ...]
    outputs: tuple[OutputChunk, ...]
    input_widths: tuple[int, ...]
    output_widths: tuple[int, ...]
    precision: FusedPrecision


def why_not(graph: CollapsedGraph, input_widths: Sequence[int]) -> str | None:
    """In one line why the kernel cannot run a network, or None where it can.

    Args:
        graph: the network.
        input_widths: width of each input.
    """
    if not 1 <= len(input_widths) <= 2:
        return f"the network has {len(input_widths)} inputs, the fused kernel takes 1 or 2"
    for i, width in enumerate(input_widths):
        if width > WIDEST_VALUE:
            return f"input {i} is {width} wide, the fused kernel takes at most {WIDEST_VALUE}"
    for i, (stage, _) in enumerate(graph.steps):
        reason = _step_problem(stage)
        if reason is not None:
            return f"step {i} of the collapsed network {reason}"
    for i, (v, affine) in enumerate(graph.outputs):
        if affine.weight is None and v < len(input_widths):
            return f"output {i} is input {v} itself, the fused kernel writes what steps make"
        if affine.weight is not None and affine.weight.shape[0] > WIDEST_VALUE:
            return f"output {i} is {affine.weight.shape[0]} wide, the fused kernel takes at most {WIDEST_VALUE}"
    return None


def pack(graph: CollapsedGraph, input_widths: Sequence[int], precision: FusedPrecision = "float32") -> PackedNetwork:
    """A collapsed network in the form of the kernel.

    Args:
        graph: tensors of any dtype, on the device where it is to run.
        input_widths: width of each input.
        precision: dtype of inputs, features and weights in products; sums are float32. tf32 stores float32 and leaves
            rounding to the device's products.

    Raises:
        ConfigError: an unknown precision, or a network that `why_not` refuses.
    """
    if precision not in FUSED_PRECISIONS:
        raise ConfigError(f"precision {precision!r} is unknown; choose one of {', '.join(FUSED_PRECISIONS)}")
    reason = why_not(graph, input_widths)
    if reason is not None:
        raise ConfigError(f"{reason}: take the backend eager or compile")
    return _Packer(graph, input_widths).packed(precision)


def _step_problem(stage: MergedStage) -> str | None:
    if stage.norm is not None:
        return "reads the norm of its input, which the fused kernel does not compute: train with norm off for it"
    if stage.groups > 1:
        return "has diagonal blocks (Monarch), which the fused kernel does not know"
    if stage.phi not in ("identity", "relu"):
        return f"has the function {stage.phi}, the fused kernel knows identity and relu"
    if stage.degree > 2:
        return f"has degree {stage.degree}, the fused kernel knows 1 and 2"
    if not 1 <= stage.num_features <= WIDEST_VALUE:
        return f"has {stage.num_features} features, the fused kernel takes 1 to {WIDEST_VALUE}"
    return None


def _sizes(width: int) -> list[int]:
    """Sizes of the chunks of a value: 64, then what is left to the next multiple of 16 as powers of two."""
    whole, left = divmod(-(-width // 16) * 16, MOST_COLUMNS)
    return [MOST_COLUMNS] * whole + [size for size in (32, 16) if left & size]


class _Part(NamedTuple):
    """Columns `start` to `start + valid` of a value, in a chunk of `size`."""

    chunk: int
    start: int
    valid: int
    size: int


class _Packer:
    """Chunks, steps and tiles of one network, appended in order."""

    def __init__(self, graph: CollapsedGraph, input_widths: Sequence[int]) -> None:
        self.tiles: list[Tensor] = []
        self.biases: list[Tensor] = []
        self.inputs: list[InputChunk] = []
        self.steps: list[PackedStep] = []
        self.made = 0
        self.input_widths = tuple(input_widths)
        self.values: list[list[_Part]] = []
        for i, width in enumerate(input_widths):
            parts = [_Part(0, start, valid, size) for start, valid, size in _split(width)]
            self.values.append([p._replace(chunk=len(self.inputs) + j) for j, p in enumerate(parts)])
            self.inputs += [InputChunk(i, p.start, p.valid, p.size) for p in parts]
        for stage, reads in graph.steps:
            self.values.append(self.step(stage, reads))
        owed = [self.output(v, affine) for v, affine in graph.outputs]
        self.output_widths = tuple(sum(p.valid for p in parts) for parts in owed)
        self.outputs = [OutputChunk(p.chunk, i, p.start, p.valid) for i, parts in enumerate(owed) for p in parts]

    def output(self, value: int, affine: Affine) -> list[_Part]:
        """The parts of an output; what is owed on its value is one step more."""
        if affine.weight is None:
            return self.values[value]
        return self.step(MergedStage(affine.weight, affine.bias, None, 1, True, "identity"), (value,))

    def step(self, stage: MergedStage, reads: Sequence[int]) -> list[_Part]:
        """Packs a stage, chunk by chunk of its features; the parts of what it makes."""
        sources, offset = [], 0  # parts with their place among the joined columns
        for v in reads:
            sources += [(p, offset + p.start) for p in self.values[v]]
            offset += sum(p.valid for p in self.values[v])
        m = stage.num_features // stage.degree
        blocks = stage.weight.shape[0] // m
        weight = stage.weight.detach().view(blocks, m, -1)
        bias = weight.new_zeros(blocks, m) if stage.bias is None else stage.bias.detach().view(blocks, m)
        parts = []
        for start, valid, size in _split(m):
            rows = slice(start, start + valid)
            for p, column in sources:
                tile = weight.new_zeros(blocks, p.size, size)
                tile[:, : p.valid, :valid] = weight[:, rows, column : column + p.valid].transpose(1, 2)
                self.tiles.append(tile.reshape(-1))
            padded = bias.new_zeros(blocks, size)
            padded[:, :valid] = bias[:, rows]
            self.biases.append(padded.reshape(-1))
            self.steps.append(PackedStep(tuple(p.chunk for p, _ in sources), size, blocks, stage.phi == "relu"))
            for degree in range(stage.degree):
                parts.append(_Part(len(self.inputs) + self.made, degree * m + start, valid, size))
                self.made += 1
        return parts

    def packed(self, precision: FusedPrecision) -> PackedNetwork:
        """All of it, in a precision."""
        dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
        return PackedNetwork(
            torch.cat(self.tiles).to(dtype),
            torch.cat(self.biases).float(),
            tuple(self.inputs),
            tuple(self.steps),
            tuple(self.outputs),
            self.input_widths,
            self.output_widths,
            precision,
        )


def _split(width: int) -> list[tuple[int, int, int]]:
    """Start, valid columns and size of a value's chunks."""
    found, start = [], 0
    for size in _sizes(width):
        found.append((start, min(size, width - start), size))
        start += size
    return found
