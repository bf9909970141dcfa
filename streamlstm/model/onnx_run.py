"""Running a checked ONNX graph on a trial input, watching what depends on what.

Every value carries the names of the graph inputs that it depends on, so that weights (which depend on none) are told
from signals.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.model.limits import MIB
from streamlstm.model.onnx_graph import Graph, Node
from streamlstm.model.onnx_ops import compute, output_size

# Numbers that a run may produce: this many, and for large models a few times the weights themselves.
FREE_NUMBERS = 4 * MIB
WEIGHT_COPIES = 4
HEAD = "\0head"  # marks what depends on the output layer; no graph input has this name


@dataclass(frozen=True, eq=False)
class Value:
    array: NDArray[Any]
    sources: frozenset[str]


@dataclass
class Recorded:
    """LSTM nodes with their operands, and the affine nodes of the output layer, in the order of the graph."""

    lstms: list[tuple[Node, list[Value | None]]] = field(default_factory=list)
    head: list[tuple[Node, list[Value | None]]] = field(default_factory=list)
    outputs: dict[str, Value] = field(default_factory=dict)


def run_graph(graph: Graph, trial: dict[str, NDArray[Any]]) -> Recorded:
    """Compute the graph on trial inputs in float64. Raises ModelFileError naming the node that cannot be run."""
    values = {name: Value(array, frozenset()) for name, array in graph.constants.items()}
    values |= {name: Value(array, frozenset({name})) for name, array in trial.items()}
    recorded = Recorded()
    left = FREE_NUMBERS + WEIGHT_COPIES * sum(array.size for array in graph.constants.values())
    for node in graph.nodes:
        operands = [_operand(node, name, values) for name in node.inputs]
        sources = frozenset[str]().union(*(operand.sources for operand in operands if operand is not None))
        sources |= _record(node, operands, sources, recorded)
        if node.operator == "Shape":
            sources = frozenset()
        arrays = [None if operand is None else operand.array for operand in operands]
        left -= _size(node, arrays)
        if left < 0:
            raise node.refuse("", "values grow too large", f"at most {FREE_NUMBERS} numbers", "more")
        for name, array in zip(node.outputs, _computed(node, arrays, graph.opset), strict=False):
            if name in values:
                raise node.refuse(name[:60], "a value defined twice", "one definition", "two")
            if name:
                values[name] = Value(array, sources)
    for name in graph.outputs:
        if name not in values:
            raise ModelFileError(f"{graph.where}: output {name[:60]}", "undefined", expected="a value", found="none")
        recorded.outputs[name] = values[name]
    return recorded


def _operand(node: Node, name: str, values: dict[str, Value]) -> Value | None:
    if not name:
        return None
    if name not in values:
        raise node.refuse(name[:60], "a value used before it is defined", "a sorted graph", "no such value")
    return values[name]


def _record(node: Node, operands: list[Value | None], sources: frozenset[str], recorded: Recorded) -> frozenset[str]:
    """Note LSTMs and the output layer; gives the mark of what the node makes."""
    if node.operator == "LSTM":
        recorded.lstms.append((node, operands))
        if HEAD in sources:
            raise node.refuse("", "an LSTM above a linear layer", "LSTM layers, then one linear layer", "the reverse")
    elif node.operator in ("Gemm", "MatMul", "Add") and sources:
        recorded.head.append((node, operands))
        return frozenset({HEAD})
    return frozenset()


def _size(node: Node, arrays: list[NDArray[Any] | None]) -> int:
    try:
        return output_size(node, arrays)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise node.refuse("", "operands do not fit", "operands of the operator", str(error)[:120]) from None


def _computed(node: Node, arrays: list[NDArray[Any] | None], opset: int) -> tuple[NDArray[Any], ...]:
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return compute(node, arrays, opset)
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise node.refuse("", "operands do not fit", "operands of the operator", str(error)[:120]) from None
