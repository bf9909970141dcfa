"""Records of a Kafka record batch, format v2, decoded to columns.

A record, as in Kafka's protocol documentation ("Record Batch") and KIP-98; varints are zigzag, in base 128 with the low
group first:

    length        varint32   bytes that follow
    attributes    int8       unused
    timestamp     varint64   less the batch's base timestamp
    offset        varint32   less the batch's base offset
    key           varint32 length, -1 for null, and that many bytes
    value         the same
    headers       varint32 count, then for each: key length (not null) and bytes, value length (-1: null) and bytes
"""

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.words import load_byte, signed

SMALLEST_RECORD = 7
"""Bytes of a record with neither key, value nor headers."""

BAD_COUNT = -(2**63)
"""A batch says that it has more records than its bytes hold, or fewer than none."""

_OVERRUN = -(2**62)
_INT32_MAX = 2**31 - 1


@compiled
def _varint(p: int, end: int, most_bytes: int) -> tuple[int, int]:
    """The zigzag varint at address p, and where it ends; _OVERRUN there when it runs past `end` or `most_bytes`."""
    word = uint64(0)
    shift = 0
    while p < end and shift < 7 * most_bytes:
        byte = uint64(load_byte(p))
        p += 1
        word |= (byte & uint64(0x7F)) << uint64(shift)
        if byte < uint64(0x80):
            return int64(word >> uint64(1)) ^ -int64(word & uint64(1)), p
        shift += 7
    return 0, _OVERRUN


@compiled
def _length(p: int, end: int, least: int) -> tuple[int, int]:
    """The length at address p and where its bytes begin; _OVERRUN there when they leave `end` or it's below `least`."""
    length, p = _varint(p, end, 5)
    if p == _OVERRUN or length < least or length > end - p:
        return 0, _OVERRUN
    return length, p


@compiled
def _skip_headers(p: int, end: int) -> int:
    """From the headers' count to behind the last one, or _OVERRUN."""
    count, p = _length(p, end, 0)
    for _ in range(count):
        for least in range(0, -2, -1):
            if p == _OVERRUN:
                return _OVERRUN
            size, p = _length(p, end, least)
            p += max(size, 0)
    return p


@compiled
def decode_records(
    payload: NDArray[np.uint8],
    start: int,
    stop: int,
    base_offset: int,
    base_timestamp: int,
    append_time: int,
    count: int,
    min_offset: int,
    row0: int,
    offset: NDArray[np.int64],
    timestamp: NDArray[np.int64],
    key_at: NDArray[np.int64],
    key_len: NDArray[np.int64],
    value_at: NDArray[np.int64],
    value_len: NDArray[np.int64],
    headers_at: NDArray[np.int64],
    headers_len: NDArray[np.int64],
) -> int:
    """Decode the `count` records in payload[start:stop] to rows from `row0` on, leaving out offsets below `min_offset`.

    The columns have room for row0 + count rows. Times are epoch milliseconds; `append_time` is the batch's append time
    when the topic stamps records with it, else -1. Nulls have position -1 and length 0.

    Returns the number of rows written, or -1-k when record k is malformed: a varint or a length that leaves its record,
    an offset that doesn't grow, bytes left over in a record; or, with k = count, bytes left over behind the last one.
    Nothing outside payload[start:stop] is read, whatever the bytes.
    """
    base = int64(payload.ctypes.data)
    p, end = base + start, base + stop
    row = row0
    last_delta = -1
    for record in range(count):
        length, p = _length(p, end, 1)
        if p == _OVERRUN:
            return -1 - record
        record_end = p + length
        timestamp_delta, p = _varint(p + 1, record_end, 10)
        if p == _OVERRUN:
            return -1 - record
        offset_delta, p = _varint(p, record_end, 5)
        if p == _OVERRUN or offset_delta <= last_delta or offset_delta > _INT32_MAX:
            return -1 - record
        last_delta = offset_delta
        key_size, key = _length(p, record_end, -1)
        if key == _OVERRUN:
            return -1 - record
        value_size, value = _length(key + max(key_size, 0), record_end, -1)
        if value == _OVERRUN:
            return -1 - record
        headers = value + max(value_size, 0)
        p = _skip_headers(headers, record_end)
        if p != record_end:
            return -1 - record
        if base_offset + offset_delta < min_offset:
            continue
        offset[row] = base_offset + offset_delta
        timestamp[row] = append_time if append_time >= 0 else base_timestamp + timestamp_delta
        key_at[row] = key - base if key_size >= 0 else -1
        key_len[row] = max(key_size, 0)
        value_at[row] = value - base if value_size >= 0 else -1
        value_len[row] = max(value_size, 0)
        headers_at[row] = headers - base
        headers_len[row] = record_end - headers
        row += 1
    return row - row0 if p == end else -1 - count


@compiled("int64(int64[:, ::1])")
def most_records(spans: NDArray[np.int64]) -> int:
    """How many records the batches of `spans` hold together at most, see `decode_batches`."""
    total = signed(0)
    for k in range(spans.shape[0]):
        total += min(max(spans[k, 2], 0), (spans[k, 1] - spans[k, 0]) // SMALLEST_RECORD)
    return total


@compiled(
    "int64(uint8[::1], int64, int64[:, ::1], int64, int64, int64, int64[::1], int64[::1], "
    "int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])"
)
def decode_batches(
    payload: NDArray[np.uint8],
    at: int,
    spans: NDArray[np.int64],
    first: int,
    min_offset: int,
    row0: int,
    offset: NDArray[np.int64],
    timestamp: NDArray[np.int64],
    key_at: NDArray[np.int64],
    key_len: NDArray[np.int64],
    value_at: NDArray[np.int64],
    value_len: NDArray[np.int64],
    headers_at: NDArray[np.int64],
    headers_len: NDArray[np.int64],
    outcome: NDArray[np.int64],
) -> int:
    """`decode_records` for each of `spans` from `first` on, up to the first that is malformed; returns which that is,
    len(spans) when none is.

    spans int64 [n, 7]: records section [start, stop) behind payload[at], count, base offset, last offset, base
    timestamp, append time. The columns have room for row0 and the records of all batches whose count can be.
    outcome int64 [2], written: the number of rows, and why the batch was refused: BAD_COUNT, what `decode_records`
    returned (< 0), or (>= 0) an offset beyond the batch's last.
    """
    row = row0
    for k in range(first, spans.shape[0]):
        start, stop, count, last = spans[k, 0], spans[k, 1], spans[k, 2], spans[k, 4]
        rows = BAD_COUNT
        if 0 <= count <= (stop - start) // SMALLEST_RECORD:
            rows = decode_records(
                payload, at + start, at + stop, spans[k, 3], spans[k, 5], spans[k, 6], count, min_offset, row,
                offset, timestamp, key_at, key_len, value_at, value_len, headers_at, headers_len,
            )  # fmt: skip
        beyond = rows > 0 and offset[row + rows - 1] > last
        if rows < 0 or beyond:
            outcome[0] = row - row0
            outcome[1] = offset[row + rows - 1] if beyond else rows
            return k
        row += rows
    outcome[0] = row - row0
    return int(spans.shape[0])
