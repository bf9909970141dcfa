"""Two models on the same events: the test of Diebold and Mariano stream by stream, and over all streams at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streamlstm.evaluation.baselines import Floats
from streamlstm.evaluation.compare import Comparison, diebold_mariano
from streamlstm.evaluation.metrics import rel_mae
from streamlstm.evaluation.pairs import Evidence, rows_of
from streamlstm.evaluation.residuals import errors

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Panel:
    """The absolute errors of horizon `horizon` of a first model beside a second one's, over pairs that both have.

    `rel_mae`: geometric mean over the streams of MAE / the second's MAE. `mae`, `other_mae` [S]; `by_stream` [S];
    `verdicts` int64 [S]: -1 where the first is better at 5 %, 1 where the second is, 0 undecided. `undecidable` counts
    the streams, among the undecided ones, with too few pairs or equal errors. `pooled` is the test over all streams.
    """

    horizon: int
    pairs: int
    mae: Floats
    other_mae: Floats
    rel_mae: float
    by_stream: list[Comparison]
    verdicts: np.ndarray[tuple[int], np.dtype[np.int64]]
    undecidable: int
    pooled: Comparison

    def count(self, verdict: int) -> int:
        """Streams with that verdict, among those with a pair."""
        return int(((self.verdicts == verdict) & ~np.isnan(self.mae)).sum())


def compare(
    first: Evidence, second: Evidence, horizon: int, scales: Floats, tell: Callable[[int], None] = lambda done: None
) -> Panel:
    """Both of the same events; `scales` [S] as for MASE; `tell` hears of each stream that is done.

    `pooled` tests the mean over the streams, in each interval of time, of the difference of the scaled losses: so that
    errors that streams share at a time don't count as many (the panel test of Timmermann and Zhu 2019).
    """
    losses, other_losses = (np.abs(errors(evidence, evidence.horizons.index(horizon))) for evidence in (first, second))
    is_pair = ~np.isnan(losses + other_losses)
    losses[~is_pair] = other_losses[~is_pair] = np.nan
    ends = np.cumsum(first.start[1:] - first.tail)
    found = []
    for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        found.append(diebold_mariano(losses[begin:end], other_losses[begin:end], horizon))
        tell(1)
    stream = np.repeat(np.arange(first.streams), np.diff(ends, prepend=0))
    count = np.bincount(stream[is_pair], minlength=first.streams)
    mae, other_mae = (
        np.divide(
            np.bincount(stream[is_pair], each[is_pair], first.streams), count,
            out=np.full(first.streams, np.nan), where=count > 0,
        )
        for each in (losses, other_losses)
    )  # fmt: skip
    is_decidable = np.array([not np.isnan(each.p_value) for each in found], np.bool_)
    return Panel(
        horizon=horizon,
        pairs=int(is_pair.sum()),
        mae=mae,
        other_mae=other_mae,
        rel_mae=rel_mae(mae, other_mae),
        by_stream=found,
        verdicts=np.array([each.verdict(LEVEL) for each in found], np.int64),
        undecidable=int((~is_decidable & (count > 0)).sum()),
        pooled=_pooled(first, losses, other_losses, stream, horizon, scales),
    )


def _pooled(
    evidence: Evidence,
    losses: Floats,
    other_losses: Floats,
    stream: np.ndarray[tuple[int], np.dtype[np.int64]],
    horizon: int,
    scales: Floats,
) -> Comparison:
    scaled = scales[stream]
    counts = ~np.isnan(losses) & (scaled > 0)
    steps, place = np.unique(_step(evidence)[counts], return_inverse=True)
    number = np.bincount(place, minlength=len(steps))
    mean, other_mean = (
        np.bincount(place, each[counts] / scaled[counts], len(steps)) / number for each in (losses, other_losses)
    )
    return diebold_mariano(mean, other_mean, horizon)


def _step(evidence: Evidence) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The number of the interval, the median one from event to event, in which each scored event lies.

    Streams that don't share their exact times share these, so that a forecast reaches over as many of them as it is
    steps ahead. They are cut half an interval from where most events lie, lest a little jitter parts what belongs
    together.
    """
    time = evidence.time[rows_of(evidence, 0, evidence.scored)[1]]
    between = np.diff(evidence.time, prepend=evidence.time[:1])
    between[evidence.start[:-1][evidence.start[:-1] < len(between)]] = 0  # from stream to stream
    between = between[between > 0]
    interval = max(int(np.median(between)), 1) if len(between) else 1
    angle = float(np.angle(np.exp(2j * np.pi * (time % interval) / interval).mean())) if len(time) else 0.0
    return (time - round(angle / (2 * np.pi) * interval) + interval // 2) // interval
