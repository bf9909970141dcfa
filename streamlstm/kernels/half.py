"""float16 and bfloat16: the 16 bits as which h and c of a stream may be stored, from and to float32.

Every step computes in float32: before it a row is widened, which is exact, after it narrowed, rounded to the nearest
with ties to even, as IEEE 754 has it. Signed zeros, subnormal numbers and infinities are kept; a NaN becomes the one
quiet NaN of its sign. What is beyond the largest float16 would become an infinity, but c can't get there: a step adds
less than 1 to |c| (kernels.cell), and from 4096 on adding 1 to a float16 rounds back to it. |h| is at most 1 and a bit.

Written once over an arithmetic `a`, as kernels.cell is: kernels.vector.Vector emits it as LLVM vectors, the CUDA twin
and the tests have scalars. Nothing in it but integers, and one float32 addition each way that is exact or rounds as it
should, so all of them, and all CPUs, get the same bits: those with instructions of their own for float16, and those
without.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from streamlstm.kernels.layout import BFLOAT16, FLOAT16, StateDtype
from streamlstm.kernels.vector import I64, Builder, Value, Vector, function_of, int64

MULTIPLE = 8
"""Numbers come in multiples of so many."""

Number = Any
Integer = Any
Arithmetic = Any

_SIZE, _INFINITY = 0x7FFFFFFF, 0x7F800000  # of the bits of a float32: all but the sign; those of infinity
_HALF, _TWO_TO_MINUS_14, _TWO_TO_16 = 0x3F000000, 0x38800000, 0x47800000


def widen_float16(a: Arithmetic, h: Integer) -> Number:
    """The float32 of 16 bits h.

    The exponent's bias grows from 15 to 127. A subnormal number m 2^-24 is made 2^-14 + m 2^-24, and 2^-14 taken off.
    """
    size = a.left(a.both(h, 0x7FFF), 13)
    exponent = a.both(size, _INFINITY >> 3)
    normal = a.plus(size, (127 - 15) << 23)
    infinite = a.plus(size, (255 - 31) << 23)
    small = a.bits(a.sub(a.real(a.plus(size, _TWO_TO_MINUS_14)), a.constant(2.0**-14)))
    found = a.choose(a.is_less(exponent, 1 << 23), small, normal)
    found = a.choose(a.is_less(exponent, 31 << 23), found, infinite)
    return a.real(a.either(found, a.left(a.both(h, 0x8000), 16)))


def narrow_float16(a: Arithmetic, x: Number) -> Integer:
    """The 16 bits of float32 x.

    Of a normal number 13 bits go: half of what they can hold is added, less 1 where the rest is even. What is below
    2^-14 is rounded by adding 1/2, whose last place is that of a subnormal float16.
    """
    bits = a.bits(x)
    size = a.both(bits, _SIZE)
    odd = a.both(a.right(size, 13), 1)
    normal = a.right(a.plus(a.plus(size, 0xFFF - ((127 - 15) << 23)), odd), 13)
    small = a.plus(a.bits(a.add(a.real(size), a.constant(0.5))), -_HALF)
    infinite = a.choose(a.is_less(size, _INFINITY + 1), 0x7C00, 0x7E00)
    found = a.choose(a.is_less(size, _TWO_TO_16), normal, infinite)
    found = a.choose(a.is_less(size, _TWO_TO_MINUS_14), small, found)
    return a.either(found, a.both(a.right(bits, 16), 0x8000))


def widen_bfloat16(a: Arithmetic, h: Integer) -> Number:
    """The float32 of 16 bits h: its upper half."""
    return a.real(a.left(h, 16))


def narrow_bfloat16(a: Arithmetic, x: Number) -> Integer:
    """The 16 bits of float32 x, rounded as in `narrow_float16`."""
    bits = a.bits(x)
    upper = a.right(bits, 16)
    rounded = a.right(a.plus(a.plus(bits, 0x7FFF), a.both(upper, 1)), 16)
    is_number = a.is_less(a.both(bits, _SIZE), _INFINITY + 1)
    return a.choose(is_number, rounded, a.either(a.both(upper, 0x8000), 0x7FC0))


def as_float32(stored: NDArray[np.uint8], dtype: StateDtype) -> NDArray[np.float32]:
    """Rows uint8 [N, bytes] of stored numbers as float32 [N, numbers]."""
    if dtype == "float32":
        return stored.view(np.float32)
    if dtype == "float16":
        return stored.view(np.float16).astype(np.float32)
    return (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _each(builder: Builder, count: Value, emit: Callable[[Vector, Value], None]) -> None:
    """`emit` for `count` numbers, as many lanes at a time as there are: (vector, first number)."""
    start = int64(0)
    for lanes in (16, MULTIPLE):
        stop = builder.and_(count, int64(-lanes))
        with cgutils.for_range_slice(builder, start, stop, int64(lanes), I64) as (first, _):
            emit(Vector(builder, lanes), first)
        start = stop


def _emit_widening(builder: Builder, arguments: list[Value], convert: Callable[..., Any]) -> None:
    target, source, count = arguments

    def emit(v: Vector, first: Value) -> None:
        h = v.load_halves(builder.add(source, builder.shl(first, int64(1))))
        v.store(convert(v, h), builder.add(target, builder.shl(first, int64(2))))

    _each(builder, count, emit)


def _emit_narrowing(builder: Builder, arguments: list[Value], convert: Callable[..., Any]) -> None:
    target, source, count = arguments

    def emit(v: Vector, first: Value) -> None:
        x = v.load(builder.add(source, builder.shl(first, int64(2))))
        v.store_halves(convert(v, x), builder.add(target, builder.shl(first, int64(1))))

    _each(builder, count, emit)


def _converter(emit: Callable[..., None], conversions: dict[int, Callable[..., Any]]) -> Any:
    """An intrinsic (dtype, target, source, count), all int64: it calls the function for `dtype`."""

    def convert(typingctx: Any, dtype: Any, target: Any, source: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            chosen, *rest = arguments
            done = builder.append_basic_block("converted")
            switch = builder.switch(chosen, done)
            for code, conversion in conversions.items():
                case = builder.append_basic_block(conversion.__name__)
                switch.add_case(int64(code), case)
                builder.position_at_end(case)
                builder.call(_function(builder.module, emit, conversion), rest)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return intrinsic(convert)


def _function(module: ir.Module, emit: Callable[..., None], conversion: Callable[..., Any]) -> Value:
    name = f"streamlstm_{conversion.__name__}"
    return function_of(module, name, 3, lambda builder, given: emit(builder, given, conversion))


widen = _converter(_emit_widening, {FLOAT16: widen_float16, BFLOAT16: widen_bfloat16})
"""widen(dtype, target, source, count): `count` stored numbers (a multiple of 8) at address `source` as float32 at
`target`; dtype FLOAT16 or BFLOAT16."""
narrow = _converter(_emit_narrowing, {FLOAT16: narrow_float16, BFLOAT16: narrow_bfloat16})
"""narrow(dtype, target, source, count): the other way round."""
