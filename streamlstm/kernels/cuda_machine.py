"""The arithmetic of a CUDA device, and what stands in for it in the simulator (NUMBA_ENABLE_CUDASIM=1).

`MACHINE` is an arithmetic as kernels.cell wants one: every operation is one IEEE 754 operation on float32, rounded to
nearest, subnormals kept. On the device these are PTX instructions with an explicit `.rn`, which no compiler contracts
into others: a plain `a * b + c` it would fuse. In the simulator they are NumPy's, but for the fused multiply-add, which
the simulator itself rounds twice: there it is that of the CPU.

This is the one place that knows which of the two it is.
"""

import importlib.util
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import cuda
from numba.core import config as numba_config

from streamlstm.kernels import cell, half
from streamlstm.kernels import cuda_layout as at
from streamlstm.kernels.compile import compiled, device_function, device_inlined

_config: Any = numba_config  # its names are set at run time
SIMULATED = bool(_config.ENABLE_CUDASIM)
THREADS, WARP = (4, 2) if SIMULATED else (at.THREADS, at.WARP)
PART, LEAST_PART = (16, 8) if SIMULATED else (at.PART, at.PART // 4)
"""Events of a part of a batch: the largest, and the smallest that it is split into. The simulator's threads are
Python's: few of them, and little work; but every loop has to go round.
"""

MACHINE = ModuleType("machine")  # a module is what Numba lets a function be handed, and looks names up in


def _in_machine(function: Any) -> Any:
    compiled = device_function(function)
    setattr(MACHINE, function.__name__, compiled)
    return compiled


if SIMULATED:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.cuda.simulator.kernel import _get_kernel_context
    from numba.extending import intrinsic

    from streamlstm.kernels.vector import F32

    @intrinsic  # type: ignore[untyped-decorator]
    def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(F32, [F32] * 3), "llvm.fma.f32")
            return builder.call(function, arguments)

        return types.float32(types.float32, types.float32, types.float32), codegen

    @compiled("float32(float32, float32, float32)")
    def fma_on_the_cpu(a: float, b: float, c: float) -> float:
        """a b + c of float32, rounded once."""
        return _fma(a, b, c)  # type: ignore[no-any-return]

    @_in_machine
    def constant(value: float) -> Any:
        return np.float32(value)

    @_in_machine
    def add(a: Any, b: Any) -> Any:
        return a + b

    @_in_machine
    def sub(a: Any, b: Any) -> Any:
        return a - b

    @_in_machine
    def mul(a: Any, b: Any) -> Any:
        return a * b

    @_in_machine
    def div(a: Any, b: Any) -> Any:
        return a / b

    @_in_machine
    def fma(a: Any, b: Any, c: Any) -> Any:
        return np.float32(fma_on_the_cpu(a, b, c))

    @_in_machine
    def times_power_of_two(a: Any, rounded: Any) -> Any:
        """See kernels.vector."""
        return (a.view(np.int32) + (rounded.view(np.int32) << 23)).view(np.float32)

    @_in_machine
    def bits(a: Any) -> Any:
        return int(a.view(np.uint32))

    @_in_machine
    def real(a: int) -> Any:
        return np.uint32(a & 0xFFFFFFFF).view(np.float32)

    def shared_floats() -> Any:
        return _get_kernel_context().shared.array(0, np.dtype(np.float32))

    def shared_words() -> Any:
        return _get_kernel_context().shared.array(0, np.dtype(np.int64))

    def index(value: int) -> Any:
        return value

    def multiprocessors() -> int:
        return 1

    def make_event() -> Any:
        return cuda.event()

else:
    if importlib.util.find_spec("numba_cuda") is None:
        raise ImportError('numba-cuda is not installed; expected: pip install "streamlstm[cuda]"')

    from numba import float32, int32, int64, uint64
    from numba.cuda import libdevice
    from numba.cuda.core import config as cuda_config

    cuda_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a small batch is no mistake

    @_in_machine
    def constant(value: float) -> Any:
        return float32(value)

    @_in_machine
    def add(a: Any, b: Any) -> Any:
        return libdevice.fadd_rn(a, b)

    @_in_machine
    def sub(a: Any, b: Any) -> Any:
        return libdevice.fsub_rn(a, b)

    @_in_machine
    def mul(a: Any, b: Any) -> Any:
        return libdevice.fmul_rn(a, b)

    @_in_machine
    def div(a: Any, b: Any) -> Any:
        return libdevice.fdiv_rn(a, b)

    @_in_machine
    def fma(a: Any, b: Any, c: Any) -> Any:
        return libdevice.fmaf_rn(a, b, c)

    @_in_machine
    def times_power_of_two(a: Any, rounded: Any) -> Any:
        shifted = libdevice.float_as_int(rounded) << 23
        return libdevice.int_as_float(int32(libdevice.float_as_int(a) + shifted))

    @_in_machine
    def bits(a: Any) -> Any:
        return int64(libdevice.float_as_int(a)) & 0xFFFFFFFF

    @_in_machine
    def real(a: Any) -> Any:
        return libdevice.int_as_float(int32(a))

    @device_inlined
    def shared_floats() -> Any:
        """The block's shared memory, aligned for loads of four at a time."""
        return cuda.shared.array(0, float32, alignment=16)

    @device_inlined
    def shared_words() -> Any:
        """The same memory as int64."""
        return cuda.shared.array(0, int64, alignment=16)

    @device_function
    def index(value: int) -> Any:
        """An index that counts from the front: for a signed one Numba looks whether it counts from the end."""
        return uint64(value)

    def multiprocessors() -> int:
        return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)

    def make_event() -> Any:
        return cuda.event(timing=False)


@_in_machine
def clamp(a: Any, low: float, high: float) -> Any:
    """NaN passes, since no comparison with it holds."""
    if a < np.float32(low):
        return np.float32(low)
    if a > np.float32(high):
        return np.float32(high)
    return a


# What kernels.half wants: integers of 64 bits, of which bits(a) are the lower half.


@_in_machine
def both(a: int, b: int) -> int:
    return a & b


@_in_machine
def either(a: int, b: int) -> int:
    return a | b


@_in_machine
def plus(a: int, b: int) -> int:
    return a + b


@_in_machine
def left(a: int, places: int) -> int:
    return a << places


@_in_machine
def right(a: int, places: int) -> int:
    return a >> places


@_in_machine
def is_less(a: int, b: int) -> bool:
    return a < b


@_in_machine
def choose(condition: bool, a: int, b: int) -> int:
    return a if condition else b


def _compiled_again(module: ModuleType, names: tuple[str, ...]) -> dict[str, Any]:
    """Functions of `module`, compiled for the device; where they call one another, they call the compiled ones."""
    namespace = dict(vars(module))
    for name in names:
        function = vars(module)[name]
        namespace[name] = device_function(FunctionType(function.__code__, namespace, name))
    return namespace


_CELL = _compiled_again(cell, ("_split", "exp2", "exp2_minus_1", "cell_state", "hidden_state"))
cell_state, hidden_state = _CELL["cell_state"], _CELL["hidden_state"]
_HALF = _compiled_again(half, ("widen_float16", "narrow_float16", "widen_bfloat16", "narrow_bfloat16"))
widen_float16, narrow_float16 = _HALF["widen_float16"], _HALF["narrow_float16"]
widen_bfloat16, narrow_bfloat16 = _HALF["widen_bfloat16"], _HALF["narrow_bfloat16"]
