"""Which lags a model may look at: the newest values, and the path that the series took one and two seasons before."""

from streamlstm.model.features import MAX_LAG
from streamlstm.training.past import Lags
from streamlstm.training.periods import Periods

SHORT = 12
LONGER = (24, 48)  # newest values: noisy streams gain by them, and they hold several seasons of a few events
SHORT_WITH_SEASON = 3
PATH = 24  # steps of the season before that are looked at, where fewer are forecast
MOST_OF_A_PATH = 48
_FED_BEFORE = (1, 2, 3, 6, 12)  # steps of the path, and the season itself


def lag_sets(periods: Periods, horizon: int, longest: int) -> list[Lags]:
    """From small to large. `horizon`: the longest; `longest`: rows of the longest stream before its tail."""
    short = set(range(1, SHORT + 1))
    sets = [_named("short", short, short)]
    m, M = periods.short, periods.long
    if m < PATH:  # a longer season has a path that reaches as far
        sets += [_named(f"newest {count}", set(range(1, count + 1)), short) for count in LONGER]
    if m:
        sets += _seasonal(m, M, horizon)
    sets.sort(key=lambda each: len(each.lags))
    return [each for each in sets if each.lags[-1] <= min(MAX_LAG, longest // 3)] or sets[:1]


def _seasonal(m: int, M: int, horizon: int) -> list[Lags]:
    """m, M: events of the season and of the long one, 0 where there is none."""
    lags, fed = set(range(1, SHORT_WITH_SEASON + 1)) | _path(m, horizon), {1, 2} | _fed(m)
    sets = [_named("season", lags, fed)]
    if M:
        lags, fed = lags | _path(M, min(horizon, m)), fed | _fed(M)
        sets.append(_named("season and long season", lags, fed))
    second = lags | _path(2 * m, min(horizon, m)) | (_path(2 * M, min(horizon, m)) if M else set())
    sets.append(_named("two of each", second, fed))
    return sets


def _path(period: int, horizon: int) -> set[int]:
    """The value one season before each step that is forecast, and its neighbours; thinned out where that is many."""
    first = max(1, period - max(PATH, min(horizon, period)))
    step = -(-(period + 2 - first) // MOST_OF_A_PATH)
    return {lag for lag in (*range(first, period + 2, step), period - 1, period, period + 1) if lag >= 1}


def _fed(period: int) -> set[int]:
    return {period, *(period - k for k in _FED_BEFORE if period - k >= 1)}


def _named(name: str, lags: set[int], fed: set[int]) -> Lags:
    ordered = tuple(sorted(lags))
    return Lags(name, ordered, tuple(k for k, lag in enumerate(ordered) if lag in fed))
