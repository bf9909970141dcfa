"""Whom an answer answers: the source offset in the value of a forecast, or in the headers of a dead letter.

Neither JSON nor headers are read as such. What surrounds the offset is the same for all answers to one partition (for
forecasts, of one model), so it's compared with texts that have been seen and properly read before
(streamlstm.events.sources). Whatever doesn't match is for the slower reader.

The texts stand back to back in one array; `ends[k]` is where text k ends. Up to 64 bytes behind a span may be read, and
never count.
"""

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.words import load_byte, load_word, signed

_ZERO, _NINE, _CLOSE = (ord(character) for character in "09}")
_MOST_DIGITS = 18
_NO_TEXT = -1


@embedded
def _same(a: int, b: int, size: int) -> bool:
    """Whether `size` bytes at the addresses a and b are the same."""
    i = 0
    while i + 8 <= size:
        if load_word(a + i) != load_word(b + i):
            return False
        i += 8
    while i < size:
        if load_byte(a + i) != load_byte(b + i):
            return False
        i += 1
    return True


@embedded
def _decimal(p: int, end: int) -> int:
    """The number whose digits are [p, end), or -1."""
    if not 1 <= end - p <= _MOST_DIGITS:
        return -1
    number = int64(0)
    while p < end:
        byte = int64(load_byte(p))
        if not _ZERO <= byte <= _NINE:
            return -1
        number = 10 * number + byte - _ZERO
        p += 1
    return number  # type: ignore[no-any-return]


@compiled(
    "int64(uint8[::1], int64[::1], int64[::1], int64, int64, uint8[::1], int64[::1], int64, int64[::1], int64[::1])"
)
def forecast_sources(
    payload: NDArray[np.uint8],
    value_at: NDArray[np.int64],
    value_len: NDArray[np.int64],
    start: int,
    stop: int,
    texts: NDArray[np.uint8],
    ends: NDArray[np.int64],
    known: int,
    source: NDArray[np.int64],
    text: NDArray[np.int64],
) -> int:
    """Fill source and text of rows from `start` on whose values end with one of the first `known` texts, the digits of
    an offset and two closing braces: the offset, and which text. Returns the first row that doesn't, or `stop`.
    """
    base, first_text = signed(payload.ctypes.data), signed(texts.ctypes.data)
    for row in range(start, stop):
        value = base + value_at[row]
        digits_end = value + value_len[row] - 2
        if value_at[row] < 0 or digits_end <= value:
            return row
        if load_byte(digits_end) != _CLOSE or load_byte(digits_end + 1) != _CLOSE:
            return row
        p = digits_end
        while p > value and _ZERO <= load_byte(p - 1) <= _NINE:
            p -= 1
        offset = _decimal(p, digits_end)
        found = _NO_TEXT
        begin = 0
        for k in range(known):
            size = ends[k] - begin
            if size <= p - value and _same(first_text + begin, p - size, size):
                found = k
                break
            begin = ends[k]
        if offset < 0 or found == _NO_TEXT:
            return row
        source[row], text[row] = offset, found
    return stop


@embedded
def _size(p: int, end: int) -> tuple[int, int]:
    """The length (zigzag varint) at p and where its bytes begin; 0 there when it isn't within [p, end)."""
    word = uint64(0)
    shift = 0
    while p < end and shift < 35:
        byte = uint64(load_byte(p))
        p += 1
        word |= (byte & uint64(0x7F)) << uint64(shift)
        if byte < uint64(0x80):
            length = int64(word >> uint64(1)) ^ -int64(word & uint64(1))
            return length, p if length <= end - p else 0
        shift += 7
    return 0, 0


@compiled(
    "int64(uint8[::1], int64[::1], int64[::1], int64, int64, uint8[::1], int64[::1], int64, uint8[::1], uint8[::1], "
    "int64[::1], int64[::1])"
)
def letter_sources(
    payload: NDArray[np.uint8],
    headers_at: NDArray[np.int64],
    headers_len: NDArray[np.int64],
    start: int,
    stop: int,
    texts: NDArray[np.uint8],
    ends: NDArray[np.int64],
    known: int,
    first_key: NDArray[np.uint8],
    range_key: NDArray[np.uint8],
    source: NDArray[np.int64],
    text: NDArray[np.int64],
) -> int:
    """Fill source and text of rows from `start` on among whose headers is one of the first `known` texts, followed by
    the length and the digits of an offset: the offset of the last such place, and which text.

    A text is whole headers and the key of one more; it begins with `first_key`. Returns the first row that has none, or
    where `first_key` begins something else behind it, or whose offset is followed by `range_key`; or `stop`.
    """
    base, first_text = signed(payload.ctypes.data), signed(texts.ctypes.data)
    topic_key, last_key = signed(first_key.ctypes.data), signed(range_key.ctypes.data)
    for row in range(start, stop):
        p = base + headers_at[row]
        end = p + headers_len[row]
        count, p = _size(p, end)
        found = _NO_TEXT
        offset = int64(-1)
        for _ in range(count):
            begin = 0
            if len(first_key) <= end - p and _same(topic_key, p, len(first_key)):
                found = _NO_TEXT
            for k in range(known):
                size = ends[k] - begin
                if size <= end - p and _same(first_text + begin, p, size):
                    length, digits = _size(p + size, end)
                    behind = digits + length
                    found = k
                    offset = _decimal(digits, behind) if digits != 0 else int64(-1)
                    if len(range_key) <= end - behind and _same(last_key, behind, len(range_key)):
                        offset = int64(-1)
                    break
                begin = ends[k]
            for _ in range(2):
                if p != 0:
                    length, p = _size(p, end)
                    p += max(length, 0) if p != 0 else 0
            if p == 0:
                return row
        if found == _NO_TEXT or offset < 0:
            return row
        source[row], text[row] = offset, found
    return stop
