"""The step on a CUDA device: steps per second in one launch, events per second with transfers, beside cuDNN and torch.

    python benchmarks/cuda_step.py [--configs 1-64-1-1,...] [--seconds 1] [--minutes 8] [--json FILE]

For each model (inputs-hidden-layers-outputs):

    bits        outputs of some batches with repeated streams are those of the CPU
    launch      one batch, on the device already, stepped over and over: what the kernel does. "hot": as many streams as
                the batch has events; "cold": rows anywhere among a million
    transfers   batches of a million events from NumPy arrays to NumPy arrays: ordered, copied in, stepped, copied out
    cuDNN       torch.nn.LSTM for one step, rows gathered and scattered by index, and the head, on the device already
    compiled    the same with torch.nn.LSTMCell under torch.compile; for the first model

torch is used where it's installed with CUDA, in float32 (no TF32). Nothing is downloaded. What doesn't fit --minutes is
left out, and said so. In Numba's simulator (NUMBA_ENABLE_CUDASIM=1) everything is tiny, and the figures mean nothing.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from streamlstm.engine.backend import CpuBackend, layers_of, row_layout
from streamlstm.model.parameters import Layer, Parameters

try:
    from streamlstm.engine.cuda_backend import CudaBackend
    from streamlstm.kernels import cuda_launch
    from streamlstm.kernels.cuda_machine import SIMULATED
except ImportError as error:
    sys.exit(f"nothing was measured: {error}")

CONFIGS = ("1-64-1-1", "1-50-1-1", "1-32-1-1", "8-64-2-12", "4-128-2-24", "1-256-1-1")
MILLION = 1 << 20
BATCHES = (8, 24) if SIMULATED else (4096, 65_536, MILLION)
STREAMS = 64 if SIMULATED else MILLION
EVENTS = 40 if SIMULATED else 4 * MILLION
STEPS_BAR, EVENTS_BAR = 0.5e9, 50e6
"""For 1-64-1-1: steps per second hot in one launch, events per second with transfers."""


@dataclass(frozen=True)
class Result:
    """A rate per second, and for steps the arithmetic and the traffic of rows that it stands for."""

    config: str
    what: str
    batch: int
    per_second: float
    tflops: float
    gigabytes: float


def parameters_of(config: str) -> Parameters:
    inputs, H, layers, outputs = map(int, config.split("-"))
    rng, bound = np.random.default_rng(0), 1 / np.sqrt(H)

    def uniform(*shape: int) -> NDArray[np.float32]:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    below = [inputs, *[H] * (layers - 1)]
    return Parameters(
        tuple(Layer(uniform(4 * H, i), uniform(4 * H, H), uniform(4 * H)) for i in below),
        uniform(outputs, H),
        uniform(outputs),
    )


def rate(call: Callable[[], object], wait: Callable[[], object], count: int, seconds: float) -> float:
    """Things per second, `count` to a call: the median of several turns, each a queue of calls that is waited for."""
    call()
    wait()
    start = time.perf_counter()
    call()
    wait()
    calls = max(1, round(seconds / 5 / max(time.perf_counter() - start, 1e-6)))
    rates = []
    for _ in range(1 if SIMULATED else 5):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        rates.append(count * calls / (time.perf_counter() - start))
    return float(np.median(rates))


class Bench:
    """One model."""

    def __init__(self, config: str, seconds: float, deadline: float) -> None:
        self.config, self.seconds, self.deadline = config, seconds, deadline
        self.parameters = parameters_of(config)
        self.layout = row_layout(self.parameters)
        self.results: list[Result] = []
        self.left_out: list[str] = []
        self.rng = np.random.default_rng(1)

    def note(self, what: str, batch: int, measure: Callable[[], float]) -> None:
        if time.perf_counter() > self.deadline:
            self.left_out.append(f"{self.config} {what} {batch}")
            return
        per_second = measure()
        traffic = 2 * self.layout.carried_bytes + 4 * (self.layout.inputs + self.layout.outputs)
        steps = what != "transfers"
        found = Result(
            self.config, what, batch, per_second, steps * self.layout.flops * per_second / 1e12,
            steps * traffic * per_second / 1e9,
        )  # fmt: skip
        self.results.append(found)
        rest = f" {found.tflops:.1f} | {found.gigabytes:,.0f} |" if steps else " | |"
        print(f"| {self.config} | {what} | {batch:,} | {per_second / 1e6:,.3f} |{rest}", flush=True)

    def check_bits(self) -> None:
        here = CpuBackend(self.parameters, self.layout, 50)
        there = CudaBackend(self.parameters, self.layout, 50)
        for n in (1, 30) if SIMULATED else (1, 30, 5000):
            slots = self.rng.integers(0, 50, n)
            x = self.rng.normal(size=(n, self.layout.inputs)).astype(np.float32)
            both = [np.zeros((n, self.layout.outputs), np.float32) for _ in range(2)]
            here.step(slots, x, both[0], n)
            there.step(slots, x, both[1], n)
            if both[0].tobytes() != both[1].tobytes():
                sys.exit(f"{self.config}: the outputs aren't those of the CPU")
        every = np.arange(50)
        if here.read_rows(every).tobytes() != there.read_rows(every).tobytes():
            sys.exit(f"{self.config}: the rows aren't those of the CPU")
        print(f"{self.config}: outputs and rows are those of the CPU, bit for bit", file=sys.stderr)

    def launches(self) -> None:
        p = self.parameters
        arena = cuda_launch.DeviceArena(
            layers_of(p), p.head_weight, p.head_bias, self.layout, STREAMS, part=max(BATCHES)
        )
        lane = arena.lanes[0]
        for batch in BATCHES:
            x = self.rng.normal(size=(batch, self.layout.inputs)).astype(np.float32)
            for place, slots in (("hot", np.arange(batch)), ("cold", self.rng.permutation(STREAMS)[:batch])):
                arena.stage(lane, slots, x)

                def measure() -> float:
                    return rate(lambda: arena.launch(lane), cuda.synchronize, lane.streams, self.seconds)

                self.note(f"launch, {place}", batch, measure)

    def transfers(self) -> None:
        backend = CudaBackend(self.parameters, self.layout, STREAMS)
        slots = self.rng.integers(0, STREAMS, EVENTS)
        x = self.rng.normal(size=(EVENTS, self.layout.inputs)).astype(np.float32)
        y = np.zeros((EVENTS, self.layout.outputs), np.float32)

        def measure() -> float:
            return rate(lambda: backend.step(slots, x, y, EVENTS), cuda.synchronize, EVENTS, self.seconds)

        self.note("transfers", EVENTS, measure)

    def peers(self, torch: Any, compiled: bool) -> None:
        batch = BATCHES[-1] if self.layout.hidden[0] <= 64 else BATCHES[-2]
        x = torch.tensor(self.rng.normal(size=(batch, self.layout.inputs)).astype(np.float32), device="cuda")
        rows = torch.tensor(self.rng.permutation(STREAMS)[:batch], device="cuda")
        for name in ("cuDNN", "compiled") if compiled else ("cuDNN",):
            step = torch_step(torch, self.parameters, STREAMS, name == "compiled")
            self.note(name, batch, partial(rate, partial(step, rows, x), torch.cuda.synchronize, batch, self.seconds))
            del step
            torch.cuda.empty_cache()


def torch_step(torch: Any, p: Parameters, streams: int, compiled: bool) -> Callable[[Any, Any], Any]:
    """One step of rows among `streams`, states and all on the device."""
    hidden, layers = p.hidden[0], len(p.layers)
    lstm = torch.nn.LSTM(p.inputs, hidden, layers).cuda()
    cells = [torch.nn.LSTMCell(layer.inputs, hidden).cuda() for layer in p.layers]
    with torch.no_grad():
        for k, layer in enumerate(p.layers):
            for weights, suffix in ((lstm, f"_l{k}"), (cells[k], "")):
                for letter, array in (
                    ("weight_ih", layer.weight_ih),
                    ("weight_hh", layer.weight_hh),
                    ("bias_ih", layer.bias),
                ):
                    getattr(weights, letter + suffix).copy_(torch.tensor(array))
                getattr(weights, "bias_hh" + suffix).zero_()
    lstm.flatten_parameters()
    h, c = (torch.zeros(layers, streams, hidden, device="cuda") for _ in range(2))
    weight, bias = (torch.tensor(array, device="cuda") for array in (p.head_weight, p.head_bias))

    def by_cudnn(rows: Any, x: Any) -> Any:
        with torch.inference_mode():
            y, (h_new, c_new) = lstm(x[None], (h.index_select(1, rows), c.index_select(1, rows)))
            h.index_copy_(1, rows, h_new)
            c.index_copy_(1, rows, c_new)
            return torch.nn.functional.linear(y[0], weight, bias)

    def by_cells(rows: Any, x: Any) -> Any:
        for k, cell in enumerate(cells):
            x, c_new = cell(x, (h[k].index_select(0, rows), c[k].index_select(0, rows)))
            h[k].index_copy_(0, rows, x)
            c[k].index_copy_(0, rows, c_new)
        return torch.nn.functional.linear(x, weight, bias)

    if not compiled:
        return by_cudnn
    quick = torch.compile(by_cells)

    def step(rows: Any, x: Any) -> Any:
        with torch.no_grad():
            return quick(rows, x)

    return step


def torch_with_cuda() -> Any:
    if SIMULATED or importlib.util.find_spec("torch") is None:
        return None
    import torch  # noqa: PLC0415 - an optional peer

    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch


def machine(torch: Any) -> dict[str, str]:
    versions = {name: _version(name) for name in ("numba", "numba-cuda", "numpy")}
    peers = {"torch": f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}" if torch else "none with CUDA"}
    free = cuda_launch.free_bytes()
    return {"device": cuda_launch.device_name(), "free": f"{free / 1e9:,.0f} GB", **versions, **peers}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default="1-3-1-1,2-3-2-2" if SIMULATED else ",".join(CONFIGS))
    parser.add_argument("--seconds", type=float, default=0.01 if SIMULATED else 1.0, help="for each figure")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of them")
    parser.add_argument("--json", type=Path, help="where the results go as JSON as well")
    options = parser.parse_args()
    if missing := cuda_launch.missing():
        sys.exit(f"nothing was measured: {missing}")
    deadline, torch = time.perf_counter() + 60 * options.minutes, torch_with_cuda()
    about, results, left_out = machine(torch), [], []
    print("; ".join(f"{name}: {text}" for name, text in about.items()), flush=True)
    print("\n| I-H-L-O | what | events | M/s | TFLOP/s | GB/s of rows |\n|---|---|---|---|---|---|")
    for number, config in enumerate(options.configs.split(",")):
        bench = Bench(config, options.seconds, deadline)
        bench.check_bits()
        bench.launches()
        bench.transfers()
        if torch:
            bench.peers(torch, compiled=number == 0)
        results += bench.results
        left_out += bench.left_out
    if left_out:
        print(f"\nleft out, as {options.minutes:g} minutes are over: {'; '.join(left_out)}")
    for what, bar in (("launch, hot", STEPS_BAR), ("transfers", EVENTS_BAR)):
        best = max((r.per_second for r in results if r.config == CONFIGS[0] and r.what == what), default=None)
        if best is not None:
            print(f"\n{CONFIGS[0]} {what}: {best / 1e6:,.0f} M/s; the bar is {bar / 1e6:,.0f} M/s")
    content = json.dumps({"machine": about, "results": [asdict(result) for result in results], "left_out": left_out})
    print(f"\n{content}")
    if options.json:
        options.json.write_text(content + "\n")


if __name__ == "__main__":
    main()
