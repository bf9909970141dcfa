"""Record bytes to rows of an EventBatch: first the records of a batch, then the event in each record's value."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.field_tree import field_tree
from streamlstm.events.fields import FieldPaths, TimeUnit
from streamlstm.events.json_value import JsonEvent, JsonReader
from streamlstm.events.times import DECIMALS, EARLIEST_MS, LATEST_MS
from streamlstm.kernels.raw import decode_raw
from streamlstm.kernels.record_batch import BAD_COUNT, SMALLEST_RECORD, decode_batches, most_records
from streamlstm.kernels.text import FIELD_OR_KEY, ONLY_FIELD, ONLY_KEY, scan_events

_STREAM_SOURCES = {"auto": FIELD_OR_KEY, "key": ONLY_KEY, "field": ONLY_FIELD}
_RAW_REASONS = np.array(
    [
        Reason.TOMBSTONE,
        Reason.WRONG_LENGTH,
        Reason.NO_KEY,
        Reason.KEY_ENCODING,
        Reason.BAD_TIME,
        Reason.NOT_FINITE,
    ],
    np.uint8,
)


@dataclass(frozen=True, slots=True)
class Appended:
    """Rows [start, stop) of the batch are new."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class MalformedBatch:
    """The record batch isn't what the format says and nothing of it was appended; `problem` is for its dead letter."""

    problem: str
    reason: Reason = Reason.CORRUPT_BATCH


def append_batch(
    batch: EventBatch,
    topic: str,
    partition: int,
    records: bytes | bytearray | memoryview,
    *,
    count: int,
    base_offset: int,
    base_timestamp: int,
    append_time: int = -1,
    min_offset: int = 0,
    last_offset: int = 2**63 - 1,
) -> Appended | MalformedBatch:
    """Copy a record batch's records section, decompressed, into the payload and decode it to rows with reason OK.

    `count`, `base_offset` and `base_timestamp` (epoch ms) are the batch header's. `append_time` is its max timestamp
    when the batch's timestamp type is LogAppendTime, and then every record's timestamp; else -1. Records with an offset
    below `min_offset` get no row. The batch's buffers grow as needed: its arrays may be replaced.
    """
    first = batch.n
    span = (0, len(records), count, base_offset, last_offset, base_timestamp, append_time)
    refused = append_batches(batch, topic, partition, records, np.array([span], np.int64), min_offset)
    return refused[0][2] if refused else Appended(first, batch.n)


def append_batches(
    batch: EventBatch,
    topic: str,
    partition: int,
    content: bytes | bytearray | memoryview,
    spans: NDArray[np.int64],
    min_offset: int = 0,
) -> list[tuple[int, int, MalformedBatch]]:
    """As `append_batch`, for record batches of one partition that stand one behind the other.

    spans int64 [n, 7]: of each its records section [start, stop) in `content`, then count, base offset, last offset,
    base timestamp, append time. Of those that are malformed nothing is appended: returns which they are, and the row
    before which each stood.
    """
    refused: list[tuple[int, int, MalformedBatch]] = []
    used = batch.payload_used
    at = batch.append_payload(content)
    batch.reserve_rows(most_records(spans))
    outcome = np.zeros(2, np.int64)
    k = 0
    while k < len(spans):
        done = decode_batches(
            batch.payload, at, spans, k, min_offset, batch.n,
            batch.offset, batch.timestamp, batch.key_at, batch.key_len, batch.value_at, batch.value_len,
            batch.headers_at, batch.headers_len, outcome,
        )  # fmt: skip
        rows, why = outcome.tolist()
        batch.reason[batch.n : batch.n + rows] = Reason.OK
        batch.extend_run(topic, partition, batch.n + rows)
        if done < len(spans):
            refused.append((done, batch.n, MalformedBatch(_why(why, *spans[done].tolist()))))
        k = done + 1
    if len(refused) == len(spans):
        batch.payload_used = used
    return refused


def _why(code: int, start: int, stop: int, count: int, base: int, last: int, *times: int) -> str:
    """What is wrong with a record batch, by `decode_batches`."""
    if code >= 0:
        return f"offset {code} in a batch that ends with {last}"
    size, record = stop - start, -1 - code
    if code == BAD_COUNT:
        return f"records: expected {count} in {size} bytes, which hold {size // SMALLEST_RECORD} at most"
    if record == count:
        return f"records: expected {count}, found more bytes behind the last one"
    return f"record {record} of {count}: expected the fields of record format v2, found a length or offset out of place"


class JsonDecoder:
    """Reads events from JSON values, for `batch.inputs == len(fields.inputs)`. Safe to share between threads."""

    def __init__(self, fields: FieldPaths, *, lets_missing: bool = False) -> None:
        """`lets_missing`: inputs that are null become NaN, with reason OK; else their rows are refused."""
        self._inputs = len(fields.inputs)
        self._lets_missing = lets_missing
        self._reader = JsonReader(fields, lets_missing=lets_missing)
        self._tree = field_tree(fields)
        self._decimals = DECIMALS[fields.time_unit]
        self._stream_source = _STREAM_SOURCES[fields.stream_source]

    def decode(self, batch: EventBatch, start: int, stop: int) -> int:
        """Fill stream, event time, inputs and reason of rows [start, stop); rows that have a reason are left alone.

        Stream ids that aren't a plain span of the value are appended to the payload: the array may be replaced.
        Returns how many rows the compiled scanner handed on to the reader in Python, which is some 50 times slower.
        Raises InvariantError for rows that the batch doesn't have and for another number of inputs.
        """
        _require(batch, start, stop, self._inputs)
        handed_on = np.empty(stop - start, np.int64)
        tree, seen = self._tree, np.zeros(self._tree.node_words, np.int64)
        count = scan_events(
            batch.payload, start, stop, batch.timestamp, batch.key_at, batch.key_len, batch.value_at, batch.value_len,
            self._decimals, self._stream_source, EARLIEST_MS, LATEST_MS, self._lets_missing, tree.words, seen,
            batch.stream_at, batch.stream_len, batch.event_time, batch.x, batch.reason, handed_on,
        )  # fmt: skip
        for row in handed_on[:count].tolist():
            self._decode_row(batch, row)
        return int(count)

    def _decode_row(self, batch: EventBatch, row: int) -> None:
        at = batch.value_at[row]
        if at < 0:
            reject(batch, row, Reason.TOMBSTONE)
            if self._stream_source != ONLY_FIELD and batch.key_at[row] >= 0:
                batch.stream_at[row], batch.stream_len[row] = batch.key_at[row], batch.key_len[row]
            return
        event = self._reader.read(batch.payload[at : at + batch.value_len[row]].tobytes())
        reason = event if isinstance(event, Reason) else _place(batch, row, event)
        if reason is not Reason.OK:
            reject(batch, row, reason)


def _place(batch: EventBatch, row: int, event: JsonEvent) -> Reason:
    """Write `event` to its row, with what it leaves to the record's key and timestamp; or say why that can't be."""
    at, size = int(batch.key_at[row]), int(batch.key_len[row])
    if event.stream is None:
        if at < 0 or size == 0:
            return Reason.NO_KEY
        try:
            batch.payload[at : at + size].tobytes().decode()
        except UnicodeDecodeError:
            return Reason.KEY_ENCODING
    time = int(batch.timestamp[row]) if event.time is None else event.time
    if event.time is None and not 0 <= time <= LATEST_MS:
        return Reason.BAD_TIME
    if event.stream is not None:
        at, size = batch.append_payload(event.stream), len(event.stream)
    batch.stream_at[row], batch.stream_len[row] = at, size
    batch.event_time[row] = time
    batch.x[row] = event.x
    return Reason.OK


def _require(batch: EventBatch, start: int, stop: int, inputs: int) -> None:
    """What keeps compiled code, which checks no index, within the columns."""
    if not 0 <= start <= stop <= batch.capacity or inputs != batch.inputs:
        raise InvariantError(
            f"rows: expected within 0..{batch.capacity} and {batch.inputs} inputs, found {start}..{stop} and {inputs}"
        )


def reject(batch: EventBatch, row: int, reason: Reason) -> None:
    """Give a row its reason and clear what might have been read of its event."""
    batch.reason[row] = reason
    batch.stream_at[row], batch.stream_len[row] = -1, 0
    batch.event_time[row] = batch.timestamp[row]
    batch.x[row] = np.nan


class RawDecoder:
    """Reads events from little-endian float64 values: [x...], or [time, x...] with the time in `time_unit`.

    The stream is the record's key; without a time of its own an event has the record's timestamp. Safe to share between
    threads.
    """

    def __init__(self, time_unit: TimeUnit, *, lets_missing: bool = False) -> None:
        """`lets_missing`: inputs that are NaN are let through, with reason OK; else their rows are refused."""
        self._microseconds = 10.0 ** (6 - DECIMALS[time_unit])
        self._lets_missing = lets_missing

    def decode(self, batch: EventBatch, start: int, stop: int) -> None:
        """Fill stream, event time, inputs and reason of rows [start, stop); rows that have a reason are left alone.

        Raises InvariantError for rows that the batch doesn't have.
        """
        _require(batch, start, stop, batch.inputs)
        decode_raw(
            batch.payload, start, stop, batch.timestamp, batch.key_at, batch.key_len, batch.value_at, batch.value_len,
            self._microseconds, EARLIEST_MS, LATEST_MS, self._lets_missing, _RAW_REASONS,
            batch.stream_at, batch.stream_len, batch.event_time, batch.x, batch.reason,
        )  # fmt: skip
