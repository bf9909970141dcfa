"""Made forecasts of made series, with everything that evidence may hold; and its pairs, found one by one."""

from dataclasses import dataclass

import numpy as np

from streamlstm.evaluation.pairs import Evidence

HORIZONS = (1, 3, 7)
LENGTHS = (60, 25, 9, 1, 40, 2)
MINUTE = 60_000


def made_evidence(seed: int = 1, *, intervals: bool = True, lengths: tuple[int, ...] = LENGTHS) -> Evidence:
    """Streams of different lengths and units; some values missing, one stream began anew, one is constant."""
    rng = np.random.default_rng(seed)
    start = np.concatenate(([0], np.cumsum(lengths)))
    stops, streams = start[1:], len(lengths)
    actual = np.concatenate([10.0**s * (3 + rng.standard_normal(n)) for s, n in enumerate(lengths)])
    actual[rng.random(len(actual)) < 0.05] = np.nan
    actual[start[4] : stops[4]] = 5.0
    tail = start[:-1] + np.floor(0.6 * np.array(lengths)).astype(np.int64)
    first = np.maximum(start[:-1], tail - HORIZONS[-1])
    kept = stops - first
    place = np.cumsum(kept) - kept - first
    row = np.arange(kept.sum()) - np.repeat(place, kept)
    life = np.repeat(np.arange(streams), kept) + (row >= int(start[0]) + 45)
    shape = (int(kept.sum()), len(HORIZONS))
    scale = np.repeat(10.0 ** np.arange(streams), kept)[:, np.newaxis]
    yhat = scale * (3 + 0.5 * rng.standard_normal(shape))
    half = scale * rng.random(shape)
    anomaly = 2 * rng.random(shape[0])
    anomaly[:5] = np.nan
    half[rng.random(shape) < 0.05] = np.nan
    half[rng.random(shape) < 0.05] = np.inf
    return Evidence(
        horizons=HORIZONS, start=start, time=1_730_000_000_000 + MINUTE * np.arange(len(actual)) % 4_000_000,
        actual=actual, tail=tail, first=first, place=place, life=life, yhat=yhat,
        lower=yhat - half if intervals else None, upper=yhat + half if intervals else None,
        anomaly=anomaly if intervals else None, level=0.8,
    )  # fmt: skip


@dataclass(frozen=True)
class Pair:
    event: int
    stream: int
    row: int
    actual: float
    yhat: float
    naive: float
    seasonal: float
    lower: float
    upper: float


def pairs_one_by_one(evidence: Evidence, output: int, period: int) -> list[Pair]:
    """By the words of the definition, an event at a time."""
    horizon, found, event = evidence.horizons[output], [], -1
    season = period * -(-horizon // period)
    for s in range(evidence.streams):
        begin, stop = int(evidence.start[s]), int(evidence.start[s + 1])
        for row in range(int(evidence.tail[s]), stop):
            event += 1
            at = row - horizon
            if at < evidence.first[s]:
                continue
            origin, target = at + int(evidence.place[s]), row + int(evidence.place[s])
            if evidence.life[target] != evidence.life[origin] or np.isnan(evidence.actual[row]):
                continue
            bounds = [
                np.nan if each is None else float(each[origin, output]) for each in (evidence.lower, evidence.upper)
            ]
            found.append(
                Pair(
                    event, s, row, float(evidence.actual[row]), float(evidence.yhat[origin, output]),
                    float(evidence.actual[at]),
                    float(evidence.actual[row - season]) if row - season >= begin else np.nan, *bounds,
                )
            )  # fmt: skip
    return found
