"""The tail of each stream, kept from training: how a model does there beside the naive forecasts.

What is forecast is run over a stretch in front of the tail first, so that its state is that of a stream that has been
followed for a while.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.crops import add_errors
from streamlstm.training.past import Base, Int64s, Past, crops_of
from streamlstm.training.steps import Trainer

Floats = NDArray[np.float64]

MOST_ROWS = 200_000
FEWEST_OF_A_STREAM = 50
WARM_UP = 192
BATCH = 64
STEPS = 96  # at a time, as in training: its memory is then used again
STRETCHES = 8  # of the tails, by which a difference is told from luck
_SMALLEST = 1e-6  # of the naive error: below, two forecasts are equally perfect


@dataclass(frozen=True, eq=False)
class Tail:
    """Stretches of streams, int64 [V] each: run from `first` on, scored on rows [low, high). Longest first."""

    stream: Int64s
    first: Int64s
    low: Int64s
    high: Int64s

    @property
    def rows(self) -> int:
        return int((self.high - self.low).sum())


@dataclass(frozen=True)
class Scores:
    """MAE over that of the naive forecast, for each horizon the geometric mean over streams, [O] each; NaN where no
    tail reaches as far. counts int64 [O]: events; streams: scored at any horizon. missed [V, K, O]: absolute errors of
    the model in each of K stretches of the tails, 0 where the stream isn't scored.
    """

    model: Floats
    seasonal: Floats
    counts: Int64s
    streams: int
    missed: Floats

    @property
    def events(self) -> int:
        """At the first horizon."""
        return int(self.counts[0])

    @property
    def mean(self) -> float:
        """Of the logarithms, over the events of all horizons: what choices go by; below 0 is better than naive. NaN:
        nothing to score.
        """
        known = np.isfinite(self.model)
        return float(np.average(np.log(self.model[known]), weights=self.counts[known])) if self.streams else np.nan


def tail_of(past: Past, begin: Int64s) -> Tail:
    """The rows from begin[s] on, or the first of each tail and evenly chosen streams where they are too many."""
    ends = past.start[1:]
    streams = np.flatnonzero(ends - begin >= 2)
    if not len(streams):
        return Tail(*(np.empty(0, np.int64) for _ in range(4)))
    most = max(FEWEST_OF_A_STREAM, MOST_ROWS // len(streams))
    count = min(len(streams), MOST_ROWS // FEWEST_OF_A_STREAM)
    streams = streams[np.linspace(0, len(streams) - 1, count).astype(np.int64)]
    low, high = begin[streams], np.minimum(ends[streams], begin[streams] + most)
    first = np.maximum(past.start[streams], low - WARM_UP)
    order = np.argsort(first - high, kind="stable")
    return Tail(streams[order], first[order], low[order], high[order])


def score(
    past: Past, tail: Tail, base: Base, trainer: Trainer | None, period: int, stretches: int = 1
) -> Scores:  # fmt: skip
    """Of `base` alone, or with what the weights of `trainer` say. period: of the seasonal naive forecast; 0: none."""
    V, horizons = len(tail.stream), np.array(base.horizons)
    errors, counts = np.zeros((V, stretches, len(horizons), 3)), np.zeros((V, len(horizons)), np.int64)
    ends = past.start[1:]
    for begin in range(0, V, BATCH):
        slot = np.arange(begin, min(begin + BATCH, V))
        stream, low, high, state = tail.stream[slot], tail.low[slot], tail.high[slot], None
        for offset in range(0, int((high - tail.first[slot]).max()), STEPS):
            first = tail.first[slot] + offset
            if trainer is None and not ((first + STEPS > low) & (first < high)).any():
                continue
            crops = crops_of(past, ends, base, stream, first, STEPS)
            if trainer is None:
                y_hat = np.zeros_like(crops.targets)
            else:
                y_hat, state = trainer.forward(crops.inputs, state)
            add_errors(
                past.x, past.unit, past.start, stream, slot, first, low, high, period, horizons, crops.targets,
                crops.counted, y_hat, errors, counts,
            )  # fmt: skip
    return _scores(errors, counts)


def standard_error(one: Scores, other: Scores) -> float:
    """Of the difference of their means, from that in each of the stretches; both are of the same tails and horizons.

    For the logarithm of a sum of errors stands its differential: small differences are what it is asked about.
    """
    K = one.missed.shape[1]
    size = (one.missed + other.missed).sum(axis=1, keepdims=True) / 2
    streams = np.count_nonzero(size, axis=0)
    share = one.counts / one.counts.sum() / np.maximum(streams, 1)
    parts = np.divide(one.missed - other.missed, size, out=np.zeros_like(one.missed), where=size > 0) * share
    return float(np.sqrt(K * parts.sum(axis=(0, 2)).var(ddof=1)))


def _scores(every: Floats, counts: Int64s) -> Scores:
    """every [V, K, O, 3]: sums of the model, naive, seasonal naive. Streams that stand still have no ratio."""
    errors = every.sum(axis=1)
    naive = errors[:, :, 1]
    scored = (naive > 0) & (counts > 0)
    streams = int(scored.any(axis=1).sum())
    ratios = []
    for k in (0, 2):
        logs = np.log(np.maximum(errors[:, :, k], _SMALLEST * naive), out=np.zeros_like(naive), where=scored)
        logs -= np.log(naive, out=np.zeros_like(naive), where=scored)
        several = scored.sum(axis=0)
        ratios.append(np.where(several > 0, np.exp(logs.sum(axis=0) / np.maximum(several, 1)), np.nan))
    missed = every[..., 0] * scored[:, None]
    return Scores(ratios[0], ratios[1], counts.sum(axis=0), streams, missed)
