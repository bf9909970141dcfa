"""Weights while they are trained: one flat vector, seen as the matrices of each layer and of the head.

In this order, P elements in all:

    each layer's weight (I + H, 4H): weight_ih and weight_hh transposed, one over the other; gate columns i, f, g, o
    head_weight (O, H), head_bias (O,)
    each layer's bias (4H,): last, so that they can be stepped apart from the rest

A gradient is a vector of the same order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.bptt import transpose
from streamlstm.kernels.layout import LINE, aligned_zeros, round_up
from streamlstm.model.parameters import Layer, Parameters

Reals = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """I inputs, H of each layer, O outputs."""

    inputs: int
    hidden: tuple[int, ...]
    outputs: int

    @property
    def layer_inputs(self) -> tuple[int, ...]:
        """Inputs of each layer."""
        return (self.inputs, *self.hidden[:-1])

    @property
    def biases(self) -> int:
        """Elements of the layers' biases."""
        return sum(4 * hidden for hidden in self.hidden)

    @property
    def total(self) -> int:
        """P."""
        matrices = sum(4 * h * (i + h) for i, h in zip(self.layer_inputs, self.hidden, strict=True))
        return matrices + self.outputs * (self.hidden[-1] + 1) + self.biases


class Weights:
    """Views of one flat vector: `layers` (I + H, 4H), `biases` (4H,), `head_weight` (O, H), `head_bias` (O,)."""

    def __init__(self, sizes: Sizes, vector: Reals) -> None:
        """vector [P] of float32 or float64, C-contiguous; kept, not copied."""
        self.sizes = sizes
        self.vector = vector
        self._taken = 0
        self.layers = [self._take(i + h, 4 * h) for i, h in zip(sizes.layer_inputs, sizes.hidden, strict=True)]
        self.head_weight = self._take(sizes.outputs, sizes.hidden[-1])
        self.head_bias = self._take(sizes.outputs)
        self.biases = [self._take(4 * hidden) for hidden in sizes.hidden]

    def _take(self, *shape: int) -> Reals:
        start, self._taken = self._taken, self._taken + int(np.prod(shape))
        return self.vector[start : self._taken].reshape(shape)

    def arrays(self) -> dict[str, Reals]:
        """Views by their names in model.Parameters."""
        named: dict[str, Reals] = {}
        for k, (weight, bias) in enumerate(zip(self.layers, self.biases, strict=True)):
            inputs = self.sizes.layer_inputs[k]
            named[f"layers.{k}.weight_ih"] = weight[:inputs].T
            named[f"layers.{k}.weight_hh"] = weight[inputs:].T
            named[f"layers.{k}.bias"] = bias
        return named | {"head.weight": self.head_weight, "head.bias": self.head_bias}

    def parameters(self) -> Parameters:
        """A float32 copy."""
        single = {name: np.array(array, np.float32, order="C") for name, array in self.arrays().items()}
        names = ("weight_ih", "weight_hh", "bias")
        layers = [Layer(*(single[f"layers.{k}.{name}"] for name in names)) for k in range(len(self.layers))]
        return Parameters(tuple(layers), single["head.weight"], single["head.bias"])


def weights_of(parameters: Parameters, dtype: type[np.float32] | type[np.float64] = np.float32) -> Weights:
    """A copy of `parameters` as a flat vector of `dtype`."""
    sizes = Sizes(parameters.inputs, parameters.hidden, parameters.outputs)
    weights = Weights(sizes, np.zeros(sizes.total, dtype))
    views = weights.arrays()
    for name, array in parameters.arrays().items():
        views[name][...] = array
    return weights


def on_lines(dtype: np.dtype[Any], *shape: int) -> Reals:
    """Zeros, C-contiguous, of `shape` but for columns that are added until every row fills whole cache lines."""
    *outer, columns = shape
    padded = (*outer, round_up(columns, LINE // dtype.itemsize))
    return aligned_zeros(int(np.prod(padded)) * dtype.itemsize).view(dtype).reshape(padded)


class Arranged:
    """The matrices as the two directions read them; `refresh` after every change of the weights.

    layers (I + H, 4H) and head_t (H, O), for forward; recurrent_t (4H, H) and input_t (4H, I), for backward. Those of
    the layers are `on_lines`, so they have some more columns.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        dtype, sizes = weights.vector.dtype, weights.sizes
        self.layers = [on_lines(dtype, *weight.shape) for weight in weights.layers]
        self.recurrent_t = [on_lines(dtype, 4 * hidden, hidden) for hidden in sizes.hidden]
        self.input_t = [on_lines(dtype, 4 * h, i) for i, h in zip(sizes.layer_inputs, sizes.hidden, strict=True)]
        self.head_t = np.zeros(weights.head_weight.shape[::-1], dtype)
        self.refresh()

    def refresh(self) -> None:
        for k, (weight, inputs) in enumerate(zip(self._weights.layers, self._weights.sizes.layer_inputs, strict=True)):
            self.layers[k][:, : weight.shape[1]] = weight
            transpose(weight[:inputs], self.input_t[k])
            transpose(weight[inputs:], self.recurrent_t[k])
        transpose(self._weights.head_weight, self.head_t)
