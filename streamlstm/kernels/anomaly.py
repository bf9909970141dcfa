"""The anomaly score of a stream: how far the newest event leaves the largest deviation that the stream remembers.

Five deviations are watched:

    residual    y - yhat            the forecast made before the event
    distance    y - mean            mean: EW mean of about 256 events
    short       mean16 - mean       EW mean of about 16 events: a burst, a short outage
    long        mean128 - mean      EW mean of about 128 events: a change of level
    season      EW mean of y - seasonal, about 6 events: unlike the same time one season ago

Each has two records, of its upward and of its downward deviations: the largest so far, fading by 1 part in 20,000 per
event. The score is the largest of deviation / (factor * record) over the five. Above 1 is anomalous: further out than
the stream has been for some ten thousand events, by more than the factor. Records make the score free of scale and of
the shape of the noise: n exchangeable events hold about log n records, however heavy their tails, so alarms grow rarer
while nothing changes. (Compare the adaptive ranks of conformal anomaly detection, Laxhammar & Falkman 2014.)

An anomaly is reported when it begins and when it grows: the record takes it in at once, and after an alarm the score
is divided by 2, falling back to 1 with a time constant of 32 events.

Nothing poisons a stream. Of one event, means and records take in at most four times the record of the distance. When
256 changes of y in a row, zeros not counted, are below a millionth of that record, the state begins anew. Only + - * /
and comparisons: the same bits everywhere.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.words import load_real, signed, store_real

# A stream's words, float64. Zeros are a new stream.
(
    COUNT,  # events taken in
    LAST,  # y of the latest
    QUIET,  # changes in a row below a millionth of the record of the distance
    MEAN,
    SHORT,
    LONG,
    SEASON,
    ALARM,  # what the score is divided by, less 1
    RECORDS,  # of each deviation, in the order above: upward, downward
) = range(9)
DEVIATIONS = 5
WORDS = RECORDS + 2 * DEVIATIONS

BOTH, UP, DOWN = range(3)
"""Directions: which side of what is expected can be anomalous."""

WARMUP = 100
"""The score is NaN for so many events of a stream."""
MAX_SCORE = 1000.0
"""Also the score of a deviation of a kind that the stream has never had."""
LARGEST = 1e300
"""Larger values, infinities and NaN are not known."""

_KEPT = 1.0 - 1.0 / 20_000
_OF_RESIDUAL, _OF_LEVEL, _OF_SEASON = 1.5, 1.04, 1.4  # the factors
_MEAN, _SHORT, _LONG, _SEASON = 1.0 / 256, 1.0 / 16, 1.0 / 128, 1.0 / 6  # weights of the newest event
_AFTER_ALARM, _CALMING = 1.0, 1.0 / 32
_TAKEN_IN = 4.0
_ROUNDING = 1e-9  # deviations below this part of the mean are none
_NEGLIGIBLE, _QUIET_EVENTS = 1e-6, 256.0

Float64s = NDArray[np.float64]


@embedded
def _against_record(
    records: int, deviation: float, bounded: float, factor: float, least_up: float, least_down: float
) -> float:
    """deviation / (factor * record), 0 where it doesn't count; the two records take in what is `bounded` of it.

    Both are written: which side a deviation is on can't be predicted, so a branch on it would cost more.
    """
    up, down = load_real(records), load_real(records + 8)
    store_real(records, max(up * _KEPT, bounded))
    store_real(records + 8, max(down * _KEPT, -bounded))
    ratio: float = abs(deviation) / (factor * (up if deviation > 0.0 else down))
    return ratio if (deviation > least_up) | (-deviation > least_down) else 0.0


@embedded
def _approach(word: int, target: float, weight: float) -> float:
    """Move the EW mean at `word` to `target` by `weight`; returns it."""
    mean: float = load_real(word)
    mean += weight * (target - mean)
    store_real(word, mean)
    return mean


@embedded
def _within(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)


@embedded
def _is_known(value: float) -> bool:
    return abs(value) <= LARGEST  # NaN fails too


@embedded
def anomaly_score(
    words: int,
    y: float,
    yhat: float,
    seasonal: float,
    direction: int,
    min_dev: float,
    min_dev_relative: float,
) -> float:
    """Take the event y in; returns its score in 0..MAX_SCORE, above 1 anomalous, or NaN while not known.

    `words` is the address of the stream's WORDS float64. `yhat` is the forecast of y made before it, `seasonal` the
    value one season before it; NaN: there is none. A deviation counts on the sides that `direction` names, and when it
    is above `min_dev` (unit of y) and `min_dev_relative` times the size of the mean; the records take in all. An
    unknown y leaves the stream as it was.
    """
    if not _is_known(y):
        return np.nan
    count = load_real(words + 8 * COUNT)
    change = abs(y - load_real(words + 8 * LAST))
    store_real(words + 8 * COUNT, count + 1.0)
    store_real(words + 8 * LAST, y)
    if count < 2.0:  # a stream's first value is often a stray one: the second begins
        for word in (MEAN, SHORT, LONG):
            store_real(words + 8 * word, y)
        return np.nan

    records = words + 8 * RECORDS
    furthest = max(load_real(records + 16), load_real(records + 24))
    bound = _TAKEN_IN * furthest if furthest > 0.0 else np.inf
    mean = load_real(words + 8 * MEAN)
    distance = y - mean
    step = _within(distance, bound)
    taken = mean + step
    all_alike = 1.0 / count if count < 256.0 else 0.0  # so that young means are plain ones
    short = _approach(words + 8 * SHORT, taken, max(_SHORT, all_alike))
    long = _approach(words + 8 * LONG, taken, max(_LONG, all_alike))
    _approach(words + 8 * MEAN, taken, max(_MEAN, all_alike))

    least = max(min_dev, max(min_dev_relative, _ROUNDING) * abs(mean))
    least_up, least_down = np.inf if direction == DOWN else least, np.inf if direction == UP else least
    score: float = _against_record(records + 16, distance, step, _OF_LEVEL, least_up, least_down)
    burst, level = short - mean, long - mean
    score = max(score, _against_record(records + 32, burst, burst, _OF_LEVEL, least_up, least_down))
    score = max(score, _against_record(records + 48, level, level, _OF_LEVEL, least_up, least_down))
    if _is_known(yhat):
        residual = y - yhat
        bounded = _within(residual, bound)
        score = max(score, _against_record(records, residual, bounded, _OF_RESIDUAL, least_up, least_down))
    if _is_known(seasonal):
        unlike = _approach(words + 8 * SEASON, _within(y - seasonal, bound), max(_SEASON, all_alike))
        score = max(score, _against_record(records + 64, unlike, unlike, _OF_SEASON, least_up, least_down))

    if change >= _NEGLIGIBLE * furthest:
        store_real(words + 8 * QUIET, 0.0)
    elif change > 0.0:
        quiet = load_real(words + 8 * QUIET) + 1.0
        store_real(words + 8 * QUIET, quiet)
        if quiet >= _QUIET_EVENTS:
            for word in range(WORDS):
                store_real(words + 8 * word, 0.0)
            return np.nan

    alarm = load_real(words + 8 * ALARM)
    score = min(score, MAX_SCORE) / (1.0 + alarm)
    if count < WARMUP:
        return np.nan
    store_real(words + 8 * ALARM, _AFTER_ALARM if score > 1.0 else alarm * (1.0 - _CALMING))
    return score


@compiled("void(float64[::1], float64[::1], float64[::1], int64, float64, float64, float64[::1], float64[::1])")
def score_series(
    y: Float64s,
    yhat: Float64s,
    seasonal: Float64s,
    direction: int,
    min_dev: float,
    min_dev_relative: float,
    words: Float64s,
    score: Float64s,
) -> None:
    """`anomaly_score` over one stream's events in order: all float64 [N], `words` [WORDS] goes on from where it was."""
    at = signed(words.ctypes.data)
    for i in range(y.shape[0]):
        score[i] = anomaly_score(at, y[i], yhat[i], seasonal[i], direction, min_dev, min_dev_relative)
