"""Memory by address, for compiled code that works on rows rather than arrays: int64 addresses in, scalars out.

An array argument costs a compiled call 50-80 ns, and NumPy's `.ctypes.data` near 800 ns: the caller looks an address up
once and keeps it. Nothing here checks bounds.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_BYTE_POINTER = ir.PointerType(ir.IntType(8))
_INTO_L2, _FOR_READING, _DATA = 2, 0, 1


def _loader(value: types.Type) -> Any:
    def load(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = ir.PointerType(context.get_value_type(value))
            return builder.load(builder.inttoptr(arguments[0], pointer), align=4)

        return value(types.int64), codegen

    return intrinsic(load)


def _storer(value: types.Type) -> Any:
    def store(typingctx: Any, address: Any, content: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = ir.PointerType(context.get_value_type(value))
            builder.store(arguments[1], builder.inttoptr(arguments[0], pointer), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, value), codegen

    return intrinsic(store)


@intrinsic  # type: ignore[untyped-decorator]
def load_word(typingctx: Any, base: Any, index: Any) -> Any:
    """load_word(base, index) -> int64: word `index` of the int64 words at address `base`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_word_pointer(builder, *arguments))

    return types.int64(types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_word(typingctx: Any, base: Any, index: Any, content: Any) -> Any:
    """store_word(base, index, content): set word `index` of the int64 words at address `base`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base, index, content = arguments
        builder.store(content, _word_pointer(builder, base, index))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _word_pointer(builder: Any, base: Any, index: Any) -> Any:
    address = builder.add(base, builder.shl(index, ir.Constant(_I64, 3)))
    return builder.inttoptr(address, ir.PointerType(_I64))


load_int32 = _loader(types.int32)
load_int64 = _loader(types.int64)
load_float32 = _loader(types.float32)
store_int32 = _storer(types.int32)
store_int64 = _storer(types.int64)
store_float32 = _storer(types.float32)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typingctx: Any, address: Any) -> Any:
    """prefetch(address int64): ask for the cache line at `address`; never faults, changes nothing."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function_type = ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        options = [ir.Constant(_I32, option) for option in (_FOR_READING, _INTO_L2, _DATA)]
        builder.call(function, [builder.inttoptr(arguments[0], _BYTE_POINTER), *options])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
