"""Record batches of a few large records, as the snapshots are: made to be written, and taken apart after reading.

The events' own batches, of thousands of small records, go through the compiled code of events/ and kernels/ instead.
"""

from collections.abc import Iterator, Sequence

from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import decode_varint

from streamlstm.errors import BadDataError
from streamlstm.transport.fetched import FetchedBatch

Headers = list[tuple[str, bytes | None]]
Record = tuple[int, int, bytes | None, memoryview | None, Headers]

RECORD_FRAME_BYTES = 64
"""What a record takes at most beyond its key and value, and its share of the header of a batch of one."""
_MAGIC, _UNCOMPRESSED, _UNBOUNDED = 2, 0, 1 << 62


def encode_batch(records: Sequence[tuple[bytes | None, bytes | None]], timestamp: int) -> bytearray:
    """Keys and values, one at least, as one uncompressed batch v2 for a ProduceBatch.

    `timestamp` is theirs in epoch milliseconds. A record without a value is a tombstone to compaction. The writer
    stamps producer and CRC.
    """
    builder = MemoryRecordsBuilder(_MAGIC, _UNCOMPRESSED, _UNBOUNDED)
    for key, value in records:
        builder.append(timestamp, key, value)
    builder.close()
    buffer: bytearray = builder.buffer()
    return buffer


def records(batch: FetchedBatch) -> Iterator[Record]:
    """Offset, timestamp (epoch milliseconds), key, value and headers of each record from `min_offset` on.

    Values are views: a copy of each would cost a large snapshot more than the reading of it.

    Raises BadDataError where the records are not what the batch's header says: its CRC was right, so its producer made
    them so.
    """
    section = memoryview(batch.records)
    at = 0
    try:
        for _ in range(batch.count):
            length, at = decode_varint(section, at)
            end = at + length
            if not at < end <= len(section):
                raise ValueError(f"a record of {length} bytes where {len(section) - at} are left")
            delta, time, key, value, headers = _record(section[at:end])
            offset, at = batch.base_offset + delta, end
            if offset >= batch.min_offset:
                timestamp = batch.base_timestamp + time if batch.append_time < 0 else batch.append_time
                yield offset, timestamp, key, value, headers
        if at != len(section):
            raise ValueError(f"{len(section) - at} bytes after the last of {batch.count} records")
    except (ValueError, IndexError) as error:
        where = f"partition {batch.partition} of topic {batch.topic!r}, offsets {batch.base_offset}-{batch.last_offset}"
        raise BadDataError(f"{where}: the record batch cannot be taken apart at byte {at}: {error}") from error


def _record(body: memoryview) -> tuple[int, int, bytes | None, memoryview | None, Headers]:
    """Offset delta, timestamp delta, key, value and headers of one record without its length."""
    time, at = decode_varint(body, 1)
    delta, at = decode_varint(body, at)
    key, at = _sized(body, at)
    value, at = _view(body, at)
    count, at = decode_varint(body, at)
    headers: Headers = []
    for _ in range(count):
        name, at = _sized(body, at)
        content, at = _sized(body, at)
        headers.append(((name or b"").decode(), content))
    if at != len(body) or count < 0:
        raise ValueError(f"a record of {len(body)} bytes ends after {at}")
    return delta, time, key, value, headers


def _sized(body: memoryview, at: int) -> tuple[bytes | None, int]:
    found, at = _view(body, at)
    return None if found is None else bytes(found), at


def _view(body: memoryview, at: int) -> tuple[memoryview | None, int]:
    """A length and so many bytes; a negative length stands for none at all."""
    length, at = decode_varint(body, at)
    if length < 0:
        return None, at
    if length > len(body) - at:
        raise ValueError(f"a field of {length} bytes where {len(body) - at} are left")
    return body[at : at + length], at + length
