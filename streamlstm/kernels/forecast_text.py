"""Forecasts as JSON text.

One forecast is the alternation of literals, rendered once for a run of rows, and of a row's own strings and numbers:

    {"stream":"..","ts":..,"y":..,"yhat":[..],"horizon":[..],"target_ts":[..],"status":"..","n_seen":..,"model":"..",
     "src":{"topic":"..","partition":..,"offset":..}}

without spaces or line breaks. `y` is a list when the model has several inputs; `target_ts` is null while the stream's
time step is unknown. The capacity that a text needs is known beforehand (`text_bound`): nothing here checks for room.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, inlined
from streamlstm.kernels.decimal import FLOAT_BYTES, INTEGER_BYTES, print_float32, print_float64, print_integer
from streamlstm.kernels.words import (
    BLOCK_BYTES,
    copy_block,
    float32_bits,
    float64_bits,
    load_byte,
    load_word,
    signed,
    store_byte,
    store_word,
    trailing_zeros,
)

SLACK = 64
"""Bytes beyond the bound that a printer may scribble on."""

STREAM, TS, Y, YHAT, TARGET, SOURCE, END, STATUS = range(8)
"""The literals, by what follows them; STATUS + s is the one for status s."""

_ESCAPED_BYTES = 6  # \u001f
_NULL = np.uint64(0x6C6C756E)
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
_LARGEST_FLOAT64 = float(np.finfo(np.float64).max)
_ONES, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_SPACES, _QUOTES, _BACKSLASHES = (np.uint64(byte) * _ONES for byte in b' "\\')
_HEXADECIMAL = np.frombuffer(b"0123456789abcdef", np.uint8)
_SHORT_ESCAPES = np.zeros(128, np.uint8)
for _byte, _letter in zip(b'\b\t\n\f\r"\\', b'btnfr"\\', strict=True):
    _SHORT_ESCAPES[_byte] = _letter


class ForecastColumns(NamedTuple):
    """The columns of EventBatch and ForecastBatch that are printed; N rows, I inputs, O outputs."""

    payload: NDArray[np.uint8]
    offset: NDArray[np.int64]
    event_time: NDArray[np.int64]
    key_at: NDArray[np.int64]
    key_len: NDArray[np.int64]
    headers_at: NDArray[np.int64]
    headers_len: NDArray[np.int64]
    stream_at: NDArray[np.int64]
    stream_len: NDArray[np.int64]
    x: NDArray[np.float64]
    yhat: NDArray[np.float64]
    status: NDArray[np.uint8]
    n_seen: NDArray[np.int64]
    gap_ms: NDArray[np.int64]
    reason: NDArray[np.uint8]


class ForecastText(NamedTuple):
    """What is the same in all the rows of a run. Literal k is text[at[k] : at[k] + length[k]]."""

    text: NDArray[np.uint8]
    at: NDArray[np.int64]
    length: NDArray[np.int64]
    horizons: NDArray[np.int64]
    single: bool


def forecast_text(literals: Sequence[bytes], horizons: NDArray[np.int64], single: bool) -> ForecastText:
    """Lay out literals, given in the order of the constants above, so that they can be copied in blocks."""
    padded = [literal + bytes(-len(literal) % BLOCK_BYTES) for literal in literals]
    starts = np.cumsum([0, *map(len, padded)])[:-1].astype(np.int64)
    lengths = np.array([len(literal) for literal in literals], np.int64)
    return ForecastText(np.frombuffer(b"".join(padded), np.uint8), starts, lengths, horizons, single)


@inlined
def text_bound(row: int, columns: ForecastColumns, text: ForecastText) -> int:
    """Bytes that the text of no row with this stream id can exceed."""
    inputs = columns.x.shape[1]
    outputs = columns.yhat.shape[1]
    literals = signed(text.length.sum())  # of all statuses, though a text holds one
    numbers: int = (inputs + outputs) * (FLOAT_BYTES + 1) + outputs * (INTEGER_BYTES + 1) + 3 * INTEGER_BYTES
    return literals + numbers + _ESCAPED_BYTES * signed(columns.stream_len[row]) + 8


@inlined
def copy_span(to: int, at: int, length: int) -> int:
    """Copy `length` bytes, and up to 31 more; returns the address after."""
    done = 0
    while done < length:
        copy_block(to + done, at + done)
        done += BLOCK_BYTES
    return to + length


@inlined
def _print_literal(to: int, text: ForecastText, text_at: int, k: int) -> int:
    return copy_span(to, text_at + text.at[k], text.length[k])


@compiled
def print_escaped(to: int, at: int, length: int) -> int:
    """The inside of a JSON string, from UTF-8; escapes as orjson does: quotes, backslashes, controls."""
    end = at + length
    while at < end:
        word = load_word(at)
        store_word(to, word)
        quote = word ^ _QUOTES
        backslash = word ^ _BACKSLASHES
        # the lowest bit set marks the first byte to escape (higher ones may be there by a borrow)
        found = (word - _SPACES) & ~word | (quote - _ONES) & ~quote | (backslash - _ONES) & ~backslash
        plain = min(trailing_zeros(found & _HIGH) >> 3, end - at)
        at += plain
        to += plain
        if plain < 8 and at < end:
            byte = load_byte(at)
            at += 1
            store_byte(to, np.uint8(ord("\\")))
            letter = _SHORT_ESCAPES[byte]
            if letter:
                store_byte(to + 1, letter)
                to += 2
            else:
                store_word(to + 1, np.uint64(0x30303075))  # u000
                store_byte(to + 4, _HEXADECIMAL[byte >> 4])
                store_byte(to + 5, _HEXADECIMAL[byte & 15])
                to += 6
    return to


@inlined
def print_forecast(
    to: int, row: int, columns: ForecastColumns, text: ForecastText, payload_at: int, text_at: int
) -> tuple[int, bool]:
    """The text of one row's forecast; returns the address after it and whether all its numbers were finite."""
    finite = True
    to = _print_literal(to, text, text_at, STREAM)
    to = print_escaped(to, payload_at + columns.stream_at[row], columns.stream_len[row])
    to = _print_literal(to, text, text_at, TS)
    time = columns.event_time[row]
    to = print_integer(to, time)
    to = _print_literal(to, text, text_at, Y)
    for k in range(columns.x.shape[1]):
        value = columns.x[row, k]
        finite &= abs(value) <= _LARGEST_FLOAT64
        to = print_float64(to, float64_bits(value))
        store_byte(to, np.uint8(ord(",")))
        to += 1
    to = _print_literal(to - 1, text, text_at, YHAT)
    largest = _LARGEST_FLOAT32 if text.single else _LARGEST_FLOAT64
    for k in range(columns.yhat.shape[1]):
        value = columns.yhat[row, k]
        finite &= abs(value) <= largest
        if text.single:
            to = print_float32(to, float32_bits(value))
        else:
            to = print_float64(to, float64_bits(value))
        store_byte(to, np.uint8(ord(",")))
        to += 1
    to = _print_literal(to - 1, text, text_at, TARGET)
    gap = columns.gap_ms[row]
    if gap < 0:
        store_word(to, _NULL)
        to += 4
    else:
        store_byte(to, np.uint8(ord("[")))
        to += 1
        for k in range(text.horizons.shape[0]):
            to = print_integer(to, time + text.horizons[k] * gap)
            store_byte(to, np.uint8(ord(",")))
            to += 1
        store_byte(to - 1, np.uint8(ord("]")))
    to = _print_literal(to, text, text_at, STATUS + columns.status[row])
    to = print_integer(to, columns.n_seen[row])
    to = _print_literal(to, text, text_at, SOURCE)
    to = print_integer(to, columns.offset[row])
    return _print_literal(to, text, text_at, END), finite


@compiled
def values_bound(columns: ForecastColumns, text: ForecastText, rows: NDArray[np.int64]) -> int:
    """Bytes that suffice for `print_values`."""
    total = SLACK
    for i in range(rows.shape[0]):
        total += text_bound(rows[i], columns, text)
    return total


@compiled
def print_values(
    columns: ForecastColumns,
    text: ForecastText,
    rows: NDArray[np.int64],
    out: NDArray[np.uint8],
    ends: NDArray[np.int64],
) -> int:
    """The texts of `rows` int64 [n], one after the other; text i ends before out[ends[i]].

    out uint8 [>= values_bound]. Returns how many held a number that isn't finite, and was printed as null.
    """
    payload_at = signed(columns.payload.ctypes.data)
    text_at = signed(text.text.ctypes.data)
    start = signed(out.ctypes.data)
    to = start
    not_finite = 0
    for i in range(rows.shape[0]):
        to, finite = print_forecast(to, rows[i], columns, text, payload_at, text_at)
        not_finite += not finite
        ends[i] = to - start
    return not_finite
