"""The step kernel beside torch and ONNX Runtime, on one core: steps per second and fraction of the FMA peak.

    .venv/bin/python benchmarks/kernel.py [--batches 1,2,..,4096] [--cold 32768] [--configs 1-50-1-1,...]
                                          [--state-dtype float32] [--seconds 2] [--peers torch,onnxruntime]
                                          [--json FILE]

Hot: random rows among 512, or as many as the batch has, which stay in the caches. Cold: random rows among a million
streams (262,144 for the larger models), so that nearly every row comes from memory. Multiplications and additions of
the matrices and the head count as work, activations don't. The peak is a compiled loop of independent FMAs. The roof is
the time of all the arithmetic, work at that peak and activations as fast as a loop of nothing else makes them, or,
cold, of reading and writing the rows in memory where that is more (roofline.py): `activations` is their part of it. The
more FMAs a core does per clock, the larger that part, and the less of the peak can be reached.
Small batches are held to the time that it takes to read the weights once. The kernel and these limits take turns, then
the kernel and its peers (who cool the caches for each other), all within one process. Medians of CPU time are compared,
so that a busy machine slows all alike; `fastest` is the fraction from the fastest tenth of the turns, for machines that
are never calm: what others do to caches and memory stays in every figure.

Each contestant does the whole of it: gather the rows, step, scatter, head. torch: LSTMCell with index_select and
index_copy_. ONNX Runtime: its LSTM operator over gathered NumPy rows. Peers are used where installed, on one thread.
"""

import argparse
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from figures import Figure, write
from numpy.typing import NDArray
from roofline import activation_loop, peak_loop, reading, touching

from streamlstm.engine.backend import CpuBackend, row_layout
from streamlstm.kernels.compile import cache_status
from streamlstm.kernels.layout import Layout, StateDtype
from streamlstm.kernels.vector import has_wide_vectors
from streamlstm.model.parameters import Layer, Parameters

Step = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]]
MILLION, QUARTER = 1_000_000, 262_144
HOT_STREAMS = 512
SMALL_BATCH = 16
READS = 64


@dataclass(frozen=True)
class Config:
    """A model, the streams of its cold run, and the fractions of the peak below which a change has made it worse."""

    inputs: int
    hidden: int
    layers: int
    outputs: int
    cold_streams: int
    hot_bar: float
    cold_bar: float

    @property
    def name(self) -> str:
        return f"{self.inputs}-{self.hidden}-{self.layers}-{self.outputs}"


CONFIGS = (
    Config(1, 50, 1, 1, MILLION, 0.66, 0.49),
    Config(1, 64, 1, 1, MILLION, 0.76, 0.55),
    Config(1, 32, 1, 1, MILLION, 0.61, 0.35),
    Config(8, 64, 2, 12, QUARTER, 0.81, 0.70),
    Config(4, 128, 2, 24, QUARTER, 0.87, 0.79),
    Config(1, 256, 1, 1, QUARTER, 0.89, 0.78),
)


@dataclass(frozen=True)
class Result:
    """Medians. `fraction` is of this core's FMA peak, `of_roof` of the roofline, `activations` their part of its
    arithmetic; `weights` says how many times as long as reading the weights from the caches a small batch takes,
    `times` how many times as long each peer takes.
    """

    config: str
    place: str
    streams: int
    batch: int
    microseconds: float
    steps_per_second: float
    fraction: float
    fraction_fastest: float
    peak_gflops: float
    of_roof: float
    activations: float
    weights: float | None
    bar: float | None
    times: dict[str, float]


def random_parameters(config: Config) -> Parameters:
    rng = np.random.default_rng(0)
    bound = 1 / np.sqrt(config.hidden)

    def uniform(*shape: int) -> NDArray[np.float32]:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    inputs, H = [config.inputs, *[config.hidden] * (config.layers - 1)], config.hidden
    layers = tuple(Layer(uniform(4 * H, i), uniform(4 * H, H), uniform(4 * H)) for i in inputs)
    return Parameters(layers, uniform(config.outputs, H), uniform(config.outputs))


# --------------------------------------------------------------------------------------------------------- contestants


def streamlstm_step(parameters: Parameters, layout: Layout, streams: int, batch: int) -> Step:
    backend = CpuBackend(parameters, layout, streams)
    backend.arena.view(np.float32)[:] = 0.0  # resident from the start
    y = np.zeros((batch, parameters.outputs), np.float32)

    def step(slots: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        backend.step(slots, x, y, len(slots))
        return y

    return step


def torch_step(parameters: Parameters, streams: int, batch: int) -> Step:
    import torch  # noqa: PLC0415 - an optional peer

    torch.set_num_threads(1)
    cells, states = [], []
    for layer in parameters.layers:
        cell = torch.nn.LSTMCell(layer.inputs, layer.hidden)
        with torch.no_grad():
            cell.weight_ih.copy_(torch.tensor(layer.weight_ih))
            cell.weight_hh.copy_(torch.tensor(layer.weight_hh))
            cell.bias_ih.copy_(torch.tensor(layer.bias))
            cell.bias_hh.zero_()
        cells.append(cell)
        states.append((torch.zeros(streams, layer.hidden), torch.zeros(streams, layer.hidden)))
    weight, bias = torch.tensor(parameters.head_weight), torch.tensor(parameters.head_bias)

    def step(slots: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            rows, signal = torch.from_numpy(slots), torch.from_numpy(x)
            for cell, (h, c) in zip(cells, states, strict=True):
                signal, c_next = cell(signal, (h.index_select(0, rows), c.index_select(0, rows)))
                h.index_copy_(0, rows, signal)
                c.index_copy_(0, rows, c_next)
            return torch.nn.functional.linear(signal, weight, bias).numpy()  # type: ignore[no-any-return]

    return step


def onnxruntime_step(parameters: Parameters, streams: int, batch: int) -> Step:
    import onnxruntime  # noqa: PLC0415 - an optional peer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(_onnx_model(parameters), options, providers=["CPUExecutionProvider"])
    states = [np.zeros((2, streams, hidden), np.float32) for hidden in parameters.hidden]
    names = [output.name for output in session.get_outputs()]

    def step(slots: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = {"x": x[None]}
        for k, (h, c) in enumerate(states):
            feed[f"h{k}"], feed[f"c{k}"] = h[slots][None], c[slots][None]
        y, *after = session.run(names, feed)
        for k, (h, c) in enumerate(states):
            h[slots], c[slots] = after[2 * k][0], after[2 * k + 1][0]
        return y  # type: ignore[no-any-return]

    return step


def _onnx_model(parameters: Parameters) -> bytes:
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - an optional peer

    def iofc(array: NDArray[np.float32]) -> NDArray[np.float32]:
        i, f, g, o = np.split(array, 4)
        return np.concatenate([i, o, f, g])[None]

    def tensor(name: str, *shape: int | None) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    weights = [numpy_helper.from_array(np.array([0]), "axis")]
    nodes, inputs, outputs = [], [tensor("x", 1, None, parameters.inputs)], [tensor("y", None, parameters.outputs)]
    signal = "x"
    for k, layer in enumerate(parameters.layers):
        both = np.concatenate([iofc(layer.bias), np.zeros((1, 4 * layer.hidden), np.float32)], axis=1)
        for letter, array in (("W", iofc(layer.weight_ih)), ("R", iofc(layer.weight_hh)), ("B", both)):
            weights.append(numpy_helper.from_array(array, f"{letter}{k}"))
        operands = [signal, f"W{k}", f"R{k}", f"B{k}", "", f"h{k}", f"c{k}"]
        nodes.append(helper.make_node("LSTM", operands, ["", f"h{k}_next", f"c{k}_next"], hidden_size=layer.hidden))
        inputs += [tensor(f"{letter}{k}", 1, None, layer.hidden) for letter in "hc"]
        outputs += [tensor(f"{letter}{k}_next", 1, None, layer.hidden) for letter in "hc"]
        signal = f"h{k}_next"
    weights.append(numpy_helper.from_array(parameters.head_weight.T.copy(), "head_weight"))
    weights.append(numpy_helper.from_array(parameters.head_bias.copy(), "head_bias"))
    nodes.append(helper.make_node("Squeeze", [signal, "axis"], ["last"]))
    nodes.append(helper.make_node("Gemm", ["last", "head_weight", "head_bias"], ["y"]))
    graph = helper.make_graph(nodes, "lstm", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()  # type: ignore[no-any-return]


PEERS: dict[str, Callable[[Parameters, int, int], Step]] = {"torch": torch_step, "onnxruntime": onnxruntime_step}


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Times:
    """Seconds of one call: the median and the fastest tenth of many."""

    median: float
    fastest: float


def take_turns(
    contestants: dict[str, Callable[[], object]], repeats: dict[str, int], seconds: float
) -> dict[str, Times]:
    """Call each in turns for about `seconds`, at least five turns; CPU time of the process, all its threads."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, call in contestants.items():
            start = time.process_time()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.process_time() - start) / repeats[name])
    return {name: Times(*np.quantile(own, [0.5, 0.1])) for name, own in times.items()}


def measure(
    config: Config,
    state_dtype: StateDtype,
    streams: int,
    batch: int,
    peers: list[str],
    seconds: float,
    bar: float | None,
) -> Result:
    rng = np.random.default_rng(1)
    parameters = random_parameters(config)
    layout = row_layout(parameters, state_dtype=state_dtype)
    batches = [rng.choice(streams, batch, replace=False) for _ in range(8 if batch > 4096 else 32)]
    x = rng.normal(size=(batch, config.inputs)).astype(np.float32)
    steps = {"streamlstm": streamlstm_step(parameters, layout, streams, batch)}
    steps |= {name: PEERS[name](parameters, streams, batch) for name in peers}
    outputs = {name: [step(rows, x).copy() for rows in batches][-1] for name, step in steps.items()}
    for name, y in outputs.items():
        rtol, atol = (1e-4, 1e-5) if state_dtype == "float32" else (0.1, 0.1)
        if not np.allclose(y, outputs["streamlstm"], rtol=rtol, atol=atol):
            sys.exit(f"{config.name}: {name} computes something else than streamlstm")

    def caller(step: Step) -> Callable[[], object]:
        turn = iter(range(sys.maxsize))
        return lambda: step(batches[next(turn) % len(batches)], x)

    peak, is_cold = peak_loop(), streams == config.cold_streams
    contestants = {name: caller(step) for name, step in steps.items()}
    activating = activation_loop()
    limits = {"peak": peak.run, "activations": activating.run, "weights": reading(weight_size(parameters), READS)}
    if is_cold:
        limits["rows"] = touching(layout.row_bytes, streams, batch)
    repeats = {**dict.fromkeys(limits, 1), **dict.fromkeys(contestants, max(1, min(50, 2000 // batch)))}
    times = take_turns({**limits, "streamlstm": contestants["streamlstm"]}, repeats, seconds / 2)
    own, work = times["streamlstm"], layout.flops * batch
    beside = take_turns(contestants, repeats, seconds / 2) if peers else {}
    at_peak = work * times["peak"].median / peak.work
    units = batch * sum(parameters.hidden)
    activations = units * times["activations"].median / activating.work
    return Result(
        config=config.name,
        place="cold" if is_cold else "hot",
        streams=streams,
        batch=batch,
        microseconds=own.median * 1e6,
        steps_per_second=batch / own.median,
        fraction=at_peak / own.median,
        fraction_fastest=work / own.fastest / (peak.work / times["peak"].fastest),
        peak_gflops=peak.work / times["peak"].median / 1e9,
        of_roof=max(at_peak + activations, times["rows"].median if is_cold else 0.0) / own.median,
        activations=activations / (at_peak + activations),
        weights=own.median / (times["weights"].median / READS) if batch <= SMALL_BATCH else None,
        bar=bar,
        times={name: beside[name].median / beside["streamlstm"].median for name in peers},
    )


def weight_size(parameters: Parameters) -> int:
    """Bytes of float32 weights and biases that an event goes through."""
    layers = sum(layer.weight_ih.size + layer.weight_hh.size + layer.bias.size for layer in parameters.layers)
    return 4 * (layers + parameters.head_weight.size + parameters.head_bias.size)


def row(result: Result, peers: list[str]) -> str:
    times = "".join(f" {result.times[name]:.1f} |" for name in peers)
    bar = "" if result.bar is None else f"{result.bar:.0%}"
    weights = "" if result.weights is None else f"{result.weights:.1f}"
    return (
        f"| {result.config} | {result.place} | {result.batch} | {result.microseconds:.1f} "
        f"| {result.steps_per_second / 1e6:.3f} | {result.fraction:.1%} | {result.fraction_fastest:.1%} "
        f"| {bar} | {result.of_roof:.0%} | {result.activations:.0%} | {weights} |{times}"
    )


def figures(result: Result) -> list[Figure]:
    of = f"{result.config} {result.place}"
    found = [
        Figure(f"{of}, steps", result.steps_per_second / 1e6, "M/s", "neither", result.batch),
        Figure(f"{of}, of the FMA peak", result.fraction, "ratio", "higher", result.batch),
        Figure(f"{of}, of the roofline", result.of_roof, "ratio", "neither", result.batch),
    ]
    if result.weights is not None:
        found.append(Figure(f"{of}, times reading the weights", result.weights, "x", at=result.batch))
    times = result.times.items()
    return found + [Figure(f"{of}, times as fast as {peer}", x, "x", "higher", result.batch) for peer, x in times]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,2,4,8,16,32,256,1024,4096", help="hot batch sizes")
    parser.add_argument("--cold", default="32768", help="cold batch sizes; empty for none")
    parser.add_argument("--configs", default=",".join(config.name for config in CONFIGS))
    parser.add_argument("--state-dtype", default="float32", choices=get_args(StateDtype))
    parser.add_argument("--seconds", type=float, default=2.0, help="for each cell")
    installed = [name for name in PEERS if importlib.util.find_spec(name)]
    parser.add_argument("--peers", default=",".join(installed))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def machine() -> dict[str, str]:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpu": model.partition(":")[2].strip() or platform.processor(),
        "vectors": "AVX-512" if has_wide_vectors() else "narrower than AVX-512",
        "load": f"{os.getloadavg()[0]:.2f}",
        "kernels": cache_status().partition(";")[2].strip(),
        "command": " ".join(sys.argv),
    }


def main() -> None:
    arguments = parse()
    peers = [name for name in arguments.peers.split(",") if name]
    chosen, dtype, seconds = arguments.configs.split(","), arguments.state_dtype, arguments.seconds
    results = []
    print(
        "| I-H-L-O | rows | B | µs | M steps/s | of peak | fastest | bar | of roof | activations | x weights |"
        + "".join(f" x {name} |" for name in peers)
    )
    print("|" + "---|" * (11 + len(peers)))
    for config in (config for config in CONFIGS if config.name in chosen):
        for batch in map(int, filter(None, arguments.batches.split(","))):
            bar = config.hot_bar if batch >= 256 else None
            results.append(measure(config, dtype, max(HOT_STREAMS, batch), batch, peers, seconds, bar))
            print(row(results[-1], peers), flush=True)
        for batch in map(int, filter(None, arguments.cold.split(","))):
            results.append(measure(config, dtype, config.cold_streams, batch, peers, seconds, config.cold_bar))
            print(row(results[-1], peers), flush=True)
    print("\n" + "; ".join(f"{name}: {text}" for name, text in machine().items()))
    for config in {result.config for result in results}:
        for place in ("hot", "cold"):
            reached = [r for r in results if r.config == config and r.place == place and r.bar is not None]
            if reached and max(r.fraction for r in reached) < (reached[0].bar or 0):
                print(f"BELOW THE BAR: {config} {place}: {max(r.fraction for r in reached):.1%} of the peak")
    write(arguments.json, [figure for result in results for figure in figures(result)])


if __name__ == "__main__":
    main()
