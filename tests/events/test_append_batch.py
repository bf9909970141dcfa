"""Record batches into one EventBatch: rows, runs, growing buffers, and batches that are refused whole."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.events.batch import PADDING, EventBatch, Reason, Run
from streamlstm.events.decode import Appended, JsonDecoder, MalformedBatch, append_batch, append_batches
from streamlstm.events.fields import FieldPaths
from tests.events.record_encoding import Record, records_section


def small() -> EventBatch:
    return EventBatch(1, np.zeros(PADDING, np.uint8), 1)


def append(batch: EventBatch, section: bytes | memoryview, count: int, **header: Any) -> Appended | MalformedBatch:
    usual = {"base_offset": 100, "base_timestamp": 1_700_000_000_000}
    return append_batch(
        batch, header.pop("topic", "t"), header.pop("partition", 0), section, count=count, **usual | header
    )


def some_records(count: int, name: str = "k") -> list[Record]:
    return [Record(i, i, f"{name}{i}".encode(), b'{"y":%d}' % i, ((b"h", None),)) for i in range(count)]


def span(batch: EventBatch, name: str, row: int) -> bytes:
    at, size = getattr(batch, f"{name}_at")[row], getattr(batch, f"{name}_len")[row]
    return batch.payload[at : at + size].tobytes()


def test_rows_stand_behind_each_other_and_survive_growth() -> None:
    batch = small()
    for i in range(20):
        outcome = append(batch, records_section(some_records(i, f"{i}-")), i, base_offset=1000 * i)
        assert outcome == Appended(batch.n - i, batch.n)
        assert len(batch.payload) >= batch.payload_used + PADDING
    JsonDecoder(FieldPaths()).decode(batch, 0, batch.n)
    row = 0
    for i in range(20):
        for k in range(i):
            assert (span(batch, "key", row), span(batch, "stream", row)) == (f"{i}-{k}".encode(),) * 2
            assert (span(batch, "value", row), batch.x[row, 0]) == (b'{"y":%d}' % k, k)
            assert span(batch, "headers", row) == b"\x02\x02h\x01"
            assert (batch.offset[row], batch.timestamp[row]) == (1000 * i + k, 1_700_000_000_000 + k)
            row += 1
    assert row == batch.n
    assert batch.runs == [Run("t", 0, 0, row)]


def test_a_run_is_what_follows_of_one_partition() -> None:
    batch = small()
    for topic, partition, count in (("a", 0, 2), ("a", 0, 3), ("a", 1, 0), ("a", 1, 1), ("b", 1, 1), ("a", 1, 1)):
        append(batch, records_section(some_records(count)), count, topic=topic, partition=partition)
    assert batch.runs == [Run("a", 0, 0, 5), Run("a", 1, 5, 6), Run("b", 1, 6, 7), Run("a", 1, 7, 8)]


def test_records_below_the_position_get_no_row() -> None:
    batch = small()
    assert append(batch, records_section(some_records(5)), 5, min_offset=103) == Appended(0, 2)
    assert batch.offset[:2].tolist() == [103, 104]
    assert append(batch, records_section(some_records(5)), 5, min_offset=105) == Appended(2, 2)
    assert batch.runs == [Run("t", 0, 0, 2)]


def test_append_time_stands_for_every_timestamp() -> None:
    batch = small()
    append(batch, records_section(some_records(3)), 3, append_time=1_800_000_000_000)
    assert batch.timestamp[:3].tolist() == [1_800_000_000_000] * 3


def test_clear_keeps_the_buffers_and_new_rows_have_no_reason() -> None:
    batch = small()
    append(batch, records_section(some_records(5)), 5)
    batch.reason[:] = Reason.CAPACITY
    payload = batch.payload
    batch.clear()
    assert (batch.n, batch.payload_used, batch.runs) == (0, 0, [])
    append(batch, memoryview(records_section(some_records(2, "x"))), 2)
    assert batch.payload is payload
    assert batch.reason[:2].tolist() == [0, 0]
    assert span(batch, "key", 1) == b"x1"


@pytest.mark.parametrize(
    ("damage", "count", "problem"),
    [
        (lambda section: section[:-1], 3, "record 2 of 3"),
        (lambda section: section + b"\0", 3, "expected 3, found more bytes behind the last one"),
        (lambda section: section, 2, "expected 2, found more bytes"),
        (lambda section: section, 4, "record 3 of 4"),
        (lambda section: section, 10**9, "expected 1000000000 in"),
        (lambda section: section, -1, "expected -1 in"),
        (lambda section: b"\xff" * 70, 3, "record 0 of 3"),
        (lambda section: b"", 1, "expected 1 in 0 bytes"),
    ],
)
def test_a_malformed_batch_is_named_and_leaves_no_trace(damage: Any, count: int, problem: str) -> None:
    batch = small()
    append(batch, records_section(some_records(2)), 2)
    before = (batch.n, batch.payload_used, list(batch.runs), batch.payload[: batch.payload_used].tobytes())
    outcome = append(batch, damage(records_section(some_records(3))), count)
    assert isinstance(outcome, MalformedBatch)
    assert problem in outcome.problem
    assert outcome.reason is Reason.CORRUPT_BATCH
    assert before == (batch.n, batch.payload_used, batch.runs, batch.payload[: batch.payload_used].tobytes())
    assert append(batch, records_section(some_records(1, "next")), 1) == Appended(2, 3)
    assert [span(batch, "key", row) for row in range(3)] == [b"k0", b"k1", b"next0"]


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 6), max_size=6))
def test_damaged_batches_between_good_ones(chance: random.Random, counts: list[int]) -> None:
    batch = small()
    wanted = []
    for i, count in enumerate(counts):
        section = bytearray(records_section(some_records(count, f"{i}-")))
        if i % 2 and section:
            section[chance.randrange(len(section))] ^= 1 << chance.randrange(8)
        outcome = append(batch, bytes(section), count)
        if isinstance(outcome, Appended):
            wanted += [span(batch, "key", row) for row in range(outcome.start, outcome.stop)]
        if i % 2 == 0:
            assert wanted[len(wanted) - count :] == [f"{i}-{k}".encode() for k in range(count)]
    assert [span(batch, "key", row) for row in range(batch.n)] == wanted


def test_batches_behind_one_another_are_the_same_rows_as_one_by_one() -> None:
    """Malformed ones among them are named, with the row before which they stood; the others don't suffer."""
    one_by_one, together = small(), small()
    content, spans, expected = b"head", [], []
    for i in range(8):
        section = records_section(some_records(i, f"{i}-"))
        count, last = i, 10 * i + max(0, i - 1)
        if i == 2:
            section = section[:-1]
        elif i == 4:
            count = 10**9
        elif i == 5:
            last -= 1
        outcome = append(
            one_by_one,
            section,
            count,
            base_offset=10 * i,
            append_time=7 if i == 6 else -1,
            min_offset=12,
            last_offset=last,
        )
        if isinstance(outcome, MalformedBatch):
            expected.append((i, one_by_one.n, outcome))
        start = len(content)
        content += section + b"between"
        spans.append((start, start + len(section), count, 10 * i, last, 1_700_000_000_000, 7 if i == 6 else -1))
    found = append_batches(together, "t", 0, content, np.array(spans, np.int64), 12)
    assert found == expected
    assert [k for k, _, _ in found] == [2, 4, 5]
    assert together.runs == one_by_one.runs
    for name in ("offset", "timestamp", "reason"):
        assert np.array_equal(getattr(together, name)[: together.n], getattr(one_by_one, name)[: one_by_one.n])
    for name in ("key", "value", "headers"):
        rows = range(together.n)
        assert [span(together, name, row) for row in rows] == [span(one_by_one, name, row) for row in rows]


def test_all_batches_malformed_leave_no_rows() -> None:
    batch = small()
    spans = np.array([(0, 7, -1, 0, 0, 0, -1), (0, 7, 1, 0, 0, 0, -1)], np.int64)
    found = append_batches(batch, "t", 0, bytes(7), spans)
    assert [(k, row) for k, row, _ in found] == [(0, 0), (1, 0)]
    assert "expected -1 in 7 bytes" in found[0][2].problem
    assert "record 0 of 1" in found[1][2].problem
    assert (batch.n, batch.runs) == (0, [])
