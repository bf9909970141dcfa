"""Dead letters, read back by kafka-python."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.events import dead_letter
from streamlstm.events.batch import PADDING, EventBatch, Reason
from streamlstm.events.dead_letter import HEADER_PREFIX, DeadLetterEncoder, PoisonReference
from streamlstm.events.encode import EncodedBatch
from tests.events.record_reader import ReadRecord, codec_number, read_records

SOURCE = ("plant.sensors", 3)
NO_HEADERS = b"\0"
TWO_HEADERS = b"\x04\x06abc\x04xy\x02n\x01"
VERSION = "1.2.3"


@dataclass(frozen=True)
class Refused:
    """A record that gets a dead letter."""

    key: bytes | None = b"pump-1"
    value: bytes | None = b'{"value": NaN}'
    headers: bytes = NO_HEADERS
    timestamp: int = 1_730_000_000_000
    offset: int = 42
    reason: Reason = Reason.NOT_FINITE


def encode(encoder: DeadLetterEncoder, records: Sequence[Refused]) -> list[EncodedBatch]:
    """Every second row is a good one that mustn't appear."""
    n = 2 * len(records)
    payload = bytearray(b"#")
    batch = EventBatch(1, np.zeros(0, np.uint8), n)
    batch.n = n
    for row, record in zip(range(0, n, 2), records, strict=True):
        for name, content in (("key", record.key), ("value", record.value), ("headers", record.headers)):
            getattr(batch, f"{name}_at")[row] = -1 if content is None else len(payload)
            getattr(batch, f"{name}_len")[row] = len(content or b"")
            payload += (content or b"") + b"#"
        batch.timestamp[row] = record.timestamp
        batch.offset[row] = record.offset
        batch.reason[row] = record.reason
    batch.payload = np.frombuffer(payload + bytes(PADDING), np.uint8).copy()
    return encoder.encode(batch, np.flatnonzero(batch.reason), SOURCE)


def read_all(batches: Sequence[EncodedBatch]) -> list[ReadRecord]:
    return [record for batch in batches for record in read_records(batch)]


def errors_of(record: ReadRecord) -> dict[str, str]:
    found = [(name, content) for name, content in record.headers if name.startswith(HEADER_PREFIX)]
    assert len(dict(found)) == len(found)
    return {name.removeprefix(HEADER_PREFIX): (content or b"").decode() for name, content in found}


def test_a_dead_letter() -> None:
    (record,) = read_all(encode(DeadLetterEncoder(VERSION), [Refused(headers=TWO_HEADERS)]))
    assert (record.key, record.value, record.timestamp) == (b"pump-1", b'{"value": NaN}', 1_730_000_000_000)
    assert record.headers[:2] == [("abc", b"xy"), ("n", None)]
    assert [name.removeprefix("__streamlstm.errors.") for name, _ in record.headers[2:]] == [
        "topic", "partition", "offset", "reason", "message", "stage", "version",
    ]  # fmt: skip
    assert errors_of(record) == {
        "topic": "plant.sensors",
        "partition": "3",
        "offset": "42",
        "reason": "not_finite",
        "message": "an input of the model is NaN or infinite",
        "stage": "decode",
        "version": "1.2.3",
    }


RECORDS = st.builds(
    Refused,
    key=st.none() | st.binary(max_size=100),
    value=st.none() | st.binary(max_size=300),
    headers=st.sampled_from([NO_HEADERS, TWO_HEADERS, b"", b"\x82\x01" + b"\x02h\x02v" * 65]),
    timestamp=st.integers(-1, 1 << 50),
    offset=st.integers(0, (1 << 63) - 1),
    reason=st.sampled_from([reason for reason in Reason if reason is not Reason.OK]),
)


@settings(max_examples=200)
@given(records=st.lists(RECORDS, max_size=30), max_batch_bytes=st.sampled_from([4096, 6000, 900_000]))
def test_any_records_come_back_whole_and_in_order(records: list[Refused], max_batch_bytes: int) -> None:
    batches = encode(DeadLetterEncoder(VERSION, max_batch_bytes), records)
    assert all(len(batch.buffer) <= max_batch_bytes for batch in batches)
    read = read_all(batches)
    assert len(read) == len(records)
    for given_record, record in zip(records, read, strict=True):
        assert (record.key, record.value, record.timestamp) == (
            given_record.key, given_record.value, given_record.timestamp,
        )  # fmt: skip
        n_headers = {b"": 0, NO_HEADERS: 0, TWO_HEADERS: 2}.get(given_record.headers, 65)
        assert len(record.headers) == n_headers + 7
        errors = errors_of(record)
        assert errors["offset"] == str(given_record.offset)
        assert errors["reason"] == given_record.reason.name.lower()


def test_every_reason_has_words_and_a_stage() -> None:
    reasons = set(Reason) - {Reason.OK}
    assert set(dead_letter.MESSAGES) == reasons
    assert set(dead_letter.STAGES) <= reasons
    assert set(dead_letter.STAGES.values()) == {"poll", "step", "encode"}


def test_a_value_too_long_is_cut_and_the_letter_says_so() -> None:
    value = np.random.default_rng(1).bytes(10_000)
    batches = encode(DeadLetterEncoder(VERSION, 5000), [Refused(value=value, headers=TWO_HEADERS), Refused()])
    cut, whole = read_all(batches)
    assert cut.key == b"pump-1"
    assert cut.headers[:2] == [("abc", b"xy"), ("n", None)]
    assert cut.value is not None
    assert value.startswith(cut.value)
    assert 4000 < len(cut.value) < 5000
    assert errors_of(cut)["original_size"] == str(10_000 + len(b"pump-1") + len(TWO_HEADERS) - 1)
    assert "original_size" not in errors_of(whole)
    assert max(len(batch.buffer) for batch in batches) <= 5000
    assert max(len(batch.buffer) for batch in batches) > 4950


def test_headers_go_before_the_key_is_touched() -> None:
    section = b"\x02\x02h" + b"\xe0\x5d" + b"v" * 6000
    (record,) = read_all(encode(DeadLetterEncoder(VERSION, 5000), [Refused(headers=section)]))
    assert record.key == b"pump-1"
    assert record.value == b'{"value": NaN}'
    assert set(errors_of(record)) >= {"topic", "original_size"}
    assert len(record.headers) == 8


def test_a_key_too_long_is_cut_last() -> None:
    letters = [Refused(key=b"k" * 20_000, value=value, headers=TWO_HEADERS) for value in (b"value", None)]
    batches = encode(DeadLetterEncoder(VERSION, 5000), letters)
    with_value, without = read_all(batches)
    assert with_value.value == b""
    assert without.value is None
    for record in (with_value, without):
        assert record.key is not None
        assert set(record.key) == {ord("k")}
        assert 4000 < len(record.key) < 5000
        assert len(record.headers) == 8
    assert all(len(batch.buffer) <= 5000 for batch in batches)


@pytest.mark.parametrize("size", range(4400, 4700, 7))
def test_records_near_the_limit_are_whole_or_cut_never_too_large(size: int) -> None:
    (batch,) = encode(DeadLetterEncoder(VERSION, 5000), [Refused(value=b"v" * size)])
    assert len(batch.buffer) <= 5000
    (record,) = read_records(batch)
    assert ("original_size" in errors_of(record)) == (len(record.value or b"") < size)


def test_a_batch_limit_under_what_the_headers_need_is_raised() -> None:
    (record,) = read_all(encode(DeadLetterEncoder(VERSION, 100), [Refused()]))
    assert record.value == b'{"value": NaN}'


def test_a_batch_that_cannot_be_read_is_named_by_reference() -> None:
    reference = PoisonReference("plant.sensors", 3, 1000, 1499, Reason.CORRUPT_BATCH, "CRC: expected 1, found 2")
    (record,) = read_all(DeadLetterEncoder(VERSION).encode_poison(reference))
    assert (record.key, record.value, record.timestamp) == (None, None, -1)
    assert errors_of(record) == {
        "topic": "plant.sensors",
        "partition": "3",
        "offset": "1000",
        "last_offset": "1499",
        "reason": "corrupt_batch",
        "message": "the record batch is corrupt: CRC: expected 1, found 2",
        "stage": "poll",
        "version": "1.2.3",
    }


@pytest.mark.parametrize("message", ["", "\udcff broken", "é" * 100_000, "\udcff" * 100_000])
def test_whatever_a_reference_says_it_fits(message: str) -> None:
    reference = PoisonReference("t" * 249, 3, 0, 1 << 62, Reason.UNKNOWN_CODEC, message)
    (batch,) = DeadLetterEncoder(VERSION, 100).encode_poison(reference)
    (record,) = read_records(batch)
    assert len(batch.buffer) <= 4096
    assert errors_of(record)["message"].startswith("the record batch is compressed with an unknown codec")


def test_dead_letters_can_be_compressed() -> None:
    letters = [Refused(offset=offset) for offset in range(500)]
    plain = encode(DeadLetterEncoder(VERSION), letters)
    packed = encode(DeadLetterEncoder(VERSION, compression="zstd"), letters)
    assert read_all(packed) == read_all(plain)
    assert codec_number(packed[0]) == 4
