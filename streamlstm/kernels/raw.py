"""Raw values: little-endian float64 numbers, the inputs alone or behind a time."""

import numpy as np
from numba import int64
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.strings import is_utf8
from streamlstm.kernels.text import PADDING
from streamlstm.kernels.words import load_real


@compiled(
    "void(uint8[::1], int64, int64, int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], float64, int64, int64,"
    " boolean, uint8[::1], int64[::1], int64[::1], int64[::1], float64[:, ::1], uint8[::1])"
)
def decode_raw(
    payload: NDArray[np.uint8],
    start: int,
    stop: int,
    timestamp: NDArray[np.int64],
    key_at: NDArray[np.int64],
    key_len: NDArray[np.int64],
    value_at: NDArray[np.int64],
    value_len: NDArray[np.int64],
    microseconds: float,
    earliest: int,
    latest: int,
    lets_missing: bool,
    reasons: NDArray[np.uint8],
    stream_at: NDArray[np.int64],
    stream_len: NDArray[np.int64],
    event_time: NDArray[np.int64],
    x: NDArray[np.float64],
    reason: NDArray[np.uint8],
) -> None:
    """Fill stream, event time, inputs and reason of the rows [start, stop) whose reason is 0.

    `microseconds` is how many the unit of time has. `reasons` names what may be wrong: null value, length, no key, key
    not UTF-8, time outside [earliest, latest] (epoch ms), input not finite; the first that applies is written. With
    `lets_missing` an input may be NaN. A null value's stream is the key.

    A float64 holds few decimal fractions of a second exactly, so a time is rounded to the nearest microsecond before it
    is rounded down to the millisecond.
    """
    base = int64(payload.ctypes.data)
    within = len(payload) - PADDING
    inputs = x.shape[1]
    for row in range(start, stop):
        if reason[row] != 0:
            continue
        numbers = value_len[row] >> 3
        time = timestamp[row]
        at = base + value_at[row]
        fault = -1
        if value_at[row] < 0:
            fault = 0
        elif value_len[row] & 7 or not inputs <= numbers <= inputs + 1 or value_at[row] + value_len[row] > within:
            fault = 1
        elif key_at[row] < 0 or key_len[row] <= 0 or key_at[row] + key_len[row] > within:
            fault = 2
        elif not is_utf8(base + key_at[row], base + key_at[row] + key_len[row]):
            fault = 3
        elif numbers > inputs:
            exact = load_real(at) * microseconds
            if earliest * 1000.0 <= exact <= latest * 1000.0 + 999.0:
                time = int64(np.rint(exact)) // 1000
            else:
                fault = 4
            at += 8
        elif time < 0 or time > latest:  # Kafka's -1: the record has no timestamp
            fault = 4
        if fault < 0:
            for i in range(inputs):
                x[row, i] = load_real(at + 8 * i)
                if not np.isfinite(x[row, i]) and not (lets_missing and np.isnan(x[row, i])):
                    fault = 5
        if fault >= 0:
            reason[row] = reasons[fault]
            stream_at[row], stream_len[row], event_time[row] = -1, 0, timestamp[row]
            x[row] = np.nan
            if fault == 0 and key_at[row] >= 0:
                stream_at[row], stream_len[row] = key_at[row], key_len[row]
        else:
            stream_at[row], stream_len[row], event_time[row] = key_at[row], key_len[row], time
