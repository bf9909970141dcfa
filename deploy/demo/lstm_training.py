"""Training of one LSTM layer with a linear head, in plain NumPy: each forward beside its backward.

Letters: T steps, B lanes (sequences side by side), I inputs, H hidden, O outputs. Gate rows i, f, g, o:

    a = W_ih x + W_hh h + b;   c' = sigma(f) c + sigma(i) tanh(g);   h' = sigma(o) tanh(c');   out = W_head h' + b_head

Back-propagation through time is truncated at the chunk: the state flows in from the chunk before, no gradient flows out
(Williams & Peng 1990). Adam is algorithm 1 of Kingma & Ba 2015. Arrays keep the dtype of the weights.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(slots=True)
class Weights:
    """weight_ih (4H,I), weight_hh (4H,H), bias (4H,), head_weight (O,H), head_bias (O,); or the gradient by each."""

    weight_ih: Array
    weight_hh: Array
    bias: Array
    head_weight: Array
    head_bias: Array

    def arrays(self) -> list[Array]:
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(slots=True)
class State:
    """Hidden and cell state of every lane, (B,H) each."""

    h: Array
    c: Array


@dataclass(slots=True)
class Tape:
    """What backward needs: x (T,B,I); the gates' tanh (T,B,4H); c and h before step 0 and after each, (T+1,B,H)."""

    x: Array
    tanh: Array
    c: Array
    h: Array


def initial_weights(inputs: int, hidden: int, outputs: int, rng: np.random.Generator) -> Weights:
    """Uniform in +-1/sqrt(H), as PyTorch's; the forget gate opens at 1, so that state lives from the start; float32."""
    bound = hidden**-0.5

    def draw(*shape: int) -> Array:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    bias = draw(4 * hidden)
    bias[hidden : 2 * hidden] += 1.0
    return Weights(draw(4 * hidden, inputs), draw(4 * hidden, hidden), bias, draw(outputs, hidden), draw(outputs))


def _gate_slopes(hidden: int, dtype: np.dtype) -> tuple[Array, Array]:
    """k, m (4H,): gate = k tanh(k a) + m is sigma(a) = tanh(a/2)/2 + 1/2 on rows i, f, o and tanh(a) on g."""
    k = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], dtype), hidden)
    return k, 1 - k


def forward(w: Weights, x: Array, start: State) -> tuple[Array, Tape]:
    """x (T,B,I) from `start` -> out (T,B,O) and the tape, whose last row is the state to carry on from."""
    steps, lanes, inputs = x.shape
    hidden = w.weight_hh.shape[1]
    k, m = _gate_slopes(hidden, w.bias.dtype)
    tanh = ((x.reshape(-1, inputs) @ w.weight_ih.T + w.bias) * k).reshape(steps, lanes, 4 * hidden)
    recurrent = np.ascontiguousarray(w.weight_hh.T * k)
    c = np.empty((steps + 1, lanes, hidden), w.bias.dtype)
    h = np.empty_like(c)
    c[0], h[0] = start.c, start.h
    for t in range(steps):
        tanh[t] += h[t] @ recurrent
        np.tanh(tanh[t], out=tanh[t])
        i, f, g, o = np.split(tanh[t] * k + m, 4, axis=1)
        c[t + 1] = f * c[t] + i * g
        h[t + 1] = o * np.tanh(c[t + 1])
    return h[1:] @ w.head_weight.T + w.head_bias, Tape(x, tanh, c, h)


def backward(w: Weights, tape: Tape, d_out: Array) -> Weights:
    """d_out (T,B,O), the loss' gradient by out -> its gradient by every weight, within this chunk."""
    steps, lanes, hidden = tape.h[1:].shape
    k, m = _gate_slopes(hidden, w.bias.dtype)
    slope = (1 - tape.tanh**2) * (k * k)
    d_a = np.empty_like(tape.tanh)
    d_head = d_out @ w.head_weight
    d_h = np.zeros_like(tape.h[0])
    d_c = np.zeros_like(d_h)
    for t in reversed(range(steps)):
        i, f, g, o = np.split(tape.tanh[t] * k + m, 4, axis=1)
        squashed = np.tanh(tape.c[t + 1])
        d_h += d_head[t]
        d_c += d_h * o * (1 - squashed * squashed)
        d_gates = (d_c * g, d_c * tape.c[t], d_c * i, d_h * squashed)
        np.multiply(np.concatenate(d_gates, axis=1), slope[t], out=d_a[t])
        d_c *= f
        d_h = d_a[t] @ w.weight_hh
    rows = d_a.reshape(steps * lanes, -1)
    d_rows = d_out.reshape(steps * lanes, -1)
    return Weights(
        weight_ih=rows.T @ tape.x.reshape(steps * lanes, -1),
        weight_hh=rows.T @ tape.h[:-1].reshape(steps * lanes, -1),
        bias=rows.sum(0),
        head_weight=d_rows.T @ tape.h[1:].reshape(steps * lanes, -1),
        head_bias=d_rows.sum(0),
    )


def clip(gradient: Weights, limit: float) -> None:
    """Scale the gradient in place so that its norm over all weights is at most `limit`."""
    norm = float(np.sqrt(sum(float(np.vdot(g, g)) for g in gradient.arrays())))
    if norm > limit:
        for array in gradient.arrays():
            array[...] *= limit / norm


class Adam:
    """Adam with the constants of the paper; the learning rate is given at each step."""

    def __init__(self, w: Weights) -> None:
        self.step_count = 0
        self.first = [np.zeros_like(array) for array in w.arrays()]
        self.second = [np.zeros_like(array) for array in w.arrays()]

    def step(self, w: Weights, gradient: Weights, learning_rate: float) -> None:
        """Move `w` in place."""
        self.step_count += 1
        correction1, correction2 = 1 - 0.9**self.step_count, 1 - 0.999**self.step_count
        for array, g, m, v in zip(w.arrays(), gradient.arrays(), self.first, self.second, strict=True):
            m[...] += 0.1 * (g - m)
            v[...] += 0.001 * (g * g - v)
            array[...] -= learning_rate * (m / correction1) / (np.sqrt(v / correction2) + 1e-8)
