"""Random weights of any size, the same at each run."""

from typing import Any

import numpy as np

from streamlstm.model.parameters import Layer, Parameters


def random_parameters(inputs: int, hidden: tuple[int, ...], outputs: int, scale: float = 0.3) -> Parameters:
    rng = np.random.default_rng(inputs + sum(hidden) + outputs)

    def array(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    layers = []
    for H in hidden:
        layers.append(Layer(array(4 * H, inputs), array(4 * H, H), array(4 * H)))
        inputs = H
    return Parameters(tuple(layers), array(outputs, inputs), array(outputs))
