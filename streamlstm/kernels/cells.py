"""Cells of a table, as text, to numbers and times: by the rules for JSON values (text.py, time_text.py).

What they don't take, such as `+1.5` or `NaN`, is handed on to a slower reader: never read as a third thing.
"""

import numpy as np
from numba import int64, uint8
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.number import MOST_DIGITS, nearest, number_parts
from streamlstm.kernels.strings import QUOTE, SPACE
from streamlstm.kernels.time_text import read_date_time, read_epoch
from streamlstm.kernels.words import load_byte, load_word, store_byte, store_word

MOST_BYTES = 40
"""A longer cell is handed on."""

_SCRATCH = MOST_BYTES + 64
_TAB, _PLUS, _MINUS, _Z = (ord(character) for character in "\t+-Z")
_UPPER_CASE = 0xDF
_DATE, _OFFSET = 10, 6  # letters of 2024-05-01 and of +02:00

Bytes = NDArray[np.uint8]
Int64s = NDArray[np.int64]


@embedded
def _copy_cell(at: int, length: int, cell: int) -> int:
    """Copy the text without the spaces around it to address `cell`, and a quote behind it; its length."""
    while length > 0 and load_byte(at) in (SPACE, _TAB):
        at += 1
        length -= 1
    while length > 0 and load_byte(at + length - 1) in (SPACE, _TAB):
        length -= 1
    if length <= MOST_BYTES:
        for word in range(0, length, 8):
            store_word(cell + word, load_word(at + word))
        store_byte(cell + length, uint8(QUOTE))
    return length


@compiled(
    "int64(uint8[::1], int64, int64, int64[::1], int64[::1], int64, uint8, float64[:, ::1], uint8[::1], int64[::1])"
)
def read_reals(
    payload: Bytes,
    start: int,
    stop: int,
    at: Int64s,
    length: Int64s,
    column: int,
    missing: int,
    x: NDArray[np.float64],
    reason: Bytes,
    handed_on: Int64s,
) -> int:
    """Read input `column` of the rows [start, stop) whose reason is 0 from the spans `at` and `length` int64 [N].

    An empty cell, or one at -1, becomes NaN with the reason `missing`. Rows for the slower reader are listed in
    `handed_on` (room for stop - start); returns how many. `payload` has 64 bytes behind the last span.
    """
    base = int64(payload.ctypes.data)
    scratch = np.zeros(_SCRATCH, np.uint8)
    cell = int64(scratch.ctypes.data)
    count = 0
    for row in range(start, stop):
        if reason[row] != 0:
            continue
        size = _copy_cell(base + at[row], length[row], cell) if at[row] >= 0 else 0
        if size == 0:
            x[row, column] = np.nan
            reason[row] = missing
            continue
        end = 0
        real = np.nan
        if size <= MOST_BYTES:
            end, negative, mantissa, digits, behind, exponent = number_parts(cell, cell + size + 1)
            if end == cell + size and digits <= MOST_DIGITS:
                real = nearest(mantissa, exponent - behind, negative)
        if np.isfinite(real):
            x[row, column] = real
        else:
            handed_on[count] = row
            count += 1
    return count


@compiled(
    "UniTuple(int64, 2)(uint8[::1], int64, int64, int64[::1], int64[::1], int64, int64, int64, int64[::1], uint8[::1],"
    " int64[::1])"
)
def read_times(
    payload: Bytes,
    start: int,
    stop: int,
    at: Int64s,
    length: Int64s,
    decimals: int,
    earliest: int,
    latest: int,
    time: Int64s,
    reason: Bytes,
    handed_on: Int64s,
) -> tuple[int, int]:
    """Read the times, epoch ms, of the rows [start, stop) whose reason is 0: numbers, of whose unit one second is
    10**decimals, or dates and times as in RFC 3339.

    Rows for the slower reader, those without a time and those outside [earliest, latest] among them, are listed in
    `handed_on`. Returns how many they are, and how many of the others say no offset from UTC. The rest is as in
    `read_reals`.
    """
    base = int64(payload.ctypes.data)
    scratch = np.zeros(_SCRATCH, np.uint8)
    cell = int64(scratch.ctypes.data)
    count = naive = 0
    for row in range(start, stop):
        if reason[row] != 0:
            continue
        size = _copy_cell(base + at[row], length[row], cell) if at[row] >= 0 else 0
        good, found = False, 0
        if 0 < size <= MOST_BYTES:
            quote = cell + size
            end, found = read_epoch(cell, quote + 1, decimals)
            good = end == quote
            if not good:
                end, found = read_date_time(cell, quote + 1)
                good = end == quote + 1
                zone = load_byte(quote - 1) & _UPPER_CASE == _Z or (
                    size > _DATE and load_byte(quote - _OFFSET) in (_PLUS, _MINUS)
                )
                naive += good and not zone
        if good and earliest <= found <= latest:
            time[row] = found
        else:
            handed_on[count] = row
            count += 1
    return count, naive
