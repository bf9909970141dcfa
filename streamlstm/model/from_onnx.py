"""ONNX graphs that are LSTM layers with a linear output layer, and nothing else.

ONNX keeps W (1, 4H, I), R (1, 4H, H) and B (1, 8H) = input and recurrent biases, gate rows i, o, f, c: reordered to
i, f, c, o they are ours. Weights are taken from the LSTM nodes and the affine nodes above; then the graph itself is
computed on trial inputs and must give what the taken weights give, in float64. Between them only operators run that
move numbers about, so agreement there is agreement everywhere.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError, ModelFileError
from streamlstm.model.forward import run
from streamlstm.model.golden import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE
from streamlstm.model.imported import Imported
from streamlstm.model.limits import count_elements
from streamlstm.model.onnx_graph import Graph, Node, read_graph
from streamlstm.model.onnx_run import HEAD, Recorded, Value, run_graph
from streamlstm.model.parameters import Layer, Parameters
from streamlstm.model.tensors import to_float32

MAX_TRIAL_NUMBERS = 4_000_000
TRIALS = ((2, 5), (3, 9))  # (N, T) where the graph leaves them free
MAX_TRIAL_WORK = 1e11  # multiplications
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
    carried = False
    shapes = dict.fromkeys(_trial_shape(graph, x_name, sizes) for sizes in TRIALS)
    for shape in shapes:
        trial = _trial(graph, x_name, shape)
        recorded = run_graph(graph, trial)
        parameters = parameters or _extract(graph, recorded, x_name)
        _require_cheap(graph, parameters, shape)
        states = _initial_states(recorded, x_name)
        carried = states is not None
        layouts = [name for name in layouts if _agrees(parameters, trial[x_name], states, recorded, name, graph)]
        if not layouts:
            problem = "it computes something else than its LSTM and its linear layer by themselves"
            expected = "LSTM layers and a linear layer on the last step, or on each step"
            found = "other forecasts on a trial input"
            raise ModelFileError(f"{graph.where}: graph", problem, expected=expected, found=found)
    if parameters is None:  # TRIALS isn't empty
        raise InvariantError("no trial was run")
    steps = graph.inputs[x_name][LAYOUTS[layouts[0]]]
    others = [name for name, value in recorded.outputs.items() if HEAD not in value.sources]
    return Imported(
        parameters,
        fixed_window=steps if isinstance(steps, int) and not carried else None,
        carried=carried,
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
    made_by = {name: node for node in graph.nodes for name in node.outputs if name}
    waiting, seen = [first.inputs[0]], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen and name in made_by:
            waiting.extend(source for source in made_by[name].inputs if source)
        seen.add(name)
    found = sorted(seen & set(graph.inputs))
    if len(found) != 1 or len(graph.inputs[found[0]]) != 3 or not isinstance(graph.inputs[found[0]][2], int):
        shapes = ", ".join(f"{name[:40]} {graph.inputs[name]}" for name in found)[:200] or "none"
        raise first.refuse("X", "the input of the first LSTM", "one graph input (batch, time, fixed size)", shapes)
    return found[0]


def _trial_shape(graph: Graph, x_name: str, sizes: tuple[int, int]) -> tuple[int, ...]:
    shape = graph.inputs[x_name]
    free = (*sizes, 0)
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
        found = ", ".join(sorted(value.sources))[:120]
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


def _initial_states(recorded: Recorded, x_name: str) -> tuple[NDArray[Any], ...] | None:
    """h and c (N, H) that each LSTM starts from when they are graph inputs; None when all start from zero."""
    states: list[NDArray[Any]] = []
    given = False
    for node, operands in recorded.lstms:
        H = operands[2].array.shape[-1] if operands[2] is not None else 0
        for index, name in ((5, "initial_h"), (6, "initial_c")):
            value = operands[index] if index < len(operands) else None
            if value is None:
                states.append(np.zeros((1, H)))
                continue
            if x_name in value.sources or HEAD in value.sources:
                raise node.refuse(
                    name, "an initial state computed from the input", "zeros or a graph input", x_name[:60]
                )
            if not value.sources and np.any(value.array != 0.0):
                raise node.refuse(name, "an initial state that isn't zero", "zeros or a graph input", "other constants")
            given = given or bool(value.sources)
            states.append(value.array[:, 0] if node.attributes.get("layout", 0) else value.array[0])
    return tuple(states) if given else None


def _agrees(
    parameters: Parameters,
    x: NDArray[Any],
    states: tuple[NDArray[Any], ...] | None,
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
    if states is not None:
        states = tuple(np.broadcast_to(state, (signal.shape[0], state.shape[1])) for state in states)
    y = run(parameters, signal, states).y
    n, _, outputs = y.shape
    given = forecasts[0]
    pairs = [(given.reshape(n, outputs), y[:, -1])] if given.size == n * outputs else []
    pairs += [(given, steps) for steps in (y, y.transpose(1, 0, 2)) if given.shape == steps.shape]
    return any(_close(left, right) for left, right in pairs)


def _close(given: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Equal but for the rounding of weights to float32, at whatever scale the forecasts are."""
    scale = float(np.abs(expected).max())
    return bool(np.all(np.abs(given - expected) <= ABSOLUTE_TOLERANCE * scale + RELATIVE_TOLERANCE * np.abs(expected)))


def _require_cheap(graph: Graph, parameters: Parameters, shape: tuple[int, ...]) -> None:
    work = shape[0] * shape[1] * sum(layer.weight_ih.size + layer.weight_hh.size for layer in parameters.layers)
    if work > MAX_TRIAL_WORK:
        problem = "the fixed batch and sequence are too large to prove the graph; export it with free sizes"
        raise ModelFileError(
            f"{graph.where}: input", problem, expected=f"{MAX_TRIAL_WORK:.0e} products", found=str(work)
        )
