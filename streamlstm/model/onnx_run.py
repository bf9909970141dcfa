"""Running a checked ONNX graph on a trial input, watching what depends on what.

Every value carries the names of the graph inputs that it depends on, so that weights (which depend on none) are told
from signals.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.model.limits import MIB
from streamlstm.model.onnx_graph import Graph, Node
from streamlstm.model.onnx_ops import compute, output_size, output_work, slice_bounds

T = TypeVar("T")

# Numbers that a run may produce: this many, and for large models a few times the weights themselves.
FREE_NUMBERS = 4 * MIB
WEIGHT_COPIES = 4
MAX_WORK = 1e11  # products; a few seconds
# Marks of what depends on the output layer and on sizes of inputs; no graph input has these names.
HEAD = "\0head"
SIZES = "\0sizes"
TO_THE_END = (1 << 31) - 1  # ends from here on stand for "as far as it goes"
# Operators whose operands are places and sizes: all but the first one, and that of ConstantOfShape.
_MOVERS = ("Slice", "Gather", "Reshape", "Expand", "Squeeze", "Unsqueeze", "ConstantOfShape")


@dataclass(frozen=True, eq=False)
class Value:
    array: NDArray[Any]
    sources: frozenset[str]

    @property
    def signals(self) -> frozenset[str]:
        """The inputs whose numbers, not only sizes, are in it."""
        return self.sources - {SIZES}


@dataclass(frozen=True)
class Cut:
    """An axis, in a trial of `size`, of which a Slice or Gather takes a part. even: the part is everything or the last
    element, so it is the same part at any size.
    """

    node: Node
    size: int
    even: bool


@dataclass
class Recorded:
    """LSTM nodes with their operands, and the affine nodes of the output layer, in the order of the graph; cuts of
    what depends on the numbers of inputs, by place of the node and axis.
    """

    lstms: list[tuple[Node, list[Value | None]]] = field(default_factory=list)
    head: list[tuple[Node, list[Value | None]]] = field(default_factory=list)
    outputs: dict[str, Value] = field(default_factory=dict)
    cuts: dict[tuple[str, int], Cut] = field(default_factory=dict)


def run_graph(graph: Graph, trial: dict[str, NDArray[Any]]) -> Recorded:
    """Compute the graph on trial inputs in float64. Raises ModelFileError naming the node that cannot be run."""
    values = {name: Value(array, frozenset()) for name, array in graph.constants.items()}
    values |= {name: Value(array, frozenset({name})) for name, array in trial.items()}
    recorded = Recorded()
    left = FREE_NUMBERS + WEIGHT_COPIES * sum(array.size for array in graph.constants.values())
    work = 0
    for node in graph.nodes:
        operands = [_operand(node, name, values) for name in node.inputs]
        sources = frozenset[str]().union(*(operand.sources for operand in operands if operand is not None))
        sources |= _record(node, operands, sources, recorded)
        if node.operator == "Shape":
            sources = frozenset({SIZES}) if sources else sources
        arrays = [None if operand is None else operand.array for operand in operands]
        left -= _told(node, arrays, output_size)
        if left < 0:
            raise node.refuse("", "values grow too large", f"at most {FREE_NUMBERS} numbers", "more")
        work += _told(node, arrays, output_work)
        if work > MAX_WORK:
            problem = "the fixed batch and sequence are too large to prove the graph; export it with free sizes"
            raise node.refuse("", problem, f"{MAX_WORK:.0e} products", f"{work:.0e}")
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
    signals = sources - {SIZES}
    if node.operator == "LSTM":
        recorded.lstms.append((node, operands))
        if HEAD in sources:
            raise node.refuse("", "an LSTM above a linear layer", "LSTM layers, then one linear layer", "the reverse")
    elif node.operator in ("Gemm", "MatMul", "Add") and signals:
        recorded.head.append((node, operands))
        return frozenset({HEAD})
    elif node.operator in _MOVERS:
        _record_move(node, operands, recorded)
    return frozenset()


def _record_move(node: Node, operands: list[Value | None], recorded: Recorded) -> None:
    places = operands if node.operator == "ConstantOfShape" else operands[1:]
    if any(place is not None and place.signals for place in places):
        raise node.refuse("", "a place or size that depends on numbers of the input", "constants or sizes", "numbers")
    data = operands[0] if operands else None
    if node.operator not in ("Slice", "Gather") or data is None or not data.signals:
        return
    arrays = [None if operand is None else operand.array for operand in operands]
    for axis, cut in _told(node, arrays, _cut_axes).items():
        recorded.cuts[node.where, axis] = cut


def _cut_axes(node: Node, arrays: list[NDArray[Any] | None]) -> dict[int, Cut]:
    """Cuts of a Slice or Gather, by axis. Raises ValueError, IndexError or TypeError when its operands don't fit."""
    shape = arrays[0].shape if arrays[0] is not None else ()
    if node.operator == "Gather":
        axis = node.attributes.get("axis", 0)
        places = arrays[1].reshape(-1).tolist() if arrays[1] is not None else []
        return {axis: Cut(node, shape[axis], places in ([-1], [shape[axis] - 1]))}
    cuts: dict[int, Cut] = {}
    for axis, start, end, step in slice_bounds(node, arrays):
        size = shape[axis]
        to_the_end = step == 1 and (end == size or end >= TO_THE_END)
        cuts[axis] = Cut(node, size, to_the_end and start in (0, -1, size - 1))
    return cuts


def _told(node: Node, arrays: list[NDArray[Any] | None], tell: Callable[[Node, list[NDArray[Any] | None]], T]) -> T:
    """What `tell` says of a node that hasn't run."""
    try:
        return tell(node, arrays)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise node.refuse("", "operands do not fit", "operands of the operator", str(error)[:120]) from None


def _computed(node: Node, arrays: list[NDArray[Any] | None], opset: int) -> tuple[NDArray[Any], ...]:
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return compute(node, arrays, opset)
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise node.refuse("", "operands do not fit", "operands of the operator", str(error)[:120]) from None
