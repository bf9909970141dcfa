"""Losses of forecasts and their derivatives, over the counted targets of some sequences.

With e = y_hat - y, per counted element:

    SQUARED    e²                          2 e
    ABSOLUTE   |e|                         sign(e)
    HUBER      e²/2 where |e| <= delta     e                     Huber 1964, scaled as PyTorch's HuberLoss
               delta (|e| - delta/2)       delta sign(e)
    QUANTILE   max(-q e, (1 - q) e)        -q or 1 - q           pinball loss, Koenker & Bassett 1978; 0 at e = 0

ABSOLUTE has derivative 0 at e = 0 too, as PyTorch's L1Loss.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded

SQUARED, ABSOLUTE, HUBER, QUANTILE = range(4)


@embedded
def _value_and_slope(kind: int, parameter: float, e: float) -> tuple[float, float]:
    if kind == SQUARED:
        return e * e, 2.0 * e
    sign = 1.0 if e > 0.0 else -1.0 if e < 0.0 else e  # 0 or NaN
    if kind == ABSOLUTE:
        return abs(e), sign
    if kind == HUBER:
        if abs(e) <= parameter:
            return 0.5 * e * e, e
        return parameter * (abs(e) - 0.5 * parameter), parameter * sign
    weight = 1.0 - parameter if e > 0.0 else parameter
    return weight * abs(e), weight * sign


@compiled
def loss_and_slope(
    kind: int,
    parameters: NDArray[np.float64],
    y_hat: NDArray[Any],
    y: NDArray[Any],
    counted: NDArray[np.bool_],
    scale: float,
    d_y_hat: NDArray[Any],
) -> float:
    """The sum of the loss over the counted elements, not scaled, in float64; d_y_hat is its derivative times `scale`.

    kind         SQUARED, ABSOLUTE, HUBER or QUANTILE
    parameters   float64 [O]: delta or q of each output; not looked at by the others
    y_hat        [T, B, O], read
    y, counted   [B, T, O], read; y isn't looked at where it isn't counted, and may be NaN there
    d_y_hat      [T, B, O], written; 0 where not counted
    """
    steps, batch, outputs = y_hat.shape
    total = 0.0
    for t in range(steps):
        for row in range(batch):
            for output in range(outputs):
                slope = 0.0
                if counted[row, t, output]:
                    e = np.float64(y_hat[t, row, output]) - np.float64(y[row, t, output])
                    value, slope = _value_and_slope(kind, parameters[output], e)
                    total += value
                d_y_hat[t, row, output] = slope * scale
    return total
