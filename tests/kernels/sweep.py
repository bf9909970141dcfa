"""Random models, batches and inputs against the float64 oracle, each within the error that float32 rounding allows.

    .venv/bin/python -m tests.kernels.sweep [--configurations 10000] [--seed 0]

For each configuration (I, H, L, O, window, B, sizes of weights and inputs, all random) some batches are stepped. Before
each the state is read from the arena, so that the oracle takes every step from the very float32 numbers that the kernel
takes it from, and the bound holds for one step (for a window: for its steps).

The bound is a running error analysis (Higham, Accuracy and Stability of Numerical Algorithms, 3.1 and 3.3), u = 2^-24:

    a chain of n FMAs     within n u / (1 - n u) of the sum of its absolute terms; weights times log2(e) are rounded: u
    sigmoid, tanh         by their slope at the nearest to 0 that the argument may be; as computed within 4 units in the
                          last place (kernels.cell), and for the clamped exponents within 2^-39
    c' and h'             the product rule with both errors, and 4 roundings each
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.backend import CpuBackend, row_layout
from streamlstm.kernels.layout import padded
from streamlstm.model.parameters import Layer, Parameters
from tests.reference import Oracle, random_parameters, sigmoid

UNIT = 2.0**-24
CLAMPED = 2.0**-39  # sigmoid and tanh where their exponents are clamped
SMALLEST = 2.0**-126  # sums as small as this lose digits
IN_LAST_PLACE = 8 * UNIT  # 4 of them, relative
ROUNDINGS = 4 * UNIT

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Near:
    """A vector, and how far what float32 makes of it may be away."""

    value: Vector
    error: Vector

    def __mul__(self, other: "Near") -> "Near":
        error = np.abs(self.value) * other.error + self.error * np.abs(other.value) + self.error * other.error
        return Near(self.value * other.value, error)


def exact(value: Vector) -> Near:
    return Near(value, np.zeros_like(value))


def chain(weights: Vector, signal: Near, bias: Vector, terms: int) -> Near:
    """bias + weights @ signal by a chain of `terms` FMAs."""
    size = np.abs(weights)
    absolute = size @ (np.abs(signal.value) + signal.error) + np.abs(bias)
    n = terms + 2  # the rounding of each weight, and of its product with log2(e)
    return Near(weights @ signal.value + bias, n * UNIT / (1 - n * UNIT) * absolute + size @ signal.error + SMALLEST)


def activated(z: Near, tanh: bool) -> Near:
    value = np.tanh(z.value) if tanh else sigmoid(z.value)
    nearest = np.maximum(np.abs(z.value) - z.error, 0.0)  # nearest to 0, where either function is steepest
    slope = 1.0 - np.tanh(nearest) ** 2 if tanh else sigmoid(nearest) * (1.0 - sigmoid(nearest))
    moved = np.minimum(slope * z.error, 2.0 if tanh else 1.0)
    return Near(value, moved + IN_LAST_PLACE * (np.abs(value) + moved) + CLAMPED)


def rounded(a: Near, size: Vector) -> Near:
    return Near(a.value, a.error + ROUNDINGS * (size + a.error))


def advance(layer: Layer, x: Near, h: Near, c: Near) -> tuple[Near, Near]:
    """(h', c')."""
    both = Near(np.concatenate([x.value, h.value]), np.concatenate([x.error, h.error]))
    weights = np.concatenate([layer.weight_ih, layer.weight_hh], axis=1).astype(np.float64)
    z = chain(weights, both, layer.bias.astype(np.float64), weights.shape[1])
    i, f, g, o = (
        activated(Near(value, error), tanh=gate == 2)
        for gate, (value, error) in enumerate(zip(np.split(z.value, 4), np.split(z.error, 4), strict=True))
    )
    kept, added = f * c, i * g
    size = np.abs(kept.value) + np.abs(added.value)
    c_next = rounded(Near(kept.value + added.value, kept.error + added.error), size)
    h_next = o * activated(c_next, tanh=True)
    return rounded(h_next, np.abs(h_next.value)), c_next


@dataclass(frozen=True)
class Configuration:
    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    window: int
    batch: int
    weights: float
    reach: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Configuration":
        return cls(
            inputs=int(rng.integers(1, 12)),
            hidden=tuple(int(2 ** rng.uniform(0, 7.1)) for _ in range(rng.choice([1, 1, 2, 3]))),
            outputs=int(rng.integers(1, 26)),
            window=int(rng.choice([0, 0, 0, 1, 3])),
            batch=int(2 ** rng.uniform(0, 5.2)),
            weights=float(2 ** rng.uniform(-3, 3)),
            reach=float(10 ** rng.uniform(-4, 2)),
        )


@dataclass(frozen=True)
class Worst:
    """The largest error, its part of the bound at most, and the largest bound."""

    error: float = 0.0
    part: float = 0.0
    bound: float = 0.0

    def take(self, found: Vector, near: Near) -> "Worst":
        error = np.abs(found.astype(np.float64) - near.value)
        if not np.isfinite(error).all():
            return Worst(np.inf, np.inf, np.inf)
        part = float((error / near.error).max())
        return Worst(
            max(self.error, float(error.max())), max(self.part, part), max(self.bound, float(near.error.max()))
        )


class Stream:
    """What a stream's next row must be near to."""

    def __init__(self, p: Parameters, window: int) -> None:
        self.p, self.window = p, window
        self.oracle = Oracle(p, window)
        self.inputs: list[Vector] = []

    def expected(self, row: NDArray[np.float32], x: NDArray[np.float32]) -> tuple[list[tuple[Near, Near]], Near]:
        """(h', c') of each layer and the outputs, from the row before the event."""
        self.inputs = [*self.inputs, x.astype(np.float64)][-max(self.window, 1) :]
        state = [(exact(np.zeros(h)), exact(np.zeros(h))) for h in self.p.hidden]
        plain = self.oracle.zero()
        if not self.window:
            own = states_of(self.p, row.astype(np.float64))
            state, plain = [(exact(h), exact(c)) for h, c in own], own
        for value in self.inputs:
            signal, after = exact(value), []
            for layer, (h, c) in zip(self.p.layers, state, strict=True):
                signal, c_next = advance(layer, signal, h, c)
                after.append((signal, c_next))
            state, plain = after, self.oracle.advance(plain, value)
        for (near, _), (h, _) in zip(state, plain, strict=True):
            assert np.allclose(near.value, h, rtol=1e-9, atol=1e-10)  # the bound is around the oracle
        head = self.p.head_weight.astype(np.float64)
        return state, chain(head, state[-1][0], self.p.head_bias.astype(np.float64), head.shape[1])


def states_of(p: Parameters, row: NDArray[np.float64]) -> list[tuple[Vector, Vector]]:
    states, at = [], 0
    for size in p.hidden:
        wide = padded(size)
        states.append((row[at : at + size], row[at + wide : at + wide + size]))
        at += 2 * wide
    return states


def check(
    configuration: Configuration,
    rng: np.random.Generator,
    served: Callable[[Parameters], Parameters] = lambda p: p,
    steps: int = 3,
) -> Worst:
    """Of one configuration; the kernels get what `served` makes of the model."""
    own = configuration
    p = random_parameters(rng, own.inputs, own.hidden, own.outputs, own.weights)
    backend = CpuBackend(served(p), row_layout(p, own.window), own.batch + 5)
    streams = [Stream(p, own.window) for _ in range(own.batch + 5)]
    worst = Worst()
    for _ in range(steps):
        slots = rng.permutation(own.batch + 5)[: own.batch]
        x = (own.reach * rng.normal(size=(own.batch, own.inputs))).astype(np.float32)
        y = np.empty((own.batch, own.outputs), np.float32)
        before = backend.arena[slots, : backend.layout.state_bytes].view(np.float32)
        backend.step(slots, x, y, own.batch)
        after = backend.arena[slots, : backend.layout.state_bytes].view(np.float32)
        for event, slot in enumerate(slots.tolist()):
            with np.errstate(over="ignore"):  # of the oracle's exp
                state, outputs = streams[slot].expected(before[event], x[event])
            worst = worst.take(y[event], outputs)
            if not own.window:
                for near, found in zip(state, states_of(p, after[event]), strict=True):
                    worst = worst.take(found[0], near[0]).take(found[1], near[1])
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start, parts, bounds, bad = time.perf_counter(), [], [], 0
    for number in range(options.configurations):
        rng = np.random.default_rng([options.seed, number])
        configuration = Configuration.random(rng)
        worst = check(configuration, rng)
        parts.append(worst.part)
        bounds.append(worst.bound)
        if worst.part > 1.0:
            bad += 1
            print(f"outside its bound: seed {options.seed}, number {number}: {configuration}: {worst}", flush=True)
        if number % 500 == 499:
            print(f"{number + 1:,} after {time.perf_counter() - start:,.0f} s", flush=True)
    print(f"{options.configurations:,} configurations, {bad} outside their bounds")
    print(f"errors: {max(parts):.2f} of the bound at most, {np.median(parts):.2f} in the median of the configurations")
    print(f"bounds: {np.median(bounds):.1e} in the median, {max(bounds):.1e} at most")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
