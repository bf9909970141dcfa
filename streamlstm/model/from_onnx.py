"""ONNX graphs that are LSTM layers with a linear output layer, and nothing else.

ONNX keeps W (1, 4H, I), R (1, 4H, H) and B (1, 8H) = input and recurrent biases, gate rows i, o, f, c: reordered to
i, f, c, o they are ours. Weights are taken from the LSTM nodes and the affine nodes above; then the graph itself is
computed on trial inputs and must give what the taken weights give, in float64. Between them only operators run that
move numbers about, by constants and sizes, and of an axis that grows with batch or time they take all or the last
element: so agreement there is agreement everywhere, save what a graph computes from sizes beyond those of the trials.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError, ModelFileError
from streamlstm.model.forward import run
from streamlstm.model.golden import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, ROUNDING_MARGIN
from streamlstm.model.imported import Imported
from streamlstm.model.limits import count_elements
from streamlstm.model.onnx_graph import Graph, Node, read_graph
from streamlstm.model.onnx_run import HEAD, Cut, Recorded, Value, run_graph
from streamlstm.model.parameters import Layer, Parameters
from streamlstm.model.tensors import to_float32

MAX_TRIAL_NUMBERS = 4_000_000
TRIALS = ((2, 5), (3, 9), (2, 70))  # (N, T) where the graph leaves them free; the first one tells which axis is which
SHORTEST, MOST_ROWS = 11, 140  # steps of the last one where the batch is fixed; N T of it where both are free
DEFAULT_ACTIVATIONS = ["Sigmoid", "Tanh", "Tanh"]


# Axis of time in the input of a graph, by how it is laid out.
LAYOUTS = {"batch first": 1, "time first": 0}


def read_onnx(path: Path) -> Imported:
    """Raises ModelFileError on graphs that are anything else, naming the node, and on files that lie about their
    sizes.
    """
    graph = read_graph(path)
    lstms = [node for node in graph.nodes if node.operator == "LSTM"]
    if not lstms:
        found = " ".join(sorted({node.operator for node in graph.nodes}))[:120]
        raise ModelFileError(f"{graph.where}: graph", "no LSTM in it", expected="an LSTM node", found=found)
    for node in lstms:
        _require_plain(node)
    x_name = _signal_input(graph, lstms[0])
    parameters: Parameters | None = None
    layouts = list(LAYOUTS)
    cuts: dict[tuple[str, int], Cut] = {}
    tried = set[tuple[int, ...]]()
    for sizes in TRIALS:
        shape = _trial_shape(graph, x_name, sizes if layouts[0] == "batch first" else sizes[::-1])
        if shape in tried:
            continue
        tried.add(shape)
        trial = _trial(graph, x_name, shape)
        recorded = run_graph(graph, trial)
        _require_even(recorded.cuts, cuts)
        parameters = parameters or _extract(graph, recorded, x_name)
        states = _initial_states(recorded, x_name)
        layouts = [name for name in layouts if _agrees(parameters, trial[x_name], states, recorded, name, graph)]
        if not layouts:
            problem = "it computes something else than its LSTM and its linear layer by themselves"
            expected = "LSTM layers and a linear layer on the last step, or on each step"
            found = "other forecasts on a trial input"
            raise ModelFileError(f"{graph.where}: graph", problem, expected=expected, found=found)
    if parameters is None:  # TRIALS isn't empty
        raise InvariantError("no trial was run")
    steps = graph.inputs[x_name][LAYOUTS[layouts[0]]]
    from_zero = states.given == 0
    others = [name for name, value in recorded.outputs.items() if HEAD not in value.sources]
    return Imported(
        parameters,
        fixed_window=steps if isinstance(steps, int) and from_zero else None,
        carried=states.given == len(states.arrays) and _gives_states_back(graph, lstms),
        origin={"framework": "onnx", "format": f"opset {graph.opset}", "version": graph.producer},
        notes=(f"outputs left aside: {', '.join(others)[:200]}",) if others else (),
    )


def _require_plain(node: Node) -> None:
    """Refuse every option of ONNX' LSTM that our cell doesn't have."""
    options = node.attributes
    rules = (
        ("direction", options.get("direction", "forward"), "forward"),
        ("activations", options.get("activations", DEFAULT_ACTIVATIONS), DEFAULT_ACTIVATIONS),
        ("clip", options.get("clip"), None),
        ("input_forget", options.get("input_forget", 0), 0),
        ("layout", options.get("layout", 0) in (0, 1), True),
    )
    for name, found, expected in rules:
        if found != expected:
            raise node.refuse(name, "an LSTM option that cannot be imported", str(expected or "none"), str(found)[:120])
    inputs = dict(zip(("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"), node.inputs, strict=False))
    for name, expected in (("sequence_lens", "no sequence lengths"), ("P", "no peepholes")):
        if inputs.get(name):
            raise node.refuse(name, "an LSTM input that cannot be imported", expected, inputs[name][:60])
    if len(node.inputs) < 3 or len(node.inputs) > 8 or not all(node.inputs[:3]):
        raise node.refuse("inputs", "wrong count of inputs", "X, W, R and at most 8", str(len(node.inputs)))


def _signal_input(graph: Graph, first: Node) -> str:
    """Name of the one graph input that the first LSTM reads as its X; shape (batch, time, inputs) or (time, batch,
    inputs).
    """
    found = sorted(_upstream(graph, (first.inputs[0],)) & set(graph.inputs))
    if len(found) != 1 or len(graph.inputs[found[0]]) != 3 or not isinstance(graph.inputs[found[0]][2], int):
        shapes = ", ".join(f"{name[:40]} {graph.inputs[name]}" for name in found)[:200] or "none"
        raise first.refuse("X", "the input of the first LSTM", "one graph input (batch, time, fixed size)", shapes)
    return found[0]


def _upstream(graph: Graph, names: tuple[str, ...], stop: tuple[str, ...] = ()) -> set[str]:
    """The values that these are made of, themselves included, without looking behind the operators in `stop`."""
    made_by = {name: node for node in graph.nodes for name in node.outputs if name}
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen and name in made_by and made_by[name].operator not in stop:
            waiting.extend(source for source in made_by[name].inputs if source)
        seen.add(name)
    return seen


def _require_even(cuts: dict[tuple[str, int], Cut], before: dict[tuple[str, int], Cut]) -> None:
    """Refuse what takes a part of the batch or of the sequence, told by a size that isn't that of the trials before;
    the cuts are added to theirs.
    """
    for (place, axis), cut in cuts.items():
        other = before.setdefault((place, axis), cut)
        if other.size != cut.size and not (other.even and cut.even):
            problem = "a part of the batch or of the sequence is cut out"
            raise cut.node.refuse(f"axis {axis}", problem, "the whole axis or its last element", "another part")


def _trial_shape(graph: Graph, x_name: str, sizes: tuple[int, int]) -> tuple[int, ...]:
    shape = graph.inputs[x_name]
    fixed = max((size for size in shape[:2] if isinstance(size, int)), default=0)
    most = max(SHORTEST, MOST_ROWS // max(fixed, 1))  # a batch that is fixed may be a large one
    free = (*(min(size, most) for size in sizes), 0)
    return tuple(size if isinstance(size, int) else free[k] for k, size in enumerate(shape))


def _trial(graph: Graph, x_name: str, shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    """Values for every graph input: the signal in `shape`, states (layers, batch, hidden) with the batch that names
    agree on.
    """
    symbols = {
        symbol: size for symbol, size in zip(graph.inputs[x_name], shape, strict=True) if isinstance(symbol, str)
    }
    trial: dict[str, NDArray[Any]] = {}
    for name, declared in graph.inputs.items():
        wanted = shape
        if name != x_name:
            wanted = tuple(
                size if isinstance(size, int) else symbols.get(size, shape[0]) if size else shape[0]
                for size in declared
            )
        count = count_elements(wanted, f"{graph.where}: input {name[:60]}")
        if count > MAX_TRIAL_NUMBERS:
            expected = f"at most {MAX_TRIAL_NUMBERS} numbers"
            raise ModelFileError(f"{graph.where}: input {name[:60]}", "size", expected=expected, found=str(wanted))
        trial[name] = np.sin(12.9898 * np.arange(1, count + 1) ** 1.2 + len(trial)).reshape(wanted)
    return trial


def _extract(graph: Graph, recorded: Recorded, x_name: str) -> Parameters:
    layers: list[Layer] = []
    for node, operands in recorded.lstms:
        W, R, B = (_weight(node, operands, k, graph) for k in (1, 2, 3))
        H = R.shape[-1]
        below = layers[-1].hidden if layers else graph.inputs[x_name][2]
        for name, found, expected in (("W", W, (1, 4 * H, below)), ("R", R, (1, 4 * H, H)), ("B", B, (1, 8 * H))):
            if found.shape != expected and (name != "B" or found.size):
                raise node.refuse(name, "wrong shape", str(expected), str(found.shape))
        if node.attributes.get("hidden_size", H) != H:
            raise node.refuse("hidden_size", "hidden size", str(H), str(node.attributes["hidden_size"]))
        bias = B[0, : 4 * H] + B[0, 4 * H :] if B.size else np.zeros(4 * H)
        weights = (to_float32(_reordered(array), node.where) for array in (W[0], R[0], bias))
        layers.append(Layer(*weights))
    weight, bias = _head(graph, recorded, layers[-1].hidden)
    return Parameters(tuple(layers), to_float32(weight, graph.where), to_float32(bias, graph.where))


def _weight(node: Node, operands: list[Value | None], index: int, graph: Graph) -> NDArray[Any]:
    """A weight of an LSTM node, of size 0 when it was left out."""
    value = operands[index] if index < len(operands) else None
    if value is None:
        return np.zeros((0, 0, 0))
    if value.sources:
        found = ", ".join(name.strip("\0") for name in sorted(value.sources))[:120]
        raise node.refuse("WRB"[index - 1], "a weight that depends on the input", "a constant", found)
    return value.array


def _reordered(rows: NDArray[Any]) -> NDArray[Any]:
    """Gate rows i, o, f, c -> i, f, g, o."""
    i, o, f, c = np.split(rows, 4)
    return np.concatenate([i, f, c, o])


def _head(graph: Graph, recorded: Recorded, H: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weight (O, H) and bias (O,) of the affine nodes: one Gemm or MatMul, then at most one Add."""
    operators = [node.operator for node, _ in recorded.head]
    if operators not in (["Gemm"], ["MatMul"], ["MatMul", "Add"], ["Gemm", "Add"]):
        found = " ".join(operators)[:120] or "none"
        raise ModelFileError(
            f"{graph.where}: graph", "output layer", expected="one Gemm or MatMul, one Add", found=found
        )
    node, operands = recorded.head[0]
    matrix = operands[1]
    if matrix is None or matrix.sources or matrix.array.ndim != 2:
        raise node.refuse("B", "output layer", "a constant matrix", "another operand")
    options = node.attributes
    weight = options.get("alpha", 1.0) * (matrix.array if options.get("transB", 0) else matrix.array.T)
    if weight.shape[1] != H or weight.shape[0] == 0:
        raise node.refuse("B", "the output layer does not fit", f"(O, {H})", str(weight.shape))
    bias = np.zeros(weight.shape[0])
    added = [operands[2]] if len(operands) > 2 else []
    scale = options.get("beta", 1.0)
    constants = [(scale, value) for value in added] + [(1.0, value) for _, pair in recorded.head[1:] for value in pair]
    for factor, value in constants:
        if value is not None and not value.sources:
            if value.array.size not in (1, len(bias)):
                raise node.refuse("bias", "wrong shape", f"({len(bias)},)", str(value.array.shape))
            bias = bias + factor * value.array.reshape(-1)
    return weight, bias


@dataclass(frozen=True, eq=False)
class _States:
    """What the LSTMs start from: h of the first, c of the first, h of the second, ..., each (N, H) or (1, H). given:
    how many of them are inputs of the graph; the others are zero.
    """

    arrays: tuple[NDArray[Any], ...]
    given: int


def _initial_states(recorded: Recorded, x_name: str) -> _States:
    states: list[NDArray[Any]] = []
    given = 0
    for node, operands in recorded.lstms:
        H = operands[2].array.shape[-1] if operands[2] is not None else 0
        direction = 1 if node.attributes.get("layout", 0) else 0
        for index, name in ((5, "initial_h"), (6, "initial_c")):
            value = operands[index] if index < len(operands) else None
            if value is None:
                states.append(np.zeros((1, H)))
                continue
            if x_name in value.sources or HEAD in value.sources:
                raise node.refuse(
                    name, "an initial state computed from the input", "zeros or a graph input", x_name[:60]
                )
            if not value.signals and np.any(value.array != 0.0):
                raise node.refuse(name, "an initial state that isn't zero", "zeros or a graph input", "other constants")
            shape = value.array.shape
            if len(shape) != 3 or shape[direction] != 1 or shape[2] != H:
                expected = f"(N, 1, {H})" if direction else f"(1, N, {H})"
                raise node.refuse(name, "wrong shape", expected, str(shape))
            given += bool(value.signals)
            states.append(value.array.take(0, direction))
    return _States(tuple(states), given)


def _gives_states_back(graph: Graph, lstms: list[Node]) -> bool:
    """Whether the last h and c of every LSTM are outputs of the graph."""
    given = _upstream(graph, graph.outputs, stop=("LSTM", "Gemm", "MatMul", "Add", "Shape"))
    return all(len(node.outputs) == 3 and {*node.outputs[1:]} <= given for node in lstms)


def _agrees(
    parameters: Parameters,
    x: NDArray[Any],
    states: _States,
    recorded: Recorded,
    layout: str,
    graph: Graph,
) -> bool:
    """Whether the one output of the linear layer is what the extracted weights give, at the last step or at each."""
    forecasts = [value.array for value in recorded.outputs.values() if HEAD in value.sources]
    if len(forecasts) != 1:
        found = f"{len(forecasts)} of {len(recorded.outputs)}"
        raise ModelFileError(f"{graph.where}: output", "outputs of the linear layer", expected="one", found=found)
    signal = x if layout == "batch first" else x.transpose(1, 0, 2)
    n = signal.shape[0]
    if any(state.shape[0] not in (1, n) for state in states.arrays):
        return False
    start = tuple(np.broadcast_to(state, (n, state.shape[1])) for state in states.arrays)
    y = run(parameters, signal, start).y
    with np.errstate(over="ignore", invalid="ignore"):
        drift = float(np.abs(run(parameters, signal, start, np.float32).y - y).max())
    outputs = y.shape[2]
    given = forecasts[0]
    pairs = [(given.reshape(n, outputs), y[:, -1])] if given.size == n * outputs else []
    pairs += [(given, steps) for steps in (y, y.transpose(1, 0, 2)) if given.shape == steps.shape]
    return any(_close(left, right, drift) for left, right in pairs)


def _close(given: NDArray[Any], expected: NDArray[Any], drift: float) -> bool:
    """Equal but for the rounding of weights to float32, at whatever scale the forecasts are. drift: how far rounding to
    float32 at each step leads; in a chaotic network, far.
    """
    tolerance = ABSOLUTE_TOLERANCE * float(np.abs(expected).max()) + ROUNDING_MARGIN * drift
    return bool(np.all(np.abs(given - expected) <= tolerance + RELATIVE_TOLERANCE * np.abs(expected)))
