"""Records of a Kafka record batch, format v2, encoded: the inverse of record_batch.py, which describes a record.

Key and headers of the input record are copied as they are, the value is a forecast's text, the timestamp the event's
time.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, inlined
from streamlstm.kernels.forecast_text import (
    ForecastColumns,
    ForecastText,
    copy_span,
    print_forecast,
    text_bound,
)
from streamlstm.kernels.words import leading_zeros, signed, store_byte

HEADER_BYTES = 61
"""Bytes of a record batch before its records."""

NEXT_ROW, SIZE, COUNT, BASE_TIMESTAMP, MAX_TIMESTAMP, NOT_FINITE = range(6)
"""Places in `result`."""

_TOO_LARGE = np.uint8(17)  # events.batch.Reason.TOO_LARGE; a test holds the two together
_FRAME_BYTES = 1 + 10 + 4 * 5 + 1  # attributes, timestamp, the four other varints, an empty header section


@inlined
def _zigzag(n: int) -> np.uint64:
    return np.uint64((n << 1) ^ (n >> 63))


@inlined
def _varint_bytes(z: np.uint64) -> int:
    """Seven bits to a byte: ceil(bits / 7), at least 1."""
    bits: int = 64 - leading_zeros(z | np.uint64(1))
    return (bits * 9 + 64) >> 6


@inlined
def _put_varint(to: int, z: np.uint64) -> int:
    while z >= np.uint64(0x80):
        store_byte(to, np.uint8(z | np.uint64(0x80)))
        z >>= np.uint64(7)
        to += 1
    store_byte(to, np.uint8(z))
    return to + 1


@compiled
def records_bound(columns: ForecastColumns, text: ForecastText, start: int, stop: int) -> tuple[int, int]:
    """Bytes that the records of the rows in [start, stop) can't exceed, all of them together and the largest alone."""
    total = 0
    largest = 0
    for row in range(start, stop):
        if columns.reason[row] == 0:
            size = text_bound(row, columns, text) + columns.key_len[row] + columns.headers_len[row] + _FRAME_BYTES
            total += size
            largest = max(largest, size)
    return total, largest


@compiled
def encode_forecasts(
    columns: ForecastColumns,
    text: ForecastText,
    start: int,
    stop: int,
    max_bytes: int,
    out: NDArray[np.uint8],
    result: NDArray[np.int64],
) -> None:
    """Write the forecasts of rows from [start, stop) that have no reason as the records of one batch, from out[61] on.

    Ends before the first row that would take the batch over `max_bytes`, header included. A record that is larger than
    that by itself is left out, and its row gets the reason too_large.

    out uint8 [>= 61 + min(bound of all rows, max_bytes + bound of the largest) + SLACK], bounds by `records_bound`.
    Writes result int64 [6]: the row to go on with, the bytes of the batch, its records, their first and their largest
    timestamp, and how many held a number that isn't finite.
    """
    payload_at = signed(columns.payload.ctypes.data)
    text_at = signed(text.text.ctypes.data)
    out_at = signed(out.ctypes.data)
    to = out_at + HEADER_BYTES
    count = 0
    base_timestamp = 0
    max_timestamp = 0
    not_finite = 0
    record_width = (
        2  # bytes of two varints that come before what they count: as in the record before, until they differ
    )
    value_width = 2
    row = start
    while row < stop:
        if columns.reason[row] != 0:
            row += 1
            continue
        timestamp = max(columns.event_time[row], 0)  # Kafka has no time before 1970
        first = count == 0
        delta = _zigzag(0 if first else timestamp - base_timestamp)
        order = _zigzag(count)
        has_key = columns.key_at[row] >= 0
        key_len = columns.key_len[row] if has_key else 0
        key_size = _zigzag(key_len if has_key else -1)
        headers_len = columns.headers_len[row]
        while True:
            body_at = to + record_width
            store_byte(body_at, np.uint8(0))
            p = _put_varint(body_at + 1, delta)
            p = _put_varint(p, order)
            value_size_at = copy_span(_put_varint(p, key_size), payload_at + columns.key_at[row], key_len)
            value_at = value_size_at + value_width
            value_end, finite = print_forecast(value_at, row, columns, text, payload_at, text_at)
            end = value_end + max(headers_len, 1)
            value_size = _zigzag(value_end - value_at)
            body_size = _zigzag(end - body_at)
            if _varint_bytes(value_size) == value_width and _varint_bytes(body_size) == record_width:
                break
            value_width = _varint_bytes(value_size)  # once more, where they leave room for the body's bytes
            record_width = _varint_bytes(body_size)
        if end - out_at > max_bytes:
            if not first:
                break
            columns.reason[row] = _TOO_LARGE
            row += 1
            continue
        _put_varint(to, body_size)
        _put_varint(value_size_at, value_size)
        if headers_len > 0:
            copy_span(value_end, payload_at + columns.headers_at[row], headers_len)
        else:
            store_byte(value_end, np.uint8(0))
        to = end
        base_timestamp = timestamp if first else base_timestamp
        max_timestamp = timestamp if first else max(max_timestamp, timestamp)
        not_finite += not finite
        count += 1
        row += 1
    result[NEXT_ROW] = row
    result[SIZE] = to - out_at
    result[COUNT] = count
    result[BASE_TIMESTAMP] = base_timestamp
    result[MAX_TIMESTAMP] = max_timestamp
    result[NOT_FINITE] = not_finite
