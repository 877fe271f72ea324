"""The form in which the fused kernel reads a collapsed network: tensors, and a plan of plain numbers.

Alphabet: a *chunk* is some columns of an input or of a stage's features, 16 to 128 wide, the last ones perhaps
padding; a *tile* is the part `[N, K]` of a stage's matrix from one chunk, K wide, to another. A value of any width is a
few chunks: widths are padded to a multiple of the smallest chunk and no further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

FusedPrecision = Literal["float32", "tf32", "bfloat16", "float16"]
FUSED_PRECISIONS: tuple[FusedPrecision, ...] = ("float32", "tf32", "bfloat16", "float16")
FUSED_FUNCTIONS = (
    "identity",
    "relu",
    "softplus",
    "softplus100",
    "gelu",
    "gelu_tanh",
    "silu",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "gaussian",
)
"""Element-wise functions that the kernel knows, by their names in `core/layers/activations.py`."""
MAX_TILE_PRODUCTS = 256
"""Most products of tiles, which are unrolled: 420 took two minutes to compile; float32 takes three a tile."""
MAX_STAGE_FEATURES = 256
"""Most features of a stage that a program can keep in registers."""
MAX_INPUT_WIDTH = 1024
"""Most columns of an input; they are read chunk by chunk."""
CHUNK_COLUMNS = {"float32": (64, 32), "tf32": (64, 32), "bfloat16": (128, 64, 16), "float16": (128, 64, 16)}
"""Possible columns of a chunk, by precision. Rows of a tile are then 128 bytes or a multiple, or one step of the
device's products: for rows between these the assembler of CUDA 12.8 gets addresses in shared memory wrong."""


class InputChunk(NamedTuple):
    """Columns `start` to `start + valid` of an input, or of its encoding."""

    input: int
    start: int
    valid: int
    size: int
    coordinates: int
    """Coordinates of the points that are encoded; 0 where the input is read as it is."""
    table: int
    """Start of its table in `PackedNetwork.tables`."""


class Square(NamedTuple):
    """A part of the square of the norm of what a stage reads: that of `size` rows of a factor R applied to chunks, or,
    where `size` is 0, that of the first `valid` columns of one chunk."""

    sources: tuple[int, ...]
    """Among the stage's sources. Tiles of zeros below R's diagonal are left out with the sources that they take."""
    size: int
    valid: int


class PackedStage(NamedTuple):
    """`blocks` projections of the same chunks, each cut into chunks of `sizes` columns.

    One block makes the chunks `phi(u_0)`, two make `phi(u_0)` and `phi(u_0 u_1)`, three `phi(u_0)` and `phi(u_1 u_2)`,
    with the product called `product` (`core/layers/products.py`).
    """

    sources: tuple[int, ...]
    """Chunks that it reads: those of the inputs come first, then all that stages make, in order."""
    squares: tuple[Square, ...]
    """Parts of the squared norm; empty where the stage does not read the norm."""
    sizes: tuple[int, ...]
    blocks: int
    phi: str
    product: str


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
    """All tiles, row by row, in the order of use: stage by stage, first those of its squares, then size by size; in
    these source by source, block by block. One dimension."""
    biases: Tensor
    """float32, in the same order: `size` numbers for each square with a factor and for each size and block, and as many
    for the norm's columns where the stage reads it."""
    tables: Tensor
    """float32, for each encoded chunk `size` numbers a coordinate (turns), `size` shifts, and 1 where it is a sine."""
    inputs: tuple[InputChunk, ...]
    stages: tuple[PackedStage, ...]
    outputs: tuple[OutputChunk, ...]
    tiles: tuple[tuple[int, int], ...]
    """Features and columns of each, in the order of use."""
    input_widths: tuple[int, ...]
    """Widths of the kernel's inputs: coordinates where an input is encoded."""
    output_widths: tuple[int, ...]
    precision: FusedPrecision


def storage_dtype(precision: FusedPrecision) -> torch.dtype:
    """The dtype that stores numbers of a precision: tf32 is a way to multiply float32."""
    return torch.float32 if precision == "tf32" else getattr(torch, precision)
