"""Adam with clipping of the gradient's norm, over the flat vector of weights (Kingma & Ba 2015, algorithm 1)."""

from dataclasses import dataclass
from enum import Enum
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.adam import adam_step, sum_of_squares
from streamlstm.training.weights import Weights

Reals = NDArray[Any]

_CLIP_EPSILON = 1e-6  # as PyTorch's clip_grad_norm_


class EpsilonPlace(Enum):
    """Which root epsilon is added to; t counts the steps.

    CORRECTED_ROOT   sqrt(v / (1 - beta_2^t)): algorithm 1, PyTorch
    RAW_ROOT         sqrt(v): the last form of the paper's section 2, Keras
    """

    CORRECTED_ROOT = "corrected root"
    RAW_ROOT = "raw root"


@dataclass(frozen=True)
class AdamSettings:
    """Defaults are PyTorch's; Keras's are epsilon 1e-7 at RAW_ROOT.

    `clip_norm`: the gradient is scaled down to this norm of all its elements together, when it is above.
    `double_bias`: each layer has two biases of which the sum counts, as PyTorch's bias_ih and bias_hh. Both get the
    same gradient and so move alike: the sum, which is what is kept here, moves by twice a step, and its gradient
    counts twice in the norm.
    """

    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    epsilon_place: EpsilonPlace = EpsilonPlace.CORRECTED_ROOT
    clip_norm: float | None = None
    double_bias: bool = False


class Adam:
    """The moments of `weights`, and steps of it. `learning_rate` may be changed between steps; `steps` counts them."""

    def __init__(self, weights: Weights, settings: AdamSettings) -> None:
        self.learning_rate = settings.learning_rate
        self.steps = 0
        self._settings = settings
        self._weights = weights.vector
        self._m, self._v = np.zeros_like(self._weights), np.zeros_like(self._weights)
        self._matrices = slice(0, len(self._weights) - weights.sizes.biases)
        self._biases = slice(self._matrices.stop, None)

    @property
    def moments(self) -> tuple[Reals, Reals]:
        """The running means of the gradient and of its square, [P] each: views, to be kept and to be put back."""
        return self._m, self._v

    def step(self, gradient: Reals) -> float:
        """Move the weights against `gradient` [P]; returns its norm before clipping."""
        own, bias_copies = self._settings, 2 if self._settings.double_bias else 1
        squares = sum_of_squares(gradient[self._matrices]) + bias_copies * sum_of_squares(gradient[self._biases])
        norm = sqrt(squares)
        factor = 1.0 if own.clip_norm is None else min(1.0, own.clip_norm / (norm + _CLIP_EPSILON))
        self.steps += 1
        correction_1, root_2 = 1.0 - own.beta_1**self.steps, sqrt(1.0 - own.beta_2**self.steps)
        rate, root_factor = self.learning_rate / correction_1, 1.0 / root_2
        if own.epsilon_place is EpsilonPlace.RAW_ROOT:
            rate, root_factor = rate * root_2, 1.0
        for part, copies in ((self._matrices, 1), (self._biases, bias_copies)):
            scalars = (
                factor, own.beta_1, 1.0 - own.beta_1, own.beta_2, 1.0 - own.beta_2, copies * rate, root_factor,
                own.epsilon,
            )  # fmt: skip
            typed = (self._weights.dtype.type(scalar) for scalar in scalars)
            adam_step(self._weights[part], gradient[part], self._m[part], self._v[part], *typed)
        return norm
