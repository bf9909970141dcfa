"""An ONNX file as plain nodes and arrays (ONNX IR specification, onnx.proto), checked before anything is computed.

Refused: external data, sparse tensors, functions, subgraphs, operators of other domains, attributes that nobody here
knows, tensors whose data don't fill their shape.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.model.limits import MAX_ELEMENTS, MIB, count_elements, require_file

MAX_ONNX_BYTES = 1024 * MIB
MAX_NODES = 4096
OPSETS = range(7, 27)
# TensorProto.DataType -> NumPy's type of the raw data, and the field of the protobuf that may hold them instead.
_TYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
    16: ("<u2", "int32_data"),  # bfloat16
}
_BFLOAT16 = 16
_FLOATS = (1, 10, 11, 16)
_DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data", "raw_data")
# Operators and their attributes that a recurrent model with a linear head needs; none has a side effect.
OPERATORS: dict[str, frozenset[str]] = {
    "Add": frozenset(),
    "Cast": frozenset({"to", "saturate"}),
    "Concat": frozenset({"axis"}),
    "Constant": frozenset({"value", "value_int", "value_ints", "value_float", "value_floats"}),
    "ConstantOfShape": frozenset({"value"}),
    "Expand": frozenset(),
    "Gather": frozenset({"axis"}),
    "Gemm": frozenset({"alpha", "beta", "transA", "transB"}),
    "Identity": frozenset(),
    "LSTM": frozenset({"activations", "clip", "direction", "hidden_size", "input_forget", "layout"}),
    "MatMul": frozenset(),
    "Reshape": frozenset({"allowzero"}),
    "Shape": frozenset({"start", "end"}),
    "Slice": frozenset({"axes", "starts", "ends"}),
    "Squeeze": frozenset({"axes"}),
    "Transpose": frozenset({"perm"}),
    "Unsqueeze": frozenset({"axes"}),
}


@dataclass(frozen=True)
class Node:
    """One operator. Attributes are ints, floats, text, lists of them, or an array."""

    where: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def refuse(self, field: str, problem: str, expected: str, found: str) -> ModelFileError:
        place = f"{self.where}: {field}" if field else self.where
        return ModelFileError(place, problem, expected=expected, found=found)


@dataclass(frozen=True)
class Graph:
    """nodes in their order; constants by name (floats in float64); inputs: name -> shape, a text or None for a free
    size.
    """

    where: str
    nodes: tuple[Node, ...]
    constants: dict[str, NDArray[Any]]
    inputs: dict[str, tuple[int | str | None, ...]]
    outputs: tuple[str, ...]
    opset: int
    producer: str


def read_graph(path: Path) -> Graph:
    """Raises ModelFileError naming the tensor, node or field that is refused."""
    where = str(path)
    if require_file(path) > MAX_ONNX_BYTES:
        raise ModelFileError(where, "file size", expected=f"at most {MAX_ONNX_BYTES} bytes", found="more")
    try:
        onnx = import_module("onnx")
    except ImportError:
        problem = "reading ONNX files needs onnx: pip install 'streamlstm[onnx]'"
        raise ModelFileError(where, problem, expected="the package onnx", found="not installed") from None
    message_module = import_module("google.protobuf.message")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (message_module.DecodeError, ValueError, RecursionError) as error:
        found = str(error)[:120]
        raise ModelFileError(where, "not an ONNX file", expected="a protobuf ModelProto", found=found) from None
    graph = model.graph
    oddities = {
        "functions": len(model.functions),
        "training_info": len(model.training_info),
        "graph.sparse_initializer": len(graph.sparse_initializer),
    }
    for field, count in oddities.items():
        if count:
            raise ModelFileError(f"{where}: {field}", "not supported", expected="none", found=str(count))
    if not graph.node or len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_NODES:
        found = f"{len(graph.node)} nodes, {len(graph.initializer)} tensors"
        raise ModelFileError(f"{where}: graph", "size of the graph", expected=f"1 to {MAX_NODES} nodes", found=found)
    constants = _constants(graph.initializer, where)
    return Graph(
        where=where,
        nodes=tuple(_node(node, index, where) for index, node in enumerate(graph.node)),
        constants=constants,
        inputs={value.name: _shape(value, where) for value in graph.input if value.name not in constants},
        outputs=tuple(value.name for value in graph.output),
        opset=_opset(model, where),
        producer=f"{model.producer_name} {model.producer_version}".strip()[:60] or "unknown",
    )


def _opset(model: Any, where: str) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in OPSETS:
        expected = f"one from {OPSETS.start} to {OPSETS.stop - 1}"
        raise ModelFileError(f"{where}: opset_import", "operator set", expected=expected, found=str(versions[:4]))
    return int(versions[0])


def _constants(initializers: Any, where: str) -> dict[str, NDArray[Any]]:
    constants: dict[str, NDArray[Any]] = {}
    total = 0
    for tensor in initializers:
        if not tensor.name or tensor.name in constants:
            found = repr(tensor.name[:60])
            raise ModelFileError(f"{where}: initializer", "name", expected="unique, non-empty names", found=found)
        constants[tensor.name] = read_tensor(tensor, f"{where}: {tensor.name[:200]}")
        total += constants[tensor.name].size
        if total > MAX_ELEMENTS:
            raise ModelFileError(
                f"{where}: initializer", "size", expected=f"<= {MAX_ELEMENTS} numbers", found=str(total)
            )
    return constants


def read_tensor(tensor: Any, where: str) -> NDArray[Any]:
    """A TensorProto as float64 or int64. Raises ModelFileError unless its data fill its shape exactly and are
    finite.
    """
    if tensor.data_location or tensor.external_data:
        problem = "weights kept in another file; save the model with its weights inside"
        raise ModelFileError(f"{where}: external_data", problem, expected="data in this file", found="a location")
    if tensor.HasField("segment") or tensor.data_type not in _TYPES:
        expected = "float16, bfloat16, float32, float64, int32 or int64"
        raise ModelFileError(f"{where}: data_type", "tensor", expected=expected, found=f"type {tensor.data_type}")
    raw_type, field = _TYPES[tensor.data_type]
    shape = tuple(int(size) for size in tensor.dims)
    count = count_elements(shape, where)
    filled = [name for name in _DATA_FIELDS if len(getattr(tensor, name))]
    if len(filled) > 1 or not set(filled) <= {field, "raw_data"}:
        raise ModelFileError(where, "data fields", expected=f"{field} or raw_data", found=", ".join(filled))
    given = len(tensor.raw_data) // np.dtype(raw_type).itemsize if tensor.raw_data else len(getattr(tensor, field))
    if given != count or len(tensor.raw_data) % np.dtype(raw_type).itemsize:
        raise ModelFileError(where, "data against shape", expected=f"{count} numbers for {shape}", found=f"{given}")
    array = np.frombuffer(tensor.raw_data, raw_type) if tensor.raw_data else _typed(tensor, field, raw_type)
    if tensor.data_type == _BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wide: NDArray[Any] = array.astype(np.float64 if tensor.data_type in _FLOATS else np.int64).reshape(shape)
    if not np.isfinite(wide).all():
        raise ModelFileError(where, "a weight that isn't finite", expected="finite numbers", found="NaN or infinity")
    return wide


def _typed(tensor: Any, field: str, raw_type: str) -> NDArray[Any]:
    """The typed field; 16-bit floats are kept as their bits in int32_data."""
    array = np.array(getattr(tensor, field), dtype=np.float64 if field != "int64_data" else np.int64)
    if field == "int32_data" and raw_type != "<i4":
        return array.astype(np.int64).astype(np.uint16).view(raw_type)
    return array


def _node(node: Any, index: int, where: str) -> Node:
    place = f"{where}: node {index} ({node.op_type[:40]})"
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        found = f"{node.domain[:40]}::{node.op_type[:40]}" if node.domain else node.op_type[:40]
        raise ModelFileError(
            f"{place}: op_type", "an operator that cannot be imported", expected=" ".join(OPERATORS), found=found
        )
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        name = attribute.name[:40]
        if attribute.name not in OPERATORS[node.op_type] or attribute.ref_attr_name or name in attributes:
            expected = ", ".join(sorted(OPERATORS[node.op_type])) or "no attribute"
            raise ModelFileError(
                f"{place}: {name}", "an attribute that cannot be imported", expected=expected, found=name
            )
        attributes[name] = _attribute(attribute, f"{place}: {name}")
    return Node(place, node.op_type, tuple(node.input), tuple(node.output), attributes)


def _attribute(attribute: Any, where: str) -> Any:
    """AttributeProto.AttributeType: 1 float, 2 int, 3 text, 4 tensor, 6 floats, 7 ints, 8 texts; the rest are graphs
    and such.
    """
    match attribute.type:
        case 1:
            return float(attribute.f)
        case 2:
            return int(attribute.i)
        case 3:
            return attribute.s.decode("utf-8", "replace")
        case 4:
            return read_tensor(attribute.t, where)
        case 6:
            return [float(value) for value in attribute.floats]
        case 7:
            return [int(value) for value in attribute.ints]
        case 8:
            return [text.decode("utf-8", "replace") for text in attribute.strings]
    found = f"attribute type {attribute.type}"
    raise ModelFileError(where, "wrong attribute", expected="numbers, text or a tensor", found=found)


def _shape(value: Any, where: str) -> tuple[int | str | None, ...]:
    tensor = value.type.tensor_type
    place = f"{where}: input {value.name[:200]}"
    if not value.type.HasField("tensor_type") or tensor.elem_type not in _FLOATS or not tensor.HasField("shape"):
        raise ModelFileError(place, "graph input", expected="a float tensor with a shape", found="another")
    sizes: list[int | str | None] = []
    for dimension in tensor.shape.dim:
        fixed = dimension.WhichOneof("value") == "dim_value"
        if fixed and not 0 < dimension.dim_value < 1 << 31:
            raise ModelFileError(place, "shape", expected="sizes from 1 to 2^31", found=str(dimension.dim_value))
        sizes.append(int(dimension.dim_value) if fixed else dimension.dim_param or None)
    return tuple(sizes)
