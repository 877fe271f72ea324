"""From a collapsed network to the form that the fused kernel reads, or one line that says why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.packed_format import (
    CHUNK_COLUMNS,
    FUSED_FUNCTIONS,
    FUSED_PRECISIONS,
    MAX_INPUT_WIDTH,
    MAX_STAGE_FEATURES,
    MAX_TILE_PRODUCTS,
    FusedPrecision,
    InputChunk,
    OutputChunk,
    PackedNetwork,
    PackedStage,
    Square,
    storage_dtype,
)
from eugen_nerf.core.inference.sinusoids import Sinusoids
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.layer_graph import CollapsedGraph


def unsupported_reason(graph: CollapsedGraph, input_widths: Sequence[int]) -> str | None:
    """One line that says why the kernel cannot run a network; None where it can.

    Args:
        graph: the network.
        input_widths: width of each input, as the network reads it (encoded, where it is encoded).
    """
    if not 1 <= len(input_widths) <= 2:
        return f"the network has {len(input_widths)} inputs, the fused kernel takes 1 or 2"
    for i, width in enumerate(input_widths):
        if width > MAX_INPUT_WIDTH:
            return f"input {i} is {width} wide, the fused kernel takes at most {MAX_INPUT_WIDTH}"
    for i, (stage, _) in enumerate(graph.steps):
        reason = _unsupported_stage_reason(stage)
        if reason is not None:
            return f"step {i} of the collapsed network {reason}"
    for i, (v, affine) in enumerate(graph.outputs):
        if affine.weight is None and v < len(input_widths):
            return f"output {i} is input {v} itself, the fused kernel writes what steps make"
        if affine.weight is not None and affine.weight.shape[0] > MAX_STAGE_FEATURES:
            return f"output {i} is {affine.weight.shape[0]} wide, the fused kernel takes at most {MAX_STAGE_FEATURES}"
    return None


def pack(
    graph: CollapsedGraph,
    input_widths: Sequence[int],
    precision: FusedPrecision = "float32",
    encodings: Sequence[Sinusoids | None] | None = None,
) -> PackedNetwork:
    """A collapsed network in the form of the kernel.

    Args:
        graph: tensors of any dtype, on the device where it is to run.
        input_widths: width of each input, as the network reads it.
        precision: dtype of inputs, features and weights in products; sums are float32. tf32 stores float32 and leaves
            rounding to the device's products.
        encodings: for each input, the table by which the kernel encodes points in float32; None where it is read as is.

    Raises:
        ConfigError: an unknown precision, encodings of other widths, a network that `unsupported_reason` refuses, or
            one of so many tiles that compiling its kernel would take minutes.
    """
    if precision not in FUSED_PRECISIONS:
        raise ConfigError(f"precision {precision!r} is unknown; choose one of {', '.join(FUSED_PRECISIONS)}")
    encodings = [None] * len(input_widths) if encodings is None else encodings
    made = [w if e is None else e.turns.shape[1] for e, w in zip(encodings, input_widths, strict=False)]
    if len(encodings) != len(input_widths) or made != list(input_widths):
        raise ConfigError(f"encodings make inputs of widths {made}; the network takes {list(input_widths)}")
    reason = unsupported_reason(graph, input_widths)
    if reason is not None:
        raise ConfigError(f"{reason}: take the backend eager or compile")
    packed = _Packer(graph, input_widths, encodings, CHUNK_COLUMNS[precision]).packed(precision)
    products = len(packed.tiles) * (3 if precision == "float32" else 1)
    if products > MAX_TILE_PRODUCTS:
        raise ConfigError(
            f"the fused kernel would make {products} products in {precision}, it takes at most {MAX_TILE_PRODUCTS}: "
            "take a smaller dtype, or the backend eager or compile"
        )
    return packed


def _unsupported_stage_reason(stage: MergedStage) -> str | None:
    if stage.groups > 1:
        return "has diagonal blocks (Monarch), which the fused kernel does not know"
    if stage.phi not in FUSED_FUNCTIONS:
        return f"has the function {stage.phi}, the fused kernel knows {', '.join(FUSED_FUNCTIONS)}"
    if stage.degree > 2:
        return f"has degree {stage.degree}, the fused kernel knows 1 and 2"
    if not 1 <= stage.num_features <= MAX_STAGE_FEATURES:
        return f"has {stage.num_features} features, the fused kernel takes 1 to {MAX_STAGE_FEATURES}"
    return None


def _split(width: int, sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Start, valid columns and size of a value's chunks: as many of each size as fit, the largest first, up to the next
    multiple of the smallest."""
    chunks, start, end = [], 0, -(-width // sizes[-1]) * sizes[-1]
    for size in sizes:
        while end - start >= size:
            chunks.append((start, min(size, width - start), size))
            start += size
    return chunks


class _Part(NamedTuple):
    """Columns `start` to `start + valid` of a value, in a chunk of `size`."""

    chunk: int
    start: int
    valid: int
    size: int


class _Packer:
    """Chunks, stages and tiles of one network, appended in order."""

    def __init__(
        self,
        graph: CollapsedGraph,
        input_widths: Sequence[int],
        encodings: Sequence[Sinusoids | None],
        sizes: Sequence[int],
    ) -> None:
        self.sizes = sizes
        self.tiles: list[Tensor] = []
        self.shapes: list[tuple[int, int]] = []
        self.biases: list[Tensor] = []
        self.tables: list[Tensor] = [torch.zeros(1)]  # a tensor without numbers has no address to give to a kernel
        self.inputs: list[InputChunk] = []
        self.stages: list[PackedStage] = []
        self.made = 0
        self.values: list[list[_Part]] = []
        for i, (width, encoding) in enumerate(zip(input_widths, encodings, strict=True)):
            self.values.append([self.input(i, *columns, encoding) for columns in _split(width, sizes)])
        for stage, reads in graph.steps:
            self.values.append(self.stage(stage, reads))
        output_parts = [self.output(v, affine) for v, affine in graph.outputs]
        self.input_widths = tuple(
            w if e is None else len(e.turns) for w, e in zip(input_widths, encodings, strict=True)
        )
        self.output_widths = tuple(sum(p.valid for p in parts) for parts in output_parts)
        self.outputs = [
            OutputChunk(p.chunk, i, p.start, p.valid) for i, parts in enumerate(output_parts) for p in parts
        ]

    def input(self, number: int, start: int, valid: int, size: int, encoding: Sinusoids | None) -> _Part:
        """One chunk of an input, with its table where it is encoded."""
        coordinates, at = 0, 0
        if encoding is not None:
            at, coordinates = sum(t.numel() for t in self.tables), len(encoding.turns)
            rows = torch.cat([encoding.turns, encoding.shift[None], encoding.sine[None].float()])
            table = rows.new_zeros(coordinates + 2, size)
            table[:, :valid] = rows[:, start : start + valid]
            self.tables.append(table.reshape(-1).cpu())
        self.inputs.append(InputChunk(number, start, valid, size, coordinates, at))
        return _Part(len(self.inputs) - 1, start, valid, size)

    def output(self, value: int, affine: Affine) -> list[_Part]:
        """The parts of an output; its affine map is one more stage."""
        if affine.weight is None:
            return self.values[value]
        return self.stage(MergedStage(affine.weight, affine.bias, None, 1, True, "identity"), (value,))

    def stage(self, stage: MergedStage, reads: Sequence[int]) -> list[_Part]:
        """Packs a stage, chunk by chunk of its features; the parts of what it makes."""
        segments = [self.values[v] for v in reads]
        sources = [p for parts in segments for p in parts]
        squares = () if stage.norm is None else self.squares(segments, stage.factors)
        m = stage.num_features // stage.degree
        blocks = stage.weight.shape[0] // m
        weight = stage.weight.detach().view(blocks, m, -1)
        columns = weight.split([p.valid for p in sources], dim=2)
        vectors = [stage.bias] if stage.norm is None else [stage.bias, stage.norm]
        parts, sizes = [], []
        for start, valid, size in _split(m, self.sizes):
            rows = slice(start, start + valid)
            for p, tile in zip(sources, columns, strict=True):
                self.tile(tile[:, rows], p.size, size)
            for vector in vectors:
                padded = weight.new_zeros(blocks, size)
                if vector is not None:
                    padded[:, :valid] = vector.detach().view(blocks, m)[:, rows]
                self.biases.append(padded.reshape(-1))
            sizes.append(size)
            for degree in range(stage.degree):
                parts.append(_Part(len(self.inputs) + self.made, degree * m + start, valid, size))
                self.made += 1
        chunks = tuple(p.chunk for p in sources)
        self.stages.append(PackedStage(chunks, squares, tuple(sizes), blocks, stage.phi, stage.product))
        return sorted(parts, key=lambda p: p.start)

    def squares(
        self, segments: Sequence[Sequence[_Part]], factors: Sequence[tuple[Tensor, Tensor] | None]
    ) -> tuple[Square, ...]:
        """The parts whose sum is the squared norm of joined segments."""
        squares: list[Square] = []
        first = 0  # of the segment's parts among the stage's sources
        for parts, factor in zip(segments, factors, strict=True):
            if factor is None:
                squares += [Square((first + i,), 0, p.valid) for i, p in enumerate(parts)]
            else:
                columns = factor[0].detach().split([p.valid for p in parts], dim=1)
                for start, valid, size in _split(len(factor[0]), self.sizes):
                    rows = slice(start, start + valid)
                    kept = [i for i, tile in enumerate(columns) if bool(tile[rows].any())]
                    for i in kept:
                        self.tile(columns[i][None, rows], parts[i].size, size)
                    padded = factor[1].new_zeros(size)
                    padded[:valid] = factor[1].detach()[rows]
                    self.biases.append(padded)
                    squares.append(Square(tuple(first + i for i in kept), size, size))
            first += len(parts)
        return tuple(squares)

    def tile(self, rows: Tensor, columns: int, features: int) -> None:
        """Appends rows `[blocks, N, K]` of a matrix as tiles `[features, columns]`."""
        padded = rows.new_zeros(len(rows), features, columns)
        padded[:, : rows.shape[1], : rows.shape[2]] = rows
        self.tiles.append(padded.reshape(-1))
        self.shapes += [(features, columns)] * len(rows)

    def packed(self, precision: FusedPrecision) -> PackedNetwork:
        """All of it, in a precision."""
        weights = torch.cat(self.tiles).to(storage_dtype(precision))
        return PackedNetwork(
            weights,
            torch.cat(self.biases).float(),
            torch.cat(self.tables).to(weights.device),
            tuple(self.inputs),
            tuple(self.stages),
            tuple(self.outputs),
            tuple(self.shapes),
            self.input_widths,
            self.output_widths,
            precision,
        )
