"""Forecasts joined with what came: the forecast of horizon h made at event n of a stream is of its event n + h."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.evaluation.baselines import Floats

BLOCK = 1 << 20
"""Events scored at a time, so that what is computed on the way stays small beside the columns."""

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was forecast of S streams, and what came. Letters: N events, K events whose forecasts were kept, O horizons.

    Rows [start[s], start[s + 1]) of `time` (epoch ms) and `actual`, both [N], are the events of stream s in the order
    in which it saw them; an actual is NaN where it was missing. Those from tail[s] on are scored; the forecasts made at
    rows from first[s] <= tail[s] on were kept, and stand at row + place[s] of the columns [K].

    `yhat`, `lower`, `upper` [K, O], `anomaly` [K], not finite where not known; None where the model makes none. `level`
    is the share that [lower, upper] is meant to cover, 0 without intervals. `life` [K]: a number that changes where a
    stream begins, begins anew, or goes on after a gap; no forecast is held to what came in another life.
    """

    horizons: tuple[int, ...]
    start: Int64s
    time: Int64s
    actual: Floats
    tail: Int64s
    first: Int64s
    place: Int64s
    life: NDArray[np.int64]
    yhat: Floats
    lower: Floats | None
    upper: Floats | None
    anomaly: Floats | None
    level: float

    @property
    def streams(self) -> int:
        return len(self.tail)

    @property
    def scored(self) -> int:
        """How many events are in the tails."""
        return int((self.start[1:] - self.tail).sum())


@dataclass(frozen=True, slots=True)
class Pairs:
    """P forecasts with their actual values, by stream and in the order of events; all arrays [P].

    `event`: the number of the scored event among all, see `blocks`. `naive` is the value at the origin, `seasonal` that
    of the same season before it; NaN where it isn't known. `seasonal` None: there is no season.
    """

    event: Int64s
    stream: Int64s
    row: Int64s
    actual: Floats
    yhat: Floats
    naive: Floats
    seasonal: Floats | None
    lower: Floats | None
    upper: Floats | None


def blocks(evidence: Evidence) -> Iterator[tuple[int, int]]:
    """Ranges of scored events; those of all streams are numbered stream after stream, [0, evidence.scored)."""
    for begin in range(0, evidence.scored, BLOCK):
        yield begin, min(begin + BLOCK, evidence.scored)


def rows_of(evidence: Evidence, begin: int, end: int) -> tuple[Int64s, Int64s]:
    """Streams and rows of the scored events [begin, end)."""
    ends = np.cumsum(evidence.start[1:] - evidence.tail)
    event = np.arange(begin, end)
    stream = np.searchsorted(ends, event, side="right")
    return stream, event - ends[stream] + evidence.start[stream + 1]


def pairs(evidence: Evidence, output: int, period: int, begin: int, end: int) -> Pairs:
    """The pairs of horizon number `output` whose actual values are the scored events [begin, end).

    `period`: events of a season; 1 or less: there is none.
    """
    horizon = evidence.horizons[output]
    stream, row = rows_of(evidence, begin, end)
    is_kept = row - horizon >= evidence.first[stream]
    event, stream, row = np.flatnonzero(is_kept) + begin, stream[is_kept], row[is_kept]
    at = row - horizon + evidence.place[stream]
    counts = evidence.life[row + evidence.place[stream]] == evidence.life[at]
    counts &= np.isfinite(evidence.actual[row]) & np.isfinite(evidence.yhat[at, output])
    event, stream, row, at = event[counts], stream[counts], row[counts], at[counts]
    seasonal = None
    if period > 1:
        season = row - period * -(-horizon // period)
        is_known = season >= evidence.start[stream]
        seasonal = np.where(is_known, evidence.actual[np.where(is_known, season, row)], np.nan)
    return Pairs(
        event, stream, row, evidence.actual[row], evidence.yhat[at, output], evidence.actual[row - horizon], seasonal,
        None if evidence.lower is None else evidence.lower[at, output],
        None if evidence.upper is None else evidence.upper[at, output],
    )  # fmt: skip


def in_sample_scales(evidence: Evidence, period: int) -> Floats:
    """What MASE divides by: the MAE of the seasonal naive forecast in front of each stream's tail, [S]; NaN where
    there is none. As metrics.scale, of all streams at once.
    """
    lag = max(period, 1)
    total, count = np.zeros(evidence.streams), np.zeros(evidence.streams)
    for begin in range(0, len(evidence.actual), BLOCK):
        row = np.arange(begin, min(begin + BLOCK, len(evidence.actual)))
        stream = np.searchsorted(evidence.start[1:], row, side="right")
        counts = (row >= evidence.start[stream] + lag) & (row < evidence.tail[stream])
        row, stream = row[counts], stream[counts]
        error = np.abs(evidence.actual[row] - evidence.actual[row - lag])
        is_known = ~np.isnan(error)
        total += np.bincount(stream[is_known], error[is_known], evidence.streams)
        count += np.bincount(stream[is_known], minlength=evidence.streams)
    scales: Floats = np.divide(total, count, out=np.full(evidence.streams, np.nan), where=count > 0)
    return scales
