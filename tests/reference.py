"""The oracle: an LSTM forecaster in float64 NumPy, one event at a time, written from the equations and not from the
kernels. It judges every backend; nothing of the package that steps streams is used here.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from streamlstm.model.parameters import Layer, Parameters


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-z))


def random_parameters(
    rng: np.random.Generator, inputs: int, hidden: tuple[int, ...], outputs: int, scale: float = 1.0
) -> Parameters:
    """Uniform weights in +-scale / sqrt(H), PyTorch's initialisation at scale 1."""

    def uniform(*shape: int) -> NDArray[np.float32]:
        bound = scale / np.sqrt(size)
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    layers = []
    below = inputs
    for size in hidden:
        layers.append(Layer(uniform(4 * size, below), uniform(4 * size, size), uniform(4 * size)))
        below = size
    return Parameters(tuple(layers), uniform(outputs, below), uniform(outputs))


class Oracle:
    """What each stream's forecasts should be. `window` = 0 carries the state; T restarts from zero over the last T."""

    def __init__(self, parameters: Parameters, window: int = 0) -> None:
        self.parameters = parameters
        self.window = window
        self._states: dict[int, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
        self._inputs: dict[int, deque[NDArray[np.float64]]] = {}

    def zero(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        return [(np.zeros(hidden), np.zeros(hidden)) for hidden in self.parameters.hidden]

    def event(self, stream: int, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The output (O,) after the event x (I,) of `stream`."""
        if self.window:
            ring = self._inputs.setdefault(stream, deque(maxlen=self.window))
            ring.append(x.astype(np.float64))
            state = self.zero()
            for value in ring:
                state = self.advance(state, value)
        else:
            state = self.advance(self._states.get(stream, self.zero()), x.astype(np.float64))
            self._states[stream] = state
        return self.parameters.head_weight.astype(np.float64) @ state[-1][0] + self.parameters.head_bias

    def advance(
        self, state: list[tuple[NDArray[np.float64], NDArray[np.float64]]], x: NDArray[np.float64]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """z = W_ih x + W_hh h + b; i, f, g, o its quarters; c' = s(f) c + s(i) tanh(g); h' = s(o) tanh(c')."""
        after = []
        for layer, (h, c) in zip(self.parameters.layers, state, strict=True):
            z = layer.weight_ih.astype(np.float64) @ x + layer.weight_hh.astype(np.float64) @ h + layer.bias
            i, f, g, o = np.split(z, 4)
            c_next = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            x = sigmoid(o) * np.tanh(c_next)
            after.append((x, c_next))
        return after

    def state(self, stream: int) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """(h, c) of each layer."""
        return self._states.get(stream, self.zero())
