"""What the rows of a transaction come to, in one pass over them; and how old they are when they are answered."""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.words import signed

(
    BYTES,  # of keys and values
    REFUSED,  # rows with a reason
    ANOMALOUS,  # forecasts whose score is above 1
    SUMS,
) = range(4)

Bytes = NDArray[np.uint8]
Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


@compiled(
    "void(int64[::1], uint8[::1], uint8[::1], int64[::1], int64[::1], float64[::1], int64[::1], int64[::1], int64[::1])"
)
def tally(
    rows: Int64s,
    reason: Bytes,
    status: Bytes,
    key_len: Int64s,
    value_len: Int64s,
    score: Float64s,
    by_status: Int64s,
    by_reason: Int64s,
    sums: Int64s,
) -> None:
    """Add up `rows` int64 [n] of the columns: to by_status those without a reason, to by_reason the others, to sums
    int64 [SUMS] the totals. `score` may be empty: nothing is anomalous then.
    """
    scored = score.shape[0] > 0
    for i in range(rows.shape[0]):
        row = rows[i]
        sums[BYTES] += key_len[row] + value_len[row]
        if reason[row] != 0:
            by_reason[reason[row]] += 1
            sums[REFUSED] += 1
            continue
        by_status[status[row]] += 1
        if scored and score[row] > 1.0:
            sums[ANOMALOUS] += 1


@compiled("Tuple((int64, int64))(int64[::1], int64, int64[::1], int64[::1])")
def ages(timestamps: Int64s, now: int, bounds: Int64s, counts: Int64s) -> tuple[int, int]:
    """Count how old each of `timestamps` is at `now`, all epoch ms, 0 for those ahead of it; negative ones are unknown.

    counts[k] int64 [len(bounds) + 1] gains those above bounds[k - 1] and not above bounds[k]; bounds rise, ms. Returns
    the sum of the ages in ms, and the newest timestamp, 0 if none is known.
    """
    total, newest = signed(0), signed(0)
    k = 0  # neighbours are about as old
    for i in range(timestamps.shape[0]):
        if timestamps[i] < 0:
            continue
        newest = max(newest, timestamps[i])
        age = max(now - timestamps[i], 0)
        total += age
        while k < bounds.shape[0] and age > bounds[k]:
            k += 1
        while k > 0 and age <= bounds[k - 1]:
            k -= 1
        counts[k] += 1
    return total, newest
