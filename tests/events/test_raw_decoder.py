"""Raw float64 values to rows."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.events.batch import Reason
from streamlstm.events.decode import RawDecoder
from streamlstm.events.fields import TimeUnit
from streamlstm.events.times import EARLIEST_MS, LATEST_MS
from tests.events.json_model import Expected
from tests.events.rows import BASE_TIME, batch_of, row_of, same

NAN, INFINITY = math.nan, math.inf


def reals(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}d", *numbers)


def decoded(
    value: bytes | None, inputs: int = 1, unit: TimeUnit = "ms", key: bytes | None = b"k", timestamp: int = BASE_TIME
) -> Expected:
    batch = batch_of([(b"good", reals(*range(inputs))), (key, value)], inputs, [BASE_TIME, timestamp])
    RawDecoder(unit).decode(batch, 0, 2)
    assert row_of(batch, 0) == Expected(Reason.OK, b"good", BASE_TIME, tuple(map(float, range(inputs))))
    return row_of(batch, 1)


def good(time: int, *x: float, stream: bytes = b"k") -> Expected:
    return Expected(Reason.OK, stream, time, x)


@pytest.mark.parametrize(
    ("unit", "time", "milliseconds"),
    [
        ("s", 1_730_000_000.0, 1_730_000_000_000),
        ("s", 1_730_000_000.123, 1_730_000_000_123),  # the float64 is a little below
        ("s", 1_730_000_000.1239, 1_730_000_000_123),
        ("s", -0.5, -500),
        ("s", -0.0005, -1),
        ("ms", 1_730_000_000_123.0, 1_730_000_000_123),
        ("ms", 1_730_000_000_123.75, 1_730_000_000_123),
        ("ms", -0.25, -1),
        ("us", 1_730_000_000_123_999.0, 1_730_000_000_123),
        ("ns", 1_730_000_000_123_456_768.0, 1_730_000_000_123),
        ("ms", float(EARLIEST_MS), EARLIEST_MS),
        ("ms", float(LATEST_MS), LATEST_MS),
    ],
)
def test_time_before_the_inputs(unit: TimeUnit, time: float, milliseconds: int) -> None:
    assert decoded(reals(time, 2.5), unit=unit) == good(milliseconds, 2.5)


def test_without_a_time_the_records_timestamp_counts() -> None:
    assert decoded(reals(2.5)) == good(BASE_TIME, 2.5)
    assert decoded(reals(1, 2, 3), inputs=3, timestamp=0) == good(0, 1, 2, 3)
    assert decoded(reals(7, 1, 2, 3), inputs=3, timestamp=-1) == good(7, 1, 2, 3)
    assert decoded(reals(2.5), timestamp=-1) == Expected(Reason.BAD_TIME)
    assert decoded(reals(2.5), timestamp=LATEST_MS + 1) == Expected(Reason.BAD_TIME)


@pytest.mark.parametrize(
    ("value", "inputs", "reason"),
    [
        (None, 1, Reason.TOMBSTONE),
        (b"", 1, Reason.WRONG_LENGTH),
        (b"1234567", 1, Reason.WRONG_LENGTH),
        (b"123456789", 1, Reason.WRONG_LENGTH),
        (reals(1, 2, 3), 1, Reason.WRONG_LENGTH),
        (reals(1, 2), 3, Reason.WRONG_LENGTH),
        (reals(1, 2, 3, 4, 5), 3, Reason.WRONG_LENGTH),
        (reals(NAN), 1, Reason.NOT_FINITE),
        (reals(1, INFINITY), 1, Reason.NOT_FINITE),
        (reals(1, 2, -INFINITY), 3, Reason.NOT_FINITE),
        (reals(NAN, 1), 1, Reason.BAD_TIME),
        (reals(INFINITY, 1), 1, Reason.BAD_TIME),
        (reals(1e300, 1), 1, Reason.BAD_TIME),
        (reals(LATEST_MS + 1.0, 1), 1, Reason.BAD_TIME),
        (reals(EARLIEST_MS - 1.0, 1), 1, Reason.BAD_TIME),
    ],
)
def test_refused(value: bytes | None, inputs: int, reason: Reason) -> None:
    assert decoded(value, inputs) == Expected(reason)


@pytest.mark.parametrize(("x", "is_good"), [((NAN, 1.0), True), ((NAN, INFINITY), False), ((NAN, NAN), True)])
def test_missing_inputs_are_let_through(x: tuple[float, ...], is_good: bool) -> None:
    batch = batch_of([(b"k", reals(*x)), (b"k", None)], 2)
    RawDecoder("ms", lets_missing=True).decode(batch, 0, 2)
    assert same(row_of(batch, 0), good(BASE_TIME, *x) if is_good else Expected(Reason.NOT_FINITE))
    assert row_of(batch, 1) == Expected(Reason.TOMBSTONE)
    assert (batch.stream_at[1], batch.stream_len[1]) == (batch.key_at[1], 1)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.NO_KEY),
        (b"", Reason.NO_KEY),
        (b"\xff", Reason.KEY_ENCODING),
        (b"\xed\xa0\x80", Reason.KEY_ENCODING),
        (b"a long key that ends in half a character \xf0\x9f\x8c", Reason.KEY_ENCODING),
    ],
)
def test_refused_for_its_key(key: bytes | None, reason: Reason) -> None:
    assert decoded(reals(1), key=key) == Expected(reason)


@given(st.binary(max_size=12))
@settings(max_examples=500)
def test_a_key_is_utf8_when_python_says_so(key: bytes) -> None:
    _check_key(key)


@given(st.text(max_size=30), st.integers(0, 99), st.integers(0, 255))
@settings(max_examples=500)
def test_a_damaged_key_too(text: str, at: int, byte: int) -> None:
    key = bytearray(text.encode())
    if key:
        key[at % len(key)] = byte
    _check_key(bytes(key))


def _check_key(key: bytes) -> None:
    try:
        key.decode()
        wanted = good(BASE_TIME, 1.0, stream=key) if key else Expected(Reason.NO_KEY)
    except UnicodeDecodeError:
        wanted = Expected(Reason.KEY_ENCODING)
    assert decoded(reals(1), key=key) == wanted


@given(st.lists(st.floats(width=64), min_size=3, max_size=3))
def test_inputs_are_the_bits_that_came(x: list[float]) -> None:
    wanted = Expected(Reason.OK, b"k", BASE_TIME, tuple(x)) if np.isfinite(x).all() else Expected(Reason.NOT_FINITE)
    assert same(decoded(reals(*x), inputs=3), wanted)


def test_rows_with_a_reason_are_left_alone() -> None:
    batch = batch_of([(b"k", reals(i)) for i in range(3)], 1)
    batch.reason[1] = Reason.CAPACITY
    batch.x[:] = 77
    RawDecoder("ms").decode(batch, 0, 2)
    assert batch.x[:, 0].tolist() == [0, 77, 77]
