"""The recipe that makes its own choices: seasons, lags, a linear part, and a network on what that leaves over.

    1. seasons from the autocorrelation of the changes                                            training.periods
    2. sets of lags, from few to many; each fits a linear forecast in front of the tails, believing its rows more and
       less, and the tails choose
    3. the network on what the chosen one leaves over, until the tails don't gain any more            training.fit
    4. the linear part once more on all rows, and the network on all rows for as many steps

Every random draw follows from the seed and the number of the stage.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from streamlstm.errors import BadDataError
from streamlstm.training.fit import Fit, FitSettings, Lent, Look
from streamlstm.training.lag_sets import lag_sets
from streamlstm.training.linear import SLIGHT, STRONG, Doubt, Effort, fit_linear
from streamlstm.training.past import Base, Int64s, Lags, Past
from streamlstm.training.periods import Periods, find_periods
from streamlstm.training.steps import Trainer
from streamlstm.training.tail import STRETCHES, Scores, Tail, score, standard_error, tail_of
from streamlstm.training.weights import Sizes, Weights

LEAST_GAIN = 0.005  # of the mean log RelMAE: what a larger set of lags has to bring, or a stronger doubt
LEAST_CERTAINTY = 1.0  # standard errors of what means have to bring, which are hundreds of lags for each event to serve
MOST_SCORED = 6  # horizons that choices go by
TAIL, ALL = "tail", "all"  # stages of the network


@dataclass(frozen=True)
class AutoSettings:
    """`horizons`: increasing. `seed`: of everything random."""

    horizons: tuple[int, ...] = (1,)
    seed: int = 0
    fit: FitSettings = field(default_factory=FitSettings)


@dataclass(frozen=True)
class Found:
    """The seasons."""

    periods: Periods


@dataclass(frozen=True)
class Tried:
    """A set of lags, and how its linear forecast, with the better `doubt`, does on the tails at `horizons`."""

    lags: Lags
    doubt: Doubt
    horizons: tuple[int, ...]
    scores: Scores


@dataclass(frozen=True)
class Chosen:
    """Of what was tried; `scored`: horizons that the network is held to."""

    lags: Lags
    scored: tuple[int, ...]


@dataclass(frozen=True)
class Advance:
    """A training step of the stage, of at most `steps`, with what was seen there every so often."""

    stage: str
    step: int
    steps: int
    look: Look | None


@dataclass(frozen=True, eq=False)
class Learned:
    """What is to be served. scores: of the tails, by weights that have not seen them, at `scored`; `linear`: without
    the network. network_gains: whether it is used at all, else its head is zero. fits: of each stage of the network.
    """

    base: Base
    weights: Weights
    periods: Periods
    tried: list[Tried]
    scored: tuple[int, ...]
    scores: Scores
    linear: Scores
    network_gains: bool
    fits: dict[str, Fit]


Event = Found | Tried | Chosen | Advance | Learned
Restore = Callable[[str, Fit], None]
"""Told of the stage that begins: puts the network where a checkpoint left it."""
HasTime = Callable[[str], bool]
"""Whether the stage may go on."""


def learn_auto(
    past: Past, tail: Int64s, settings: AutoSettings, lent: Lent, restore: Restore, has_time: HasTime
) -> Iterator[Event]:
    """Tells of each choice, and of each step; `Learned` comes last. tail int64 [S]: where the tail of each stream
    begins. Raises BadDataError when there is nothing to learn from.
    """
    if not (past.unit > 0).any():
        raise BadDataError("history: expected a stream that moves, found every stream constant")
    held = tail_of(past, tail)
    periods = find_periods(past, tail)
    yield Found(periods)
    tried: list[Tried] = []
    for each in _tries(past, tail, held, periods, settings, lent):
        tried.append(each)
        yield each
    best, scored = _choice(tried), tried[0].horizons
    yield Chosen(best.lags, scored)
    before = _base(past, tail, best, settings, lent)
    everything = _base(past, past.start[1:], best, settings, lent)

    def scores_of(trainer: Trainer | None) -> Scores:
        return _at(score(past, held, before, trainer, periods.short), settings.horizons, scored)

    linear = scores = scores_of(None)
    fits: dict[str, Fit] = {}
    if linear.streams:
        fit = fits[TAIL] = Fit(past, tail, before, settings.fit, settings.seed, lent)
        restore(TAIL, fit)
        yield from _advances(TAIL, fit, lambda trainer: scores_of(trainer).mean, settings.fit.steps, has_time)
    gains = bool(fits) and fits[TAIL].best_step > 0
    weights = _silent(before, past)
    if gains:
        weights = fits[TAIL].weights_at_best()
        scores = scores_of(Trainer(weights, executor=lent.executor, threads=lent.threads))
        fit = fits[ALL] = Fit(past, past.start[1:], everything, settings.fit, settings.seed, lent)
        restore(ALL, fit)
        steps = fits[TAIL].best_step
        yield from _advances(ALL, fit, None, steps, has_time)
        if fit.steps >= steps:
            weights = fit.averaged()
    yield Learned(everything, weights, periods, tried, scored, scores, linear, gains, fits)


def scored_horizons(horizons: tuple[int, ...]) -> tuple[int, ...]:
    """The first, the last and, by powers, a few between them."""
    count = min(len(horizons), MOST_SCORED)
    places = np.unique(np.rint(np.geomspace(1, len(horizons), count)).astype(np.int64)) - 1
    return tuple(horizons[k] for k in places)


def _silent(base: Base, past: Past) -> Weights:
    """A network that adds nothing: one unit, of zeros."""
    sizes = Sizes(len(base.lags.fed) + past.others.shape[1], (1,), len(base.horizons))
    return Weights(sizes, np.zeros(sizes.total, np.float32))


def _base(past: Past, stop: Int64s, best: Tried, settings: AutoSettings, lent: Lent) -> Base:
    random = np.random.Generator(np.random.PCG64([settings.seed, 2]))
    skip = fit_linear(past, stop, best.lags, settings.horizons, random, Effort(), lent.executor, best.doubt)
    return Base(best.lags, settings.horizons, skip)


def _choice(tried: list[Tried]) -> Tried:
    """The first that nothing larger beats; the smallest where there is nothing to choose by."""
    best = tried[0]
    for each in tried[1:]:
        least = LEAST_GAIN
        if each.lags.weight is not None and best.lags.weight is None and best.scores.streams:
            least = max(least, LEAST_CERTAINTY * standard_error(each.scores, best.scores))
        if each.scores.mean < best.scores.mean - least:
            best = each
    return best


def _at(scores: Scores, horizons: tuple[int, ...], scored: tuple[int, ...]) -> Scores:
    places = [horizons.index(horizon) for horizon in scored]
    return replace(
        scores, model=scores.model[places], seasonal=scores.seasonal[places], counts=scores.counts[places],
        missed=scores.missed[:, :, places],
    )  # fmt: skip


def _advances(
    stage: str, fit: Fit, mean_score: Callable[[Trainer], float] | None, steps: int, has_time: HasTime
) -> Iterator[Advance]:
    for look in fit.run(mean_score, steps):
        yield Advance(stage, fit.steps, steps, look)
        if not has_time(stage):
            fit.ended = True


def _tries(
    past: Past, tail: Int64s, held: Tail, periods: Periods, settings: AutoSettings, lent: Lent
) -> Iterator[Tried]:
    horizons = scored_horizons(settings.horizons)
    lengths = tail - past.start[:-1]
    sets = lag_sets(periods, settings.horizons[-1], int(lengths.max(initial=0)), int(lengths.sum()))
    for k, lags in enumerate(sets):
        found = []
        for doubt in (SLIGHT, STRONG):
            random = np.random.Generator(np.random.PCG64([settings.seed, 1, k]))
            skip = fit_linear(past, tail, lags, horizons, random, Effort(), lent.executor, doubt)
            found.append(
                Tried(
                    lags, doubt, horizons, score(past, held, Base(lags, horizons, skip), None, periods.short, STRETCHES)
                )
            )
        yield _choice(found)
