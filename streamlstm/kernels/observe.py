"""What a stream remembers besides its LSTM state, and the way of a value into the model and back out.

The header of a row (kernels.layout has its words) is written here. An event passes through these in turn:

    screen          what can be said of it alone: range, key, time; nothing of a stream is read
    observe         what its stream says of it: late, a gap, expired, a missing input; the header advances
    scale_fixed     x to x', by the model's moments,
    scale_running   or by the stream's own
    (the step)
    unscale         the output back to the unit of the target; the row remembers it

Running moments are exponentially weighted with the weight 1/min(n, window): Welford's mean and variance for the first
`window` events (West 1979, "Updating mean and variance estimates"), a sliding memory of about `window` events after.
Both include the current event, so they are causal and a replay gives the same bits.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.layout import LAST_TIME, LINE, N_SEEN
from streamlstm.kernels.memory import load_int64, prefetch, store_int64
from streamlstm.kernels.words import load_real, signed, store_real

# events.batch.Reason and events.forecast.Status; a test holds them together
NULL_VALUE, OUT_OF_RANGE, KEY_TOO_LONG = np.uint8(6), np.uint8(8), np.uint8(11)
REPLAYED, DUPLICATE, OUT_OF_ORDER, TOO_FAR_AHEAD = np.uint8(18), np.uint8(19), np.uint8(20), np.uint8(21)
OK, WARMUP, GAP, LATE, FILLED = np.uint8(0), np.uint8(1), np.uint8(2), np.uint8(3), np.uint8(5)

RUNNING_LIMIT = 1e150  # the square of a value within it is finite in float64
PREFETCH_AHEAD = 48
_STILL, _TINIEST = 1e-9, 1e-300

# The rules of `observe`: int64 words.
(
    INTERVAL,  # the streams' known time step, ms; 0: not known
    WARMUP_EVENTS,
    GAP_MS,  # a longer step is a gap
    GAP_RESETS,  # whether a stream begins anew after a gap
    TTL_MS,  # a stream expires when the partition's watermark is further ahead
    REFUSES_DUPLICATE,
    REFUSES_OUT_OF_ORDER,
    FILLS,  # what a missing input becomes: FILLS_NOT, FILLS_LAST or FILLS_FORECAST
    TARGET,  # which input is forecast
    MOST_EVENTS,  # of one stream in one call; NEVER: any number
    RULES,
) = range(11)
FILLS_NOT, FILLS_LAST, FILLS_FORECAST = range(3)
NEVER = np.iinfo(np.int64).max
NO_TIME = np.iinfo(np.int64).min

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]
Bytes = NDArray[np.uint8]


@compiled(
    "int64(int64, int64[::1], int64[::1], int64[::1], float64[:, ::1], float64[::1], float64[::1], float64, boolean,"
    " int64, int64, int64, uint8[::1], int64[::1])"
)
def screen(
    n: int,
    event_time: Int64s,
    timestamp: Int64s,
    stream_len: Int64s,
    x: Float64s,
    offset: Float64s,
    scale: Float64s,
    limit: float,
    lets_missing: bool,
    max_key_bytes: int,
    max_ahead: int,
    watermark: int,
    reason: Bytes,
    watermarks: Int64s,
) -> int:
    """Refuse rows of one partition, in order, for what stands in them alone; returns the watermark after them.

    A row without a reason gets out_of_range when |(x - offset) / scale| is above `limit` (the largest input that can't
    overflow the step) or NaN, unless missing inputs are let through; key_too_long; or too_far_ahead, when its time is
    more than `max_ahead` ms after its record's timestamp, and that is known. The watermark is the largest event time of
    the rows that have no reason then, and of replayed ones that would have none; `watermarks` int64 [N] has it row by
    row, the row included. NO_TIME: there is none yet.
    """
    inputs = offset.shape[0]
    for i in range(n):
        if reason[i] == 0 or reason[i] == REPLAYED:
            found = np.uint8(0)
            for k in range(inputs):
                z = (x[i, k] - offset[k]) / scale[k]
                if not abs(z) <= limit and not (lets_missing and np.isnan(x[i, k])):  # written so that NaN fails too
                    found = OUT_OF_RANGE
            if found == 0 and stream_len[i] > max_key_bytes:
                found = KEY_TOO_LONG
            if found == 0 and timestamp[i] >= 0 and event_time[i] - timestamp[i] > max_ahead:
                found = TOO_FAR_AHEAD
            if found == 0:
                watermark = max(watermark, event_time[i])
            elif reason[i] == 0:
                reason[i] = found
        watermarks[i] = watermark
    return watermark


@embedded
def _fill(row_x: int, row_yhat: int, x: Float64s, i: int, forecast: int, offset: Float64s, scale: Float64s) -> float:
    """Fill the missing inputs of event i; returns the largest |x'| among what came in."""
    largest = 0.0
    for k in range(offset.shape[0]):
        if np.isnan(x[i, k]):
            x[i, k] = load_real(row_yhat) if k == forecast else load_real(row_x + 8 * k)
            largest = max(largest, abs((x[i, k] - offset[k]) / scale[k]))
    return largest


@compiled(
    "int64(int64, int64[::1], int64[::1], int64[::1], int64[::1], float64[::1], float64[::1], float64, int64[:, ::1],"
    " int64, int64, int64, int64[::1], uint8[::1], int64[::1], int64[::1], float64[:, ::1], uint8[::1], int64[::1],"
    " int64[::1], uint8[::1])"
)
def observe(
    n: int,
    rules: Int64s,
    event_time: Int64s,
    watermarks: Int64s,
    owner: Int64s,
    offset: Float64s,
    scale: Float64s,
    limit: float,
    rows: NDArray[np.int64],
    header_at: int,
    yhat_at: int,
    x_at: int,
    oldest: Int64s,
    touched: Bytes,
    hollow: Int64s,
    slot: Int64s,
    x: Float64s,
    reason: Bytes,
    n_seen: Int64s,
    gap: Int64s,
    status: Bytes,
) -> int:
    """Let the streams see their events, in order; returns how many rows are done, at least one of n > 0.

    It ends early at an event that needs its stream's earlier events of this call stepped first: one that makes the
    stream begin anew, is filled with its forecast, or comes after MOST_EVENTS (at most 255) of its stream. Step the
    rows that are done, then call again from there.

    rules int64 [RULES]; rows int64 [S, row_bytes / 8] is the arena, header_at and the other two words in a row; touched
    uint8 [S] is zero before and after. `watermarks` and `owner`, the partitions' indices, are read only with a
    time to live; `oldest` int64 [partitions] then falls to the event time of a stream that begins. Rows with slot -1
    are skipped. Written, row by row: slot (-1 with a reason: refused, the stream as it was), x (missing inputs filled
    in), n_seen, gap, status. gap is the step of time from this event to the next: `interval` where it is known, else
    that since the stream's latest event unless it is a gap, else -1. `hollow` int64 [N + 1] gets the slots of streams
    that are there only since their first event was refused here, behind their number.
    """
    base = signed(rows.ctypes.data)
    row_words = rows.shape[1]
    inputs = x.shape[1]
    interval, warmup, ttl, gap_ms = rules[INTERVAL], rules[WARMUP_EVENTS], rules[TTL_MS], rules[GAP_MS]
    refuses_duplicate, refuses_out_of_order = rules[REFUSES_DUPLICATE] != 0, rules[REFUSES_OUT_OF_ORDER] != 0
    gap_resets, fills = rules[GAP_RESETS] != 0, rules[FILLS]
    target = rules[TARGET] if fills == FILLS_FORECAST else -1
    most_events = rules[MOST_EVENTS]
    tracks = ttl != NEVER or (gap_ms != NEVER and gap_resets) or fills == FILLS_FORECAST or most_events != NEVER
    first_line, last_line = header_at * 8 // LINE * LINE, ((x_at + inputs) * 8 - 1) // LINE * LINE
    hollow[0] = 0
    done = n
    for i in range(n):
        if i + PREFETCH_AHEAD < n and slot[i + PREFETCH_AHEAD] >= 0:
            ahead = base + slot[i + PREFETCH_AHEAD] * row_words * 8
            prefetch(ahead + first_line)
            for line in range(first_line + LINE, last_line + 1, LINE):
                prefetch(ahead + line)
        s = slot[i]
        if s < 0:
            continue
        row = base + s * row_words * 8
        header = row + 8 * header_at
        seen, last, now = load_int64(header + 8 * N_SEEN), load_int64(header + 8 * LAST_TIME), event_time[i]
        is_touched = tracks and touched[s] != 0
        if is_touched and touched[s] >= most_events:
            done = i
            break
        found, verdict = np.uint8(0), OK
        begins = seen == 0
        if seen > 0:
            if ttl != NEVER and watermarks[i] - last > ttl:
                begins = True
            elif now < last:
                verdict = LATE
                if refuses_out_of_order:
                    found = OUT_OF_ORDER
            elif now == last:
                if refuses_duplicate:
                    found = DUPLICATE
            elif now - last > gap_ms:
                verdict = GAP
                begins = gap_resets
        if fills != FILLS_NOT and found == 0:
            is_missing = False
            for k in range(inputs):
                is_missing |= np.isnan(x[i, k])
            if is_missing and begins:
                found = NULL_VALUE
                if seen == 0:
                    hollow[0] += 1
                    hollow[hollow[0]] = s
            elif is_missing:
                if target >= 0 and is_touched and np.isnan(x[i, target]):
                    done = i
                    break
                verdict = GAP if verdict == GAP else FILLED
                largest = _fill(row + 8 * x_at, row + 8 * yhat_at, x, i, target, offset, scale)
                if not largest <= limit:
                    found = OUT_OF_RANGE
        if found != 0:
            reason[i] = found
            slot[i] = -1
            continue
        if begins:
            if is_touched:
                done = i
                break
            if seen > 0:
                for word in range(row_words):
                    store_int64(row + 8 * word, 0)
                seen = 0
            if ttl != NEVER:
                oldest[owner[i]] = min(oldest[owner[i]], now)
        gap[i] = -1
        if interval > 0:
            gap[i] = interval
        elif seen > 0 and 0 < now - last <= gap_ms:
            gap[i] = now - last
        if seen == 0 or now > last:
            store_int64(header + 8 * LAST_TIME, now)
        seen += 1
        store_int64(header + 8 * N_SEEN, seen)
        store_real(row + 8 * x_at, x[i, 0])
        for k in range(1, inputs):  # the first apart: LLVM makes a vector loop of this, slow to begin
            store_real(row + 8 * (x_at + k), x[i, k])
        n_seen[i] = seen
        if verdict == OK and seen < warmup:
            verdict = WARMUP
        status[i] = verdict
        if tracks:
            touched[s] = np.uint8(min(signed(touched[s]) + 1, 255))
    if tracks:
        for i in range(done):
            if slot[i] >= 0:
                touched[slot[i]] = 0
    return done


@compiled(
    "void(int64, int64[::1], float64[:, ::1], float64[::1], float64[::1], int64, boolean, float32[:, ::1],"
    " float64[::1], float64[::1])"
)
def scale_fixed(
    n: int,
    slot: Int64s,
    x: Float64s,
    offset: Float64s,
    scale: Float64s,
    target: int,
    predicts_change: bool,
    x_scaled: NDArray[np.float32],
    y_base: Float64s,
    y_scale: Float64s,
) -> None:
    """Scale with fixed moments: x' = (x - offset) / scale. Slot -1 is skipped.

    x float64 [N, I]; offset, scale float64 [I]; writes x_scaled float32 [N, I] and, per event, the line
    y_base + y_scale * y that takes the model's output back (float64 [N]).
    """
    inputs = offset.shape[0]
    for i in range(n):
        if slot[i] < 0:
            continue
        for k in range(inputs):
            x_scaled[i, k] = (x[i, k] - offset[k]) / scale[k]
        y_scale[i] = scale[target]
        y_base[i] = x[i, target] if predicts_change else offset[target]


@compiled(
    "void(int64, int64[::1], int64[::1], float64[:, ::1], float64[:, ::1], int64, int64, int64, boolean,"
    " float32[:, ::1], float64[::1], float64[::1])"
)
def scale_running(
    n: int,
    slot: Int64s,
    n_seen: Int64s,
    x: Float64s,
    moments: Float64s,
    moments_at: int,
    window: int,
    target: int,
    predicts_change: bool,
    x_scaled: NDArray[np.float32],
    y_base: Float64s,
    y_scale: Float64s,
) -> None:
    """Advance each stream's moments by its event, in stream order, and scale with them: x' = (x - mean) / sqrt(var).

    `moments` float64 [S, row_bytes / 8] is the arena; mean[I] and var[I] lie at word `moments_at`. A stream that has
    not moved (standard deviation below 1e-9 of its level) gives x' = 0 and scale 0: the forecast is its level.
    |x'| <= sqrt(window), see `_step_limit` in engine.prediction.
    """
    inputs = x.shape[1]
    for i in range(n):
        s = slot[i]
        if s < 0:
            continue
        alpha = 1.0 / min(n_seen[i], window)
        for k in range(inputs):
            mean = moments[s, moments_at + k]
            d = x[i, k] - mean
            mean += alpha * d
            var = (1.0 - alpha) * (moments[s, moments_at + inputs + k] + alpha * d * d)
            moments[s, moments_at + k] = mean
            moments[s, moments_at + inputs + k] = var
            deviation = np.sqrt(var)
            moved = deviation > _STILL * abs(mean) and deviation > _TINIEST
            x_scaled[i, k] = (x[i, k] - mean) / deviation if moved else 0.0
            if k == target:
                y_scale[i] = deviation if moved else 0.0
                y_base[i] = x[i, k] if predicts_change else mean


@compiled("void(int64, int64[::1], float32[:, ::1], float64[::1], float64[::1], int64[:, ::1], int64, float64[:, ::1])")
def unscale(
    n: int,
    slot: Int64s,
    y: NDArray[np.float32],
    y_base: Float64s,
    y_scale: Float64s,
    rows: NDArray[np.int64],
    yhat_at: int,
    yhat: Float64s,
) -> None:
    """yhat = y_base + y_scale * y, float64 [N, O], to the columns and to each stream's row. Slot -1 is skipped."""
    base = signed(rows.ctypes.data) + 8 * yhat_at
    row_bytes = rows.shape[1] * 8
    for i in range(n):
        if i + PREFETCH_AHEAD < n and slot[i + PREFETCH_AHEAD] >= 0:
            prefetch(base + slot[i + PREFETCH_AHEAD] * row_bytes)
        if slot[i] >= 0:
            at = base + slot[i] * row_bytes
            for o in range(y.shape[1]):
                yhat[i, o] = y_base[i] + y_scale[i] * np.float64(y[i, o])
                store_real(at + 8 * o, yhat[i, o])
