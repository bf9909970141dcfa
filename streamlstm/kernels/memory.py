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


load_int64 = _loader(types.int64)
load_float32 = _loader(types.float32)
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
