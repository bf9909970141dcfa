"""Record batches made by kafka-python's encoder, which is not what the code under test uses."""

import struct
from collections.abc import Sequence

import crc32c
from kafka.record.memory_records import MemoryRecordsBuilder

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CONTROL = 0x20


def encode(values: Sequence[bytes], codec: str = "none", timestamp: int = 1_700_000_000_000) -> bytearray:
    """One batch of keyless records, base offset 0, no producer."""
    builder = MemoryRecordsBuilder(2, CODECS[codec], 1 << 30)
    for value in values:
        builder.append(timestamp, None, value, [])
    builder.close()
    return bytearray(builder.buffer())


def at(batch: bytes, base: int, *, producer: int = -1, attributes: int = 0, epoch: int = 5) -> bytearray:
    """The batch as a broker would have stored it at offset `base`."""
    stored = bytearray(batch)
    (found,) = struct.unpack_from(">h", stored, 21)
    struct.pack_into(">q", stored, 0, base)
    struct.pack_into(">i", stored, 12, epoch)
    struct.pack_into(">h", stored, 21, found | attributes)
    struct.pack_into(">q", stored, 43, producer)
    return signed(stored)


def signed(batch: bytearray) -> bytearray:
    struct.pack_into(">I", batch, 17, crc32c.crc32c(memoryview(batch)[21:]))
    return batch


def marker(base: int, producer: int) -> bytearray:
    """A control batch: the end of the producer's transaction."""
    return at(encode([b"\x00\x00\x00\x00\x00\x00"]), base, producer=producer, attributes=0x10 | CONTROL)
