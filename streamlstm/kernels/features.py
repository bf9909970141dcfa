"""What a network reads of a stream's own past, and the straight path from there to the forecast.

Everything is relative to the newest value x_t, and the network's part to how much the stream moves from one event to
the next, so a forecast follows a stream wherever it goes. For the lags of a model (model/features.py)

    r_t = float32(x_t - anchor)                  what the history holds; the anchor is a value of the stream
    s_t = mean of |x_t - x_{t-1}|, the newest with weight 1 / min(events - 1, window)
    d_j = (anchor + r_{t - lag_j}) - x_t         0 where the stream is younger than the lag
    u_j = d_j / s_t within [-CLIP, CLIP]         0 where the stream hasn't moved

    forecast of horizon k = x_t + sum_j skip[k, j] d_j + s_t y_k         y = head of the LSTM over the u_j that are fed

The sum is a skip connection around the network ("highway": Lai et al. 2018, LSTNet): the linear autoregression, in
which s_t cancels. Training reads the same functions.

The anchor is the first value, until it has proved a stray one or the stream has gone far from it, so that float32 would
round away what happens there: at every 8th event, where the newest 8 values lie further from the anchor than FAR times
the span of them, the newest becomes the anchor. What the history holds by then keeps the anchor that it was taken by:
the one before. So there is a third one only when nothing held by the first is needed any more, SETTLED or R events
later.

History in a row (kernels.layout), at word `history_at`: anchor float64, the anchor before it float64, the number of the
first event with the newer one int64 (0: there is but one), s float64, then the values r as a ring, float32 [R]: event
number n, from 1, lies at n mod R. R is the longest lag asked for + 1 + MOST_EVENTS: a call may hold so many events of
one stream, and what the oldest of them asks for is there until the last has been answered.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.block import dot_in_halves
from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.layout import LINE, round_up
from streamlstm.kernels.memory import load_float32, load_int64, prefetch, store_float32, store_int64
from streamlstm.kernels.words import load_real, signed, store_real

CLIP = 8.0
DEFAULT_WINDOW = 1000
MOST_EVENTS = 32
LIMIT = 1e30
"""Largest |x| that a history takes: differences and their weighted sums stay finite as float32."""

ANCHOR, FORMER_ANCHOR, ANCHORED, MEAN_CHANGE = 0, 8, 16, 24  # bytes from the history's start
VALUES = 32
NEWEST = 8  # values that are held to the anchor, at every event whose number this divides
FAR = 4096.0
SETTLED = 1024
_STILL, _TINIEST = 1e-12, 1e-300
_ROWS_AHEAD = 8  # of `relate`, which reads a whole history
_ENTRIES_AHEAD = 32  # of `remember`

single = cast(Callable[[Any], float], np.float32)
Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]
Float32s = NDArray[np.float32]


def history_length(longest_lag: int) -> int:
    """R, values kept per stream."""
    return longest_lag + 1 + MOST_EVENTS


def lanes_of(lags: int) -> int:
    """Q: differences of so many lags, in whole vectors of 16."""
    return round_up(lags, 16)


@embedded
def relative(x: float, anchor: float) -> float:
    """r: what the history holds of a value."""
    return single(x - anchor)


@embedded
def has_strayed(now: float, anchor: float, least: float, most: float) -> bool:
    """Whether `now` and values before it, within [least, most], lie so far from the anchor that they lose by it."""
    return abs(now - anchor) > FAR * (max(most, now) - min(least, now))


@embedded
def mean_change(mean: float, changes: int, window: int, change: float) -> float:
    """s after the change number `changes`, counted from 1."""
    return mean + (change - mean) / min(changes, window)


@embedded
def unit_of(mean: float, x: float) -> float:
    """s where it can be divided by, else 0: the stream has not moved."""
    return mean if mean > _STILL * abs(x) and mean > _TINIEST else 0.0


@embedded
def network_input(d: float, unit: float) -> float:
    """u; 0 where `unit` is."""
    return single(min(max(d / unit, -CLIP), CLIP) if unit > 0.0 else 0.0)


@compiled(
    "void(int64, int64[::1], int64[::1], float64[:, ::1], int64, int64[:, ::1], int64, int64, int64, int64[::1],"
    " int64[::1], float32[:, ::1], float32[::1], float64[::1], float64[::1], float32[:, ::1], float64[:, ::1],"
    " float64[::1])"
)
def relate(
    n: int,
    slot: Int64s,
    n_seen: Int64s,
    x: Float64s,
    target: int,
    rows: Int64s,
    history_at: int,
    history: int,
    window: int,
    lags: Int64s,
    fed: Int64s,
    skip: Float32s,
    differences: Float32s,
    offset: Float64s,
    scale: Float64s,
    x_network: Float32s,
    y_base: Float64s,
    y_scale: Float64s,
) -> None:
    """Take the events into their streams' histories, in order, and relate each to its own. Slot -1 is skipped.

    n_seen int64 [N], this event included; x float64 [N, F], |x| <= LIMIT; rows int64 [S, row_bytes / 8] is the arena,
    `history` R; lags int64 [J], each below R - MOST_EVENTS, ascending; fed int64 [U], ascending places in lags; skip
    float32 [O, Q], Q = `lanes_of` J, zeros past J; differences float32 [Q] is scratch, zeros past J; offset, scale
    float64 [F] of the inputs besides the target. Writes x_network float32 [N, U + F - 1], y_base float64 [N, O] and
    y_scale float64 [N]: the forecast is y_base + y_scale * y. The sum over the lags is one of float32, in the fixed
    order of kernels.block.dot_in_halves.
    """
    base = signed(rows.ctypes.data)
    row_bytes = rows.shape[1] * 8
    outputs, lanes, inputs = skip.shape[0], skip.shape[1], x.shape[1]
    d_at, skip_at = signed(differences.ctypes.data), signed(skip.ctypes.data)
    history_bytes = VALUES + 4 * history
    for i in range(n):
        if i + _ROWS_AHEAD < n and slot[i + _ROWS_AHEAD] >= 0:
            ahead = base + slot[i + _ROWS_AHEAD] * row_bytes + 8 * history_at
            for line in range(0, history_bytes, LINE):
                prefetch(ahead + line)
        if slot[i] < 0:
            continue
        at = base + slot[i] * row_bytes + 8 * history_at
        now = x[i, target]
        mean = _remember(at, history, n_seen[i], window, now)
        anchor, former = load_real(at + ANCHOR), load_real(at + FORMER_ANCHOR)
        anchored = load_int64(at + ANCHORED)
        unit = unit_of(mean, now)
        y_scale[i] = unit
        newest = n_seen[i] % history
        entered = 0
        for j in range(lags.shape[0]):
            d = 0.0
            if lags[j] < n_seen[i]:
                place = newest - lags[j]
                if place < 0:
                    place += history
                held_by = anchor if n_seen[i] - lags[j] >= anchored else former
                d = (held_by + np.float64(load_float32(at + VALUES + 4 * place))) - now
            differences[j] = single(d)
            if entered < fed.shape[0] and fed[entered] == j:
                x_network[i, entered] = network_input(d, unit)
                entered += 1
        for k in range(outputs):
            y_base[i, k] = now + np.float64(dot_in_halves(d_at, skip_at + 4 * lanes * k, lanes))
        for k in range(inputs):
            if k != target:
                x_network[i, entered] = (x[i, k] - offset[k]) / scale[k]
                entered += 1


@compiled("void(int64, int64[::1], int64[::1], float64[:, ::1], int64, int64[:, ::1], int64, int64, int64)")
def remember(
    n: int,
    slot: Int64s,
    n_seen: Int64s,
    x: Float64s,
    target: int,
    rows: Int64s,
    history_at: int,
    history: int,
    window: int,
) -> None:
    """Take the events into their streams' histories: `relate` for a model that reads no lags."""
    base = signed(rows.ctypes.data)
    row_bytes = rows.shape[1] * 8
    for i in range(n):
        if i + _ENTRIES_AHEAD < n and slot[i + _ENTRIES_AHEAD] >= 0:
            ahead = base + slot[i + _ENTRIES_AHEAD] * row_bytes + 8 * history_at
            prefetch(ahead)
            prefetch(ahead + VALUES + 4 * (n_seen[i + _ENTRIES_AHEAD] % history))
        if slot[i] >= 0:
            at = base + slot[i] * row_bytes + 8 * history_at
            _remember(at, history, n_seen[i], window, x[i, target])


@embedded
def _remember(at: int, history: int, n_seen: int, window: int, now: float) -> float:
    """Enter `now` as event number n_seen into the history at this address; returns s."""
    if n_seen == 1:
        store_real(at + ANCHOR, now)
        store_int64(at + ANCHORED, 0)
        store_real(at + MEAN_CHANGE, 0.0)
        store_float32(at + VALUES + 4 * (1 % history), np.float32(0.0))
        return 0.0
    mean = load_real(at + MEAN_CHANGE)
    mean = mean_change(mean, n_seen - 1, window, abs(now - _value(at, history, n_seen - 1)))
    store_real(at + MEAN_CHANGE, mean)
    if n_seen % NEWEST == 0:
        _move_anchor(at, history, n_seen, now)
    store_float32(at + VALUES + 4 * (n_seen % history), relative(now, load_real(at + ANCHOR)))
    return mean


@embedded
def _value(at: int, history: int, number: int) -> float:
    """What the history at this address holds of the stream's event of that number."""
    held_by: float = load_real(at + (ANCHOR if number >= load_int64(at + ANCHORED) else FORMER_ANCHOR))
    return held_by + np.float64(load_float32(at + VALUES + 4 * (number % history)))


@compiled
def _move_anchor(at: int, history: int, number: int, now: float) -> None:
    """Make `now`, the value of that event, the anchor, if it has to be and none is left of the one before."""
    anchored = load_int64(at + ANCHORED)
    if anchored > 0 and number - anchored < max(history, SETTLED):
        return
    least = most = now
    for before in range(1, NEWEST):
        value = _value(at, history, number - before)
        least, most = min(least, value), max(most, value)
    anchor = load_real(at + ANCHOR)
    if has_strayed(now, anchor, least, most):
        store_real(at + FORMER_ANCHOR, anchor)
        store_real(at + ANCHOR, now)
        store_int64(at + ANCHORED, number)


@compiled("void(int64, int64[::1], float32[:, ::1], float64[:, ::1], float64[::1], float64[:, ::1])")
def add_network(n: int, slot: Int64s, y: Float32s, y_base: Float64s, y_scale: Float64s, yhat: Float64s) -> None:
    """yhat = y_base + y_scale * y, float64 [N, O]: `relate`'s lines taken at the network's outputs y float32 [N, O]."""
    for i in range(n):
        if slot[i] >= 0:
            for k in range(y.shape[1]):
                yhat[i, k] = y_base[i, k] + y_scale[i] * np.float64(y[i, k])


@compiled("void(int64, int64[::1], float64[:, ::1], int64[:, ::1], int64)")
def keep(n: int, slot: Int64s, yhat: Float64s, rows: Int64s, yhat_at: int) -> None:
    """Let each stream's row remember its forecast."""
    base = signed(rows.ctypes.data) + 8 * yhat_at
    for i in range(n):
        if slot[i] >= 0:
            for k in range(yhat.shape[1]):
                store_real(base + slot[i] * rows.shape[1] * 8 + 8 * k, yhat[i, k])


@compiled("void(float64[::1], int64[::1], int64, float64[::1], float64[::1])")
def survey_changes(x: Float64s, start: Int64s, window: int, held: Float64s, unit: Float64s) -> None:
    """held float64 [N], anchor + r, and the unit float64 [N] (s, or 0) after each row of a history: rows [start[s],
    start[s + 1]) of x [N] are those of stream s. No lag is known yet: of a ring longer than SETTLED a third anchor may
    come earlier here than in serving, which changes the rounding of what lies between.
    """
    for stream in range(start.shape[0] - 1):
        first = start[stream]
        anchor, anchored, mean = x[first], 0, 0.0
        for row in range(first, start[stream + 1]):
            number = row - first + 1
            if number > 1:
                mean = mean_change(mean, number - 1, window, abs(x[row] - held[row - 1]))
            if number % NEWEST == 0 and (anchored == 0 or number - anchored >= SETTLED):
                newest = held[row + 1 - NEWEST : row]
                if has_strayed(x[row], anchor, newest.min(), newest.max()):
                    anchor, anchored = x[row], number
            held[row] = anchor + np.float64(relative(x[row], anchor))
            unit[row] = unit_of(mean, x[row])
