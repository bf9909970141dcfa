"""Running errors of the model and of the naive forecast, stream by stream."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deploy.demo.series import Series
from deploy.demo.wire import Forecast


@dataclass(slots=True)
class Errors:
    """Sums of absolute errors over the same events: the model's and those of "the next value is the last one"."""

    n: int = 0
    model: float = 0.0
    naive: float = 0.0

    @property
    def ratio(self) -> float | None:
        """Below 1 the model beats naive; None while naive has made no error."""
        return self.model / self.naive if self.naive > 0 else None


@dataclass(slots=True)
class StreamScore:
    """What came back of one stream: `y` as observed; `yhat[k]` is the forecast made at event k, of event k + 1.

    Errors on the part that trained the model and on the part it had never seen are kept apart.
    """

    stream: str
    n_trained: int
    ts: list[int] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    yhat: list[float] = field(default_factory=list)
    trained: Errors = field(default_factory=Errors)
    held_out: Errors = field(default_factory=Errors)

    def add(self, forecast: Forecast) -> None:
        """Score the forecast before this one, now that the value it spoke of is known."""
        if self.yhat:
            errors = self.trained if len(self.y) < self.n_trained else self.held_out
            errors.n += 1
            errors.model += abs(forecast.y - self.yhat[-1])
            errors.naive += abs(forecast.y - self.y[-1])
        self.ts.append(forecast.ts)
        self.y.append(forecast.y)
        self.yhat.append(forecast.yhat)

    @property
    def current(self) -> Errors:
        """Of the part being replayed."""
        return self.held_out if self.held_out.n else self.trained


class Scoreboard:
    """One score for each series."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.streams = {one.stream: StreamScore(one.stream, one.n_trained) for one in series}

    def add(self, forecast: Forecast) -> None:
        """Score it; a stream that isn't ours is for the ledger to judge."""
        if forecast.stream in self.streams:
            self.streams[forecast.stream].add(forecast)

    def held_out_ratios(self) -> dict[str, float]:
        scored = {stream: score.held_out.ratio for stream, score in self.streams.items()}
        return {stream: ratio for stream, ratio in scored.items() if ratio is not None}


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))
