"""From the sums to the measures of evaluation.metrics: pooled, by stream, and their quantiles over the streams.

MAE, RMSE, bias, coverage, width, pinball loss and CRPS are pooled: means over all pairs, in the unit of the streams.
MASE is the mean, RelMAE the geometric mean over the streams. What can't be measured is NaN.
"""

from dataclasses import dataclass

import numpy as np

from streamlstm.evaluation.baselines import Floats
from streamlstm.evaluation.metrics import rel_mae
from streamlstm.evaluation.sums import Sum

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class ByStream:
    """All [S], NaN where a stream has none. `rel_mae`: MAE over that of the last value; `rel_mae_seasonal`: over that
    of the seasonal naive forecast.
    """

    pairs: Floats
    mae: Floats
    rmse: Floats
    mase: Floats
    rel_mae: Floats
    rel_mae_seasonal: Floats
    coverage: Floats

    def quantiles(self) -> dict[str, tuple[float, float, float] | None]:
        """10, 50 and 90 % of each measure over the streams that have it; None where none has."""
        return {
            name: _quantiles(getattr(self, name))
            for name in ("mae", "rmse", "mase", "rel_mae", "rel_mae_seasonal", "coverage")
        }


@dataclass(frozen=True, slots=True)
class Measures:
    """`pairs` of `streams` streams. `better`: streams with a smaller MAE than the last value's, of `held` that can be
    told; likewise against the seasonal naive forecast. `pinball` and `reliability` (the share of actual values at or
    below) are those of lower, yhat and upper as quantiles.
    """

    pairs: int
    streams: int
    mae: float
    rmse: float
    bias: float
    mase: float
    naive_mae: float
    rel_mae: float
    better: int
    held: int
    seasonal_mae: float
    rel_mae_seasonal: float
    better_seasonal: int
    held_seasonal: int
    coverage: float
    width: float
    pinball: tuple[float, float, float]
    crps: float
    reliability: tuple[float, float, float]
    by_stream: ByStream


def measures(totals: Floats, scales: Floats) -> Measures:
    """Of the sums, float64 [len(Sum), S], and what MASE divides by, [S]."""
    pooled = totals.sum(axis=1)
    model, naive = (_ratio(totals[row], totals[Sum.NAIVE_PAIRS]) for row in (Sum.NAIVE_MODEL_ABS, Sum.NAIVE_ABS))
    beside, seasonal = (
        _ratio(totals[row], totals[Sum.SEASONAL_PAIRS]) for row in (Sum.SEASONAL_MODEL_ABS, Sum.SEASONAL_ABS)
    )
    each = _by_stream(totals, scales, _ratio(model, naive), _ratio(beside, seasonal))
    low, middle, high = (
        _one(pooled[row], pooled[Sum.INTERVALS]) for row in (Sum.PINBALL_LOW, Sum.PINBALL_MIDDLE, Sum.PINBALL_HIGH)
    )
    return Measures(
        pairs=int(pooled[Sum.PAIRS]),
        streams=int((totals[Sum.PAIRS] > 0).sum()),
        mae=_one(pooled[Sum.ABS], pooled[Sum.PAIRS]),
        rmse=float(np.sqrt(_one(pooled[Sum.SQUARE], pooled[Sum.PAIRS]))),
        bias=_one(pooled[Sum.SIGNED], pooled[Sum.PAIRS]),
        mase=_mean(each.mase),
        naive_mae=_one(pooled[Sum.NAIVE_ABS], pooled[Sum.NAIVE_PAIRS]),
        rel_mae=rel_mae(model, naive),
        better=int((model < naive).sum()),
        held=int((totals[Sum.NAIVE_PAIRS] > 0).sum()),
        seasonal_mae=_one(pooled[Sum.SEASONAL_ABS], pooled[Sum.SEASONAL_PAIRS]),
        rel_mae_seasonal=rel_mae(beside, seasonal),
        better_seasonal=int((beside < seasonal).sum()),
        held_seasonal=int((totals[Sum.SEASONAL_PAIRS] > 0).sum()),
        coverage=_one(pooled[Sum.COVERED], pooled[Sum.INTERVALS]),
        width=_one(pooled[Sum.WIDTH], pooled[Sum.INTERVALS]),
        pinball=(low, middle, high),
        crps=2 * (low + middle + high) / 3,
        reliability=(
            _one(pooled[Sum.UNDER_LOW], pooled[Sum.INTERVALS]),
            _one(pooled[Sum.UNDER_MIDDLE], pooled[Sum.INTERVALS]),
            _one(pooled[Sum.UNDER_HIGH], pooled[Sum.INTERVALS]),
        ),
        by_stream=each,
    )


def _by_stream(totals: Floats, scales: Floats, rel: Floats, rel_seasonal: Floats) -> ByStream:
    count = totals[Sum.PAIRS]
    mae = _ratio(totals[Sum.ABS], count)
    return ByStream(
        pairs=count,
        mae=mae,
        rmse=np.sqrt(_ratio(totals[Sum.SQUARE], count)),
        mase=_ratio(mae, scales),
        rel_mae=rel,
        rel_mae_seasonal=rel_seasonal,
        coverage=_ratio(totals[Sum.COVERED], totals[Sum.INTERVALS]),
    )


def _ratio(values: Floats, over: Floats) -> Floats:
    """NaN where `over` isn't positive."""
    ratio: Floats = np.divide(values, over, out=np.full(len(values), np.nan), where=over > 0)
    return ratio


def _one(value: float, over: float) -> float:
    return float(value / over) if over > 0 else np.nan


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def _quantiles(values: Floats) -> tuple[float, float, float] | None:
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, middle, high = np.quantile(known, QUANTILES).tolist()
    return low, middle, high
