"""Reads encoded record batches with kafka-python's parser, after doing what a writer does to them."""

import struct
from dataclasses import dataclass

import crc32c
from kafka.record.memory_records import MemoryRecords

from streamlstm.events.encode import EncodedBatch

CRC_AT, CRC_FROM, ATTRIBUTES_AT, PRODUCER_AT = 17, 21, 21, 43
TRANSACTIONAL = 0x10
UNSET_PRODUCER = struct.pack(">qhi", -1, -1, -1)


@dataclass(frozen=True)
class ReadRecord:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def read_records(encoded: EncodedBatch) -> list[ReadRecord]:
    """Every field of the header is checked against the records, and the CRC over them by the parser."""
    buffer = bytearray(encoded.buffer)
    assert bytes(buffer[PRODUCER_AT : PRODUCER_AT + 14]) == UNSET_PRODUCER
    assert bytes(buffer[CRC_AT : CRC_AT + 4]) == bytes(4)
    (attributes,) = struct.unpack_from(">h", buffer, ATTRIBUTES_AT)
    assert attributes & ~7 == 0
    struct.pack_into(">h", buffer, ATTRIBUTES_AT, attributes | TRANSACTIONAL)
    struct.pack_into(">qhi", buffer, PRODUCER_AT, 4711, 3, 0)
    struct.pack_into(">I", buffer, CRC_AT, crc32c.crc32c(bytes(buffer[CRC_FROM:])))
    batches = MemoryRecords(bytes(buffer))
    batch = batches.next_batch()
    assert batch is not None
    assert batch.validate_crc()
    records = [
        ReadRecord(record.offset, record.timestamp, record.key, record.value, list(record.headers)) for record in batch
    ]
    assert batches.next_batch() is None
    assert batch.base_offset == 0
    assert batch.last_offset_delta == len(records) - 1
    assert batch.records_count == len(records) == encoded.count
    assert [record.offset for record in records] == list(range(len(records)))
    assert batch.max_timestamp == max(record.timestamp for record in records) == encoded.max_timestamp
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (4711, 3, 0)
    assert batch.is_transactional
    assert not batch.is_control_batch
    return records


def codec_number(encoded: EncodedBatch) -> int:
    return int(struct.unpack_from(">h", encoded.buffer, ATTRIBUTES_AT)[0]) & 7
