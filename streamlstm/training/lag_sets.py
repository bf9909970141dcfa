"""Which lags a model may look at: the newest values, and the path that the series took one and two seasons before.

And means of lags further back, of one weight each: what is usual at each point of the season, over several of them, or,
where there is none, around longer and longer ago. A mean of many values tells a level that each of them hides in noise,
at the price of one weight (what exponential smoothing gains by, as a linear forecast).
"""

from collections.abc import Sequence
from itertools import pairwise

from streamlstm.model.features import MAX_LAG
from streamlstm.training.past import Lags
from streamlstm.training.periods import Periods

SHORT = 12
LONGER = (24, 48, 96)  # newest values: noisy streams gain by them, and they hold several seasons of a few events
SHORT_WITH_SEASON = 3
PATH = 24  # steps of the season before that are looked at, where fewer are forecast
MOST_OF_A_PATH = 48
FURTHEST = (192, 384)  # of the means without a season
SEASONS = (4, 16)  # that are averaged
MOST_AVERAGED = 512
_WIDER = 1.5  # times as far back as the stretch of a mean begins it ends
_FED_BEFORE = (1, 2, 3, 6, 12)  # steps of the path, and the season itself
_ROWS_OF_A_WEIGHT = 4


def lag_sets(periods: Periods, horizon: int, longest: int, rows: int) -> list[Lags]:
    """From few weights to many; means behind the path of a long season, which tells most of what they do.

    `horizon`: the longest; `longest`: rows of the longest stream before its tail, `rows`: of all streams.
    """
    short = set(range(1, SHORT + 1))
    sets = [_named("short", short, short)]
    m, M = periods.short, periods.long
    if m < PATH:  # a longer season has a path that reaches as far
        sets += [_named(f"newest {count}", set(range(1, count + 1)), short) for count in LONGER]
    if m:
        sets += _seasonal(m, M, horizon)
    sets = [each for each in sets if each.lags[-1] <= min(MAX_LAG, longest // 3)] or sets[:1]
    means = _seasonal_means(m, M, horizon) if m else _means()
    # a mean is worth something where it isn't whole yet, weights that are as many as the rows are not
    means = [each for each in means if 5 * each.lags[-1] <= 3 * longest and rows >= _ROWS_OF_A_WEIGHT * each.weights]
    return sorted(sets + means, key=lambda each: (M > 0 and each in means, each.weights))


def _means() -> list[Lags]:
    """Short lags, and the mean over each of the longer and longer stretches behind them."""
    short, found = set(range(1, SHORT + 1)), []
    for furthest in FURTHEST:
        ends = [SHORT]
        while ends[-1] < furthest:
            ends.append(min(furthest, int(_WIDER * ends[-1])))
        groups = [range(first + 1, last + 1) for first, last in pairwise(ends)]
        found.append(_named(f"means to {furthest}", short, short, groups))
    return found


def _seasonal_means(m: int, M: int, horizon: int) -> list[Lags]:
    """The newest season or two lag by lag, a long one's path, and the mean of the seasons before at each point."""
    short = set(range(1, SHORT + 1))
    newest, fed = (set(range(1, PATH + 1)), short) if m < PATH else (short | _path(m, horizon), {1, 2} | _fed(m))
    if M:
        newest, fed = newest | _path(M, min(horizon, m)), fed | _fed(M)
    found = []
    for seasons in SEASONS:
        groups = [[lag for lag in range(m + k, seasons * m + 1, m) if lag not in newest] for k in range(m)]
        groups = [group for group in groups if group]
        if groups and seasons * m <= MOST_AVERAGED:
            found.append(_named(f"mean of {seasons} seasons", newest, fed, groups))
    return found


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


def _named(name: str, lags: set[int], fed: set[int], groups: Sequence[Sequence[int]] = ()) -> Lags:
    """groups: lags that share a weight, besides those that have their own."""
    weight = {lag: k for k, lag in enumerate(sorted(lags))}
    weight |= {lag: len(lags) + k for k, group in enumerate(groups) for lag in group}
    ordered = tuple(sorted(weight))
    places = tuple(k for k, lag in enumerate(ordered) if lag in fed)
    return Lags(name, ordered, places, tuple(weight[lag] for lag in ordered) if groups else None)
