"""Where the judge's words lie in a row, and its constants: see kernels.judge.

Letters: O horizons, N events, R values of a stream's ring. In a row, behind what the forecaster keeps there:

    ring        float32 [R]: y - anchor of the stream's last R events; event number n lies at n mod R
    anchor      anchor and the one before it float64, the first event of the newer one int64 (kernels.features)
    pending     float32 [sum of horizons][4]: model and yhat less the anchor of their event, width below, width above;
                that of event n and horizon k lies at h_1 + .. + h_(k-1) + n mod h_k, so that the forecast for an event
                gives its place to the one from it
    judgements  since int32, then float32 [O][TRACKED]
    anomaly     float64 words of the anomaly score

The event number n is n_seen, the first is 1. A row of zeros is a new stream.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.anomaly import BOTH
from streamlstm.kernels.anomaly import WORDS as ANOMALY_WORDS
from streamlstm.kernels.layout import FLOAT, WORD

TRACKED_AT = 1  # behind SINCE, int32: events since the stream began or since its last gap, the newest included
# Words of each horizon, float32.
(
    MODEL_ERROR,  # means of absolute errors, each cut off at a limit, weighted as those of SCALE
    NAIVE_ERROR,
    SEASONAL_ERROR,
    SCALE,  # exponentially weighted mean |y - yhat| of the forecasts that were emitted
    BELOW,  # q: the interval is yhat - BELOW * SCALE .. yhat + ABOVE * SCALE
    ABOVE,
    RESIDUALS,  # how many have been seen
    TRACKED,
) = range(8)
PENDING_MODEL, PENDING_YHAT, PENDING_BELOW, PENDING_ABOVE, PENDING = range(5)  # float32 each

# The plan: int64 words. Fixed ones first, then HORIZON_WORDS for each horizon.
(
    RING_AT,  # bytes from a row's start, as are the next four
    ANCHOR_AT,
    PENDING_AT,
    JUDGED_AT,
    YHAT_AT,  # where the row keeps its last forecasts, float64 [O]
    RING,  # R
    HORIZONS,  # O
    TARGET,  # which input is forecast
    GUARDS,  # whether the candidates are mixed; else what is emitted is the model's
    PERIOD,  # of the season, 0: none
    ANOMALY_AT,  # where the words of the anomaly score are, in bytes from a row's start
    DIRECTION,  # kernels.anomaly: BOTH, UP or DOWN
    PLAN_WORDS,
) = range(13)
HORIZON, SEASONAL_LAG, PENDING_FIRST, HORIZON_WORDS = range(4)

# The rates: float64 [O][RATES]. An actual is INSIDE the interval or has left it; in each case log q of the two sides
# (0 below, 1 above) takes the step LOG_STEP + 2 * case + side, and so q the factor FACTOR + 2 * case + side.
(
    GAIN,  # weight of a new error in the scale and in the errors of the guard
    RECIPROCAL,  # 1 / h
    HASTE,  # the first FEW steps are longer, 1 + HASTE / residuals times
    LOG_STEP,
) = range(4)
FACTOR = LOG_STEP + 6
RATES = FACTOR + 6
INSIDE, LEFT_BELOW, LEFT_ABOVE = range(3)
FEW = 100

# The totals of a process: float64 [O][TOTALS], of forecasts whose target has come.
(
    SCORED,
    ABSOLUTE,  # sums of |y - yhat|, (y - yhat)^2, and of what repeating the last value and the season would have got
    SQUARED,
    NAIVE_ABSOLUTE,
    SEASONAL_ABSOLUTE,
    COVERED,  # of intervals that were known; COVERED + case
    MISSED_BELOW,
    MISSED_ABOVE,
    WIDTHS,
    TOTALS,
) = range(10)


@dataclass(frozen=True, slots=True)
class JudgeLayout:
    """What a row needs: `horizons` in steps ahead, increasing; `period` of the season in events, 0 for none."""

    horizons: tuple[int, ...]
    period: int = 0

    @property
    def seasonal_lags(self) -> tuple[int, ...]:
        """Whole seasons that reach back from each horizon's target to its origin or before it; 0 without a period."""
        return tuple(self.period * -(-h // self.period) if self.period else 0 for h in self.horizons)

    @property
    def longest_lag(self) -> int:
        """How far behind an event the ring is read, the event itself being 0."""
        return max(*self.horizons, *self.seasonal_lags)

    @property
    def pending_bytes(self) -> int:
        return FLOAT * PENDING * sum(self.horizons)

    @property
    def judged_bytes(self) -> int:
        return FLOAT * (TRACKED_AT + TRACKED * len(self.horizons))

    @property
    def anomaly_bytes_from(self) -> int:
        """Where the words of the anomaly score begin, from those of what is pending."""
        return -(-(self.pending_bytes + self.judged_bytes) // WORD) * WORD

    @property
    def words(self) -> int:
        """8-byte words of a row: what is pending, the judgements, the anomaly score."""
        return self.anomaly_bytes_from // WORD + ANOMALY_WORDS

    def plan(
        self,
        *,
        ring_at: int,
        anchor_at: int,
        pending_at: int,
        yhat_at: int,
        ring: int,
        target: int = 0,
        guards: bool = True,
        direction: int = BOTH,
    ) -> "Plan":
        """int64 [PLAN_WORDS + O * HORIZON_WORDS]; the places are bytes from a row's start, `ring` is R. The judgements
        lie behind what is pending, and the words of the anomaly score behind them.
        """
        plan = np.zeros(PLAN_WORDS + HORIZON_WORDS * len(self.horizons), np.int64)
        plan[:PLAN_WORDS] = (
            ring_at, anchor_at, pending_at, pending_at + self.pending_bytes, yhat_at, ring, len(self.horizons), target,
            guards, self.period, pending_at + self.anomaly_bytes_from, direction,
        )  # fmt: skip
        first = np.cumsum((0, *self.horizons))[:-1]
        columns = np.stack([self.horizons, self.seasonal_lags, first], axis=1)
        plan[PLAN_WORDS:] = columns.ravel()
        return plan


Plan = NDArray[np.int64]


def growth(x: float) -> float:
    """exp(x), nearly: its Pade approximant [2/2], for which growth(-x) = 1 / growth(x)."""
    even, odd = 1.0 + x * x / 12.0, 0.5 * x
    return (even + odd) / (even - odd)


def rates(horizons: tuple[int, ...], level: float) -> NDArray[np.float64]:
    """float64 [O][RATES] for intervals that are to hold the share `level` of what comes.

    Chosen on five sets of real series, before and after shifts of level and scale: benchmarks/judging.py. A longer
    horizon learns more slowly, as its errors overlap and are known h steps late.
    """
    table = np.zeros((len(horizons), RATES))
    missing = 1.0 - level
    for row, h in zip(table, horizons, strict=True):
        both = 0.15 / (1.0 + (h - 1) / 8.0)
        own = both / 8.0
        row[GAIN] = 0.04 / (1.0 + (h - 1) / 24.0)
        row[RECIPROCAL] = 1.0 / h
        row[HASTE] = 10.0 / h
        for case in (INSIDE, LEFT_BELOW, LEFT_ABOVE):
            for side in range(2):
                missed = case == (LEFT_BELOW, LEFT_ABOVE)[side]
                step = own * (missed - missing / 2.0) + both * ((case != INSIDE) - missing)
                row[LOG_STEP + 2 * case + side] = step
                row[FACTOR + 2 * case + side] = growth(step)
    return table
