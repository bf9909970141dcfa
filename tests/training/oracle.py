"""The oracle of training: an LSTM's gradients in float64 NumPy, step by step, written from the equations and not from
the kernels. `tests/training/test_oracle.py` holds it to finite differences.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
LossAndSlope = Callable[[Float64], tuple[float, Float64]]


@dataclass
class Expected:
    """by_name: as model.Parameters.arrays; d_h, d_c, h, c: one [B, H] for each layer."""

    loss: float
    y_hat: Float64
    by_name: dict[str, Float64]
    d_x: Float64
    d_h: list[Float64]
    d_c: list[Float64]
    h: list[Float64]
    c: list[Float64]


def sigmoid(z: Float64) -> Float64:
    return 1.0 / (1.0 + np.exp(-z))


def run(
    arrays: dict[str, Float64],
    x: Float64,
    loss: LossAndSlope,
    h_0: list[Float64],
    c_0: list[Float64],
    masks: list[Float64] | None = None,
) -> Expected:
    """x [B, T, I]; loss takes y_hat [B, T, O] and gives the loss and its derivative; masks [T, B, H] between layers."""
    layers = len(h_0)
    signal, tapes, h_end, c_end = [x[:, t] for t in range(x.shape[1])], [], [], []
    for k in range(layers):
        tape, hs, c_last = layer_forward(arrays, k, signal, h_0[k], c_0[k])
        tapes.append(tape)
        h_end.append(hs[-1])
        c_end.append(c_last)
        signal = hs if masks is None or k == layers - 1 else [h * masks[k][t] for t, h in enumerate(hs)]
    y_hat = np.stack([h @ arrays["head.weight"].T + arrays["head.bias"] for h in signal], axis=1)
    value, d_y = loss(y_hat)

    by_name = {name: np.zeros_like(array) for name, array in arrays.items()}
    d_signal = [d_y[:, t] @ arrays["head.weight"] for t in range(len(signal))]
    for t, h in enumerate(signal):
        by_name["head.weight"] += d_y[:, t].T @ h
        by_name["head.bias"] += d_y[:, t].sum(axis=0)
    d_h: list[Float64] = [np.empty(0)] * layers
    d_c = list(d_h)
    for k in reversed(range(layers)):
        if masks is not None and k < layers - 1:
            d_signal = [d * masks[k][t] for t, d in enumerate(d_signal)]
        d_signal, d_h[k], d_c[k] = layer_backward(arrays, by_name, k, tapes[k], d_signal)
    return Expected(value, y_hat, by_name, np.stack(d_signal, axis=1), d_h, d_c, h_end, c_end)


Tape = list[tuple[Float64, ...]]


def layer_forward(
    arrays: dict[str, Float64], k: int, signal: list[Float64], h: Float64, c: Float64
) -> tuple[Tape, list[Float64], Float64]:
    w_ih, w_hh, bias = (arrays[f"layers.{k}.{name}"] for name in ("weight_ih", "weight_hh", "bias"))
    tape, hs = [], []
    for x in signal:
        z_i, z_f, z_g, z_o = np.split(x @ w_ih.T + h @ w_hh.T + bias, 4, axis=1)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        c_next = f * c + i * g
        tape.append((x, h, c, i, f, g, o, c_next))
        h, c = o * np.tanh(c_next), c_next
        hs.append(h)
    return tape, hs, c


def layer_backward(
    arrays: dict[str, Float64], by_name: dict[str, Float64], k: int, tape: Tape, d_signal: list[Float64]
) -> tuple[list[Float64], Float64, Float64]:
    w_ih, w_hh = arrays[f"layers.{k}.weight_ih"], arrays[f"layers.{k}.weight_hh"]
    d_x = []
    d_h, d_c = np.zeros_like(tape[0][1]), np.zeros_like(tape[0][2])
    for (x, h, c, i, f, g, o, c_next), d_above in zip(reversed(tape), reversed(d_signal), strict=True):
        d_h = d_h + d_above
        d_c = d_c + d_h * o * (1 - np.tanh(c_next) ** 2)
        d_z = np.concatenate(
            [
                d_c * g * i * (1 - i),
                d_c * c * f * (1 - f),
                d_c * i * (1 - g**2),
                d_h * np.tanh(c_next) * o * (1 - o),
            ],
            axis=1,
        )
        by_name[f"layers.{k}.weight_ih"] += d_z.T @ x
        by_name[f"layers.{k}.weight_hh"] += d_z.T @ h
        by_name[f"layers.{k}.bias"] += d_z.sum(axis=0)
        d_x.append(d_z @ w_ih)
        d_h, d_c = d_z @ w_hh, d_c * f
    return d_x[::-1], d_h, d_c


# -------------------------------------------------------------------------------------------------------------- losses


def mean_over(counted: NDArray[np.bool_], value: Float64, slope: Float64) -> tuple[float, Float64]:
    """Mean over the counted elements, and its derivative."""
    count = counted.sum()
    return float(value[counted].sum() / count), np.where(counted, slope, 0.0) / count


def squared(y: Float64, counted: NDArray[np.bool_]) -> LossAndSlope:
    return lambda y_hat: mean_over(counted, (y_hat - y) ** 2, 2 * (y_hat - y))


def absolute(y: Float64, counted: NDArray[np.bool_]) -> LossAndSlope:
    return lambda y_hat: mean_over(counted, np.abs(y_hat - y), np.sign(y_hat - y))


def huber(y: Float64, counted: NDArray[np.bool_], delta: float) -> LossAndSlope:
    def loss(y_hat: Float64) -> tuple[float, Float64]:
        e = y_hat - y
        small = np.abs(e) <= delta
        value = np.where(small, e**2 / 2, delta * (np.abs(e) - delta / 2))
        return mean_over(counted, value, np.where(small, e, delta * np.sign(e)))

    return loss


def pinball(y: Float64, counted: NDArray[np.bool_], levels: list[float]) -> LossAndSlope:
    q = np.array(levels)

    def loss(y_hat: Float64) -> tuple[float, Float64]:
        above = y - y_hat  # the observed value lies above the forecast
        value = np.maximum(q * above, (q - 1) * above)
        return mean_over(counted, value, np.where(above > 0, -q, np.where(above < 0, 1 - q, 0.0)))

    return loss
