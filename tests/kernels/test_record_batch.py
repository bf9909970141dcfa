"""Record sections to columns, against the tests' own reader, on valid bytes and on every kind of damage."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.events.batch import PADDING
from streamlstm.kernels.record_batch import decode_records
from tests.events.record_encoding import MalformedError, Record, read_section, records_section, varint

BASE_OFFSET, BASE_TIME = 1_000, 1_700_000_000_000
COLUMNS = ("offset", "timestamp", "key_at", "key_len", "value_at", "value_len", "headers_at", "headers_len")

some_bytes = st.binary(max_size=200)
records = st.builds(
    Record,
    offset_delta=st.just(0),
    timestamp_delta=st.integers(-(2**63), 2**63 - 1) | st.integers(0, 100),
    key=st.none() | some_bytes,
    value=st.none() | some_bytes,
    headers=st.lists(st.tuples(some_bytes, st.none() | some_bytes), max_size=3).map(tuple),
)


@st.composite
def record_lists(draw: Any) -> list[Record]:
    found = draw(st.lists(records, max_size=6))
    gaps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 200, 100_000]), min_size=len(found), max_size=len(found)))
    deltas = np.cumsum(gaps, dtype=int) - 1
    return [
        Record(int(delta), one.timestamp_delta, one.key, one.value, one.headers)
        for one, delta in zip(found, deltas, strict=True)
    ]


def decode(
    section: bytes, count: int, append_time: int = -1, min_offset: int = 0, before: bytes = b"", after: bytes = b"\0"
) -> int | list[dict[str, Any]]:
    """Rows as dictionaries, or what the kernel returned. `before` and `after` surround the section in the payload."""
    start, stop = len(before), len(before) + len(section)
    padding = (after * PADDING)[:PADDING]
    payload = np.frombuffer(before + section + padding, np.uint8).copy()
    columns = [np.full(count + 3, -7, np.int64) for _ in COLUMNS]
    rows = decode_records(
        payload, start, stop, BASE_OFFSET, BASE_TIME, append_time, count, min_offset, 2, *columns
    )  # fmt: skip
    for column in columns:
        untouched = column[[0, 1, *range(2 + max(rows, 0), len(column))]] if rows >= 0 else column[[0, 1, -1]]
        assert (untouched == -7).all()
    if rows < 0:
        return rows
    found = [dict(zip(COLUMNS, (int(column[2 + row]) for column in columns), strict=True)) for row in range(rows)]
    for one in found:
        for name in ("key", "value", "headers"):
            at, size = one.pop(f"{name}_at"), one.pop(f"{name}_len")
            assert (at == -1 and size == 0) or start <= at <= at + size <= stop
            one[name] = None if at < 0 else payload[at : at + size].tobytes()
    return found


def expected(section: bytes, count: int, append_time: int = -1, min_offset: int = 0) -> list[dict[str, Any]] | None:
    try:
        found = read_section(section, count)
    except MalformedError:
        return None
    return [
        {
            "offset": BASE_OFFSET + one.offset_delta,
            "timestamp": append_time
            if append_time >= 0
            else struct.unpack("<q", ((BASE_TIME + one.timestamp_delta) % 2**64).to_bytes(8, "little"))[0],
            "key": one.key,
            "value": one.value,
            "headers": raw_headers,
        }
        for one, raw_headers in found
        if BASE_OFFSET + one.offset_delta >= min_offset
    ]


@given(record_lists(), st.sampled_from([-1, 0, 1_800_000_000_000]), st.integers(0, BASE_OFFSET + 400))
def test_valid_records(found: list[Record], append_time: int, min_offset: int) -> None:
    section = records_section(found)
    wanted = expected(section, len(found), append_time, min_offset)
    assert wanted is not None
    assert decode(section, len(found), append_time, min_offset, before=b"abc") == wanted


@given(record_lists(), st.integers(0, 8), st.data())
@settings(max_examples=300)
def test_damaged_records_are_read_as_the_format_says_or_refused(found: list[Record], count: int, data: Any) -> None:
    section = bytearray(records_section(found))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, max(len(section) - 1, 0)))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
        if kind == "flip" and section:
            section[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del section[at:]
        elif kind == "insert":
            section[at:at] = data.draw(st.binary(min_size=1, max_size=4) | st.just(b"\xff" * 12))
        else:
            del section[at : at + 1]
    _same_as_the_model(bytes(section), count)


@given(st.binary(max_size=60), st.integers(0, 5))
@settings(max_examples=300)
def test_any_bytes(section: bytes, count: int) -> None:
    _same_as_the_model(section, count)


def _same_as_the_model(section: bytes, count: int) -> None:
    wanted = expected(section, count)
    for after in (b"\0", b"\xff", b"\x02\x00"):  # what lies behind the section never matters
        found = decode(section, count, before=b"\x7f\x7f", after=after)
        if wanted is None:
            assert isinstance(found, int)
            assert -1 - count <= found < 0
        else:
            assert found == wanted


def _one(body: bytes) -> bytes:
    return varint(len(body)) + body


@pytest.mark.parametrize(
    "section",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(_one(b""), id="record of no bytes"),
        pytest.param(varint(-1), id="negative record length"),
        pytest.param(varint(100) + b"\0" * 7, id="record longer than the section"),
        pytest.param(b"\xff" * 5 + b"\0" * 20, id="varint of more than 5 bytes"),
        pytest.param(_one(b"\0" + b"\xff" * 10 + b"\1\0\1\1\0"), id="varint of more than 10 bytes"),
        pytest.param(_one(b"\0\0" + varint(-1) + b"\1\1\0"), id="negative offset delta"),
        pytest.param(_one(b"\0\0" + varint(2**31) + b"\1\1\0"), id="offset delta beyond int32"),
        pytest.param(_one(b"\0\0\0" + varint(-2) + b"\1\0"), id="key length below -1"),
        pytest.param(_one(b"\0\0\0" + varint(-(2**31)) + b"\1\0"), id="key length of the least int32"),
        pytest.param(_one(b"\0\0\0\1" + varint(-2) + b"\0"), id="value length below -1"),
        pytest.param(_one(b"\0\0\0\1" + varint(5) + b"abcd"), id="value longer than the record"),
        pytest.param(_one(b"\0\0\0\1\1"), id="no headers count"),
        pytest.param(_one(b"\0\0\0\1\1" + varint(-1)), id="negative headers count"),
        pytest.param(_one(b"\0\0\0\1\1" + varint(2**31 - 1)), id="headers count beyond the record"),
        pytest.param(_one(b"\0\0\0\1\1" + varint(1) + varint(-1) + b"\1"), id="null header key"),
        pytest.param(_one(b"\0\0\0\1\1\0X"), id="bytes left over in the record"),
        pytest.param(_one(b"\0\0\0\1\1\0") + b"X", id="bytes left over behind the records"),
    ],
)
def test_malformed(section: bytes) -> None:
    found = decode(section, 1)
    assert isinstance(found, int)
    assert found < 0
    assert expected(section, 1) is None


def test_offsets_that_do_not_grow_are_malformed_and_the_record_is_named() -> None:
    same = [Record(0, 0, None, b"1"), Record(1, 0, None, b"2"), Record(1, 0, None, b"3")]
    assert decode(records_section(same), 3) == -1 - 2
    assert decode(records_section(same[:2]) + b"X", 2) == -1 - 2
