"""A training step beside torch's, on one thread and on two: forward, back-propagation through time, Adam.

    .venv/bin/python benchmarks/training.py [--configs 1-50-1-1,...] [--threads 1,2] [--steps 96] [--batch 64]
                                            [--seconds 20] [--json FILE]

The loss is the mean squared error of every step. torch: nn.LSTM, nn.Linear, Adam(fused=True). Both start from the same
weights and must agree on the losses of the first steps, else nothing is measured. They take turns within one process:
all contestants one step each, again and again.

One thread is compared by CPU time of the process, so that a busy machine slows both alike; more by the clock, since
threads that wait for each other may or may not burn CPU time: that needs a calm machine. And each turn then begins with
a pause and a step that isn't counted: torch's threads go on spinning on their cores when its step is done. Medians;
`fastest` is that of the fastest tenth.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from figures import Figure, write
from numpy.typing import NDArray

from streamlstm.model.parameters import Layer, Parameters, join_biases
from streamlstm.training.adam import AdamSettings
from streamlstm.training.steps import Trainer
from streamlstm.training.weights import weights_of

Step = Callable[[], float]
Array = NDArray[np.float32]
CHECKED_STEPS = 3
SPINNING = 0.05
"""Seconds after which OpenMP's threads, torch's, have stopped looking for more work and left the other core alone."""


@dataclass(frozen=True)
class Config:
    inputs: int
    hidden: int
    layers: int
    outputs: int

    @property
    def name(self) -> str:
        return f"{self.inputs}-{self.hidden}-{self.layers}-{self.outputs}"

    def flops(self, steps: int, batch: int) -> int:
        """Multiplications and additions of a step: forward, and twice as many backward; activations not counted."""
        inputs = [self.inputs, *[self.hidden] * (self.layers - 1)]
        each = sum(8 * self.hidden * (i + self.hidden) for i in inputs) + 2 * self.outputs * self.hidden
        return 3 * steps * batch * each


CONFIGS = (Config(1, 50, 1, 1), Config(1, 64, 2, 1))


@dataclass(frozen=True)
class Result:
    """Milliseconds of a step. `times`: how many times as long torch takes, by medians and by the fastest tenths."""

    config: str
    threads: int
    turns: int
    milliseconds: float
    fastest: float
    torch_milliseconds: float
    torch_fastest: float
    times: float
    times_fastest: float
    gflops: float


class TorchNet(torch.nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(config.inputs, config.hidden, config.layers)
        self.head = torch.nn.Linear(config.hidden, config.outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0])  # type: ignore[no-any-return]

    def parameters_of_ours(self) -> Parameters:
        arrays = {name: tensor.detach().numpy() for name, tensor in self.named_parameters()}

        def layer(k: int) -> Layer:
            ih, hh, b_ih, b_hh = (arrays[f"lstm.{n}_l{k}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            return Layer(ih.copy(), hh.copy(), join_biases(b_ih, b_hh))

        layers = tuple(layer(k) for k in range(self.lstm.num_layers))
        return Parameters(layers, arrays["head.weight"].copy(), arrays["head.bias"].copy())


def streamlstm_step(net: TorchNet, threads: int, executor: Executor, x: Array, y: Array) -> Step:
    weights = weights_of(net.parameters_of_ours())
    trainer = Trainer(weights, adam=AdamSettings(double_bias=True), executor=executor, threads=threads)
    return lambda: trainer.step(x, y).loss


def torch_step(net: TorchNet, threads: int, x: Array, y: Array) -> Step:
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    by_step = [torch.from_numpy(array.transpose(1, 0, 2).copy()) for array in (x, y)]  # as torch is fastest

    def step() -> float:
        torch.set_num_threads(threads)
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.mse_loss(net(by_step[0]), by_step[1])
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def take_turns(contestants: list[Step], threads: int, seconds: float) -> list[list[float]]:
    """Seconds of every turn of each, CPU time where there is one thread; at least five turns."""
    clock = time.process_time if threads == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in contestants]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for own, call in zip(times, contestants, strict=True):
            if threads > 1:
                time.sleep(SPINNING)
                call()
            start = clock()
            call()
            own.append(clock() - start)
    return times


def measure(config: Config, threads: int, steps: int, batch: int, seconds: float) -> Result:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, steps, config.inputs)).astype(np.float32)
    y = np.tanh(np.cumsum(x[:, :, :1], axis=1)).repeat(config.outputs, axis=2)
    torch.manual_seed(0)
    net = TorchNet(config)
    with ThreadPoolExecutor(max(1, threads - 1)) as executor:
        own = streamlstm_step(net, threads, executor, x, y)
        peer = torch_step(net, threads, x, y)
        losses = [(own(), peer()) for _ in range(CHECKED_STEPS)]
        if not np.allclose(*zip(*losses, strict=True), rtol=1e-4):
            sys.exit(f"{config.name}: torch computes something else than streamlstm: {losses}")
        times = take_turns([own, peer], threads, seconds)
    (median, fastest), (torch_median, torch_fastest) = (np.quantile(own, [0.5, 0.1]) * 1e3 for own in times)
    return Result(
        config=config.name,
        threads=threads,
        turns=len(times[0]),
        milliseconds=median,
        fastest=fastest,
        torch_milliseconds=torch_median,
        torch_fastest=torch_fastest,
        times=torch_median / median,
        times_fastest=torch_fastest / fastest,
        gflops=config.flops(steps, batch) / median / 1e6,
    )


def row(result: Result) -> str:
    return (
        f"| {result.config} | {result.threads} | {result.milliseconds:.2f} | {result.fastest:.2f} "
        f"| {result.torch_milliseconds:.2f} | {result.torch_fastest:.2f} | {result.times:.1f} "
        f"| {result.times_fastest:.1f} | {result.gflops:.0f} |"
    )


def figures(result: Result) -> list[Figure]:
    of = f"{result.config}, {result.threads} threads"
    return [
        Figure(f"{of}, a step", result.milliseconds, "ms"),
        Figure(f"{of}, times as fast as torch", result.times, "x", "higher"),
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default=",".join(config.name for config in CONFIGS), help="I-H-L-O of each")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--steps", type=int, default=96, help="T")
    parser.add_argument("--batch", type=int, default=64, help="B")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    results = []
    print("| I-H-L-O | threads | ms | fastest | torch ms | fastest | x torch | fastest | GFLOP/s |")
    print("|" + "---|" * 9)
    for name in arguments.configs.split(","):
        for threads in map(int, arguments.threads.split(",")):
            config = Config(*map(int, name.split("-")))
            results.append(measure(config, threads, arguments.steps, arguments.batch, arguments.seconds))
            print(row(results[-1]), flush=True)
    print(f"\ntorch {torch.__version__}; T = {arguments.steps}, B = {arguments.batch}")
    write(arguments.json, [figure for result in results for figure in figures(result)])


if __name__ == "__main__":
    main()
