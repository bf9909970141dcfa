"""Bytes and 64-bit words at any address, and the bit operations that text and keys need.

Addresses are int64, words uint64 in the machine's order (little-endian: the first byte is the lowest). No bounds are
checked: buffers are padded, so that a word or block may reach past the span that it belongs to.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I1, _I8, _I32, _I64, _I128 = (ir.IntType(bits) for bits in (1, 8, 32, 64, 128))
BLOCK_BYTES = 32

signed = cast(Callable[[Any], int], np.int64)
"""uint64 -> int64. Array addresses are unsigned, and Numba makes floats of sums of signed and unsigned integers."""
_BLOCK = ir.VectorType(_I8, BLOCK_BYTES)


def _pointer(builder: Any, address: Any, to: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType(to))


@intrinsic  # type: ignore[untyped-decorator]
def load_byte(typingctx: Any, address: Any) -> Any:
    """load_byte(address int64) -> uint8"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(builder, arguments[0], _I8))

    return types.uint8(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_byte(typingctx: Any, address: Any, content: Any) -> Any:
    """store_byte(address int64, content uint8)"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], _pointer(builder, arguments[0], _I8))
        return context.get_dummy_value()

    return types.void(types.int64, types.uint8), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_word(typingctx: Any, address: Any) -> Any:
    """load_word(address int64) -> uint64; any alignment"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(builder, arguments[0], _I64), align=1)

    return types.uint64(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_word(typingctx: Any, address: Any, content: Any) -> Any:
    """store_word(address int64, content uint64); any alignment"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], _pointer(builder, arguments[0], _I64), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def copy_block(typingctx: Any, to: Any, at: Any) -> Any:
    """copy_block(to int64, at int64): copy 32 bytes; the two may overlap"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = builder.load(_pointer(builder, arguments[1], _BLOCK), align=1)
        builder.store(block, _pointer(builder, arguments[0], _BLOCK), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _product(builder: Any, arguments: Any) -> tuple[Any, Any]:
    product = builder.mul(builder.zext(arguments[0], _I128), builder.zext(arguments[1], _I128))
    high = builder.trunc(builder.lshr(product, ir.Constant(_I128, 64)), _I64)
    return high, builder.trunc(product, _I64)


@intrinsic  # type: ignore[untyped-decorator]
def multiply_high(typingctx: Any, a: Any, b: Any) -> Any:
    """multiply_high(a uint64, b uint64) -> uint64: upper half of the 128-bit product"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _product(builder, arguments)[0]

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def multiply_fold(typingctx: Any, a: Any, b: Any) -> Any:
    """multiply_fold(a uint64, b uint64) -> uint64: both halves of the 128-bit product, xored"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.xor(*_product(builder, arguments))

    return types.uint64(types.uint64, types.uint64), codegen


def _zero_counter(name: str) -> Any:
    def count(typingctx: Any, word: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            function_type = ir.FunctionType(_I64, [_I64, _I1])
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            return builder.call(function, [arguments[0], ir.Constant(_I1, 0)])

        return types.int64(types.uint64), codegen

    return intrinsic(count)


leading_zeros = _zero_counter("llvm.ctlz.i64")
trailing_zeros = _zero_counter("llvm.cttz.i64")


def _every(byte: str) -> Any:
    return ir.Constant(_BLOCK, [ord(byte)] * BLOCK_BYTES)


@intrinsic  # type: ignore[untyped-decorator]
def string_stops(typingctx: Any, address: Any) -> Any:
    """string_stops(address int64) -> uint64: bit i is set when byte i of a block can't be passed over in a JSON string

    That is a quote, a backslash, a control character or a byte of a non-ASCII character. As signed bytes the last two
    are those below a space.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = builder.load(_pointer(builder, arguments[0], _BLOCK), align=1)
        stops = builder.icmp_signed("<", block, _every(" "))
        for byte in ('"', "\\"):
            stops = builder.or_(stops, builder.icmp_signed("==", block, _every(byte)))
        return builder.zext(builder.bitcast(stops, _I32), _I64)

    return types.uint64(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_real(typingctx: Any, address: Any) -> Any:
    """load_real(address int64) -> float64; any alignment"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(builder, arguments[0], ir.DoubleType()), align=1)

    return types.float64(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_real(typingctx: Any, address: Any, content: Any) -> Any:
    """store_real(address int64, content float64); any alignment"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], _pointer(builder, arguments[0], ir.DoubleType()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.float64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def as_real(typingctx: Any, word: Any) -> Any:
    """as_real(word uint64) -> the float64 of these bits"""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.uint64), codegen


def _bits_of(float_type: Any, width: int) -> Any:
    def bits(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = arguments[0] if width == 64 else builder.fptrunc(arguments[0], float_type)
            word = builder.bitcast(value, ir.IntType(width))
            return word if width == 64 else builder.zext(word, _I64)

        return types.uint64(types.float64), codegen

    return intrinsic(bits)


float64_bits = _bits_of(ir.DoubleType(), 64)
float32_bits = _bits_of(ir.FloatType(), 32)
"""float32_bits(value float64) -> uint64: the bits of the value rounded to float32, in the lower half."""
