"""Errors summed by stream: what every measure is made of, so that they can be added over horizons."""

from enum import IntEnum, auto

import numpy as np

from streamlstm.evaluation.baselines import Floats
from streamlstm.evaluation.pairs import Evidence, Pairs, blocks, pairs


class Sum(IntEnum):
    """Rows of the sums. Those of a baseline are over the pairs for which it has a forecast, the model's beside its own;
    those of intervals over the pairs that have one.
    """

    PAIRS = 0
    ABS = auto()
    SQUARE = auto()
    SIGNED = auto()  # forecast - actual
    NAIVE_PAIRS = auto()
    NAIVE_MODEL_ABS = auto()
    NAIVE_ABS = auto()
    SEASONAL_PAIRS = auto()
    SEASONAL_MODEL_ABS = auto()
    SEASONAL_ABS = auto()
    INTERVALS = auto()
    COVERED = auto()
    WIDTH = auto()
    PINBALL_LOW = auto()
    PINBALL_MIDDLE = auto()
    PINBALL_HIGH = auto()
    UNDER_LOW = auto()  # actual <= quantile
    UNDER_MIDDLE = auto()
    UNDER_HIGH = auto()


def quantile_levels(level: float) -> tuple[float, float, float]:
    """Of lower, yhat and upper, when [lower, upper] is the central interval of that level."""
    return (1 - level) / 2, 0.5, (1 + level) / 2


def sum_by_stream(evidence: Evidence, output: int, period: int) -> Floats:
    """The sums of horizon number `output`: float64 [len(Sum), S]."""
    totals = np.zeros((len(Sum), evidence.streams))
    for begin, end in blocks(evidence):
        _add(totals, pairs(evidence, output, period, begin, end), evidence.level)
    return totals


def _add(totals: Floats, found: Pairs, level: float) -> None:
    if not len(found.stream):
        return
    low, high = int(found.stream[0]), int(found.stream[-1]) + 1
    stream, part = found.stream - low, totals[:, low:high]

    def add(row: Sum, values: Floats) -> None:
        part[row] += np.bincount(stream, values, high - low)

    error = found.yhat - found.actual
    size = np.abs(error)
    add(Sum.PAIRS, np.ones(len(error)))
    add(Sum.ABS, size)
    add(Sum.SQUARE, np.square(error))
    add(Sum.SIGNED, error)
    for first, baseline in ((Sum.NAIVE_PAIRS, found.naive), (Sum.SEASONAL_PAIRS, found.seasonal)):
        if baseline is not None:
            is_known = ~np.isnan(baseline)
            add(first, is_known.astype(np.float64))
            add(Sum(first + 1), np.where(is_known, size, 0.0))
            add(Sum(first + 2), np.where(is_known, np.abs(baseline - found.actual), 0.0))
    if found.lower is not None and found.upper is not None:
        is_known = np.isfinite(found.lower) & np.isfinite(found.upper)
        lower, upper = (np.where(is_known, bound, found.yhat) for bound in (found.lower, found.upper))
        add(Sum.INTERVALS, is_known.astype(np.float64))
        add(Sum.COVERED, (is_known & (lower <= found.actual) & (found.actual <= upper)).astype(np.float64))
        add(Sum.WIDTH, upper - lower)
        for k, quantile in enumerate((lower, found.yhat, upper)):
            q, miss = quantile_levels(level)[k], found.actual - quantile
            loss = np.maximum(q * miss, (q - 1) * miss)
            add(Sum(Sum.PINBALL_LOW + k), np.where(is_known, loss, 0.0))
            add(Sum(Sum.UNDER_LOW + k), (is_known & (miss <= 0)).astype(np.float64))
