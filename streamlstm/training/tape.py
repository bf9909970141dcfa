"""One shard's way forward and back: what forward leaves behind so that backward can be run.

Letters: T steps, B sequences of the shard, I inputs, H hidden size of a layer, O outputs. All arrays are of the dtype
of the weights, float32 or float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels import bptt
from streamlstm.training.weights import Arranged, Sizes, Weights, on_lines

Reals = NDArray[Any]


@dataclass(frozen=True)
class State:
    """Hidden and cell state of each layer, per sequence: h and c hold one [B, H] for each layer."""

    h: tuple[Reals, ...]
    c: tuple[Reals, ...]

    def of_sequences(self, sequences: slice) -> "State":
        return State(tuple(h[sequences] for h in self.h), tuple(c[sequences] for c in self.c))


def zero_state(sizes: Sizes, sequences: int, dtype: Any = np.float32) -> State:
    """Where `sequences` sequences begin."""
    h, c = ([np.zeros((sequences, hidden), dtype) for hidden in sizes.hidden] for _ in range(2))
    return State(tuple(h), tuple(c))


@dataclass(frozen=True)
class _LayerTape:
    """The arrays of kernels.bptt for one layer."""

    inputs: int
    joined: Reals
    gates: Reals
    cells: Reals
    tanh_cells: Reals
    dh: Reals
    dc: Reals


class Tape:
    """Memory for T steps of B sequences, used over and over. `y_hat` and `d_y_hat` are [T, B, O]."""

    def __init__(self, sizes: Sizes, steps: int, sequences: int, dtype: np.dtype[Any]) -> None:
        def made(*shape: int) -> Reals:
            return np.zeros(shape, dtype)

        T, B = steps, sequences
        self.y_hat, self.d_y_hat = made(T, B, sizes.outputs), made(T, B, sizes.outputs)
        self.masks = [made(T, B, hidden) for hidden in sizes.hidden[:-1]]
        self._above = made(T, B, max(sizes.inputs, *sizes.hidden))
        self._layers = [
            _LayerTape(
                inputs=i,
                joined=made(T + 1, B, i + h),
                gates=on_lines(dtype, T, B, 4 * h),
                cells=made(T + 1, B, h),
                tanh_cells=made(T, B, h),
                dh=made(B, h),
                dc=made(B, h),
            )
            for i, h in zip(sizes.layer_inputs, sizes.hidden, strict=True)
        ]

    def forward(
        self, weights: Weights, arranged: Arranged, x: Reals, state: State, masks: Sequence[Reals] | None
    ) -> None:
        """Fill `y_hat` from x [B, T, I] and the initial `state`.

        masks: what each layer's h is multiplied with on its way to the next layer, [T, B, H] each; None: no dropout.
        """
        for k, (layer, h, c) in enumerate(zip(self._layers, state.h, state.c, strict=True)):
            entering = layer.joined[:-1, :, : layer.inputs]
            if k == 0:
                entering[...] = x.transpose(1, 0, 2)
            elif masks is None:
                entering[...] = self._hidden(k - 1)[1:]
            else:
                np.multiply(self._hidden(k - 1)[1:], masks[k - 1], out=entering)
            self._hidden(k)[0] = h
            layer.cells[0] = c
            bptt.layer_forward(
                layer.joined, arranged.layers[k], weights.biases[k], layer.gates, layer.cells, layer.tanh_cells
            )
        last = self._layers[-1]
        bptt.head_forward(last.joined, last.cells.shape[2], arranged.head_t, weights.head_bias, self.y_hat)

    def backward(
        self,
        weights: Weights,
        arranged: Arranged,
        gradient: Weights,
        masks: Sequence[Reals] | None,
        with_inputs: bool = False,
    ) -> None:
        """Add the derivatives by the weights, for `d_y_hat` and the last `forward`, to `gradient`.

        No derivative flows in by the final state. Once after each `forward`, whose tape it uses up.
        """
        bptt.head_backward(
            self._layers[-1].joined, weights.head_weight, self.d_y_hat, self._above,
            gradient.head_weight, gradient.head_bias,
        )  # fmt: skip
        for k, layer in reversed(list(enumerate(self._layers))):
            layer.dh[...] = 0.0
            layer.dc[...] = 0.0
            bptt.layer_backward(
                layer.joined, arranged.layers[k], arranged.recurrent_t[k], arranged.input_t[k], layer.gates,
                layer.cells, layer.tanh_cells, self._above, layer.dh, layer.dc, gradient.layers[k],
                gradient.biases[k], with_inputs or k > 0,
            )  # fmt: skip
            if k > 0 and masks is not None:
                self._above[:, :, : layer.inputs] *= masks[k - 1]

    def final_state(self) -> State:
        """After the last step; a copy."""
        h = tuple(self._hidden(k)[-1].copy() for k in range(len(self._layers)))
        return State(h, tuple(layer.cells[-1].copy() for layer in self._layers))

    def d_state(self) -> State:
        """The derivative by the initial state, after `backward`; a copy."""
        h, c = (tuple(getattr(layer, name).copy() for layer in self._layers) for name in ("dh", "dc"))
        return State(h, c)

    def d_x(self) -> Reals:
        """The derivative by x, [B, T, I], after `backward` with inputs; a copy."""
        return self._above[:, :, : self._layers[0].inputs].transpose(1, 0, 2).copy()

    def _hidden(self, k: int) -> Reals:
        """h of layer k before step 0 and after each step, [T + 1, B, H]."""
        layer = self._layers[k]
        return layer.joined[:, :, layer.inputs :]
