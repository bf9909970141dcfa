"""Measures of forecasts, by the definitions of the literature.

`actual` and `forecast` have the same shape; pairs with a NaN in either don't count. A measure over no pairs is NaN.

    MAE, RMSE        in the unit of the series
    MASE             MAE over the in-sample MAE of the seasonal naive forecast (Hyndman and Koehler 2006)
    RelMAE           geometric mean over streams of MAE / MAE of the naive forecast (Davydenko and Fildes 2013)
    pinball loss     of a quantile forecast (Koenker and Bassett 1978)
    CRPS             from quantiles: twice the mean pinball loss over the levels (Gneiting and Ranjan 2011)
    coverage, width  of central prediction intervals
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamlstm.evaluation.baselines import Floats, seasonal_naive


def mae(actual: Floats, forecast: Floats) -> float:
    """Mean absolute error."""
    return _mean(np.abs(actual - forecast))


def rmse(actual: Floats, forecast: Floats) -> float:
    """Root mean squared error."""
    return float(np.sqrt(_mean(np.square(actual - forecast))))


def scale(history: Floats, period: int) -> float:
    """What MASE divides by: the MAE of the seasonal naive forecast within the history, [n], that was trained on."""
    return mae(history, seasonal_naive(history, period))


def mase(actual: Floats, forecast: Floats, history_scale: float) -> float:
    """Mean absolute scaled error; NaN where the history has no error to scale by."""
    return mae(actual, forecast) / history_scale if history_scale > 0 else np.nan


def rel_mae(errors: Floats, naive_errors: Floats) -> float:
    """Both [S]: the MAE of each stream. Streams on which either is 0 or NaN have no ratio and don't count."""
    counts = (errors > 0) & (naive_errors > 0)
    return float(np.exp(_mean(np.log(errors[counts] / naive_errors[counts]))))


def pinball(actual: Floats, quantiles: Floats, levels: Sequence[float] | Floats) -> Floats:
    """Mean loss per level. actual [...], quantiles [..., Q], levels [Q] in (0, 1) -> [Q]."""
    q, error = np.asarray(levels, np.float64), actual[..., np.newaxis] - quantiles
    losses = np.maximum(q * error, (q - 1) * error)
    return np.array([_mean(losses[..., k]) for k in range(len(q))])


def crps(actual: Floats, quantiles: Floats, levels: Sequence[float] | Floats) -> float:
    """In the unit of the series. Shapes as in `pinball`; the levels stand for equal shares of the distribution."""
    return 2.0 * _mean(pinball(actual, quantiles, levels))


def coverage(actual: Floats, low: Floats, high: Floats) -> float:
    """The share of actual values within [low, high]."""
    known = ~(np.isnan(actual) | np.isnan(low) | np.isnan(high))
    return _mean(((low <= actual) & (actual <= high))[known].astype(np.float64))


def width(low: Floats, high: Floats) -> float:
    """The mean width of the intervals."""
    return _mean(high - low)


def _mean(values: Floats) -> float:
    known: NDArray[np.float64] = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan
