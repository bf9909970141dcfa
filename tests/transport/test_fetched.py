"""A partition's bytes taken apart: what is read, skipped, poisoned, and where the position goes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.legacy_records import LegacyRecordBatchBuilder

from streamlstm.transport.fetched import (
    RUN_BYTES,
    AbortedTransaction,
    FetchedBatch,
    FetchedRun,
    PartitionBytes,
    PoisonBatch,
)
from tests.transport.batches import CODECS, at, encode, marker, signed

LIMIT = 1 << 20
THREE = encode([b"a", b"b", b"c"])
TRANSACTIONAL = 0x10


def read(
    buffer: bytes, position: int = 0, aborted: tuple[AbortedTransaction, ...] = (), limit: int = LIMIT
) -> tuple[list[FetchedBatch | PoisonBatch], int]:
    parts = PartitionBytes("t", 1, position, buffer, aborted, limit)
    return list(parts), parts.position


def spans(found: list[FetchedBatch | PoisonBatch]) -> list[tuple[str, int, int]]:
    return [(type(each).__name__, each.base_offset, each.last_offset) for each in found]


@pytest.mark.parametrize("codec", list(CODECS))
def test_whole_batches(codec: str) -> None:
    batch = encode([b"v%d" % i for i in range(5)], codec)
    found, position = read(at(batch, 10) + at(batch, 15), 10)
    assert spans(found) == [("FetchedBatch", 10, 14), ("FetchedBatch", 15, 19)]
    assert position == 20
    first = found[0]
    assert isinstance(first, FetchedBatch)
    assert bytes(first.records) == bytes(encode([b"v%d" % i for i in range(5)])[61:])
    assert (first.topic, first.partition, first.count, first.min_offset) == ("t", 1, 5, 10)
    assert (first.base_timestamp, first.append_time, first.leader_epoch) == (1_700_000_000_000, -1, 5)


def test_append_time_is_the_times_of_all_records() -> None:
    found, _ = read(at(THREE, 0, attributes=0x08))
    assert isinstance(found[0], FetchedBatch)
    assert found[0].append_time == 1_700_000_000_000


def test_records_below_the_position_are_flagged_by_min_offset() -> None:
    found, position = read(at(THREE, 10) + at(THREE, 13), 11)
    assert [each.min_offset for each in found if isinstance(each, FetchedBatch)] == [11, 13]
    assert position == 16


def test_a_batch_wholly_below_the_position_is_skipped() -> None:
    found, position = read(at(THREE, 10) + at(THREE, 13), 13)
    assert spans(found) == [("FetchedBatch", 13, 15)]
    assert position == 16


def test_a_batch_cut_by_the_fetch_size_is_left_for_the_next_fetch() -> None:
    whole = at(THREE, 0)
    for cut in (1, 12, 17, 60, 61, len(whole) - 1):
        found, position = read(whole + at(THREE, 3)[:cut])
        assert spans(found) == [("FetchedBatch", 0, 2)]
        assert position == 3


def test_nothing_is_nothing() -> None:
    assert read(b"", 7) == ([], 7)


def test_control_batches_move_the_position() -> None:
    found, position = read(at(THREE, 0, producer=9, attributes=TRANSACTIONAL) + marker(3, 9))
    assert spans(found) == [("FetchedBatch", 0, 2)]
    assert position == 4


def test_aborted_transactions_are_skipped_and_others_are_not() -> None:
    log = at(THREE, 0, producer=9, attributes=TRANSACTIONAL)
    log += at(THREE, 3, producer=8, attributes=TRANSACTIONAL)
    log += at(THREE, 6)
    log += marker(9, 9) + marker(10, 8)
    log += at(THREE, 11, producer=9, attributes=TRANSACTIONAL) + marker(14, 9)
    found, position = read(log, 0, (AbortedTransaction(9, 0),))
    assert spans(found) == [("FetchedBatch", 3, 5), ("FetchedBatch", 6, 8), ("FetchedBatch", 11, 13)]
    assert position == 15


def test_the_second_transaction_of_a_producer_is_aborted() -> None:
    log = at(THREE, 0, producer=9, attributes=TRANSACTIONAL) + marker(3, 9)
    log += at(THREE, 4, producer=9, attributes=TRANSACTIONAL) + marker(7, 9)
    found, position = read(log, 0, (AbortedTransaction(9, 4),))
    assert spans(found) == [("FetchedBatch", 0, 2)]
    assert position == 8


def test_a_flipped_bit_anywhere_is_seen_and_stepped_past() -> None:
    good, bad, after = at(THREE, 0), at(THREE, 3), at(THREE, 6)
    for where in range(17, len(bad)):
        broken = bytearray(bad)
        broken[where] ^= 0x04
        found, position = read(good + broken + after)
        assert spans(found) == [("FetchedBatch", 0, 2), ("PoisonBatch", 3, 5), ("FetchedBatch", 6, 8)], where
        assert position == 9
        poison = found[1]
        assert isinstance(poison, PoisonBatch)
        assert poison.reason == "corrupt_batch"


def test_a_corrupt_last_batch_is_stepped_past_by_what_its_size_allows() -> None:
    broken = at(THREE, 3)
    broken[-1] ^= 1
    assert read(broken, 3)[1] == 6
    struct.pack_into(">i", broken, 23, 1 << 30)  # a last offset delta that can't be
    found, position = read(broken, 3)
    assert spans(found) == [("PoisonBatch", 3, 3)]
    assert position == 4


def test_a_corrupt_batch_fetched_from_its_middle_still_moves_on() -> None:
    broken = at(THREE, 3)
    broken[-1] ^= 1
    struct.pack_into(">i", broken, 23, -1)
    found, position = read(broken, 5)
    assert spans(found) == [("PoisonBatch", 5, 5)]
    assert position == 6


@pytest.mark.parametrize("number", [5, 6, 7])
def test_a_codec_that_kafka_does_not_have(number: int) -> None:
    found, position = read(at(THREE, 0, attributes=number) + at(THREE, 3))
    assert spans(found) == [("PoisonBatch", 0, 2), ("FetchedBatch", 3, 5)]
    assert isinstance(found[0], PoisonBatch)
    assert found[0].reason == "unknown_codec"
    assert position == 6


def test_bytes_that_are_not_what_the_codec_says() -> None:
    for number in (1, 2, 3, 4):
        found, _ = read(at(THREE, 0, attributes=number))
        assert isinstance(found[0], PoisonBatch)
        assert found[0].reason == "corrupt_batch"


def test_a_decompression_bomb() -> None:
    found, position = read(at(encode([bytes(2 * LIMIT)], "zstd"), 0))
    assert isinstance(found[0], PoisonBatch)
    assert f"more than {LIMIT} bytes" in found[0].message
    assert position == 1


@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats_are_named(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
    for offset in range(2):
        builder.append(offset, 1_700_000_000_000, None, b"old")
    found, position = read(bytes(builder.build()))
    assert spans(found) == [("PoisonBatch", 0, 0), ("PoisonBatch", 1, 1)]
    assert isinstance(found[0], PoisonBatch)
    assert f"record format v{magic}" in found[0].message
    assert position == 2


@pytest.mark.parametrize("length", [-1, -(1 << 31), 0, 3, 1 << 30])
def test_a_first_batch_with_an_impossible_length_moves_by_one(length: int) -> None:
    broken = at(THREE, 4)
    struct.pack_into(">i", broken, 8, length)
    found, position = read(broken, 4)
    assert spans(found) == [("PoisonBatch", 4, 4)]
    assert position == 5


@given(st.binary(max_size=400), st.integers(0, 1 << 40))
def test_any_bytes_end_and_never_move_backwards(garbage: bytes, position: int) -> None:
    found, after = read(garbage, position)
    assert after >= position
    assert len(found) <= 1 + len(garbage) // 17
    if garbage:
        assert after > position or not found


@pytest.mark.parametrize("delta", [-5, 0, 1, 7, 99])
def test_a_damaged_last_offset_leaves_no_hole_before_the_next_batch(delta: int) -> None:
    broken = at(THREE, 0)
    struct.pack_into(">i", broken, 23, delta)
    found, position = read(broken + at(THREE, 3))
    assert spans(found) == [("PoisonBatch", 0, 2), ("FetchedBatch", 3, 5)]
    assert position == 6


@given(st.data())
def test_damage_never_hides_a_sound_batch(data: st.DataObject) -> None:
    """Any damage to one batch's body: the others are read, the offsets are covered without a hole."""
    batches = [at(THREE, 3 * i) for i in range(4)]
    victim = data.draw(st.integers(0, 3))
    for _ in range(data.draw(st.integers(1, 5))):
        batches[victim][data.draw(st.integers(17, len(THREE) - 1))] = data.draw(st.integers(0, 255))
    found, position = read(b"".join(bytes(each) for each in batches))
    assert position >= 12 or victim == 3
    covered = [offset for each in found for offset in range(each.base_offset, each.last_offset + 1)]
    assert covered == list(range(position))
    sound = [each.base_offset for each in found if isinstance(each, FetchedBatch)]
    assert set(sound) >= {3 * i for i in range(4) if i != victim}


def test_a_right_crc_over_a_wrong_count_is_left_to_the_decoder() -> None:
    batch = at(THREE, 0)
    struct.pack_into(">i", batch, 57, 99)
    found, _ = read(signed(batch))
    assert isinstance(found[0], FetchedBatch)
    assert found[0].count == 99


@st.composite
def logs(draw: st.DrawFn) -> tuple[bytes, int, tuple[AbortedTransaction, ...]]:
    """Batches of every kind behind one another, some of them damaged; a position; what the broker says was aborted."""
    log, base = bytearray(), draw(st.integers(0, 5))
    for _ in range(draw(st.integers(0, 12))):
        count = draw(st.integers(1, 3))
        values = [b"v%d" % k for k in range(count)]
        kind = draw(
            st.sampled_from(["plain"] * 6 + ["gzip", "marker", "transactional", "append time", "epoch", "flipped"])
        )
        stored = at(encode(values, "gzip" if kind == "gzip" else "none"), base, epoch=6 if kind == "epoch" else 5)
        if kind == "marker":
            stored = marker(base, draw(st.integers(7, 9)))
        elif kind == "transactional":
            stored = at(encode(values), base, producer=draw(st.integers(7, 9)), attributes=TRANSACTIONAL)
        elif kind == "append time":
            stored = at(encode(values), base, attributes=0x08)
        elif kind == "flipped":
            stored[draw(st.integers(8, len(stored) - 1))] ^= 1 << draw(st.integers(0, 7))
        log += stored
        base += count + draw(st.sampled_from([0, 0, 0, 2, -1]))
    cut = len(log) - draw(st.sampled_from([0, 0, 1, 70]))
    aborted = draw(st.sampled_from([(), (), (AbortedTransaction(9, 0),), (AbortedTransaction(8, 3),)]))
    return bytes(log[: max(0, cut)]), draw(st.integers(0, 8)), aborted


class OneByOne(PartitionBytes):
    def _run(self) -> None:
        return None


@given(logs())
def test_runs_are_what_batches_one_by_one_are(log: tuple[bytes, int, tuple[AbortedTransaction, ...]]) -> None:
    content, position, aborted = log
    ours = PartitionBytes("t", 1, position, content, aborted, LIMIT)
    theirs = OneByOne("t", 1, position, content, aborted, LIMIT)
    assert list(ours) == list(theirs)
    assert (ours.position, ours.leader_epoch) == (theirs.position, theirs.leader_epoch)


def sections(run: FetchedRun) -> list[bytes]:
    assert run.spans[-1, 1] == len(run.records)
    return [bytes(run.records[start:stop]) for start, stop in run.spans[:, :2].tolist()]


def test_small_plain_batches_come_as_one() -> None:
    log = b"".join(at(THREE, 3 * k) for k in range(100))
    parts = PartitionBytes("t", 1, 4, log[:-1], (), LIMIT)
    (run,) = parts.runs()  # the first lies below the position
    assert isinstance(run, FetchedRun)
    assert (run.base_offset, run.last_offset, run.min_offset, run.leader_epoch, len(run.spans)) == (3, 296, 4, 5, 98)
    assert sections(run) == [bytes(THREE[61:])] * 98


@pytest.mark.parametrize("codec", list(CODECS))
def test_small_batches_of_every_codec_come_as_one(codec: str) -> None:
    log = b"".join(at(encode([b"a" * 200, b"b"], "none" if k % 2 else codec), 2 * k) for k in range(9))
    (run,) = PartitionBytes("t", 1, 0, log, (), LIMIT).runs()
    assert isinstance(run, FetchedRun)
    assert sections(run) == [bytes(encode([b"a" * 200, b"b"])[61:])] * 9


def test_what_decompresses_to_more_than_the_limit_is_no_part_of_a_run() -> None:
    bomb = encode([bytes(1000) * 300], "zstd")
    log = at(THREE, 0) + at(THREE, 3) + at(bomb, 6) + at(THREE, 7) + at(THREE, 10)
    found = list(PartitionBytes("t", 1, 0, log, (), 200_000).runs())
    assert spans(found) == [("FetchedRun", 0, 5), ("PoisonBatch", 6, 6), ("FetchedRun", 7, 12)]  # type: ignore[arg-type]


def test_a_run_is_bounded() -> None:
    log = b"".join(at(encode([bytes(RUN_BYTES // 7)] * 3), 3 * k) for k in range(9))
    found = list(PartitionBytes("t", 1, 0, log, (), LIMIT).runs())
    assert [len(each.spans) for each in found if isinstance(each, FetchedRun)] == [2, 2, 2, 2]
    assert all(len(each.records) <= RUN_BYTES for each in found if isinstance(each, FetchedRun))
    assert isinstance(found[-1], FetchedBatch)
