"""Bytes and words of text by address: int64 addresses of any alignment in, integers out. Nothing here checks bounds.

`string_stops` reads 32 bytes and `copy_32` moves 32, whatever the text's length: buffers are padded for it
(`streamlstm.events.batch.PADDING`). Words are little-endian, as on every machine that Numba compiles for here.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I1, _I8, _I32, _I64, _I128 = (ir.IntType(bits) for bits in (1, 8, 32, 64, 128))
_LANES = 32
_VECTOR = ir.VectorType(_I8, _LANES)
_QUOTE, _BACKSLASH, _SPACE = 0x22, 0x5C, 0x20


def _pointer(builder: Any, address: Any, content: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType(content))


def _lanes(byte: int) -> Any:
    return ir.Constant(_VECTOR, [byte] * _LANES)


@intrinsic  # type: ignore[untyped-decorator]
def load_byte(typingctx: Any, address: Any) -> Any:
    """load_byte(address int64) -> int64 in 0..255."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, arguments[0], _I8), align=1), _I64)

    return types.int64(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_word(typingctx: Any, address: Any) -> Any:
    """load_word(address int64) -> uint64: 8 bytes, the first one lowest."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(builder, arguments[0], _I64), align=1)

    return types.uint64(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_real(typingctx: Any, address: Any) -> Any:
    """load_real(address int64) -> float64 from 8 little-endian bytes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(builder, arguments[0], ir.DoubleType()), align=1)

    return types.float64(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_byte(typingctx: Any, address: Any, byte: Any) -> Any:
    """store_byte(address int64, byte int64): its lowest 8 bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(builder.trunc(arguments[1], _I8), _pointer(builder, arguments[0], _I8), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_word(typingctx: Any, address: Any, word: Any) -> Any:
    """store_word(address int64, word uint64): 8 bytes, the lowest first."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], _pointer(builder, arguments[0], _I64), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def copy_32(typingctx: Any, target: Any, source: Any) -> Any:
    """copy_32(target int64, source int64): move 32 bytes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = builder.load(_pointer(builder, arguments[1], _VECTOR), align=1)
        builder.store(block, _pointer(builder, arguments[0], _VECTOR), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def string_stops(typingctx: Any, address: Any) -> Any:
    """string_stops(address int64) -> uint64: bit i is set when byte i of 32 cannot just be passed over in a JSON string.

    That is a quote, a backslash, a control character or a byte of a non-ASCII character; as a signed byte the last two
    are those below a space.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = builder.load(_pointer(builder, arguments[0], _VECTOR), align=1)
        stops = builder.icmp_signed("<", block, _lanes(_SPACE))
        for byte in (_QUOTE, _BACKSLASH):
            stops = builder.or_(stops, builder.icmp_signed("==", block, _lanes(byte)))
        return builder.zext(builder.bitcast(stops, _I32), _I64)

    return types.uint64(types.int64), codegen


def _bit_counter(llvm_name: str) -> Any:
    def count(typingctx: Any, word: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            function_type = ir.FunctionType(_I64, [_I64, _I1])
            function = cgutils.get_or_insert_function(builder.module, function_type, llvm_name)
            return builder.call(function, [arguments[0], ir.Constant(_I1, 0)])

        return types.int64(types.uint64), codegen

    return intrinsic(count)


trailing_zeros = _bit_counter("llvm.cttz.i64")  # of a uint64, int64 out; 64 for zero
leading_zeros = _bit_counter("llvm.ctlz.i64")


@intrinsic  # type: ignore[untyped-decorator]
def multiply_high(typingctx: Any, left: Any, right: Any) -> Any:
    """multiply_high(left uint64, right uint64) -> uint64: the upper half of the 128-bit product."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.mul(builder.zext(arguments[0], _I128), builder.zext(arguments[1], _I128))
        return builder.trunc(builder.lshr(product, ir.Constant(_I128, 64)), _I64)

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def as_real(typingctx: Any, bits: Any) -> Any:
    """as_real(bits uint64) -> the float64 with these bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.uint64), codegen
