"""What a stream remembers besides its LSTM state, and the way of a value into the model and back out.

The header region of a row, at `header_at` (in 8-byte words from the row's start), holds

    n_seen      int64    events of this stream so far
    last_time   int64    latest event time, epoch ms
    mean[I]     float64  running moments, only for running scaling
    var[I]      float64

Running moments are exponentially weighted with the weight 1/min(n, window): Welford's mean and variance for the first
`window` events (West 1979, "Updating mean and variance estimates"), a sliding memory of about `window` events after.
Both include the current event, so they are causal and a replay gives the same bits.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.memory import prefetch
from streamlstm.kernels.words import signed

OUT_OF_RANGE = np.uint8(8)  # events.batch.Reason.OUT_OF_RANGE; a test holds the two together
RUNNING_LIMIT = 1e150  # the square of a value within it is finite in float64
PREFETCH_AHEAD = 48

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


@compiled
def normalise(
    n: int,
    x: Float64s,
    offset: Float64s,
    scale: Float64s,
    limit: float,
    target: int,
    predicts_change: bool,
    reason: NDArray[np.uint8],
    x_scaled: NDArray[np.float32],
    y_base: Float64s,
    y_scale: Float64s,
) -> None:
    """Scale with fixed moments: x' = (x - offset) / scale. Rows with a reason are left alone.

    x float64 [N, I]; offset, scale float64 [I]; writes x_scaled float32 [N, I] and, per event, the line
    y_base + y_scale * y that takes the model's output back (float64 [N]).
    |x'| above `limit` (the largest input that cannot overflow the step) or NaN sets `reason` to out_of_range.
    """
    inputs = offset.shape[0]
    for i in range(n):
        if reason[i] != 0:
            continue
        for k in range(inputs):
            z = (x[i, k] - offset[k]) / scale[k]
            if not abs(z) <= limit:  # written so that NaN fails too
                reason[i] = OUT_OF_RANGE
            x_scaled[i, k] = z
        y_scale[i] = scale[target]
        y_base[i] = x[i, target] if predicts_change else offset[target]


@compiled
def check_running_range(n: int, x: Float64s, reason: NDArray[np.uint8]) -> None:
    """Refuse values whose square overflows float64, before they can reach a stream's moments."""
    for i in range(n):
        if reason[i] == 0:
            for k in range(x.shape[1]):
                if not abs(x[i, k]) <= RUNNING_LIMIT:
                    reason[i] = OUT_OF_RANGE


@compiled
def observe(
    n: int,
    slot: Int64s,
    event_time: Int64s,
    interval: int,
    rows: NDArray[np.int64],
    header_at: int,
    n_seen: Int64s,
    gap: Int64s,
) -> None:
    """Count each event of its stream and note its time, in stream order. Slot -1 is skipped.

    rows int64 [S, row_bytes / 8] is the arena; modified in its header words. Writes n_seen [N] and gap [N], the step
    of time from this event to the next: `interval` (ms) when it is known (> 0), else the time since the stream's
    previous event, else -1.
    """
    base = signed(rows.ctypes.data)
    row_bytes = rows.shape[1] * 8
    for i in range(n):
        if i + PREFETCH_AHEAD < n and slot[i + PREFETCH_AHEAD] >= 0:
            prefetch(base + slot[i + PREFETCH_AHEAD] * row_bytes + header_at * 8)
        s = slot[i]
        if s < 0:
            continue
        seen = rows[s, header_at] + 1
        last = rows[s, header_at + 1]
        now = event_time[i]
        gap[i] = interval if interval > 0 else -1
        if interval <= 0 and seen > 1 and now > last:
            gap[i] = now - last
        rows[s, header_at] = seen
        if seen == 1 or now > last:
            rows[s, header_at + 1] = now
        n_seen[i] = seen


@compiled
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
    not moved (standard deviation below 1e-9 of its level) gives x' = 0 and scale 1. |x'| <= sqrt(window), see
    `running_bound` in the forecaster.
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
            moved = deviation > 1e-9 * max(1.0, abs(mean))
            x_scaled[i, k] = (x[i, k] - mean) / deviation if moved else 0.0
            if k == target:
                y_scale[i] = deviation if moved else 1.0
                y_base[i] = x[i, k] if predicts_change else mean


@compiled
def unscale(
    n: int,
    reason: NDArray[np.uint8],
    y: NDArray[np.float32],
    y_base: Float64s,
    y_scale: Float64s,
    yhat: Float64s,
) -> None:
    """yhat = y_base + y_scale * y, float64 [N, O], for rows without a reason."""
    for i in range(n):
        if reason[i] == 0:
            for o in range(y.shape[1]):
                yhat[i, o] = y_base[i] + y_scale[i] * np.float64(y[i, o])
