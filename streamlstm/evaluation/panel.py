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

    `pooled` tests the mean over the streams, at each time, of the difference of the scaled losses: so that errors that
    streams share at a time don't count as many (the panel test of Timmermann and Zhu 2019).
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
    time = evidence.time[rows_of(evidence, 0, evidence.scored)[1]][counts]
    moments, place = np.unique(time, return_inverse=True)
    streams = np.bincount(place, minlength=len(moments))
    mean, other_mean = (
        np.bincount(place, each[counts] / scaled[counts], len(moments)) / streams for each in (losses, other_losses)
    )
    return diebold_mariano(mean, other_mean, horizon)
