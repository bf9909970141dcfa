"""The few ONNX operators of a recurrent model, in NumPy and float64, after the ONNX operator specification.

Each takes the node, its inputs as arrays (None where omitted) and the operator set, and gives the outputs. They are
only run to prove that a graph computes what was extracted from it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamlstm.model.forward import sigmoid
from streamlstm.model.onnx_graph import Node

Array = NDArray[Any]
Operands = Sequence[Array | None]
# TensorProto.DataType -> what Cast computes. Every float is a float64 here; rounding to a narrower one is left out.
_CAST_TYPES: dict[int, DTypeLike] = {
    **dict.fromkeys((1, 10, 11, 16), np.float64),
    **{2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 12: np.uint32, 13: np.uint64},
    9: np.bool_,
}
AXES_ARE_INPUT_SINCE = 13
_ROWS_TO_LOAD = 8  # loading a matrix from memory takes as long as multiplying this many rows by it
_STEP = 1_000_000  # the calls of one step take as long as this many products


def output_size(node: Node, operands: Operands) -> int:
    """Numbers that an operator is about to allocate, told before it runs."""
    return int(_output_size(node, [operand for operand in operands if operand is not None]))


def _output_size(node: Node, given: list[Array]) -> Any:
    match node.operator:
        case "Expand" | "ConstantOfShape":
            return 0  # a view of one number or of one smaller array
        case "MatMul":
            first, second = given[:2]
            return math.prod(first.shape[:-1]) * math.prod(second.shape[:-2]) * second.shape[-1]
        case "Gemm":
            return max(given[0].shape) * max(given[1].shape)
        case "LSTM":
            x, W = given[:2]
            return x.shape[0] * x.shape[1] * W.shape[1]
        case "Add":
            return math.prod(np.broadcast_shapes(*(operand.shape for operand in given)))
        case "Gather":
            return given[0].size // max(given[0].shape[node.attributes.get("axis", 0)], 1) * given[1].size
    return sum(operand.size for operand in given)


def output_work(node: Node, operands: Operands) -> int:
    """Products that an operator is about to compute, or as many as take as long; told before it runs."""
    return int(_output_work(node, [operand for operand in operands if operand is not None]))


def _output_work(node: Node, given: list[Array]) -> Any:
    match node.operator:
        case "LSTM":
            x, W, R = given[:3]
            by_batch = bool(node.attributes.get("layout", 0))
            steps, rows = (x.shape[1], x.shape[0]) if by_batch else x.shape[:2]
            return steps * ((rows + _ROWS_TO_LOAD) * (W.size + R.size) + _STEP)
        case "MatMul":
            return _output_size(node, given) * given[0].shape[-1]
        case "Gemm":
            return given[0].size * max(given[1].shape)
    return 0


def compute(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    """Outputs of one node. Raises ValueError, IndexError or TypeError when the operands don't fit the operator."""
    return _OPERATORS[node.operator](node, operands, opset)


def _given(operand: Array | None) -> Array:
    if operand is None:
        raise ValueError("a required input is missing")
    return operand


def _integers(operand: Array | None) -> list[int]:
    return [int(value) for value in _given(operand).reshape(-1).tolist()]


def _axes(node: Node, operands: Operands, opset: int) -> list[int] | None:
    """Axes of Squeeze and Unsqueeze: an attribute before operator set 13, the second input since."""
    if opset < AXES_ARE_INPUT_SINCE:
        return node.attributes.get("axes")
    return _integers(operands[1]) if len(operands) > 1 and operands[1] is not None else None


def _add(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    return (_given(operands[0]) + _given(operands[1]),)


def _cast(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    kind = node.attributes["to"]
    if kind not in _CAST_TYPES:
        raise ValueError(f"a cast to type {kind}")
    cast = _given(operands[0]).astype(_CAST_TYPES[kind], copy=False)
    return (cast if cast.dtype == np.float64 else cast.astype(np.int64, copy=False),)


def _concat(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    return (np.concatenate([_given(operand) for operand in operands], axis=node.attributes["axis"]),)


def _constant(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    (value,) = node.attributes.values()
    return (np.asarray(value),)


def _constant_of_shape(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    value = node.attributes.get("value", np.zeros(1))
    return (np.broadcast_to(value.reshape(()), _integers(operands[0])),)


def _expand(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    array = _given(operands[0])
    return (np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(_integers(operands[1])))),)


def _gather(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    return (np.take(_given(operands[0]), _given(operands[1]).astype(np.int64), axis=node.attributes.get("axis", 0)),)


def _gemm(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    a, b = _given(operands[0]), _given(operands[1])
    a = a.T if node.attributes.get("transA", 0) else a
    b = b.T if node.attributes.get("transB", 0) else b
    product = node.attributes.get("alpha", 1.0) * (a @ b)
    if len(operands) > 2 and operands[2] is not None:
        product = product + node.attributes.get("beta", 1.0) * operands[2]
    return (product,)


def _identity(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    return (_given(operands[0]),)


def _matmul(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    return (_given(operands[0]) @ _given(operands[1]),)


def _reshape(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    array, shape = _given(operands[0]), _integers(operands[1])
    if not node.attributes.get("allowzero", 0):
        shape = [array.shape[k] if size == 0 else size for k, size in enumerate(shape)]
    return (array.reshape(shape),)


def _shape(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    shape = _given(operands[0]).shape
    return (np.array(shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64),)


def slice_bounds(node: Node, operands: Operands) -> list[tuple[int, int, int, int]]:
    """(axis, start, end, step) for every axis that a Slice names, as they are written: negative ones are kept."""
    if "starts" in node.attributes:
        starts, ends = node.attributes["starts"], node.attributes["ends"]
        axes, steps = node.attributes.get("axes"), None
    else:
        starts, ends = _integers(operands[1]), _integers(operands[2])
        axes = _integers(operands[3]) if len(operands) > 3 and operands[3] is not None else None
        steps = _integers(operands[4]) if len(operands) > 4 and operands[4] is not None else None
    axes = axes if axes is not None else list(range(len(starts)))
    return list(zip(axes, starts, ends, steps or [1] * len(starts), strict=True))


def _slice(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    array = _given(operands[0])
    window = [slice(None)] * array.ndim
    for axis, start, end, step in slice_bounds(node, operands):
        beyond_start = step < 0 and end < -array.shape[axis]  # a negative step runs past index 0
        window[axis] = slice(start, None if beyond_start else end, step)
    return (array[tuple(window)],)


def _squeeze(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    axes = _axes(node, operands, opset)
    return (np.squeeze(_given(operands[0]), axis=None if axes is None else tuple(axes)),)


def _transpose(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    return (np.transpose(_given(operands[0]), node.attributes.get("perm")),)


def _unsqueeze(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    return (np.expand_dims(_given(operands[0]), tuple(_axes(node, operands, opset) or ())),)


def _lstm(node: Node, operands: Operands, opset: int) -> tuple[Array, ...]:
    """Forward LSTM with gate rows i, o, f, c and default activations: what other attributes ask for was refused before.

    X (T, N, I), or (N, T, I) with layout 1; W (1, 4H, I); R (1, 4H, H); B (1, 8H); initial h and c (1, N, H).
    """
    by_batch = bool(node.attributes.get("layout", 0))
    x = _given(operands[0])
    x = x.transpose(1, 0, 2) if by_batch else x
    W, R = _given(operands[1])[0], _given(operands[2])[0]
    H = R.shape[1]
    bias = operands[3] if len(operands) > 3 else None
    both = np.zeros(4 * H) if bias is None else bias[0, : 4 * H] + bias[0, 4 * H :]
    states = [operands[k] if len(operands) > k else None for k in (5, 6)]
    h, c = (np.zeros((x.shape[1], H)) if state is None else state[:, 0] if by_batch else state[0] for state in states)
    steps = np.empty((x.shape[0], 1, x.shape[1], H))
    for t, step in enumerate(x):
        i, o, f, g = np.split(step @ W.T + h @ R.T + both, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        steps[t, 0] = h
    if by_batch:
        return steps.transpose(2, 0, 1, 3), h[:, None], c[:, None]
    return steps, h[None], c[None]


_OPERATORS: dict[str, Callable[[Node, Operands, int], tuple[Array, ...]]] = {
    "Add": _add,
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": _identity,
    "LSTM": _lstm,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
