"""The Triton kernel behind `core/fused.py`: a whole collapsed network in one launch. Importing this needs triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _dot(a, tiles, total, SIZE: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """`total + a W` for the tile W `[K, SIZE]` at the pointer `tiles`."""
    tile = tl.load(tiles + tl.arange(0, a.shape[1])[:, None] * SIZE + tl.arange(0, SIZE)[None, :])
    if WIDEN:
        return tl.dot(a.to(tl.float32), tile.to(tl.float32), total, input_precision=PRECISION)
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
def _sine(turns):
    """`sin(2 pi turns)`: whole turns go exactly, then half ones by symmetry, then Taylor's polynomial (error 6e-8)."""
    part = turns - tl.floor(turns + 0.5)
    size = tl.abs(part)
    x = 6.283185307179586 * tl.minimum(size, 0.5 - size)
    z = x * x
    y = -2.505210838544172e-8 * z + 2.7557319223985893e-6
    y = y * z - 1.984126984126984e-4
    y = y * z + 8.333333333333333e-3
    y = y * z - 0.16666666666666666
    y = x + x * z * y
    return tl.where(part < 0.0, -y, y)


@triton.jit
def _softplus(u):
    return tl.maximum(u, 0.0, propagate_nan=tl.PropagateNan.ALL) + tl.log(1.0 + tl.exp(-tl.abs(u)))


@triton.jit
def _phi(u, PHI: tl.constexpr):
    """The function called `PHI` in `core/activations.py`."""
    if PHI == "relu":
        return tl.maximum(u, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif PHI == "softplus":
        return _softplus(u)
    elif PHI == "softplus100":
        return _softplus(100.0 * u) * 0.01
    elif PHI == "gelu":
        return 0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476))
    elif PHI == "gelu_tanh":
        return u * tl.sigmoid(1.5957691216057308 * (u + 0.044715 * u * u * u))
    elif PHI == "silu":
        return u * tl.sigmoid(u)
    elif PHI == "sin":
        return _sine(u * 0.15915494309189535)
    elif PHI == "cos":
        return _sine(u * 0.15915494309189535 + 0.25)
    elif PHI == "tanh":
        return 2.0 * tl.sigmoid(2.0 * u) - 1.0
    elif PHI == "sigmoid":
        return tl.sigmoid(u)
    elif PHI == "gaussian":
        return tl.exp(-0.5 * u * u)
    else:
        tl.static_assert(PHI == "identity")
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
    return tl.where(waves[None, :], _sine(turns - tl.floor(turns + 0.5) + shift), turns + shift)


@triton.jit
def _input(x, row, stride, inside, tables, CHUNK: tl.constexpr, INPUTS: tl.constexpr):
    """A chunk of the input `x`, loaded or encoded."""
    if INPUTS[CHUNK][4] > 0:
        return _encode(x, row, stride, inside, tables + INPUTS[CHUNK][5], INPUTS[CHUNK][3], INPUTS[CHUNK][4])
    else:
        return _load(x, row, stride, inside, INPUTS[CHUNK][1], INPUTS[CHUNK][2], INPUTS[CHUNK][3])


@triton.jit
def _source(x0, x1, stride0, stride1, row, inside, tables, held, SOURCE: tl.constexpr, INPUTS: tl.constexpr):
    """The chunk number `SOURCE`: held, or an input's."""
    if len(INPUTS) <= SOURCE:
        return held[SOURCE - len(INPUTS)]
    elif INPUTS[SOURCE][0] == 0:
        return _input(x0, row, stride0, inside, tables, SOURCE, INPUTS)
    else:
        return _input(x1, row, stride1, inside, tables, SOURCE, INPUTS)


@triton.jit
def _store(out, y, row, inside, count, CHUNK: tl.constexpr, OUTPUTS: tl.constexpr):
    """Writes a chunk wherever it is a part of an output."""
    column = tl.arange(0, y.shape[1])
    for o in tl.static_range(len(OUTPUTS)):
        if OUTPUTS[o][0] == CHUNK:
            mask = inside[:, None] & (column < OUTPUTS[o][2])[None, :]
            base = OUTPUTS[o][4] * tl.cast(count, tl.int64)
            tl.store(out + base + row[:, None] * OUTPUTS[o][3] + OUTPUTS[o][1] + column[None, :], y, mask=mask)


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
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
):
    """`PackedNetwork` on `ROWS` of the `count` rows of `x0` and `x1`, a program.

    Chunks of values stay in registers, rounded to the dtype of the products; chunks of inputs are loaded or encoded
    anew for every stage that reads them: a skip would otherwise hold registers through half the network. Loops are
    unrolled, so that chunks may differ in width.

    Args:
        x0, x1: inputs `[count, d_i]` of any floating point dtype, last dimension contiguous, rows `stride_i` apart.
        weights, biases, tables: as packed; the weights' dtype is that of the products, sums are float32.
        out: float32, output i as `[count, width]` after the outputs before it.
        INPUTS, STAGES: as in `PackedNetwork`.
        OUTPUTS: chunk, first column in its output, valid columns, width of the output, widths before it, added.
        PRECISION: `ieee` or `tf32`, for float32 weights.
        WIDEN: whether factors are made float32 after rounding, for Triton's interpreter, which lacks bfloat16 products.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < count
    held = ()
    for s in tl.static_range(len(STAGES)):
        read = ()
        for r in tl.static_range(len(STAGES[s][0])):
            a = _source(x0, x1, stride0, stride1, row, inside, tables, held, STAGES[s][0][r], INPUTS)
            read = read + (a.to(weights.dtype.element_ty),)  # type: ignore[assignment]  # noqa: RUF005  no starred tuples
        square = tl.zeros((ROWS,), tl.float32)
        for q in tl.static_range(len(STAGES[s][1])):
            if STAGES[s][1][q][1] == 0:
                a = read[STAGES[s][1][q][0][0]].to(tl.float32)
                a = tl.where((tl.arange(0, a.shape[1]) < STAGES[s][1][q][2])[None, :], a, 0.0)
                square += tl.sum(a * a, axis=1)
            else:
                u = tl.zeros((ROWS, STAGES[s][1][q][1]), tl.float32)
                u += tl.load(biases + tl.arange(0, STAGES[s][1][q][1]))[None, :]
                biases += STAGES[s][1][q][1]
                for r in tl.static_range(len(STAGES[s][1][q][0])):
                    a = read[STAGES[s][1][q][0][r]]
                    u = _dot(a, weights, u, STAGES[s][1][q][1], PRECISION, WIDEN)
                    weights += a.shape[1] * STAGES[s][1][q][1]
                square += tl.sum(u * u, axis=1)
        norm = tl.sqrt(square)
        for p in tl.static_range(len(STAGES[s][2])):
            u0 = _start(biases, norm, 0, STAGES[s][3], STAGES[s][2][p], len(STAGES[s][1]))
            u1 = u0
            u2 = u0
            if STAGES[s][3] > 1:
                u1 = _start(biases, norm, 1, STAGES[s][3], STAGES[s][2][p], len(STAGES[s][1]))
            if STAGES[s][3] > 2:
                u2 = _start(biases, norm, 2, STAGES[s][3], STAGES[s][2][p], len(STAGES[s][1]))
            biases += STAGES[s][3] * STAGES[s][2][p]
            if len(STAGES[s][1]) > 0:
                biases += STAGES[s][3] * STAGES[s][2][p]
            for r in tl.static_range(len(STAGES[s][0])):
                a = read[r]
                u0 = _dot(a, weights, u0, STAGES[s][2][p], PRECISION, WIDEN)
                if STAGES[s][3] > 1:
                    u1 = _dot(a, weights + a.shape[1] * STAGES[s][2][p], u1, STAGES[s][2][p], PRECISION, WIDEN)
                if STAGES[s][3] > 2:
                    u2 = _dot(a, weights + 2 * a.shape[1] * STAGES[s][2][p], u2, STAGES[s][2][p], PRECISION, WIDEN)
                weights += STAGES[s][3] * a.shape[1] * STAGES[s][2][p]
            y = _phi(u0, STAGES[s][4])
            _store(out, y, row, inside, count, len(INPUTS) + len(held), OUTPUTS)
            held = held + (y.to(weights.dtype.element_ty),)  # type: ignore[assignment]  # noqa: RUF005
            if STAGES[s][3] > 1:
                second = u0 * u1
                if STAGES[s][3] > 2:
                    second = u1 * u2
                y = _phi(second, STAGES[s][4])
                _store(out, y, row, inside, count, len(INPUTS) + len(held), OUTPUTS)
                held = held + (y.to(weights.dtype.element_ty),)  # type: ignore[assignment]  # noqa: RUF005
