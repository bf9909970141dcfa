"""What `train` says of what it read, found, tried and chose, and of what the model is worth."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from streamlstm.cli.table import aligned

if TYPE_CHECKING:
    from streamlstm.service.learn import Learned as LearnedByTutorial
    from streamlstm.training.auto import Event, Learned, Tried
    from streamlstm.training.periods import Periods
    from streamlstm.training.tail import Floats, Scores


class Words:
    """Lines for each event of the automatic recipe but its steps."""

    def __init__(self) -> None:
        self._tried: list[Tried] = []
        self._has_season = False

    def of(self, event: "Event") -> Iterator[str]:
        from streamlstm.training.auto import Chosen, Found, Tried

        if isinstance(event, Found):
            self._has_season = event.periods.short > 0
            yield _seasons(event.periods)
        elif isinstance(event, Tried):
            self._tried.append(event)
        elif isinstance(event, Chosen):
            yield from self._table()
            yield self._why(event.lags.name)

    def _table(self) -> Iterator[str]:
        first = self._tried[0]
        if not first.scores.streams:
            return
        yield f"linear forecasts on the tails ({_events(first.scores)}), MAE over that of repeating the last value:"
        names = ["lags", "number", *(f"+{horizon}" for horizon in first.horizons), "mean"]
        rows = [
            [each.lags.name, str(len(each.lags.lags)), *_ratios(each.scores.model), f"{_mean(each):.3f}"]
            for each in self._tried
        ]
        if self._has_season:
            rows.append(["seasonal naive", "", *_ratios(first.scores.seasonal), ""])
        yield from (f"  {line}" for line in aligned(names, rows))

    def _why(self, name: str) -> str:
        from streamlstm.training.auto import LEAST_GAIN

        if not self._tried[0].scores.streams:
            return f"chosen: {name}, as there is no tail to choose by"
        if len(self._tried) == 1:
            return f"chosen: {name}"
        return f"chosen: {name}; a larger set has to gain {100 * LEAST_GAIN:g} % on the tails"


def verdict(learned: "Learned") -> Iterator[str]:
    """What the network added, and how the model does beside the naive forecasts."""
    from streamlstm.training.auto import ALL, TAIL

    scores = learned.scores
    if not scores.streams:
        yield "nothing was kept to hold the model to: it is the linear forecast alone, without a network"
        return
    fit, gain = learned.fits[TAIL], scores.mean - learned.linear.mean
    if learned.network_gains:
        again = learned.fits[ALL].steps >= fit.best_step
        then = "then trained as long on everything" if again else "no time was left to train on everything"
        yield f"the network gains {-100 * gain:.1f} % on the linear forecast, best after {fit.best_step} steps; {then}"
    else:
        yield f"the network gained nothing in {fit.steps} steps: the model is the linear forecast alone"
    yield f"held to {_events(scores)} after what was learned from, MAE over that of repeating the last value:"
    names = ["steps ahead", *(str(horizon) for horizon in learned.scored)]
    rows = [["this model", *_ratios(scores.model)]]
    if learned.network_gains:
        rows.append(["without the network", *_ratios(learned.linear.model)])
    if learned.periods.short:
        rows.append([f"seasonal naive, {learned.periods.short}", *_ratios(scores.seasonal)])
    yield from (f"  {line}" for line in aligned(names, rows))
    if not scores.mean < 0:
        yield (
            "this model is no better than repeating the last value there. Serve it with its guard, which then repeats "
            "the last value, or don't serve it"
        )


def tutorial_verdict(learned: "LearnedByTutorial") -> Iterator[str]:
    scores = learned.scores
    if not scores.count:
        yield f"learned from {learned.windows:,} windows; nothing was kept to hold the model to"
        return
    yield f"learned from {learned.windows:,} windows; held to {scores.count:,} events after them:"
    yield f"  this model                 MAE {scores.mae:.6g}  RMSE {scores.rmse:.6g}"
    yield f"  repeating the last value   MAE {scores.naive_mae:.6g}  RMSE {scores.naive_rmse:.6g}"
    yield f"  RelMAE {scores.rel_mae:.3f}; better on {scores.better} of {scores.streams} streams"
    if not scores.rel_mae < 1:
        yield (
            "this model is worse than repeating the last value: don't serve it. It forecasts levels, in a scale that "
            "all streams share; a model of the change from the last value, as of --recipe auto, does better as a rule"
        )


def _seasons(periods: "Periods") -> str:
    if not periods.short:
        return "season: none found"
    text = f"season: {periods.short} events (strength {periods.strength:.2f}"
    return f"{text}), and {periods.long} ({periods.long_strength:.2f})" if periods.long else f"{text})"


def _events(scores: "Scores") -> str:
    return f"{scores.events:,} events of {scores.streams:,} stream{'' if scores.streams == 1 else 's'}"


def _ratios(values: "Floats") -> list[str]:
    """-: the tails are too short for that horizon."""
    from math import isfinite

    return [f"{value:.3f}" if isfinite(value) else "-" for value in values.tolist()]


def _mean(tried: "Tried") -> float:
    """The geometric mean over horizons."""
    from math import exp

    return exp(tried.scores.mean)
