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
def _load(x, row, stride, inside, START: tl.constexpr, VALID: tl.constexpr, SIZE: tl.constexpr):
    """`[ROWS, SIZE]`, columns `START` and on of an input, zeros beyond the `VALID` first."""
    column = tl.arange(0, SIZE)
    mask = inside[:, None] & (column < VALID)[None, :]
    return tl.load(x + row[:, None] * stride + START + column[None, :], mask=mask, other=0.0)


@triton.jit
def _source(x0, x1, stride0, stride1, row, inside, held, SOURCE: tl.constexpr, INPUTS: tl.constexpr):
    """The chunk number `SOURCE`, loaded or held."""
    if len(INPUTS) <= SOURCE:
        return held[SOURCE - len(INPUTS)]
    elif INPUTS[SOURCE][0] == 0:
        return _load(x0, row, stride0, inside, INPUTS[SOURCE][1], INPUTS[SOURCE][2], INPUTS[SOURCE][3])
    else:
        return _load(x1, row, stride1, inside, INPUTS[SOURCE][1], INPUTS[SOURCE][2], INPUTS[SOURCE][3])


@triton.jit(do_not_specialize=["count"])
def fused_kernel(
    x0,
    x1,
    stride0,
    stride1,
    weights,
    biases,
    out,
    count,
    INPUTS: tl.constexpr,
    STEPS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
):
    """`PackedNetwork` on `ROWS` of the `count` rows of `x0` and `x1`, a program.

    Chunks of values stay in registers, chunks of inputs are loaded anew wherever they are read: they are in the cache,
    and a skip would otherwise hold registers through half the network. Loops are unrolled, so that chunks may differ
    in width.

    Args:
        x0, x1: inputs `[count, d_i]` of any floating point dtype, last dimension contiguous, rows `stride_i` apart.
        weights, biases: as packed; the weights' dtype is that of the products, sums are float32.
        out: float32, output i as `[count, width]` after the outputs before it.
        INPUTS, STEPS: as in `PackedNetwork`.
        OUTPUTS: chunk, first column in its output, valid columns, width of the output, widths before it, added.
        PRECISION: `ieee` or `tf32`, for float32 weights.
        WIDEN: whether factors are made float32 after rounding, for Triton's interpreter, which lacks bfloat16 products.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < count
    held = ()
    for s in tl.static_range(len(STEPS)):
        column = tl.arange(0, STEPS[s][1])
        zeros = tl.zeros((ROWS, STEPS[s][1]), tl.float32)
        u0 = zeros + tl.load(biases + column)[None, :]
        u1 = zeros
        u2 = zeros
        if STEPS[s][2] > 1:
            u1 = zeros + tl.load(biases + STEPS[s][1] + column)[None, :]
        if STEPS[s][2] > 2:
            u2 = zeros + tl.load(biases + 2 * STEPS[s][1] + column)[None, :]
        biases += STEPS[s][2] * STEPS[s][1]
        for r in tl.static_range(len(STEPS[s][0])):
            a = _source(x0, x1, stride0, stride1, row, inside, held, STEPS[s][0][r], INPUTS)
            a = a.to(weights.dtype.element_ty)
            u0 = _dot(a, weights, u0, STEPS[s][1], PRECISION, WIDEN)
            if STEPS[s][2] > 1:
                u1 = _dot(a, weights + a.shape[1] * STEPS[s][1], u1, STEPS[s][1], PRECISION, WIDEN)
            if STEPS[s][2] > 2:
                u2 = _dot(a, weights + 2 * a.shape[1] * STEPS[s][1], u2, STEPS[s][1], PRECISION, WIDEN)
            weights += STEPS[s][2] * a.shape[1] * STEPS[s][1]
        second = u0 * u1
        if STEPS[s][2] > 2:
            second = u1 * u2
        if STEPS[s][3]:
            u0 = tl.maximum(u0, 0.0, propagate_nan=tl.PropagateNan.ALL)
            second = tl.maximum(second, 0.0, propagate_nan=tl.PropagateNan.ALL)
        held = held + (u0,)  # type: ignore[assignment]  # noqa: RUF005  triton has no starred tuples
        if STEPS[s][2] > 1:
            held = held + (second,)  # type: ignore[assignment]  # noqa: RUF005
    for o in tl.static_range(len(OUTPUTS)):
        y = held[OUTPUTS[o][0] - len(INPUTS)]  # type: ignore[var-annotated]
        column = tl.arange(0, y.shape[1])
        mask = inside[:, None] & (column < OUTPUTS[o][2])[None, :]
        base = OUTPUTS[o][4] * tl.cast(count, tl.int64)
        tl.store(out + base + row[:, None] * OUTPUTS[o][3] + OUTPUTS[o][1] + column[None, :], y, mask=mask)
