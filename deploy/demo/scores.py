"""Running scores of the forecasts against what came and against the naive forecast, stream by stream."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deploy.demo.series import Series
from deploy.demo.wire import Forecast


@dataclass(slots=True)
class Part:
    """What became of the forecasts of some events: `n` of them; sums of absolute errors, the served forecast's and that
    of "the next value is the last one"; how many had an interval, and came to lie in it; how many were anomalous.
    """

    n: int = 0
    error: float = 0.0
    naive_error: float = 0.0
    intervals: int = 0
    covered: int = 0
    anomalies: int = 0

    @property
    def ratio(self) -> float | None:
        """Below 1 the forecasts beat naive; None while naive has made no error."""
        return self.error / self.naive_error if self.naive_error > 0 else None

    @property
    def coverage(self) -> float | None:
        """Share of the intervals that held the value to come; None while there was none."""
        return coverage([self])


@dataclass(slots=True)
class StreamScore:
    """What came back of one stream. The part that trained the model and the part new to it are kept apart."""

    stream: str
    n_trained: int
    forecasts: list[Forecast] = field(default_factory=list)
    trained: Part = field(default_factory=Part)
    held_out: Part = field(default_factory=Part)

    def add(self, forecast: Forecast) -> None:
        """Score the forecast before this one, now that the value it spoke of is known."""
        if self.forecasts:
            part, before = self.held_out if len(self.forecasts) >= self.n_trained else self.trained, self.forecasts[-1]
            part.n += 1
            part.error += abs(forecast.y - before.yhat)
            part.naive_error += abs(forecast.y - before.y)
            part.intervals += before.has_interval
            part.covered += before.has_interval and before.lower <= forecast.y <= before.upper
            part.anomalies += forecast.is_anomaly
        self.forecasts.append(forecast)

    @property
    def current(self) -> Part:
        """The one being replayed."""
        return self.held_out if self.held_out.n else self.trained


class Scoreboard:
    """One score for each series."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.streams = {one.stream: StreamScore(one.stream, one.n_trained) for one in series}

    def add(self, forecast: Forecast) -> None:
        """Score it; a stream that isn't ours is for the ledger to judge."""
        if forecast.stream in self.streams:
            self.streams[forecast.stream].add(forecast)

    def current(self) -> list[Part]:
        """Of each stream the part being replayed."""
        return [score.current for score in self.streams.values()]

    def held_out(self) -> list[Part]:
        return [score.held_out for score in self.streams.values()]

    def held_out_ratios(self) -> dict[str, float]:
        scored = {stream: score.held_out.ratio for stream, score in self.streams.items()}
        return {stream: ratio for stream, ratio in scored.items() if ratio is not None}


def coverage(parts: Sequence[Part]) -> float | None:
    """Of the intervals of all parts together."""
    intervals = sum(part.intervals for part in parts)
    return sum(part.covered for part in parts) / intervals if intervals else None


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))
