"""What to draw of one stream: the newest of its events beside what was forecast of them."""

from dataclasses import dataclass

import numpy as np

from streamlstm.evaluation.baselines import Floats
from streamlstm.evaluation.pairs import Evidence, Int64s


@dataclass(frozen=True, slots=True)
class Path:
    """The forecasts made at one event, by horizon: times and values of what they are of; all arrays [P]."""

    time: Int64s
    yhat: Floats
    lower: Floats | None
    upper: Floats | None


@dataclass(frozen=True, slots=True)
class Fan:
    """`following`: the forecasts of the smallest horizon, `horizon`, each at the event that it is of, NaN where there
    is none. `path`: those of all horizons, made at the last event that all of them have an actual value for; None with
    one horizon, or where the stream is too short.
    """

    horizon: int
    time: Int64s
    actual: Floats
    following: Path
    path: Path | None


def fan(evidence: Evidence, stream: int, events: int) -> Fan:
    """The last `events` scored events of a stream."""
    stop = int(evidence.start[stream + 1])
    row = np.arange(max(int(evidence.tail[stream]), stop - events), stop)
    origin = row - evidence.horizons[0]
    return Fan(
        evidence.horizons[0],
        evidence.time[row],
        evidence.actual[row],
        _path(evidence, stream, evidence.time[row], origin, np.zeros(len(row), np.int64)),
        _last_path(evidence, stream, row),
    )


def _path(evidence: Evidence, stream: int, time: Int64s, origin: Int64s, output: Int64s) -> Path:
    first = int(evidence.first[stream])
    is_kept = origin >= first
    at = np.where(is_kept, origin, first) + int(evidence.place[stream])
    yhat, lower, upper = (
        None if column is None else np.where(is_kept & np.isfinite(column[at, output]), column[at, output], np.nan)
        for column in (evidence.yhat, evidence.lower, evidence.upper)
    )
    assert yhat is not None
    return Path(time, yhat, lower, upper)


def _last_path(evidence: Evidence, stream: int, shown: Int64s) -> Path | None:
    horizons = np.asarray(evidence.horizons)
    if len(horizons) < 2:
        return None
    origin = int(evidence.start[stream + 1]) - 1 - int(horizons[-1])
    if not len(shown) or origin < max(int(evidence.first[stream]), int(shown[0])):
        return None
    time = evidence.time[origin + horizons]
    return _path(evidence, stream, time, np.full(len(horizons), origin), np.arange(len(horizons)))
