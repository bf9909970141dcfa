"""What is minimised: the mean of a loss over all counted targets, as PyTorch's `reduction="mean"`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError
from streamlstm.kernels import loss as kernels


@dataclass(frozen=True)
class SquaredError:
    """(y_hat - y)²; its mean is the MSE."""


@dataclass(frozen=True)
class AbsoluteError:
    """|y_hat - y|; its mean is the MAE."""


@dataclass(frozen=True)
class Huber:
    """Squared up to `delta`, absolute beyond (Huber 1964); as PyTorch's HuberLoss."""

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not self.delta > 0.0:
            raise InvariantError(f"Huber: delta: expected > 0, found {self.delta}")


@dataclass(frozen=True)
class Quantile:
    """Pinball loss (Koenker & Bassett 1978): output k forecasts the quantile `levels[k]` of its target."""

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.levels or not all(0.0 < level < 1.0 for level in self.levels):
            raise InvariantError(f"Quantile: levels: expected each within (0, 1), found {self.levels}")


Loss = SquaredError | AbsoluteError | Huber | Quantile


def kernel_terms(loss: Loss, outputs: int) -> tuple[int, NDArray[np.float64]]:
    """What kernels.loss calls it: the kind, and a parameter for each output (float64 [O])."""
    match loss:
        case SquaredError():
            return kernels.SQUARED, np.zeros(outputs)
        case AbsoluteError():
            return kernels.ABSOLUTE, np.zeros(outputs)
        case Huber(delta):
            return kernels.HUBER, np.full(outputs, delta)
        case Quantile(levels):
            if len(levels) != outputs:
                raise InvariantError(f"Quantile: levels: expected one for each of {outputs} outputs, found {levels}")
            return kernels.QUANTILE, np.array(levels)
