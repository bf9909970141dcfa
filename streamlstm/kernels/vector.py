"""Vectors of float32 (or float64) lanes, emitted as LLVM IR from inside a Numba intrinsic.

Numba keeps arrays in memory, so LLVM can't hold a block of accumulators in registers across a loop written in Python;
`<16 x float>` values that are born as registers stay there. LLVM splits them on CPUs with narrower vectors, lane by
lane, so the bits don't depend on the width.

Every operation is one IEEE 754 operation per lane, round to nearest: no fast-math flag is ever set.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, config
from numba.core.registry import cpu_target

from streamlstm.kernels.layout import LINE

F32 = ir.FloatType()
F64 = ir.DoubleType()
I16 = ir.IntType(16)
I32 = ir.IntType(32)
I64 = ir.IntType(64)

Value = Any  # an llvmlite value; llvmlite carries no types
Builder = Any


def int64(value: int) -> Value:
    return ir.Constant(I64, value)


def function_of(module: ir.Module, name: str, arguments: int, emit: Callable[[Builder, list[Value]], None]) -> Value:
    """The function of that name, of int64 `arguments`, made once per module; `emit` writes its body.

    What is never inlined gets its registers allocated by itself.
    """
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    function.attributes.alignstack = LINE  # or what is spilled straddles cache lines, by the luck of the process
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(builder, list(function.args))
    builder.ret_void()
    return function


def has_wide_vectors() -> bool:
    """Whether the machine that Numba compiles for has AVX-512 (`NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` count)."""
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512f" in features or (name == "x86-64-v4" and not config.CPU_FEATURES)


def machine() -> tuple[str, str]:
    """The level of x86-64 or the CPU that kernels are compiled for, as LLVM names it, and the widest vectors that they
    use of it: "AVX-512", "AVX2", or "portable": without fused multiply-add, where each one is a call.
    """
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    if has_wide_vectors():
        return name, "AVX-512"
    fused = "+fma," in f"{features}," or (name == "x86-64-v3" and not config.CPU_FEATURES)
    return name, "AVX2" if fused else "portable"


class Vector:
    """Emits operations on vectors of `lanes` values at the builder's position: float32, or float64 by `element` F64."""

    def __init__(self, builder: Builder, lanes: int, element: Value = F32) -> None:
        self.builder = builder
        self.lanes = lanes
        self.element = element
        single = element is F32
        self.size = 4 if single else 8
        self.bytes = self.size * lanes
        self.type = ir.VectorType(element, lanes)
        self._name = f"v{lanes}f{8 * self.size}"  # as LLVM's intrinsics are named
        self._int, self._fraction_bits = (I32, 23) if single else (I64, 52)
        self._ints = ir.VectorType(self._int, lanes)
        fma_type = ir.FunctionType(self.type, [self.type] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, fma_type, f"llvm.fma.{self._name}")

    # -- values

    def constant(self, value: float) -> Value:
        """`value` rounded to the element type, in every lane."""
        rounded = float(np.float32(value)) if self.element is F32 else value
        return ir.Constant(self.type, [rounded] * self.lanes)

    def _int_constant(self, value: int) -> Value:
        return ir.Constant(self._ints, [value] * self.lanes)

    def load(self, address: Value, offset: int = 0) -> Value:
        """The lanes at `address` + `offset` bytes; an element's alignment is enough."""
        if offset:
            address = self.builder.add(address, int64(offset))
        return self.builder.load(self.builder.inttoptr(address, ir.PointerType(self.type)), align=self.size)

    def store(self, value: Value, address: Value) -> None:
        self.builder.store(value, self.builder.inttoptr(address, ir.PointerType(self.type)), align=self.size)

    def broadcast(self, address: Value) -> Value:
        """The one element at `address`, in every lane."""
        scalar = self.builder.load(self.builder.inttoptr(address, ir.PointerType(self.element)), align=self.size)
        return self._in_every_lane(scalar, self.type)

    def _in_every_lane(self, scalar: Value, vector_type: Value) -> Value:
        empty = ir.Constant(vector_type, ir.Undefined)
        first = self.builder.insert_element(empty, scalar, ir.Constant(I32, 0))
        lane_0 = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, empty, lane_0)

    # -- the first lanes only

    def first_lanes(self, count: Value) -> Value:
        """The mask of the first `count` (int64) lanes, for the next two."""
        lanes = ir.VectorType(I32, self.lanes)
        limit = self._in_every_lane(self.builder.trunc(count, I32), lanes)
        return self.builder.icmp_signed("<", ir.Constant(lanes, list(range(self.lanes))), limit)

    def load_masked(self, address: Value, mask: Value) -> Value:
        """The masked lanes at `address`, zero in the others, whose memory isn't touched."""
        pointer = self.builder.inttoptr(address, ir.PointerType(self.type))
        function_type = ir.FunctionType(self.type, [pointer.type, I32, mask.type, self.type])
        load = self._intrinsic(f"llvm.masked.load.{self._name}.p0", function_type)
        return self.builder.call(load, [pointer, ir.Constant(I32, self.size), mask, self.constant(0.0)])

    def store_masked(self, value: Value, address: Value, mask: Value) -> None:
        """Store the masked lanes at `address`; the memory of the others isn't touched."""
        pointer = self.builder.inttoptr(address, ir.PointerType(self.type))
        function_type = ir.FunctionType(ir.VoidType(), [self.type, pointer.type, I32, mask.type])
        store = self._intrinsic(f"llvm.masked.store.{self._name}.p0", function_type)
        self.builder.call(store, [value, pointer, ir.Constant(I32, self.size), mask])

    def _intrinsic(self, name: str, function_type: Value) -> Value:
        return cgutils.get_or_insert_function(self.builder.module, function_type, name)

    def part(self, value: Value, start: int, lanes: int) -> Value:
        """Lanes [start, start + lanes) of `value`."""
        chosen = ir.Constant(ir.VectorType(I32, lanes), list(range(start, start + lanes)))
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), chosen)

    def joined(self, parts: list[Value]) -> Value:
        """The lanes of all parts, one after the other; there are a power of two, each as wide as the others."""
        while len(parts) > 1:
            both = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [self.builder.shuffle_vector(low, high, both) for low, high in pairs]
        return parts[0]

    # -- arithmetic

    def add(self, a: Value, b: Value) -> Value:
        return self.builder.fadd(a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.builder.fsub(a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.builder.fmul(a, b)

    def div(self, a: Value, b: Value) -> Value:
        return self.builder.fdiv(a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a b + c, rounded once."""
        return self.builder.call(self._fma, [a, b, c])

    def clamp(self, a: Value, low: float, high: float) -> Value:
        """`a` limited to [low, high]; NaN passes, since no comparison with it holds."""
        for relation, limit in (("<", self.constant(low)), (">", self.constant(high))):
            a = self.builder.select(self.builder.fcmp_ordered(relation, a, limit), limit, a)
        return a

    def times_power_of_two(self, a: Value, rounded: Value) -> Value:
        """a 2^n, n being the integer that `rounded` = n + 1.5 * 2^23 holds in its lowest bits.

        The exponent field is added to: exact while |a 2^n| stays a normal number.
        """
        exponent_bits = self._int_constant(self._fraction_bits)
        shifted = self.builder.shl(self.builder.bitcast(rounded, self._ints), exponent_bits)
        return self.builder.bitcast(self.builder.add(self.builder.bitcast(a, self._ints), shifted), self.type)

    # -- on the bits of float32 lanes: integers of 32 bits, or one for all lanes

    def _ints_of(self, a: Value | int) -> Value:
        return self._int_constant(a & 0xFFFFFFFF) if isinstance(a, int) else a

    def bits(self, a: Value) -> Value:
        return self.builder.bitcast(a, self._ints)

    def real(self, a: Value) -> Value:
        """The numbers that have these bits."""
        return self.builder.bitcast(a, self.type)

    def both(self, a: Value, b: Value | int) -> Value:
        return self.builder.and_(a, self._ints_of(b))

    def either(self, a: Value, b: Value | int) -> Value:
        return self.builder.or_(a, self._ints_of(b))

    def plus(self, a: Value, b: Value | int) -> Value:
        return self.builder.add(a, self._ints_of(b))

    def left(self, a: Value, places: int) -> Value:
        return self.builder.shl(a, self._ints_of(places))

    def right(self, a: Value, places: int) -> Value:
        return self.builder.lshr(a, self._ints_of(places))

    def is_less(self, a: Value, b: int) -> Value:
        """Of integers that are below 2^31."""
        return self.builder.icmp_signed("<", a, self._ints_of(b))

    def choose(self, condition: Value, a: Value | int, b: Value | int) -> Value:
        return self.builder.select(condition, self._ints_of(a), self._ints_of(b))

    def load_halves(self, address: Value) -> Value:
        """The 16 bits of each lane at `address`, as integers; an alignment of 2 is enough."""
        halves = ir.VectorType(I16, self.lanes)
        loaded = self.builder.load(self.builder.inttoptr(address, ir.PointerType(halves)), align=2)
        return self.builder.zext(loaded, self._ints)

    def store_halves(self, a: Value, address: Value) -> None:
        """The lower 16 bits of each lane."""
        halves = ir.VectorType(I16, self.lanes)
        pointer = self.builder.inttoptr(address, ir.PointerType(halves))
        self.builder.store(self.builder.trunc(a, halves), pointer, align=2)

    # -- over all lanes

    def sum_in_halves(self, a: Value) -> Value:
        """The sum of all lanes as a fixed tree: the upper half is added to the lower until one lane is left."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            a = self.builder.fadd(self.part(a, 0, lanes), self.part(a, lanes, lanes))
        return self.builder.extract_element(a, ir.Constant(I32, 0))


class SideBySide:
    """The arithmetic of a `Vector` on lists of values, element by element: independent chains that fill each other's
    waits. Constants are shared.
    """

    def __init__(self, v: Vector) -> None:
        self._v = v
        self.element = v.element
        self.constant = v.constant

    def __getattr__(self, operation: str) -> Any:
        emit = getattr(self._v, operation)

        def emit_each(*operands: Any) -> list[Value]:
            count = max(len(operand) for operand in operands if isinstance(operand, list))
            columns = [operand if isinstance(operand, list) else [operand] * count for operand in operands]
            return [emit(*column) for column in zip(*columns, strict=True)]

        return emit_each
