"""The Triton kernel behind `core/inference/fused.py`: a whole collapsed network in one launch.

Importing this needs triton.
"""

from __future__ import annotations

import triton
import triton.language as tl

from eugen_nerf.core.inference.fused_functions import joined, phi, sine


@triton.constexpr_function
def _at(plan, *path):
    """What a plan of nested tuples holds at a path of places."""
    for place in path:
        plan = plan[place]
    return plan


@triton.constexpr_function
def _count(plan, *path):
    """How many entries a plan has at a path of places."""
    for place in path:
        plan = plan[place]
    return len(plan)


@triton.constexpr_function
def _number(stages, s, p, r, block):
    """The number of a tile in the order of use: that of size `p`, source `r` and `block` in stage `s`."""
    before = sum(_tiles_of(stage) for stage in stages[:s]) + sum(len(square[0]) for square in stages[s][1] if square[1])
    return before + (p * len(stages[s][0]) + r) * stages[s][3] + block


@triton.constexpr_function
def _number_of_square(stages, s, q, r):
    """The number of a tile of the norm's factor: that of square `q` and its source `r` in stage `s`."""
    before = sum(_tiles_of(stage) for stage in stages[:s])
    return before + sum(len(square[0]) for square in stages[s][1][:q] if square[1]) + r


@triton.constexpr_function
def _tiles_of(stage):
    sources, squares, sizes, blocks, *_ = stage
    return len(sources) * len(sizes) * blocks + sum(len(square[0]) for square in squares if square[1])


@triton.constexpr_function
def _offset(tiles, number):
    """Where a tile begins among the weights."""
    return sum(height * width for height, width in tiles[:number])


@triton.jit
def _tile(weights, NUMBER: tl.constexpr, TILES: tl.constexpr):
    """A tile of the weights, as `[columns read, features]`."""
    HEIGHT: tl.constexpr = _at(TILES, NUMBER, 0)
    WIDTH: tl.constexpr = _at(TILES, NUMBER, 1)
    place = tl.arange(0, HEIGHT)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    return tl.trans(tl.load(weights + _offset(TILES, NUMBER) + place))


@triton.jit
def _ahead(weights, window, NUMBER: tl.constexpr, TILES: tl.constexpr):
    """The window without its first tile, number `NUMBER`, and with the one that follows its last."""
    if NUMBER + len(window) < _count(TILES):
        return window[1:] + (_tile(weights, NUMBER + len(window), TILES),)  # noqa: RUF005  no starred tuples
    else:
        return window[1:]


@triton.jit
def _dot(a, tile, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """`total + a W` for a tile W."""
    if WIDEN:
        return tl.dot(a.to(tl.float32), tile.to(tl.float32), total, input_precision=PRECISION)
    else:
        return tl.dot(a, tile, total, input_precision=PRECISION)


@triton.jit
def _start(biases, norm, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr, SQUARES: tl.constexpr):
    """`[ROWS, SIZE]`, what a block of a projection adds to its products: biases, and columns times the norm."""
    column = tl.arange(0, SIZE)
    u = tl.zeros((norm.shape[0], SIZE), tl.float32) + tl.load(biases + BLOCK * SIZE + column)[None, :]
    if SQUARES > 0:
        u += norm[:, None] * tl.load(biases + (BLOCKS + BLOCK) * SIZE + column)[None, :]
    return u


@triton.jit
def _load(x, row, stride, inside, START: tl.constexpr, VALID: tl.constexpr, SIZE: tl.constexpr):
    """`[ROWS, SIZE]`, columns `START` and on of an input, zeros beyond the `VALID` first."""
    column = tl.arange(0, SIZE)
    mask = inside[:, None] & (column < VALID)[None, :]
    return tl.load(x + row[:, None] * stride + START + column[None, :], mask=mask, other=0.0)


@triton.jit
def _encode(x, row, stride, inside, table, SIZE: tl.constexpr, COORDINATES: tl.constexpr):
    """`[ROWS, SIZE]` features of points by the table of an input's chunk."""
    column = tl.arange(0, SIZE)
    turns = tl.load(x + row * stride, mask=inside, other=0.0).to(tl.float32)[:, None] * tl.load(table + column)[None, :]
    for c in tl.static_range(1, COORDINATES):
        point = tl.load(x + row * stride + c, mask=inside, other=0.0).to(tl.float32)
        turns += point[:, None] * tl.load(table + c * SIZE + column)[None, :]
    shift = tl.load(table + COORDINATES * SIZE + column)[None, :]
    waves = tl.load(table + (COORDINATES + 1) * SIZE + column) > 0.0
    return tl.where(waves[None, :], sine(turns - tl.floor(turns + 0.5) + shift), turns + shift)


@triton.jit
def _input(x, row, stride, inside, tables, CHUNK: tl.constexpr, INPUTS: tl.constexpr):
    """A chunk of the input `x`, loaded or encoded."""
    SIZE: tl.constexpr = _at(INPUTS, CHUNK, 3)
    COORDINATES: tl.constexpr = _at(INPUTS, CHUNK, 4)
    if COORDINATES > 0:
        return _encode(x, row, stride, inside, tables + _at(INPUTS, CHUNK, 5), SIZE, COORDINATES)
    else:
        return _load(x, row, stride, inside, _at(INPUTS, CHUNK, 1), _at(INPUTS, CHUNK, 2), SIZE)


@triton.jit
def _chunk(args, row, inside, held, SOURCE: tl.constexpr, INPUTS: tl.constexpr, DTYPE: tl.constexpr):
    """The chunk number `SOURCE` in the dtype of the products: held, or an input's."""
    x0, x1, stride0, stride1, tables = args
    if _count(INPUTS) <= SOURCE:
        return held[SOURCE - _count(INPUTS)]
    elif _at(INPUTS, SOURCE, 0) == 0:
        return _input(x0, row, stride0, inside, tables, SOURCE, INPUTS).to(DTYPE)
    else:
        return _input(x1, row, stride1, inside, tables, SOURCE, INPUTS).to(DTYPE)


@triton.jit
def _store(out, y, row, inside, count, CHUNK: tl.constexpr, OUTPUTS: tl.constexpr):
    """Writes a chunk wherever it is a part of an output."""
    column = tl.arange(0, y.shape[1])
    for o in tl.static_range(_count(OUTPUTS)):
        if _at(OUTPUTS, o, 0) == CHUNK:
            mask = inside[:, None] & (column < _at(OUTPUTS, o, 2))[None, :]
            place = _at(OUTPUTS, o, 4) * tl.cast(count, tl.int64) + row[:, None] * _at(OUTPUTS, o, 3)
            tl.store(out + place + _at(OUTPUTS, o, 1) + column[None, :], y, mask=mask)


@triton.jit
def _block(
    block,
    args,
    memory,
    window,
    INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    TILES: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The network on the `ROWS` rows number `block`; `window` holds the first tiles."""
    weights, biases, out, count = memory
    DTYPE: tl.constexpr = weights.dtype.element_ty
    row = tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < count
    held = ()
    for s in tl.static_range(_count(STAGES)):
        square = tl.zeros((ROWS,), tl.float32)
        for q in tl.static_range(_count(STAGES, s, 1)):
            if _at(STAGES, s, 1, q, 1) == 0:
                a = _chunk(args, row, inside, held, _at(STAGES, s, 0, _at(STAGES, s, 1, q, 0, 0)), INPUTS, DTYPE)
                a = a.to(tl.float32)
                a = tl.where((tl.arange(0, a.shape[1]) < _at(STAGES, s, 1, q, 2))[None, :], a, 0.0)
                square += tl.sum(a * a, axis=1)
            else:
                u = tl.zeros((ROWS, _at(STAGES, s, 1, q, 1)), tl.float32)
                u += tl.load(biases + tl.arange(0, _at(STAGES, s, 1, q, 1)))[None, :]
                biases += _at(STAGES, s, 1, q, 1)
                for r in tl.static_range(_count(STAGES, s, 1, q, 0)):
                    a = _chunk(args, row, inside, held, _at(STAGES, s, 0, _at(STAGES, s, 1, q, 0, r)), INPUTS, DTYPE)
                    tile = window[0]
                    window = _ahead(weights, window, _number_of_square(STAGES, s, q, r), TILES)
                    u = _dot(a, tile, u, PRECISION, WIDEN)
                square += tl.sum(u * u, axis=1)
        norm = tl.sqrt(square)
        for p in tl.static_range(_count(STAGES, s, 2)):
            u = ()
            for b in tl.static_range(_at(STAGES, s, 3)):
                u = u + (_start(biases, norm, b, _at(STAGES, s, 3), _at(STAGES, s, 2, p), _count(STAGES, s, 1)),)  # noqa: RUF005
            biases += _at(STAGES, s, 3) * _at(STAGES, s, 2, p)
            if _count(STAGES, s, 1) > 0:
                biases += _at(STAGES, s, 3) * _at(STAGES, s, 2, p)
            for r in tl.static_range(_count(STAGES, s, 0)):
                a = _chunk(args, row, inside, held, _at(STAGES, s, 0, r), INPUTS, DTYPE)
                for b in tl.static_range(_at(STAGES, s, 3)):
                    tile = window[0]
                    window = _ahead(weights, window, _number(STAGES, s, p, r, b), TILES)
                    u = u[1:] + (_dot(a, tile, u[0], PRECISION, WIDEN),)  # noqa: RUF005
            y = phi(u[0], _at(STAGES, s, 4))
            _store(out, y, row, inside, count, _count(INPUTS) + len(held), OUTPUTS)
            held = held + (y.to(DTYPE),)  # type: ignore[assignment]  # noqa: RUF005
            if _at(STAGES, s, 3) > 1:
                y = joined(u[_at(STAGES, s, 3) - 2], u[_at(STAGES, s, 3) - 1], _at(STAGES, s, 5))
                y = phi(y, _at(STAGES, s, 4))
                _store(out, y, row, inside, count, _count(INPUTS) + len(held), OUTPUTS)
                held = held + (y.to(DTYPE),)  # type: ignore[assignment]  # noqa: RUF005


@triton.jit(do_not_specialize=["count"])
def fused_kernel(
    x0,
    x1,
    stride0,
    stride1,
    weights,
    biases,
    tables,
    out,
    count,
    INPUTS: tl.constexpr,
    STAGES: tl.constexpr,
    OUTPUTS: tl.constexpr,
    TILES: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    WINDOW: tl.constexpr,
):
    """`PackedNetwork` on the `count` rows of `x0` and `x1`, `ROWS` at a time.

    Chunks of values stay in registers, rounded to the dtype of the products; chunks of inputs are loaded or encoded
    anew for every product that reads them: they would otherwise hold registers, a skip's through half the network.
    Loops are unrolled, so that chunks may differ in width. A window of tiles is loaded before they are used. Where it
    holds them all, a program keeps them in shared memory (the compiler moves what makes them so out of the loop) and
    takes every so many-th block of rows; else it takes one block.

    Args:
        x0, x1: inputs `[count, d_i]` of any floating point dtype, last dimension contiguous, rows `stride_i` apart.
        weights, biases, tables: as packed; the weights' dtype is that of the products, sums are float32.
        out: float32, output i as `[count, width]` after the outputs before it.
        INPUTS, STAGES, TILES: as in `PackedNetwork`.
        OUTPUTS: chunk, first column in its output, valid columns, width of the output, widths before it, added.
        PRECISION: `tf32x3` (three products, as exact as float32) or `tf32`, for float32 weights.
        WIDEN: whether factors are made float32 after rounding, for Triton's interpreter, which lacks bfloat16 products.
        WINDOW: number of tiles.
    """
    window = ()
    for t in tl.static_range(WINDOW):
        window = window + (_tile(weights, t, TILES),)  # type: ignore[assignment]  # noqa: RUF005
    args = (x0, x1, stride0, stride1, tables)
    memory = (weights, biases, out, count)
    if _count(TILES) == WINDOW:
        for block in tl.range(tl.program_id(0), (count + ROWS - 1) // ROWS, tl.num_programs(0), num_stages=1):
            _block(block, args, memory, window, INPUTS, STAGES, OUTPUTS, TILES, PRECISION, WIDEN, ROWS)
    else:
        _block(tl.program_id(0), args, memory, window, INPUTS, STAGES, OUTPUTS, TILES, PRECISION, WIDEN, ROWS)
