"""The LSTM forward pass in NumPy, written from the equations: the judge of golden vectors and imported files.

Slow, any dtype, whole sequences; the daemon never serves from it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamlstm.model.parameters import Layer, Parameters


@dataclass(frozen=True, eq=False)
class Trace:
    """y: (n, T, O) head applied at every step; hidden: (n, T, H) h of the last layer; h, c: per layer (n, H) at the
    end.
    """

    y: NDArray[Any]
    hidden: NDArray[Any]
    h: tuple[NDArray[Any], ...]
    c: tuple[NDArray[Any], ...]


def sigmoid(z: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + exp(-z)) by tanh, which cannot overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def run(
    parameters: Parameters,
    x: NDArray[Any],
    state: tuple[NDArray[Any], ...] | None = None,
    dtype: DTypeLike = np.float64,
) -> Trace:
    """Carry the state over x (n, T, I) from zero, or from state = (h of layer 0, c of layer 0, h of layer 1, ...)
    each (n, H).
    """
    signal = x.astype(dtype)
    finals: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for k, layer in enumerate(parameters.layers):
        shape = (x.shape[0], layer.hidden)
        h, c = (state[2 * k], state[2 * k + 1]) if state else (np.zeros(shape), np.zeros(shape))
        signal, h, c = _run_layer(layer, signal, h.astype(dtype), c.astype(dtype))
        finals.append((h, c))
    y = signal @ parameters.head_weight.astype(dtype).T + parameters.head_bias.astype(dtype)
    return Trace(y, signal, tuple(h for h, _ in finals), tuple(c for _, c in finals))


def _run_layer(
    layer: Layer, x: NDArray[Any], h: NDArray[Any], c: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    H = layer.hidden
    weight_hh = layer.weight_hh.astype(x.dtype).T
    inflow = x @ layer.weight_ih.astype(x.dtype).T + layer.bias.astype(x.dtype)
    steps = np.empty((x.shape[0], x.shape[1], H), x.dtype)
    for t in range(x.shape[1]):
        z = inflow[:, t] + h @ weight_hh
        c = sigmoid(z[:, H : 2 * H]) * c + sigmoid(z[:, :H]) * np.tanh(z[:, 2 * H : 3 * H])
        h = sigmoid(z[:, 3 * H :]) * np.tanh(c)
        steps[:, t] = h
    return steps, h, c


def served(parameters: Parameters, window: int, x: NDArray[Any], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """What a model forecasts after each event of x (n, T, I) -> y (n, T, O).

    window 0: the state is carried from event to event. window W: each forecast starts from zero over the last W events
    (over all of them while there are fewer).
    """
    if window == 0 or x.shape[1] <= window:
        return run(parameters, x, dtype=dtype).y
    y = np.empty((x.shape[0], x.shape[1], parameters.outputs), np.dtype(dtype))
    y[:, :window] = run(parameters, x[:, :window], dtype=dtype).y
    for t in range(window, x.shape[1]):
        y[:, t] = run(parameters, x[:, t - window + 1 : t + 1], dtype=dtype).y[:, -1]
    return y
