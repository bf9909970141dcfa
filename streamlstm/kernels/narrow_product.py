"""C += A B where few columns are left beyond whole vectors, as of H = 50, and the transpose of B is at hand too.

kernels.matmul takes as long for one to four columns as for eight to sixteen: lanes lie along the columns. Here they lie
along k, for those columns alone. An element of them is C plus the sum of 16 FMA chains, each of every 16th k, from 0;
the upper half of the chains is added to the lower until one is left. So it is on every machine.
"""

import itertools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.matmul import a_size, element_of, multiply_add
from streamlstm.kernels.vector import I64, Builder, Value, Vector, function_of, int64

LANES = 16
NARROW = 4  # most columns
_TALL = 4  # rows at once: each load then feeds some products


def _emit_dots(builder: Builder, element: Value, rows: int, columns: int, arguments: list[Value]) -> None:
    """The body of one micro-kernel: `rows` x `columns` elements."""
    k_count, a, a_row, b, b_row, c, c_row = arguments
    v = Vector(builder, LANES, element)
    left_rows = [builder.add(a, builder.mul(a_row, int64(row))) for row in range(rows)]
    right_rows = [builder.add(b, builder.mul(b_row, int64(column))) for column in range(columns)]
    sums = [cgutils.alloca_once_value(builder, v.constant(0.0)) for _ in range(rows * columns)]

    def add(offset: Value, load: Callable[[Value], Value]) -> None:
        left, right = ([load(builder.add(row, offset)) for row in of] for of in (left_rows, right_rows))
        for total, (x, y) in zip(sums, itertools.product(left, right), strict=True):
            builder.store(v.fma(x, y, builder.load(total)), total)

    whole = builder.mul(builder.and_(k_count, int64(-LANES)), int64(v.size))
    with cgutils.for_range_slice(builder, int64(0), whole, int64(v.bytes), I64) as (offset, _):
        add(offset, v.load)
    rest = builder.and_(k_count, int64(LANES - 1))
    with builder.if_then(builder.icmp_signed(">", rest, int64(0))):
        mask = v.first_lanes(rest)
        add(whole, lambda address: v.load_masked(address, mask))
    for total, (row, column) in zip(sums, itertools.product(range(rows), range(columns)), strict=True):
        at = builder.add(builder.add(c, builder.mul(c_row, int64(row))), int64(column * v.size))
        element_at = builder.inttoptr(at, ir.PointerType(element))
        builder.store(v.add(builder.load(element_at), v.sum_in_halves(builder.load(total))), element_at)


@intrinsic  # type: ignore[untyped-decorator]
def _dots(
    typingctx: Any, real: Any, rows: Any, columns: Any, k: Any, a: Any, a_row: Any, b: Any, b_row: Any, c: Any,
    c_row: Any,
) -> Any:  # fmt: skip
    """C[r][n] += the product of A[r] and B[n] over k, for 1 or _TALL rows and 1 to NARROW columns. `real` is any value
    of the element type; the others are int64: addresses and bytes from row to row.
    """
    element = element_of(real)

    def micro_kernel(module: ir.Module, tall: int, narrow: int) -> Value:
        name = f"streamlstm_dots_{element.intrinsic_name}_{tall}_rows_{narrow}_columns"
        return function_of(
            module, name, 7, lambda builder, given: _emit_dots(builder, element, tall, narrow, given)
        )  # fmt: skip

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        _, chosen_rows, chosen_columns, *rest = arguments
        done = builder.append_basic_block("dots_done")
        switch = builder.switch(builder.add(builder.mul(chosen_rows, int64(LANES)), chosen_columns), done)
        for tall, narrow in itertools.product((1, _TALL), range(1, NARROW + 1)):
            case = builder.append_basic_block(f"dots_{tall}_{narrow}")
            switch.add_case(int64(tall * LANES + narrow), case)
            builder.position_at_end(case)
            builder.call(micro_kernel(builder.module, tall, narrow), rest)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 9), codegen


@compiled
def multiply_add_narrow(
    real: Any, rows: int, columns: int, inner: int, a: int, a_row: int, b: int, b_row: int, b_t: int, b_t_row: int,
    c: int, c_row: int,
) -> None:  # fmt: skip
    """C[r][n] += sum over k of A[r][k] B[k][n], for r < rows, n < columns, k < inner; inner >= 1.

    real                 any value of the element type, float32 or float64
    a, b, b_t, c         addresses of A[0][0], B[0][0], of the same in the transpose of B, and of C[0][0]
    a_row .. c_row       bytes from row to row of each; elements of a row are contiguous
    """
    size = a_size(real)
    narrow = columns % LANES
    if narrow > NARROW:
        narrow = 0
    wide = columns - narrow
    if wide > 0:
        multiply_add(real, rows, wide, inner, a, a_row, size, b, b_row, c, c_row, c, c_row)
    b_t += wide * b_t_row
    c += wide * size
    row = 0
    while narrow > 0 and row < rows:
        tall = _TALL if rows - row >= _TALL else 1
        _dots(real, tall, narrow, inner, a + row * a_row, a_row, b_t, b_t_row, c + row * c_row, c_row)
        row += tall
