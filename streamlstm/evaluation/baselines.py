"""What a forecast has to beat: the last value, and the value one season before.

Arrays hold one series in the order of time. A forecast stands at the place of the value that it is of; where there is
nothing yet to forecast from it is NaN.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def naive(y: Floats, horizon: int = 1) -> Floats:
    """The value `horizon` steps before. y [n] -> [n]."""
    return _lagged(y, horizon)


def seasonal_naive(y: Floats, period: int, horizon: int = 1) -> Floats:
    """The newest value of the same season that is known `horizon` steps before. y [n] -> [n]."""
    return _lagged(y, period * -(-horizon // period))


def _lagged(y: Floats, lag: int) -> Floats:
    if lag < 1:
        raise ValueError(f"lag: expected at least 1, found {lag}")
    shifted = np.full(len(y), np.nan)
    shifted[lag:] = y[: max(0, len(y) - lag)]
    return shifted
