"""What became of a stream's forecasts, and what follows for the next ones: guard, intervals, self-scoring.

Three candidates for the value h steps ahead: the model, the newest value ("naive"), the value of whole seasons before
("seasonal"). For each horizon, at every event:

    join      the forecast made h events ago meets its actual y:
                  limit  =  LIMIT max(scale, E_naive)
                  scale  <- scale + g (min(|y - yhat|, limit) - scale)          g: 1 / residuals at first
                  E_c    <- E_c + g (min(|y - candidate_c|, limit) - E_c)
                  log q of each side <- log q + own step + common step
    combine   weights max((min E / E_c)^4 - WORTHLESS, 0): inverse errors (Bates and Granger 1969), but steeper;
              mixed = their mean;  yhat = mixed + trust (model - mixed)
              trust = 1 / (1 + DISTRUST (E_model / scale)^16), 0 where the model has no weight
              lower = yhat - q_below scale,  upper = yhat + q_above scale

Where what was emitted did worse than the model alone, trust goes back to the model.

The steps of log q are those of quantile tracking (Gibbs and Candes 2021, "Adaptive conformal inference under
distribution shift"; Angelopoulos, Candes and Tibshirani 2023, "Conformal PID control"), a missed side's up and the
others' down so that they cancel when misses come as often as they should:

    own step      eta_own (missed on this side - (1 - level) / 2)      the sides share the misses equally
    common step   eta_both (missed on any side - (1 - level))          together they have as many as promised

The second is the stronger one: where one side can't be missed (a floor, a value that repeats) the other makes up for
it. Over any T events the share of misses differs from what was promised by the change of the sides' mean log q over
(eta_both + eta_own / 2) T, whatever the series does. What is missed is the interval that was emitted, h steps ago. A
horizon without residuals yet has the interval of the longest shorter one that has some, widened as if errors grew with
the horizon.

Only + - * and /: a function of the stream's events alone, the same bits on every machine. yhat less the anchor and
the widths are float32 numbers exactly, so what waits in the row is what was emitted. Values and errors beyond float32's
range are cut off to it.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels import judge_layout as at
from streamlstm.kernels.anomaly import WORDS as ANOMALY_WORDS
from streamlstm.kernels.anomaly import anomaly_score
from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.features import ANCHOR, ANCHORED, FORMER_ANCHOR
from streamlstm.kernels.layout import LINE
from streamlstm.kernels.memory import (
    load_float32,
    load_int32,
    load_int64,
    prefetch,
    store_float32,
    store_int32,
)
from streamlstm.kernels.observe import GAP
from streamlstm.kernels.words import load_real, signed, store_real

FLOAT_MAX = float(np.finfo(np.float32).max)
LIMIT = 20.0  # times what is usual: one absurd value counts for some events, not for ever
WORTHLESS = 0.0016  # 0.2^4: a candidate with five times the error of the best has no say
DISTRUST = 3.0  # of the model beside the mean of the candidates: where both were as good, 1 / (1 + DISTRUST) of the way
SQUARINGS = 4  # to the 16th: a tenth more error is a lot
FIRST_Q = 2.5  # half the width in mean absolute residuals: 5 % of a Laplace distribution lie beyond 2.3
UNSURE = 3.0  # the interval is 1 + UNSURE / residuals times as wide
MOST = 1 << 24  # events and residuals are counted up to here: as far as float32 counts
NARROWEST, WIDEST = 1e-3, 1e4  # bounds of q
TINY = 1e-60  # two errors of zero are worth the same
PREFETCH_AHEAD = 16

growth = embedded(at.growth)

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


@embedded
def within(value: float) -> float:
    """Cut off to the range of float32; NaN stays."""
    return min(max(value, -FLOAT_MAX), FLOAT_MAX)


@embedded
def load(words: int, what: int) -> float:
    return np.float64(load_float32(words + 4 * what))


@embedded
def store(words: int, what: int, value: float) -> None:
    store_float32(words + 4 * what, np.float32(value))


@embedded
def modulo(n: int, divisor: int, reciprocal: float) -> int:
    """n mod divisor for 0 <= n < 2^52 without a division; reciprocal = 1 / divisor in float64."""
    rest = n - signed(np.float64(n) * reciprocal) * divisor
    if rest < 0:
        rest += divisor
    if rest >= divisor:
        rest -= divisor
    return rest


@embedded
def anchors(anchor_at: int, number: int) -> tuple[float, float, int]:
    """The anchor of event `number`, how far the one of values from before it lies from that, and of how many events
    before that first has to do with that one.
    """
    newer, anchored = load_real(anchor_at + ANCHOR), load_int64(anchor_at + ANCHORED)
    if anchored == 0:
        return newer, 0.0, number
    former = load_real(anchor_at + FORMER_ANCHOR)
    if number < anchored:
        return former, 0.0, number
    return newer, former - newer, number - anchored


@embedded
def ring_value(ring_at: int, position: int, lag: int, ring: int, anchored: int, shift: float) -> float:
    """y - anchor of `lag` < R events before the one at `position`; more than `anchored` before, by an anchor that lies
    `shift` from that.
    """
    position -= lag
    if position < 0:
        position += ring
    value = np.float64(load_float32(ring_at + 4 * position))
    return within(value + shift if lag > anchored else value)


@embedded
def next_q(q: float, rate: int, side: int, case: int, seen: float) -> float:
    which = 2 * case + side
    if seen <= at.FEW:
        haste = 1.0 + load_real(rate + 8 * at.HASTE) / seen
        q *= growth(haste * load_real(rate + 8 * (at.LOG_STEP + which)))
    else:
        q *= load_real(rate + 8 * (at.FACTOR + which))
    return min(max(q, NARROWEST), WIDEST)


@embedded
def add_errors(total: int, residual: float, naive: float, seasonal: float) -> None:
    scored, absolute = load_real(total + 8 * at.SCORED), load_real(total + 8 * at.ABSOLUTE)
    squared, naive_sum = load_real(total + 8 * at.SQUARED), load_real(total + 8 * at.NAIVE_ABSOLUTE)
    seasonal_sum = load_real(total + 8 * at.SEASONAL_ABSOLUTE)
    store_real(total + 8 * at.SCORED, scored + 1.0)
    store_real(total + 8 * at.ABSOLUTE, absolute + abs(residual))
    store_real(total + 8 * at.SQUARED, squared + residual * residual)
    store_real(total + 8 * at.NAIVE_ABSOLUTE, naive_sum + naive)
    store_real(total + 8 * at.SEASONAL_ABSOLUTE, seasonal_sum + seasonal)


@embedded
def add_coverage(total: int, case: int, width: float) -> None:
    count = total + 8 * (at.COVERED + case)
    store_real(count, load_real(count) + 1.0)
    store_real(total + 8 * at.WIDTHS, load_real(total + 8 * at.WIDTHS) + width)


@embedded
def join(
    words: int,
    rate: int,
    total: int,
    pending: int,
    y: float,
    origin: float,
    anchor: float,
    naive: float,
    seasonal: float,
) -> float:
    """Let the forecast at `pending` meet its actual y; returns y - yhat.

    words, rate, total: addresses of the horizon's row of each. What is pending is relative to `origin`, the anchor of
    its event, naive and seasonal to `anchor`.
    """
    yhat = origin + load(pending, at.PENDING_YHAT)
    below = load(pending, at.PENDING_BELOW)
    above = load(pending, at.PENDING_ABOVE)
    residual = y - yhat
    model_error = abs(y - (origin + load(pending, at.PENDING_MODEL)))
    naive_error, seasonal_error = abs(y - (anchor + naive)), abs(y - (anchor + seasonal))
    add_errors(total, residual, naive_error, seasonal_error)

    gain, seen = load_real(rate + 8 * at.GAIN), min(load(words, at.RESIDUALS) + 1.0, np.float64(MOST))
    model_mean, naive_mean = load(words, at.MODEL_ERROR), load(words, at.NAIVE_ERROR)
    seasonal_mean, scale = load(words, at.SEASONAL_ERROR), load(words, at.SCALE)
    usual = max(scale, naive_mean)
    limit = min(LIMIT * usual, FLOAT_MAX) if usual > 0.0 and seen > 4.0 else FLOAT_MAX
    part = gain if seen * gain >= 1.0 else 1.0 / seen
    scale += part * (min(abs(residual), limit) - scale)
    q_below, q_above = load(words, at.BELOW), load(words, at.ABOVE)
    if seen == 1.0:
        q_below = q_above = FIRST_Q
    if below < np.inf:
        case = at.LEFT_BELOW * signed(y < yhat - below) + at.LEFT_ABOVE * signed(y > yhat + above)
        add_coverage(total, case, below + above)
        q_below, q_above = next_q(q_below, rate, 0, case, seen), next_q(q_above, rate, 1, case, seen)
    store(words, at.MODEL_ERROR, model_mean + part * (min(model_error, limit) - model_mean))
    store(words, at.NAIVE_ERROR, naive_mean + part * (min(naive_error, limit) - naive_mean))
    store(words, at.SEASONAL_ERROR, seasonal_mean + part * (min(seasonal_error, limit) - seasonal_mean))
    store(words, at.SCALE, scale)
    store(words, at.BELOW, q_below)
    store(words, at.ABOVE, q_above)
    store(words, at.RESIDUALS, seen)
    return residual


@embedded
def weight(least: float, error: float) -> float:
    ratio = (least + TINY) / (error + TINY)
    ratio *= ratio
    return max(ratio * ratio - WORTHLESS, 0.0)


@embedded
def combine(words: int, model: float, naive: float, seasonal: float, has_season: bool) -> float:
    """The mean of the candidates, weighted by what they were worth, and back towards the model where that did harm; the
    model where nothing is known.
    """
    if load(words, at.RESIDUALS) == 0.0:
        return model
    model_error, naive_error = load(words, at.MODEL_ERROR), load(words, at.NAIVE_ERROR)
    seasonal_error = load(words, at.SEASONAL_ERROR) if has_season else np.inf
    least = min(model_error, naive_error, seasonal_error)
    model_weight, seasonal_weight = weight(least, model_error), weight(least, seasonal_error)
    change = model_weight * (model - naive) + seasonal_weight * (seasonal - naive)
    mixed = naive + change / (model_weight + seasonal_weight + weight(least, naive_error))
    if model_weight == 0.0:
        return mixed
    return mixed + trust(load(words, at.SCALE), model_error) * (model - mixed)


@embedded
def trust(emitted: float, model: float) -> float:
    """How far to go from the mean back to the model, by the mean errors of what was emitted and of the model: 1/4 of
    the way where they are the same, all of it where mixing does harm. No NaN: both are finite, and not below 0.
    """
    ratio = (model + TINY) / (emitted + TINY)
    for _ in range(SQUARINGS):
        ratio *= ratio
    return 1.0 / (1.0 + DISTRUST * ratio)


@embedded
def prefetch_row(row: int, plan: Int64s, table: int, number: int, position: int) -> None:
    """Ask for what one event reads of its row."""
    horizons = plan[at.HORIZONS]
    judged = row + plan[at.JUDGED_AT]
    for line in range(judged // LINE * LINE, judged + 4 * (at.TRACKED_AT + at.TRACKED * horizons), LINE):
        prefetch(line)
    anomaly = row + plan[at.ANOMALY_AT]
    for line in range(anomaly // LINE * LINE, anomaly + 8 * ANOMALY_WORDS, LINE):
        prefetch(line)
    prefetch(row + plan[at.ANCHOR_AT])
    ring, ring_at = plan[at.RING], row + plan[at.RING_AT]
    prefetch(ring_at + 4 * position)
    last = signed(0)
    for k in range(horizons):
        place = at.PLAN_WORDS + at.HORIZON_WORDS * k
        slot = modulo(number, plan[place + at.HORIZON], load_real(table + 8 * (at.RATES * k + at.RECIPROCAL)))
        prefetch(row + plan[at.PENDING_AT] + 4 * at.PENDING * (plan[place + at.PENDING_FIRST] + slot))
        lag = plan[place + at.SEASONAL_LAG]
        if lag != last:
            prefetch(ring_at + 4 * (position - lag if position >= lag else position - lag + ring))
            last = lag


@compiled(
    "void(int64, int64[::1], float64[:, ::1], float64[::1], float64[:, ::1], int64[::1], int64[::1], uint8[::1],"
    " float64[:, ::1], float64[:, ::1], int64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1])"
)
def judge(
    n: int,
    plan: Int64s,
    rates: Float64s,
    least: Float64s,
    totals: Float64s,
    slot: Int64s,
    n_seen: Int64s,
    status: NDArray[np.uint8],
    given: Float64s,
    x: Float64s,
    rows: Int64s,
    yhat: Float64s,
    lower: Float64s,
    upper: Float64s,
    score: Float64s,
) -> None:
    """Judge each event's stream by it, in order, and make of the model's forecast the one to emit.

    plan, rates: see kernels.judge_layout; least float64 [2]: the deviation, in the unit of y and as a part of the mean,
    that an anomaly has at least (kernels.anomaly); totals float64 [O][TOTALS] is added to, in event order. slot int64
    [N], -1 is skipped; n_seen, status as `observe` wrote them; given float64 [N, F] as it came, NaN where missing, x
    [N, F] with that filled in; rows int64 [S, row_bytes / 8] is the arena, whose rings hold all events of the call.
    yhat float64 [N, O] holds the model's forecasts (NaN: none) and gets the emitted ones; lower, upper float64 [N, O]
    get the interval: infinite until a residual is known. score float64 [N] gets the anomaly score, NaN: not known.

    An event after a gap joins no forecast, and neither does one whose value was filled in.
    """
    base = signed(rows.ctypes.data)
    row_bytes = rows.shape[1] * 8
    horizons, ring, target = plan[at.HORIZONS], plan[at.RING], plan[at.TARGET]
    guards, yhat_at = plan[at.GUARDS] != 0, plan[at.YHAT_AT]
    period, direction = plan[at.PERIOD], plan[at.DIRECTION]
    table, sums = signed(rates.ctypes.data), signed(totals.ctypes.data)
    per_ring = 1.0 / np.float64(ring)
    for i in range(n):
        if i + PREFETCH_AHEAD < n and slot[i + PREFETCH_AHEAD] >= 0:
            number = n_seen[i + PREFETCH_AHEAD]
            ahead = base + slot[i + PREFETCH_AHEAD] * row_bytes
            prefetch_row(ahead, plan, table, number, modulo(number, ring, per_ring))
        if slot[i] < 0:
            continue
        row = base + slot[i] * row_bytes
        judged = row + plan[at.JUDGED_AT]
        since = 1 if status[i] == GAP else min(signed(load_int32(judged)) + 1, MOST)
        store_int32(judged, np.int32(since))
        y, number = x[i, target], n_seen[i]
        anchor, shift, anchored = anchors(row + plan[at.ANCHOR_AT], number)
        ring_at, position = row + plan[at.RING_AT], modulo(number, ring, per_ring)
        is_known = given[i, target] == y
        newest = ring_value(ring_at, position, 0, ring, anchored, shift)
        expected = np.nan  # the forecast of this event, one step before
        known, shorter, known_scale, known_below, known_above = 0.0, signed(0), 0.0, 0.0, 0.0
        for k in range(horizons):
            words = judged + 4 * (at.TRACKED_AT + at.TRACKED * k)
            rate, total = table + 8 * at.RATES * k, sums + 8 * at.TOTALS * k
            place = at.PLAN_WORDS + at.HORIZON_WORDS * k
            h, lag = plan[place + at.HORIZON], plan[place + at.SEASONAL_LAG]
            waiting = modulo(number, h, load_real(rate + 8 * at.RECIPROCAL))
            pending = row + plan[at.PENDING_AT] + 4 * at.PENDING * (plan[place + at.PENDING_FIRST] + waiting)
            if since > h and is_known:
                naive = ring_value(ring_at, position, h, ring, anchored, shift)
                seasonal = naive
                if 0 < lag < since:
                    seasonal = ring_value(ring_at, position, lag, ring, anchored, shift)
                origin = anchor + shift if h > anchored else anchor
                if h == 1:
                    expected = origin + load(pending, at.PENDING_YHAT)
                join(words, rate, total, pending, y, origin, anchor, naive, seasonal)
            has_season = lag > 0 and since + h > lag
            seasonal = ring_value(ring_at, position, lag - h, ring, anchored, shift) if has_season else newest
            model = within(yhat[i, k] - anchor)
            if model != model:  # noqa: PLR0124 - NaN
                model = newest
            mixed = np.float32(model)
            if guards:
                mixed = np.float32(within(combine(words, model, newest, seasonal, has_season)))
            seen = load(words, at.RESIDUALS)
            if seen > 0.0:
                known, shorter, known_scale = seen, h, load(words, at.SCALE)
                known_below, known_above = load(words, at.BELOW), load(words, at.ABOVE)
            below = above = np.float32(np.inf)
            if known > 0.0:
                unit = known_scale
                if known <= at.FEW:
                    unit *= 1.0 + UNSURE / known
                if shorter != h:
                    unit *= np.float64(h) / np.float64(shorter)
                below, above = np.float32(within(known_below * unit)), np.float32(within(known_above * unit))
            store(pending, at.PENDING_MODEL, model)
            store(pending, at.PENDING_YHAT, np.float64(mixed))
            store(pending, at.PENDING_BELOW, np.float64(below))
            store(pending, at.PENDING_ABOVE, np.float64(above))
            yhat[i, k] = anchor + np.float64(mixed)
            store_real(row + yhat_at + 8 * k, yhat[i, k])
            lower[i, k] = yhat[i, k] - np.float64(below)
            upper[i, k] = yhat[i, k] + np.float64(above)
        score[i] = np.nan
        if is_known:
            seasonal = np.nan
            if 0 < period < since:
                seasonal = anchor + ring_value(ring_at, position, period, ring, anchored, shift)
            score[i] = anomaly_score(
                row + plan[at.ANOMALY_AT], y, expected, seasonal, direction, least[0], least[1]
            )  # fmt: skip
