"""Batches of a few records: what we encode kafka-python and the broker understand; what others encode we take apart."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from streamlstm.errors import BadDataError
from streamlstm.transport.fetched import FetchedBatch, PartitionBytes
from streamlstm.transport.record_batches import encode_batch, records
from streamlstm.transport.requests import ProduceBatch, Producer, stamp
from tests.transport.batches import CODECS, at, signed

TIME = 1_700_000_000_000
NULLABLE = st.none() | st.binary(max_size=300)
HEADERS = st.lists(st.tuples(st.text(max_size=5), NULLABLE), max_size=3)


def fetched(buffer: bytes, position: int) -> list[FetchedBatch]:
    found = list(PartitionBytes("t", 3, position, buffer, (), 1 << 24))
    assert all(isinstance(each, FetchedBatch) for each in found)
    return found  # type: ignore[return-value]


@given(st.lists(st.tuples(NULLABLE, NULLABLE), min_size=1, max_size=5))
def test_what_is_encoded_comes_back(given_records: list[tuple[bytes | None, bytes | None]]) -> None:
    buffer = encode_batch(given_records, TIME)
    stamp(ProduceBatch("t", 3, buffer, len(given_records)), Producer("tx", 7, 1), 0)
    theirs = DefaultRecordBatch(buffer)
    assert theirs.validate_crc()
    assert (theirs.base_offset, theirs.last_offset, theirs.records_count) == (
        0,
        len(given_records) - 1,
        len(given_records),
    )
    assert (theirs.first_timestamp, theirs.max_timestamp, theirs.producer_id) == (TIME, TIME, 7)
    assert [(each.key, each.value) for each in theirs] == given_records
    (ours,) = fetched(buffer, 0)
    assert list(records(ours)) == [(i, TIME, key, value, []) for i, (key, value) in enumerate(given_records)]


@given(
    st.lists(st.tuples(st.integers(0, 1 << 50), NULLABLE, NULLABLE, HEADERS), min_size=1, max_size=5),
    st.sampled_from(sorted(CODECS)),
    st.integers(0, 1 << 40),
    st.integers(0, 6),
)
def test_what_others_encode_is_taken_apart(rows: list[Any], codec: str, base: int, skipped: int) -> None:
    """From the position on, as a broker gives a batch when its middle was asked for."""
    builder = MemoryRecordsBuilder(2, CODECS[codec], 1 << 30)
    for time, key, value, headers in rows:
        builder.append(time, key, value, headers)
    builder.close()
    stored = at(bytes(builder.buffer()), base)
    expected = [(base + i, *row) for i, row in enumerate(rows) if i >= skipped]
    assert [each for batch in fetched(stored, base + skipped) for each in records(batch)] == expected


def test_append_time_is_the_time_of_every_record() -> None:
    (batch,) = fetched(at(encode_batch([(b"a", b"b"), (b"c", None)], TIME), 5, attributes=0x08), 5)
    assert list(records(batch)) == [(5, TIME, b"a", b"b", []), (6, TIME, b"c", None, [])]


def test_offsets_that_compaction_has_removed() -> None:
    builder = MemoryRecordsBuilder(2, 0, 1 << 30)
    for gap in (0, 4, 1):
        builder.skip(gap)
        builder.append(TIME, b"k", b"v", [])
    builder.close()
    (batch,) = fetched(at(bytes(builder.buffer()), 10), 10)
    assert [each[0] for each in records(batch)] == [10, 15, 17]


@given(st.data())
def test_damage_under_a_right_crc_is_an_error_that_says_where(data: st.DataObject) -> None:
    """Never another exception, never a loop: the producer's fault, or a bug of a broker."""
    buffer = at(encode_batch([(b"chunk:", bytes(50)), (b"chunk:0", None)], TIME), 20)
    for _ in range(data.draw(st.integers(1, 4))):
        buffer[data.draw(st.integers(57, len(buffer) - 1))] = data.draw(st.integers(0, 255))
    (batch,) = fetched(signed(buffer), 20)
    problems = []
    try:
        list(records(batch))
    except BadDataError as error:
        problems.append(str(error))
    said = "partition 3 of topic 't', offsets 20-21: the record batch cannot be taken apart"
    assert all(each.startswith(said) for each in problems)


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 1 << 30])
def test_a_count_that_is_not_that_of_the_records(count: int) -> None:
    buffer = at(encode_batch([(b"a", b"b"), (b"c", None)], TIME), 5)
    struct.pack_into(">i", buffer, 57, count)
    (batch,) = fetched(signed(buffer), 5)
    with pytest.raises(BadDataError, match="cannot be taken apart"):
        list(records(batch))
