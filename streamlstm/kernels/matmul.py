"""C = S + A B, the product that training is made of, held in registers tile by tile.

Every element of C is one FMA chain,

    S[r][n], then + A[r][k] B[k][n] for k = 0 .. K - 1,

whatever tile it falls into and whatever the width of the CPU's vectors: the bits depend on the operands alone.

A tile is 8 rows x 3 vectors of 16 float32 lanes on AVX-512 (24 accumulators, 3 vectors of B and a broadcast: 28 of 32
registers), 4 rows x 3 vectors of 8 lanes elsewhere (16 registers); lanes lie along n, which is contiguous in B, C and
S. Of four vectors two and two go together. The rest of the columns goes to masked vectors of a whole, half or quarter
width; the rest of the rows to tiles of fewer rows. float64 has half as many lanes.

At the shapes of training it takes 0.8 to 1 times as long as OpenBLAS's sgemm, which promises no order of summation and
which compiled code would reach through SciPy alone.

Operands are addresses with strides in bytes, so that A may be read transposed, and S may be C itself (to accumulate),
one row for all (stride 0: a bias), or zeros.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.vector import F32, F64, I64, Builder, Value, Vector, function_of, has_wide_vectors, int64

_ROW_COUNTS = (8, 4, 2, 1)
_NARROW_ROWS = 4  # most rows of a tile where registers are few
_KINDS = ((3, 0), (2, 0), (1, 1), (1, 2), (1, 4))
"""Columns of a tile: so many whole vectors, or (> 0) one masked vector of that part of a whole one."""
_THREE, _TWO, _MASKED, _MASKED_HALF, _MASKED_QUARTER = range(5)
_ARGUMENTS = ("k", "lanes", "a", "a_row", "a_step", "b", "b_step", "s", "s_row", "c", "c_row")


def element_of(real: Any) -> Value:
    """The LLVM type of a Numba scalar or array type of float32 or float64."""
    return F32 if getattr(real, "dtype", real) == types.float32 else F64


def whole_lanes(element: Value) -> int:
    """Lanes of the widest vector of float32 or float64 to use on the machine that is compiled for."""
    return (16 if has_wide_vectors() else 8) // (1 if element is F32 else 2)


def _join(phi: Value, *incoming: tuple[Value, Value]) -> None:
    for value, block in incoming:
        phi.add_incoming(value, block)


def _emit_tile(builder: Builder, element: Value, rows: int, vectors: int, part: int, arguments: list[Value]) -> None:
    """The body of one micro-kernel. `part` 0: `vectors` whole vectors; else one masked vector of 1/part the width."""
    k_count, lanes, a, a_row, a_step, b, b_step, s, s_row, c, c_row = arguments
    v = Vector(builder, whole_lanes(element) // max(part, 1), element)
    mask = v.first_lanes(lanes) if part else None

    def load(address: Value) -> list[Value]:
        if mask is not None:
            return [v.load_masked(address, mask)]
        return [v.load(address, vector * v.bytes) for vector in range(vectors)]

    def row_starts(base: Value, stride: Value) -> list[Value]:
        return [builder.add(base, builder.mul(stride, int64(row))) for row in range(rows)]

    a_rows = row_starts(a, a_row)
    sums = [load(start) for start in row_starts(s, s_row)]
    before, loop = builder.block, builder.append_basic_block("multiply")
    after = builder.append_basic_block("multiplied")
    builder.branch(loop)

    builder.position_at_end(loop)
    left, a_offset, b_at = builder.phi(I64), builder.phi(I64), builder.phi(I64)
    running = [[builder.phi(v.type) for _ in own] for own in sums]
    b_vectors = load(b_at)
    updated = []
    for start, own in zip(a_rows, running, strict=True):
        value = v.broadcast(builder.add(start, a_offset))
        updated.append([v.fma(value, weight, total) for weight, total in zip(b_vectors, own, strict=True)])
    then = (builder.sub(left, int64(1)), builder.add(a_offset, a_step), builder.add(b_at, b_step))
    builder.cbranch(builder.icmp_signed(">", then[0], int64(0)), loop, after)
    for phi, first, following in zip((left, a_offset, b_at), (k_count, int64(0), b), then, strict=True):
        _join(phi, (first, before), (following, loop))
    for own, first_row, next_row in zip(running, sums, updated, strict=True):
        for phi, first, following in zip(own, first_row, next_row, strict=True):
            _join(phi, (first, before), (following, loop))

    builder.position_at_end(after)
    for start, own in zip(row_starts(c, c_row), updated, strict=True):
        for vector, total in enumerate(own):
            if mask is not None:
                v.store_masked(total, start, mask)
            else:
                v.store(total, builder.add(start, int64(vector * v.bytes)))


def _micro_kernel(module: ir.Module, element: Value, rows: int, kind: int) -> Value:
    vectors, part = _KINDS[kind]
    name = f"streamlstm_multiply_{element.intrinsic_name}_{rows}_rows_{vectors}_vectors_part_{part}"
    return function_of(
        module, name, len(_ARGUMENTS), lambda builder, given: _emit_tile(builder, element, rows, vectors, part, given)
    )


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_tile(
    typingctx: Any, real: Any, rows: Any, kind: Any, k: Any, lanes: Any, a: Any, a_row: Any, a_step: Any, b: Any,
    b_step: Any, s: Any, s_row: Any, c: Any, c_row: Any,
) -> Any:  # fmt: skip
    """One tile of `rows` (8, 4, 2 or 1) and the columns of `kind`, an index of _KINDS; of a masked vector the first
    `lanes` lanes. `real` is any value of the element type; the others are int64. k >= 1.
    """
    element = element_of(real)

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        _, chosen_rows, chosen_kind, *rest = arguments
        chosen = builder.add(builder.shl(chosen_rows, int64(3)), chosen_kind)
        done = builder.append_basic_block("tile_done")
        switch = builder.switch(chosen, done)
        for count in _ROW_COUNTS:
            if count > _NARROW_ROWS and not has_wide_vectors():
                continue
            for index in range(len(_KINDS)):
                case = builder.append_basic_block(f"tile_{count}_{index}")
                switch.add_case(int64((count << 3) + index), case)
                builder.position_at_end(case)
                builder.call(_micro_kernel(builder.module, element, count, index), rest)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * (2 + len(_ARGUMENTS))), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _lanes_and_rows(typingctx: Any, real: Any) -> Any:
    """(lanes of a whole vector, most rows of a tile) of the machine compiled for, of the type of `real`."""

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        lanes = int64(whole_lanes(element_of(real)))
        rows = int64(_ROW_COUNTS[0] if has_wide_vectors() else _NARROW_ROWS)
        return context.make_tuple(builder, signature.return_type, [lanes, rows])

    return types.UniTuple(types.int64, 2)(real), codegen


@compiled
def multiply_add(
    real: Any, rows: int, columns: int, inner: int, a: int, a_row: int, a_step: int, b: int, b_step: int, s: int,
    s_row: int, c: int, c_row: int,
) -> None:  # fmt: skip
    """C[r][n] = S[r][n] + sum over k of A[r][k] B[k][n], for r < rows, n < columns, k < inner; inner >= 1.

    real                 any value of the element type, float32 or float64
    a, a_row, a_step     address of A[0][0]; bytes from row to row and from k to k
    b, b_step            address of B[0][0]; bytes from k to k; n is contiguous
    s, s_row             address of S[0][0]; bytes from row to row, 0 for one row for all; n is contiguous
    c, c_row             address of C[0][0]; bytes from row to row; n is contiguous; written. S may be C
    """
    lanes, most_rows = _lanes_and_rows(real)
    size = a_size(real)
    n = 0
    while n < columns:
        left = columns - n
        vectors = left // lanes
        if vectors >= 2:  # of four two and two: a vector alone waits for its own chains
            kind = _TWO if vectors in (2, 4) else _THREE
            width = (2 if kind == _TWO else 3) * lanes
        else:
            width = min(left, lanes)
            kind = _MASKED_QUARTER if width <= lanes // 4 else _MASKED_HALF if width <= lanes // 2 else _MASKED
        r = 0
        while r < rows:
            tall = min(rows - r, most_rows)
            tall = 8 if tall >= 8 else 4 if tall >= 4 else 2 if tall >= 2 else 1
            _multiply_tile(
                real, tall, kind, inner, width, a + r * a_row, a_row, a_step, b + n * size, b_step,
                s + r * s_row + n * size, s_row, c + r * c_row + n * size, c_row,
            )  # fmt: skip
            r += tall
        n += width


@intrinsic  # type: ignore[untyped-decorator]
def a_size(typingctx: Any, real: Any) -> Any:
    """Bytes of a value of the type of `real`."""

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return int64(4 if element_of(real) is F32 else 8)

    return types.int64(real), codegen
