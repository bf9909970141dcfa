"""Records of a Kafka record batch, format v2, encoded: the inverse of record_batch.py, which describes a record.

Key and headers of the input record are copied as they are, the value is a forecast's text. The timestamp is the event's
time, but not later than the input record's own: brokers refuse a whole batch for one timestamp in the future (KIP-937;
an hour ahead by default in Kafka 4), and they took that one. Kafka has no time before 1970: -1 is none.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.forecast_text import (
    EVENT_TIME,
    HEADERS_AT,
    HEADERS_LEN,
    KEY_AT,
    KEY_LEN,
    PAYLOAD,
    REASON,
    TIMESTAMP,
    column,
    copy_span,
    print_forecast,
    text_bound,
)
from streamlstm.kernels.memory import load_int64
from streamlstm.kernels.words import leading_zeros, load_byte, signed, store_byte

HEADER_BYTES = 61
"""Bytes of a record batch before its records."""

NEXT, SIZE, COUNT, BASE_TIMESTAMP, MAX_TIMESTAMP, NOT_FINITE = range(6)
"""Places in `result`."""

_TOO_LARGE = np.uint8(17)  # events.batch.Reason.TOO_LARGE; a test holds the two together
_NO_TIMESTAMP = -1
_FRAME_BYTES = 1 + 10 + 4 * 5 + 1  # attributes, timestamp, the four other varints, an empty header section


@embedded
def _zigzag(n: int) -> np.uint64:
    return np.uint64((n << 1) ^ (n >> 63))


@embedded
def _varint_bytes(z: np.uint64) -> int:
    """Seven bits to a byte: ceil(bits / 7), at least 1."""
    bits: int = 64 - leading_zeros(z | np.uint64(1))
    return (bits * 9 + 64) >> 6


@embedded
def _put_varint(to: int, z: np.uint64) -> int:
    while z >= np.uint64(0x80):
        store_byte(to, np.uint8(z | np.uint64(0x80)))
        z >>= np.uint64(7)
        to += 1
    store_byte(to, np.uint8(z))
    return to + 1


@compiled("UniTuple(int64, 2)(int64, int64, int64[::1])")
def records_bound(columns: int, text: int, rows: NDArray[np.int64]) -> tuple[int, int]:
    """Bytes that the records of `rows` can't exceed, all of them together and the largest alone."""
    total = 0
    largest = 0
    reason = load_int64(columns + 8 * REASON)
    for row in rows:
        if load_byte(reason + row) == 0:
            size = text_bound(row, columns, text) + _FRAME_BYTES
            size += column(columns, KEY_LEN, row) + column(columns, HEADERS_LEN, row)
            total += size
            largest = max(largest, size)
    return total, largest


@compiled("void(int64, int64, int64[::1], int64, int64, uint8[::1], int64[::1])")
def encode_forecasts(
    columns: int,
    text: int,
    rows: NDArray[np.int64],
    start: int,
    max_bytes: int,
    out: NDArray[np.uint8],
    result: NDArray[np.int64],
) -> None:
    """Write the forecasts of rows[start:] that have no reason as the records of one batch, in that order, from out[61].

    Ends before the first row that would take the batch over `max_bytes`, header included. A record that is larger than
    that by itself is left out, and its row gets the reason too_large.

    `columns` and `text` are addresses of descriptors (forecast_text.py). out uint8 [>= 61 + min(bound of all rows,
    max_bytes + bound of the largest) + SLACK], bounds by `records_bound`. Writes result int64 [6]: the place in rows to
    go on from, the bytes of the batch, its records, their first and their largest timestamp, and how many held a number
    that isn't finite.
    """
    payload = load_int64(columns + 8 * PAYLOAD)
    reason = load_int64(columns + 8 * REASON)
    out_at = signed(out.ctypes.data)
    to = out_at + HEADER_BYTES
    count = 0
    base_timestamp = 0
    max_timestamp = 0
    not_finite = 0
    # bytes of two varints that come before what they count: as in the record before, until they differ
    record_width = 2
    value_width = 2
    at = start
    while at < rows.shape[0]:
        row = rows[at]
        if load_byte(reason + row) != 0:
            at += 1
            continue
        timestamp = max(min(column(columns, EVENT_TIME, row), column(columns, TIMESTAMP, row)), _NO_TIMESTAMP)
        first = count == 0
        delta = _zigzag(0 if first else timestamp - base_timestamp)
        order = _zigzag(count)
        key_at = column(columns, KEY_AT, row)
        key_len = column(columns, KEY_LEN, row) if key_at >= 0 else 0
        key_size = _zigzag(key_len if key_at >= 0 else -1)
        headers_len = column(columns, HEADERS_LEN, row)
        while True:
            body_at = to + record_width
            store_byte(body_at, np.uint8(0))
            p = _put_varint(body_at + 1, delta)
            p = _put_varint(p, order)
            value_size_at = copy_span(_put_varint(p, key_size), payload + key_at, key_len)
            value_at = value_size_at + value_width
            value_end, finite = print_forecast(value_at, row, columns, text)
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
            store_byte(reason + row, _TOO_LARGE)
            at += 1
            continue
        _put_varint(to, body_size)
        _put_varint(value_size_at, value_size)
        if headers_len > 0:
            copy_span(value_end, payload + column(columns, HEADERS_AT, row), headers_len)
        else:
            store_byte(value_end, np.uint8(0))
        to = end
        base_timestamp = timestamp if first else base_timestamp
        max_timestamp = timestamp if first else max(max_timestamp, timestamp)
        not_finite += 0 if finite else 1
        count += 1
        at += 1
    result[NEXT] = at
    result[SIZE] = to - out_at
    result[COUNT] = count
    result[BASE_TIMESTAMP] = base_timestamp
    result[MAX_TIMESTAMP] = max_timestamp
    result[NOT_FINITE] = not_finite
