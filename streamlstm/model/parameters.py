"""The weights of a forecaster: stacked LSTM layers and a linear head.

Letters: I inputs, H hidden size of a layer, O outputs. Gate rows of every (4H, ...) array, in this order: i, f, g, o
(input, forget, cell candidate, output), as PyTorch stores them.

    z  = weight_ih x + weight_hh h + bias          (4H,)
    c' = sigmoid(z_f) c + sigmoid(z_i) tanh(z_g)
    h' = sigmoid(z_o) tanh(c')
    y  = head_weight h' + head_bias                 h' of the last layer
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layer:
    """One LSTM layer.

    A framework that keeps two biases has them summed in float64 and rounded once (`join_biases`).

    weight_ih: float32 (4H, I); weight_hh: float32 (4H, H); bias: float32 (4H,). Kept C-contiguous and read-only.
    """

    weight_ih: Float32
    weight_hh: Float32
    bias: Float32

    def __post_init__(self) -> None:
        H = self.weight_hh.shape[-1]
        _freeze(self, "weight_ih", (4 * H, self.weight_ih.shape[-1]))
        _freeze(self, "weight_hh", (4 * H, H))
        _freeze(self, "bias", (4 * H,))

    @property
    def inputs(self) -> int:
        return int(self.weight_ih.shape[1])

    @property
    def hidden(self) -> int:
        return int(self.weight_hh.shape[1])


@dataclass(frozen=True, eq=False)
class Parameters:
    """All weights of a model. Each layer has its own hidden size; layer k reads the h of layer k - 1.

    head_weight: float32 (O, H of the last layer); head_bias: float32 (O,). Kept C-contiguous and read-only.
    """

    layers: tuple[Layer, ...]
    head_weight: Float32
    head_bias: Float32

    def __post_init__(self) -> None:
        if not self.layers:
            raise InvariantError("Parameters without a layer")
        for below, above in pairwise(self.layers):
            if above.inputs != below.hidden:
                raise InvariantError(f"a layer of {above.inputs} inputs over a layer of hidden size {below.hidden}")
        _freeze(self, "head_weight", (self.head_weight.shape[0], self.layers[-1].hidden))
        _freeze(self, "head_bias", (self.head_weight.shape[0],))

    @property
    def inputs(self) -> int:
        return self.layers[0].inputs

    @property
    def hidden(self) -> tuple[int, ...]:
        return tuple(layer.hidden for layer in self.layers)

    @property
    def outputs(self) -> int:
        return int(self.head_weight.shape[0])

    def arrays(self) -> dict[str, Float32]:
        """Every array by its name in a model file, in the one order that files and hashes use."""
        named: dict[str, Float32] = {}
        for k, layer in enumerate(self.layers):
            named[f"layers.{k}.weight_ih"] = layer.weight_ih
            named[f"layers.{k}.weight_hh"] = layer.weight_hh
            named[f"layers.{k}.bias"] = layer.bias
        named["head.weight"] = self.head_weight
        named["head.bias"] = self.head_bias
        return named


def join_biases(*biases: NDArray[Any]) -> Float32:
    """Sum of bias vectors in float64, rounded to float32 once (PyTorch and ONNX keep two per layer)."""
    total = np.zeros(biases[0].shape, np.float64)
    for bias in biases:
        total += bias.astype(np.float64)
    return total.astype(np.float32)


def _freeze(owner: object, name: str, shape: tuple[int, ...]) -> None:
    array = getattr(owner, name)
    if array.dtype != np.float32 or array.shape != shape or 0 in shape:
        raise InvariantError(f"{name}: expected float32 {shape} without empty axis, found {array.dtype} {array.shape}")
    frozen = np.ascontiguousarray(array).view()
    frozen.flags.writeable = False
    object.__setattr__(owner, name, frozen)
