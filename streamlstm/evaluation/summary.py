"""Everything that a backtest measures, of the evidence alone."""

from dataclasses import dataclass

import numpy as np

from streamlstm.evaluation.baselines import Floats
from streamlstm.evaluation.measures import Measures, measures
from streamlstm.evaluation.pairs import Evidence, Int64s, blocks, in_sample_scales, rows_of
from streamlstm.evaluation.residuals import Autocorrelation, Timeline, autocorrelation, timeline
from streamlstm.evaluation.sums import Sum, sum_by_stream

SPANS = 60
LAGS = 48


@dataclass(frozen=True, slots=True)
class Anomalies:
    """Of scored events: `known` with an anomaly score, `anomalous` with one above 1."""

    known: int
    anomalous: int

    @property
    def per_1000(self) -> float:
        return 1000 * self.anomalous / self.known if self.known else np.nan


@dataclass(frozen=True, slots=True)
class Summary:
    """`horizons`: the measures of each, `overall` those of all pairs. `timeline` and `autocorrelation` are of the first
    horizon. `scales` [S]: what MASE divides by. None: nothing to show.
    """

    period: int
    scales: Floats
    horizons: list[Measures]
    overall: Measures
    timeline: Timeline
    autocorrelation: Autocorrelation | None
    anomalies: Anomalies | None


def summarise(evidence: Evidence, period: int) -> Summary:
    """`period`: events of a season, for MASE and the seasonal naive forecast; 1: there is none."""
    scales = in_sample_scales(evidence, period)
    total = np.zeros((len(Sum), evidence.streams))
    each = []
    for output in range(len(evidence.horizons)):
        found = sum_by_stream(evidence, output, period)
        each.append(measures(found, scales))
        total += found
    return Summary(
        period=period,
        scales=scales,
        horizons=each,
        overall=measures(total, scales),
        timeline=timeline(evidence, 0, period, scales, SPANS),
        autocorrelation=autocorrelation(evidence, 0, LAGS),
        anomalies=anomalies(evidence),
    )


def anomalies(evidence: Evidence) -> Anomalies | None:
    """None where the model gives no scores."""
    if evidence.anomaly is None:
        return None
    known = anomalous = 0
    for begin, end in blocks(evidence):
        stream, row = rows_of(evidence, begin, end)
        score = evidence.anomaly[row + evidence.place[stream]]
        known += int((~np.isnan(score)).sum())
        anomalous += int((score > 1).sum())
    return Anomalies(known, anomalous)


def ranked(found: Measures) -> Int64s:
    """The streams that can be told from the last value, the worst first: by RelMAE, then by their number."""
    score = found.by_stream.rel_mae
    return np.lexsort((np.arange(len(score)), -score))[: int((~np.isnan(score)).sum())]
