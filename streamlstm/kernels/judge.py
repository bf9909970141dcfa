"""What became of a stream's forecasts, and what follows for the next ones: guard, intervals, self-scoring.

Three candidates for the value h steps ahead: the model, the newest value ("naive"), the value of whole seasons before
("seasonal"). For each horizon, at every event:

    join      the forecast made h events ago meets its actual y:
                  scale  <- scale + g (min(|y - yhat|, RESIDUAL_LIMIT scale) - scale)
                  E_c    <- (1 - g) E_c + min(|y - candidate_c|, ERROR_LIMIT scale)
                  log q of each side <- log q + own step + common step
    combine   weights (min E / E_c)^4, as in inverse-error combination (Bates and Granger 1969) but steeper;
              yhat = their mean;  lower = yhat - q_below scale,  upper = yhat + q_above scale

The steps of log q are those of quantile tracking (Gibbs and Candes 2021, "Adaptive conformal inference under
distribution shift"; Angelopoulos, Candes and Tibshirani 2023, "Conformal PID control"), a missed side's up and the
others' down so that they cancel when misses come as often as they should:

    own step      eta_own (missed on this side - (1 - level) / 2)      the sides share the misses equally
    common step   eta_both (missed on any side - (1 - level))          together they have as many as promised

The second is the stronger one: where one side can't be missed (a floor, a value that repeats) the other makes up for it.
Over any T events the misses differ from what was promised by (log q at the end - log q at the start) / (eta T): this
holds for every series. What is missed is the interval that was emitted, h steps ago.

Only + - * / and sqrt: a function of the stream's events alone, the same bits on every machine. yhat less the anchor and
the widths are float32 numbers exactly, so what waits in the row is what was emitted. Values and errors beyond float32's
range are cut off to it.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.judge_layout import (
    ABOVE,
    ABSOLUTE,
    ANCHOR_AT,
    BELOW,
    BOTH_HIT,
    BOTH_MISS,
    COVERED,
    GAIN,
    HASTE,
    HORIZON,
    HORIZON_WORDS,
    HORIZONS,
    JUDGED_AT,
    MISSED_ABOVE,
    MISSED_BELOW,
    MODEL_ERROR,
    NAIVE_ABSOLUTE,
    NAIVE_ERROR,
    OWN_HIT,
    OWN_MISS,
    PENDING,
    PENDING_ABOVE,
    PENDING_AT,
    PENDING_BELOW,
    PENDING_FIRST,
    PENDING_MODEL,
    PENDING_YHAT,
    PLAN_WORDS,
    RATES,
    RECIPROCAL,
    RESIDUALS,
    RING,
    RING_AT,
    ROOT,
    SCALE,
    SCORED,
    SEASONAL_ABSOLUTE,
    SEASONAL_ERROR,
    SEASONAL_LAG,
    SINCE,
    SQUARED,
    TARGET,
    TOTALS,
    TRACKED,
    WIDTHS,
)
from streamlstm.kernels.layout import LINE
from streamlstm.kernels.memory import (
    load_float32,
    load_int64,
    prefetch,
    store_float32,
    store_int64,
)
from streamlstm.kernels.observe import FILLED, GAP
from streamlstm.kernels.words import load_real, signed, store_real

FLOAT_MAX = float(np.finfo(np.float32).max)
RESIDUAL_LIMIT = 20.0  # times the scale: one absurd value widens the interval 1.8-fold, not for ever
ERROR_LIMIT = 10.0
FIRST_Q = 2.5  # half the width in mean absolute residuals: 5 % of a Laplace distribution lie beyond 2.3
UNSURE = 2.0  # the interval is 1 + UNSURE / residuals times as wide
NARROWEST, WIDEST = 1e-3, 1e4  # bounds of q
PREFETCH_AHEAD = 16

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


@embedded
def within(value: float) -> float:
    """Cut off to the range of float32; NaN stays."""
    return min(max(value, -FLOAT_MAX), FLOAT_MAX)


@embedded
def growth(x: float) -> float:
    """exp(x), nearly: the Pade approximant [2/2]; growth(-x) = 1 / growth(x)."""
    even, odd = 1.0 + x * x / 12.0, 0.5 * x
    return (even + odd) / (even - odd)


@embedded
def modulo(n: int, divisor: int, reciprocal: float) -> int:
    """n mod divisor for 0 <= n < 2^52 without a division; reciprocal = 1 / divisor in float64."""
    rest = n - np.int64(np.float64(n) * reciprocal) * divisor
    if rest < 0:
        rest += divisor
    elif rest >= divisor:
        rest -= divisor
    return rest


@embedded
def ring_value(ring_at: int, position: int, lag: int, ring: int) -> float:
    """y - anchor of `lag` < R events before the one at `position`."""
    position -= lag
    if position < 0:
        position += ring
    return within(np.float64(load_float32(ring_at + 4 * position)))


@embedded
def no_score(at: int, residual: float, y: float) -> float:
    """Stands where the anomaly score will."""
    return np.nan


@embedded
def track_scale(at: int, size: float, gain: float) -> float:
    """The scale after a residual of absolute `size`; counts it."""
    seen = load_real(at + 8 * RESIDUALS) + 1.0
    scale = load_real(at + 8 * SCALE)
    if scale > 0.0 and seen > 4.0:
        size = min(size, RESIDUAL_LIMIT * scale)
    scale += max(gain, 1.0 / seen) * (size - scale)
    store_real(at + 8 * SCALE, scale)
    store_real(at + 8 * RESIDUALS, seen)
    return scale


@embedded
def track_error(at: int, error: float, kept: float, scale: float) -> None:
    error = abs(error)
    if scale > 0.0:
        error = min(error, ERROR_LIMIT * scale)
    store_real(at, kept * load_real(at) + error)


@embedded
def track_quantiles(at: int, rate: int, is_below: bool, is_above: bool) -> None:
    haste = 1.0 + load_real(rate + 8 * HASTE) / load_real(at + 8 * RESIDUALS)
    both = load_real(rate + 8 * (BOTH_MISS if is_below or is_above else BOTH_HIT))
    for side in range(2):
        missed = is_above if side else is_below
        step = both + load_real(rate + 8 * (OWN_MISS if missed else OWN_HIT))
        q = load_real(at + 8 * (BELOW + side))
        store_real(at + 8 * (BELOW + side), min(max(q * growth(haste * step), NARROWEST), WIDEST))


@embedded
def add(at: int, what: int, amount: float) -> None:
    store_real(at + 8 * what, load_real(at + 8 * what) + amount)


@embedded
def join(at: int, rate: int, total: int, pending: int, y: float, anchor: float, naive: float, seasonal: float) -> float:
    """Let the forecast at `pending` meet its actual y; returns y - yhat.

    at, rate, total: addresses of the horizon's words; naive and seasonal are relative to the anchor.
    """
    yhat = anchor + np.float64(load_float32(pending + 4 * PENDING_YHAT))
    below = np.float64(load_float32(pending + 4 * PENDING_BELOW))
    above = np.float64(load_float32(pending + 4 * PENDING_ABOVE))
    model_error = y - (anchor + np.float64(load_float32(pending + 4 * PENDING_MODEL)))
    naive_error, seasonal_error, residual = y - (anchor + naive), y - (anchor + seasonal), y - yhat
    gain = load_real(rate + 8 * GAIN)
    scale = track_scale(at, abs(residual), gain)
    track_error(at + 8 * MODEL_ERROR, model_error, 1.0 - gain, scale)
    track_error(at + 8 * NAIVE_ERROR, naive_error, 1.0 - gain, scale)
    track_error(at + 8 * SEASONAL_ERROR, seasonal_error, 1.0 - gain, scale)
    if below < np.inf:
        is_below, is_above = y < yhat - below, y > yhat + above
        track_quantiles(at, rate, is_below, is_above)
        add(total, MISSED_BELOW, np.float64(is_below))
        add(total, MISSED_ABOVE, np.float64(is_above))
        add(total, COVERED, np.float64(not (is_below or is_above)))
        add(total, WIDTHS, below + above)
    add(total, SCORED, 1.0)
    add(total, ABSOLUTE, abs(residual))
    add(total, SQUARED, residual * residual)
    add(total, NAIVE_ABSOLUTE, abs(naive_error))
    add(total, SEASONAL_ABSOLUTE, abs(seasonal_error))
    return residual


@embedded
def weight(least: float, error: float) -> float:
    if error <= least:
        return 1.0
    ratio = least / error
    ratio *= ratio
    return ratio * ratio


@embedded
def combine(at: int, model: float, naive: float, seasonal: float, has_season: bool) -> float:
    """The mean of the candidates, weighted by what they were worth; `model` may be NaN. The model until there is one."""
    knows_model = model == model  # noqa: PLR0124 - NaN isn't
    if load_real(at + 8 * RESIDUALS) == 0.0:
        return model if knows_model else naive
    model_error, naive_error = load_real(at + 8 * MODEL_ERROR), load_real(at + 8 * NAIVE_ERROR)
    seasonal_error = load_real(at + 8 * SEASONAL_ERROR)
    least = naive_error
    if knows_model:
        least = min(least, model_error)
    if has_season:
        least = min(least, seasonal_error)
    whole, change = weight(least, naive_error), 0.0
    if knows_model:
        share = weight(least, model_error)
        whole += share
        change += share * (model - naive)
    if has_season:
        share = weight(least, seasonal_error)
        whole += share
        change += share * (seasonal - naive)
    return naive + change / whole


@embedded
def prefetch_row(row: int, plan: Int64s, table: int, number: int, first_line: int, last_line: int) -> None:
    """Ask for what one event reads of its row."""
    for line in range(first_line, last_line + 1, LINE):
        prefetch(row + line)
    prefetch(row + plan[ANCHOR_AT])
    ring, ring_at = plan[RING], row + plan[RING_AT]
    position = number % ring
    prefetch(ring_at + 4 * position)
    for k in range(plan[HORIZONS]):
        at = PLAN_WORDS + HORIZON_WORDS * k
        slot = modulo(number, plan[at + HORIZON], load_real(table + 8 * (RATES * k + RECIPROCAL)))
        prefetch(row + plan[PENDING_AT] + 4 * PENDING * (plan[at + PENDING_FIRST] + slot))
        lag = plan[at + SEASONAL_LAG]
        if k == 0 or lag != plan[at + SEASONAL_LAG - HORIZON_WORDS]:
            prefetch(ring_at + 4 * (position - lag if position >= lag else position - lag + ring))


@compiled(
    "void(int64, int64[::1], float64[:, ::1], float64[:, ::1], int64[::1], int64[::1], uint8[::1], float64[:, ::1],"
    " int64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1])"
)
def judge(
    n: int,
    plan: Int64s,
    rates: Float64s,
    totals: Float64s,
    slot: Int64s,
    n_seen: Int64s,
    status: NDArray[np.uint8],
    x: Float64s,
    rows: Int64s,
    yhat: Float64s,
    lower: Float64s,
    upper: Float64s,
    score: Float64s,
) -> None:
    """Judge each event's stream by it, in order, and make of the model's forecast the one to emit.

    plan and rates: kernels.judge_layout; totals float64 [O][TOTALS] is added to, in event order. slot int64 [N], -1 is
    skipped; n_seen, status as `observe` wrote them; x float64 [N, I]; rows int64 [S, row_bytes / 8] is the arena, whose
    rings hold all events of the call. yhat float64 [N, O] holds the model's forecasts (NaN: none) and gets the emitted
    ones; lower, upper float64 [N, O] get the interval: infinite until a residual is known. score float64 [N] gets the
    anomaly score, NaN: not known.

    An event after a gap joins no forecast, and neither does one whose value was filled in.
    """
    base = signed(rows.ctypes.data)
    row_bytes = rows.shape[1] * 8
    horizons, ring, target = plan[HORIZONS], plan[RING], plan[TARGET]
    table, sums = signed(rates.ctypes.data), signed(totals.ctypes.data)
    first_line = plan[JUDGED_AT] // LINE * LINE
    last_line = (plan[JUDGED_AT] + 8 * (TRACKED * horizons)) // LINE * LINE
    for i in range(n):
        if i + PREFETCH_AHEAD < n and slot[i + PREFETCH_AHEAD] >= 0:
            ahead = base + slot[i + PREFETCH_AHEAD] * row_bytes
            prefetch_row(ahead, plan, table, n_seen[i + PREFETCH_AHEAD], first_line, last_line)
        if slot[i] < 0:
            continue
        row = base + slot[i] * row_bytes
        judged = row + plan[JUDGED_AT]
        since = 1 if status[i] == GAP else load_int64(judged + 8 * SINCE) + 1
        store_int64(judged + 8 * SINCE, since)
        y, number, anchor = x[i, target], n_seen[i], load_real(row + plan[ANCHOR_AT])
        ring_at, position = row + plan[RING_AT], number % ring
        newest = ring_value(ring_at, position, 0, ring)
        residual = np.nan
        known, known_root, known_scale, known_below, known_above = 0.0, 1.0, 0.0, 0.0, 0.0
        for k in range(horizons):
            at = judged + 8 + 8 * TRACKED * k
            rate, total = table + 8 * RATES * k, sums + 8 * TOTALS * k
            place = PLAN_WORDS + HORIZON_WORDS * k
            h, lag = plan[place + HORIZON], plan[place + SEASONAL_LAG]
            waiting = modulo(number, h, load_real(rate + 8 * RECIPROCAL))
            pending = row + plan[PENDING_AT] + 4 * PENDING * (plan[place + PENDING_FIRST] + waiting)
            if since > h and status[i] != FILLED:
                if load_real(at + 8 * RESIDUALS) == 0.0:
                    store_real(at + 8 * BELOW, FIRST_Q)
                    store_real(at + 8 * ABOVE, FIRST_Q)
                naive = ring_value(ring_at, position, h, ring)
                seasonal = ring_value(ring_at, position, lag, ring) if 0 < lag < since else naive
                error = join(at, rate, total, pending, y, anchor, naive, seasonal)
                if h == 1:
                    residual = error
            has_season = lag > 0 and since + h > lag
            seasonal = ring_value(ring_at, position, lag - h, ring) if has_season else newest
            model = within(yhat[i, k] - anchor)
            mixed = np.float32(within(combine(at, model, newest, seasonal, has_season)))
            seen, root = load_real(at + 8 * RESIDUALS), load_real(rate + 8 * ROOT)
            if seen > 0.0:
                known, known_root, known_scale = seen, root, load_real(at + 8 * SCALE)
                known_below, known_above = load_real(at + 8 * BELOW), load_real(at + 8 * ABOVE)
            below = above = np.float32(np.inf)
            if known > 0.0:
                unit = known_scale * (root / known_root) * (1.0 + UNSURE / known)
                below, above = np.float32(within(known_below * unit)), np.float32(within(known_above * unit))
            store_float32(pending + 4 * PENDING_MODEL, np.float32(model if model == model else newest))  # noqa: PLR0124
            store_float32(pending + 4 * PENDING_YHAT, mixed)
            store_float32(pending + 4 * PENDING_BELOW, below)
            store_float32(pending + 4 * PENDING_ABOVE, above)
            yhat[i, k] = anchor + np.float64(mixed)
            lower[i, k] = yhat[i, k] - np.float64(below)
            upper[i, k] = yhat[i, k] + np.float64(above)
        score[i] = no_score(judged, residual, y)
