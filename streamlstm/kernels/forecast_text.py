"""Forecasts as JSON text.

One forecast is the alternation of literals, rendered once for a run of rows, and of a row's own strings and numbers:

    {"stream":"..","ts":..,"y":..,"yhat":[..],"horizon":[..],"target_ts":[..],"status":"..","n_seen":..,"model":"..",
     "src":{"topic":"..","partition":..,"offset":..}}

without spaces or line breaks; with intervals

    .. "yhat":[..],"lower":[..],"upper":[..],"level":..,"horizon":[..],"target_ts":[..],
     "anomaly_score":..,"is_anomaly":..,"status":".." ..

`y` is a list when the model has several inputs, null where one is missing; `target_ts` is null while the stream's time
step is unknown, `anomaly_score` while the score is, a bound in `lower` or `upper` while it is infinite. The capacity
that a text needs is known beforehand (`text_bound`): nothing here checks for room.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.decimal import FLOAT_BYTES, INTEGER_BYTES, NOT_SIGN, print_float32, print_float64, print_integer
from streamlstm.kernels.memory import load_int64
from streamlstm.kernels.words import (
    BLOCK_BYTES,
    as_real,
    copy_block,
    float32_bits,
    load_byte,
    load_word,
    signed,
    store_byte,
    store_word,
    trailing_zeros,
)

SLACK = 64
"""Bytes beyond the bound that a printer may scribble on."""

(
    PAYLOAD, OFFSET, TIMESTAMP, EVENT_TIME, KEY_AT, KEY_LEN, HEADERS_AT, HEADERS_LEN, STREAM_AT, STREAM_LEN,
    X, YHAT, LOWER, UPPER, ANOMALY_SCORE, STATUS_OF, N_SEEN, GAP_MS, REASON, INPUTS, OUTPUTS,
) = range(21)  # fmt: skip
"""Places in a descriptor of columns: addresses of the columns of EventBatch and ForecastBatch, then I and O.

LOWER, UPPER and ANOMALY_SCORE are 0 when there are no intervals.
"""

STREAM, TS, Y, YHAT_LIST, LOWER_LIST, UPPER_LIST, TARGET, SCORE, VERDICT, SOURCE, END, STATUS = range(12)
"""The literals, by what follows them; STATUS + s is the one for status s. Without intervals LOWER_LIST, UPPER_LIST,
SCORE and VERDICT aren't printed."""

# places in a descriptor of texts: the bytes of the literals before STATUS, all together; two words for each literal,
# address and length
_HORIZONS, _N_HORIZONS, _SINGLE, _COMMON_BYTES, _LITERALS = range(5)

_ESCAPED_BYTES = 6  # \u001f
_NULL, _TRUE, _FALSE = np.uint64(0x6C6C756E), np.uint64(0x65757274), np.uint64(0x65736C6166)
_COMMA = np.uint8(ord(","))
_EXPONENT32, _EXPONENT64 = np.uint64(0xFF << 23), np.uint64(0x7FF << 52)
_ONES, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_SPACES, _QUOTES, _BACKSLASHES = (np.uint64(byte) * _ONES for byte in b' "\\')
_HEXADECIMAL = np.frombuffer(b"0123456789abcdef", np.uint8)
_SHORT_ESCAPES = np.zeros(128, np.uint8)
for _byte, _letter in zip(b'\b\t\n\f\r"\\', b'btnfr"\\', strict=True):
    _SHORT_ESCAPES[_byte] = _letter

Bytes = NDArray[np.uint8]
Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


@compiled(
    "void(uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], "
    "int64[::1], float64[:, ::1], float64[:, ::1], uint8[::1], int64[::1], int64[::1], uint8[::1], int64[::1])"
)
def describe_columns(
    payload: Bytes,
    offset: Int64s,
    timestamp: Int64s,
    event_time: Int64s,
    key_at: Int64s,
    key_len: Int64s,
    headers_at: Int64s,
    headers_len: Int64s,
    stream_at: Int64s,
    stream_len: Int64s,
    x: Float64s,
    yhat: Float64s,
    status: Bytes,
    n_seen: Int64s,
    gap_ms: Int64s,
    reason: Bytes,
    descriptor: Int64s,
) -> None:
    """Write descriptor int64 [21], without intervals. It is good for as long as the columns stay where they are."""
    descriptor[PAYLOAD] = signed(payload.ctypes.data)
    descriptor[OFFSET] = signed(offset.ctypes.data)
    descriptor[TIMESTAMP] = signed(timestamp.ctypes.data)
    descriptor[EVENT_TIME] = signed(event_time.ctypes.data)
    descriptor[KEY_AT] = signed(key_at.ctypes.data)
    descriptor[KEY_LEN] = signed(key_len.ctypes.data)
    descriptor[HEADERS_AT] = signed(headers_at.ctypes.data)
    descriptor[HEADERS_LEN] = signed(headers_len.ctypes.data)
    descriptor[STREAM_AT] = signed(stream_at.ctypes.data)
    descriptor[STREAM_LEN] = signed(stream_len.ctypes.data)
    descriptor[X] = signed(x.ctypes.data)
    descriptor[YHAT] = signed(yhat.ctypes.data)
    descriptor[LOWER] = descriptor[UPPER] = descriptor[ANOMALY_SCORE] = 0
    descriptor[STATUS_OF] = signed(status.ctypes.data)
    descriptor[N_SEEN] = signed(n_seen.ctypes.data)
    descriptor[GAP_MS] = signed(gap_ms.ctypes.data)
    descriptor[REASON] = signed(reason.ctypes.data)
    descriptor[INPUTS] = x.shape[1]
    descriptor[OUTPUTS] = yhat.shape[1]


@compiled("void(float64[:, ::1], float64[:, ::1], float64[::1], int64[::1])")
def describe_intervals(lower: Float64s, upper: Float64s, anomaly_score: Float64s, descriptor: Int64s) -> None:
    """Add the columns of intervals, lower and upper as wide as yhat, to what `describe_columns` wrote."""
    descriptor[LOWER] = signed(lower.ctypes.data)
    descriptor[UPPER] = signed(upper.ctypes.data)
    descriptor[ANOMALY_SCORE] = signed(anomaly_score.ctypes.data)


class ForecastText:
    """What is the same in all the rows of a run: its literals, laid out so that they can be copied in blocks."""

    def __init__(self, literals: Sequence[bytes], horizons: Int64s, single: bool) -> None:
        """`literals` come in the order of the constants above. `single`: yhat is printed as float32."""
        padded = [literal + bytes(-len(literal) % BLOCK_BYTES) for literal in literals]
        self._text = np.frombuffer(b"".join(padded), np.uint8)
        self._horizons = horizons
        starts = self._text.ctypes.data + np.cumsum([0, *map(len, padded)])[:-1]
        lengths = [len(literal) for literal in literals]
        spans = np.ravel([starts, lengths], "F")
        common = sum(lengths[:STATUS])
        self._descriptor = np.array([horizons.ctypes.data, len(horizons), single, common, *spans], np.int64)
        self.address: int = self._descriptor.ctypes.data
        """Of the descriptor; good for as long as this object lives."""


@embedded
def column(columns: int, which: int, row: int) -> int:
    """Row `row` of an int64 column."""
    return signed(load_int64(load_int64(columns + 8 * which) + 8 * row))


@embedded
def literal_length(text: int, k: int) -> int:
    return signed(load_int64(text + 8 * (_LITERALS + 2 * k + 1)))


@compiled("int64(int64, int64, int64)")
def text_bound(row: int, columns: int, text: int) -> int:
    """Bytes that the text of this row's forecast can't exceed. `columns` and `text` are descriptors' addresses."""
    status = signed(load_byte(load_int64(columns + 8 * STATUS_OF) + row))
    literals = signed(load_int64(text + 8 * _COMMON_BYTES)) + literal_length(text, STATUS + status)
    inputs = signed(load_int64(columns + 8 * INPUTS))
    outputs = signed(load_int64(columns + 8 * OUTPUTS))
    horizons = signed(load_int64(text + 8 * _N_HORIZONS))
    numbers = (inputs + outputs) * (FLOAT_BYTES + 1) + horizons * (INTEGER_BYTES + 1) + 3 * INTEGER_BYTES
    if load_int64(columns + 8 * LOWER) != 0:
        numbers += 2 * outputs * (FLOAT_BYTES + 1) + FLOAT_BYTES + 5  # false
    return literals + numbers + _ESCAPED_BYTES * column(columns, STREAM_LEN, row) + 8


@embedded
def copy_span(to: int, at: int, length: int) -> int:
    """Copy `length` bytes, and up to 31 more; returns the address after."""
    done = 0
    while done < length:
        copy_block(to + done, at + done)
        done += BLOCK_BYTES
    return to + length


@embedded
def _print_literal(to: int, text: int, k: int) -> int:
    return copy_span(to, load_int64(text + 8 * (_LITERALS + 2 * k)), literal_length(text, k))


@compiled("int64(int64, int64, int64)")
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


@embedded
def _print_bounds(to: int, columns: int, which: int, row: int) -> tuple[int, bool]:
    """One side of a row's intervals, a comma after each; whether all were numbers. Infinite, which is null, isn't known
    yet.
    """
    outputs = load_int64(columns + 8 * OUTPUTS)
    bounds = load_int64(columns + 8 * which) + 8 * outputs * row
    known = True
    for k in range(outputs):
        bits = load_word(bounds + 8 * k)
        known &= (bits & NOT_SIGN) <= _EXPONENT64
        to = print_float64(to, bits)
        store_byte(to, _COMMA)
        to += 1
    return to, known


@embedded
def _print_score(to: int, columns: int, text: int, row: int) -> tuple[int, bool]:
    """A row's anomaly score and what follows from it; whether the score was finite or NaN, which is null."""
    bits = load_word(load_int64(columns + 8 * ANOMALY_SCORE) + 8 * row)
    to = print_float64(_print_literal(to, text, SCORE), bits)
    to = _print_literal(to, text, VERDICT)
    anomalous = as_real(bits) > 1.0
    store_word(to, _TRUE if anomalous else _FALSE)
    return to + (4 if anomalous else 5), (bits & NOT_SIGN) != _EXPONENT64


@compiled("Tuple((int64, boolean))(int64, int64, int64, int64)")
def print_forecast(to: int, row: int, columns: int, text: int) -> tuple[int, bool]:
    """The text of one row's forecast; returns the address after it and whether all its numbers were finite.

    An input that is NaN is missing, a score that is NaN and a bound that is infinite are unknown: null in the text.
    Otherwise that is what becomes of a number that isn't finite.
    `columns` and `text` are addresses of descriptors.
    """
    finite = True
    to = _print_literal(to, text, STREAM)
    stream = load_int64(columns + 8 * PAYLOAD) + column(columns, STREAM_AT, row)
    to = print_escaped(to, stream, column(columns, STREAM_LEN, row))
    to = _print_literal(to, text, TS)
    time = column(columns, EVENT_TIME, row)
    to = print_integer(to, time)
    to = _print_literal(to, text, Y)
    inputs = load_int64(columns + 8 * INPUTS)
    values = load_int64(columns + 8 * X) + 8 * inputs * row
    for k in range(inputs):
        bits = load_word(values + 8 * k)
        finite &= (bits & NOT_SIGN) != _EXPONENT64
        to = print_float64(to, bits)
        store_byte(to, _COMMA)
        to += 1
    to = _print_literal(to - 1, text, YHAT_LIST)
    outputs = load_int64(columns + 8 * OUTPUTS)
    values = load_int64(columns + 8 * YHAT) + 8 * outputs * row
    single = load_int64(text + 8 * _SINGLE) != 0
    for k in range(outputs):
        bits = load_word(values + 8 * k)
        if single:
            bits = float32_bits(as_real(bits))
            finite &= (bits & _EXPONENT32) != _EXPONENT32
            to = print_float32(to, bits)
        else:
            finite &= (bits & _EXPONENT64) != _EXPONENT64
            to = print_float64(to, bits)
        store_byte(to, _COMMA)
        to += 1
    intervals = load_int64(columns + 8 * LOWER) != 0
    if intervals:
        to, known = _print_bounds(_print_literal(to - 1, text, LOWER_LIST), columns, LOWER, row)
        finite &= known
        to, known = _print_bounds(_print_literal(to - 1, text, UPPER_LIST), columns, UPPER, row)
        finite &= known
    to = _print_literal(to - 1, text, TARGET)
    gap = column(columns, GAP_MS, row)
    if gap < 0:
        store_word(to, _NULL)
        to += 4
    else:
        horizons = load_int64(text + 8 * _HORIZONS)
        store_byte(to, np.uint8(ord("[")))
        to += 1
        for k in range(load_int64(text + 8 * _N_HORIZONS)):
            to = print_integer(to, time + load_int64(horizons + 8 * k) * gap)
            store_byte(to, _COMMA)
            to += 1
        store_byte(to - 1, np.uint8(ord("]")))
    if intervals:
        to, known = _print_score(to, columns, text, row)
        finite &= known
    status = signed(load_byte(load_int64(columns + 8 * STATUS_OF) + row))
    to = _print_literal(to, text, STATUS + status)
    to = print_integer(to, column(columns, N_SEEN, row))
    to = _print_literal(to, text, SOURCE)
    to = print_integer(to, column(columns, OFFSET, row))
    return _print_literal(to, text, END), finite


@compiled("int64(int64, int64, int64[::1])")
def values_bound(columns: int, text: int, rows: Int64s) -> int:
    """Bytes that suffice for `print_values`."""
    total = SLACK
    for i in range(rows.shape[0]):
        total += text_bound(rows[i], columns, text)
    return total


@compiled("int64(int64, int64, int64[::1], uint8[::1], int64[::1])")
def print_values(columns: int, text: int, rows: Int64s, out: Bytes, ends: Int64s) -> int:
    """The texts of `rows` int64 [n], one after the other; text i ends before out[ends[i]].

    out uint8 [>= values_bound]. Returns how many held a number that isn't finite, and was printed as null.
    """
    start = signed(out.ctypes.data)
    to = start
    not_finite = 0
    for i in range(rows.shape[0]):
        to, finite = print_forecast(to, rows[i], columns, text)
        not_finite += 0 if finite else 1
        ends[i] = to - start
    return not_finite
