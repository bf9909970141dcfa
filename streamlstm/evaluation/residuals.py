"""Errors in the order of time: how they went, and what is left in them to forecast."""

from dataclasses import dataclass

import numpy as np

from streamlstm.evaluation.baselines import Floats
from streamlstm.evaluation.measures import QUANTILES
from streamlstm.evaluation.pairs import Evidence, Int64s, blocks, pairs, rows_of

FEWEST = 20
"""Pairs below which a stream's autocorrelation is not estimated."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Errors of one horizon over B spans of time of equal length, over each stream's scale, so that streams of all
    units count alike. `edges` [B + 1], epoch ms; the others [B], NaN where a span has no pair; `seasonal` None without
    a season.
    """

    edges: Int64s
    pairs: Int64s
    model: Floats
    naive: Floats
    seasonal: Floats | None


@dataclass(frozen=True, slots=True)
class Autocorrelation:
    """Of the errors of one horizon, by lag in events: median, 10 and 90 % over `streams` streams; all [L].

    Uncorrelated errors of a stream of the median length lie within +-`bound` at 95 % of the lags; those of horizon h
    are correlated up to lag h - 1 even when nothing is left to forecast.
    """

    lags: Int64s
    low: Floats
    median: Floats
    high: Floats
    bound: float
    streams: int


def timeline(evidence: Evidence, output: int, period: int, scales: Floats, spans: int) -> Timeline:
    """The errors of horizon number `output`; `scales` [S] as for MASE, and streams without one don't count."""
    begins, ends = _extent(evidence)
    edges = np.linspace(begins, ends + 1, spans + 1).astype(np.int64)
    counts = np.zeros((3, spans))
    sums = np.zeros((3, spans))
    for begin, end in blocks(evidence):
        found = pairs(evidence, output, period, begin, end)
        has_scale = scales[found.stream] > 0
        span = np.clip(np.searchsorted(edges, evidence.time[found.row], side="right") - 1, 0, spans - 1)
        for k, forecast in enumerate((found.yhat, found.naive, found.seasonal)):
            if forecast is None:
                continue
            error = np.abs(forecast - found.actual) / np.where(has_scale, scales[found.stream], 1.0)
            is_known = has_scale & ~np.isnan(error)
            sums[k] += np.bincount(span[is_known], error[is_known], spans)
            counts[k] += np.bincount(span[is_known], minlength=spans)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return Timeline(edges, counts[0].astype(np.int64), means[0], means[1], means[2] if period > 1 else None)


def _extent(evidence: Evidence) -> tuple[int, int]:
    """The first and last time of a scored event; 0, 0 without one."""
    begins, ends = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for begin, end in blocks(evidence):
        time = evidence.time[rows_of(evidence, begin, end)[1]]
        begins, ends = min(begins, int(time.min())), max(ends, int(time.max()))
    return (begins, ends) if begins <= ends else (0, 0)


def errors(evidence: Evidence, output: int) -> Floats:
    """forecast - actual of every scored event, [evidence.scored]; NaN where there is no pair."""
    found = np.full(evidence.scored, np.nan)
    for begin, end in blocks(evidence):
        some = pairs(evidence, output, 1, begin, end)
        found[some.event] = some.yhat - some.actual
    return found


def autocorrelation(evidence: Evidence, output: int, lags: int) -> Autocorrelation | None:
    """r_k = sum e_t e_(t-k) / sum e_t^2 of the centred errors (Box and Jenkins); lags of more than a quarter of a
    stream's pairs don't count. None where no stream has FEWEST pairs and errors that differ.
    """
    error = errors(evidence, output)
    stream = np.repeat(np.arange(evidence.streams), evidence.start[1:] - evidence.tail)

    def total(values: Floats) -> Floats:
        return np.bincount(stream, values, evidence.streams).astype(np.float64, copy=False)

    is_known = ~np.isnan(error)
    count = total(is_known.astype(np.float64))
    error[~is_known] = 0.0
    error -= (total(error) / np.maximum(count, 1))[stream]
    error[~is_known] = 0.0
    power = total(np.square(error))
    counts = (count >= FEWEST) & (power > 0)
    if not counts.any():
        return None
    rows: list[Floats] = []
    for lag in range(1, lags + 1):
        enough = counts & (count >= 4 * lag)
        if not enough.any():
            break
        product = np.zeros(len(error))
        product[lag:] = error[lag:] * error[:-lag] * (stream[lag:] == stream[:-lag])
        rows.append(np.quantile(total(product)[enough] / power[enough], QUANTILES))
    low, median, high = np.array(rows).T
    bound = 1.96 / float(np.sqrt(np.median(count[counts])))
    return Autocorrelation(np.arange(1, len(rows) + 1), low, median, high, bound, int(counts.sum()))
