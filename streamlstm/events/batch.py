"""Columns: a batch of events as arrays of equal length, one row per Kafka record.

Spans are positions in `EventBatch.payload`, one byte buffer that holds the decompressed record sections of all the
record batches of this round, padded so that a kernel may read 64 bytes past any span.
"""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

PADDING = 64

Source = tuple[str, int]
"""Topic and partition."""


class Reason(IntEnum):
    """Why a record gets a dead letter instead of a forecast. The names in lower case are the wire format."""

    OK = 0
    NOT_JSON = 1
    NOT_OBJECT = 2
    MISSING_FIELD = 3
    WRONG_TYPE = 4
    WRONG_LENGTH = 5
    NULL_VALUE = 6
    NOT_FINITE = 7
    OUT_OF_RANGE = 8
    BAD_TIME = 9
    NO_KEY = 10
    KEY_TOO_LONG = 11
    KEY_ENCODING = 12
    CAPACITY = 13
    TOMBSTONE = 14
    CORRUPT_BATCH = 15
    UNKNOWN_CODEC = 16
    TOO_LARGE = 17
    REPLAYED = 18  # already part of the restored state: the row gets neither a forecast nor a dead letter
    DUPLICATE = 19
    OUT_OF_ORDER = 20
    TOO_FAR_AHEAD = 21

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Run:
    """Rows [start, stop) of the batch come from one partition, in offset order."""

    topic: str
    partition: int
    start: int
    stop: int


_INT64_COLUMNS = (
    "offset",
    "timestamp",
    "key_at",
    "key_len",
    "value_at",
    "value_len",
    "headers_at",
    "headers_len",
    "stream_at",
    "stream_len",
    "event_time",
)


@dataclass(slots=True)
class EventBatch:
    """N events with F inputs. Column arrays may be longer than N (`n`): they are reused between rounds.

    Times are epoch milliseconds. `key_at` and `value_at` are -1 for null; `headers_at/len` span the raw header section
    of the record, its count varint included, so that it can be copied through untouched.
    `stream_at/len` span the stream id (the record's key, or a field of the value). `x` is as received, unscaled.
    A missing input is NaN, and the row's reason OK, where the decoder lets missing inputs through.
    Rows with a reason have no stream (-1, 0) and no inputs (NaN), and the record's timestamp as their event time. A
    tombstone alone names a stream: its key, where streams may be named by keys; it resets that stream.
    """

    inputs: int
    payload: NDArray[np.uint8]
    capacity: int
    payload_used: int = 0
    n: int = 0
    runs: list[Run] = field(default_factory=list)
    offset: NDArray[np.int64] = field(init=False)
    timestamp: NDArray[np.int64] = field(init=False)
    key_at: NDArray[np.int64] = field(init=False)
    key_len: NDArray[np.int64] = field(init=False)
    value_at: NDArray[np.int64] = field(init=False)
    value_len: NDArray[np.int64] = field(init=False)
    headers_at: NDArray[np.int64] = field(init=False)
    headers_len: NDArray[np.int64] = field(init=False)
    stream_at: NDArray[np.int64] = field(init=False)
    stream_len: NDArray[np.int64] = field(init=False)
    event_time: NDArray[np.int64] = field(init=False)
    x: NDArray[np.float64] = field(init=False)
    reason: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        for name in _INT64_COLUMNS:
            setattr(self, name, np.zeros(self.capacity, np.int64))
        self.x = np.zeros((self.capacity, self.inputs), np.float64)
        self.reason = np.zeros(self.capacity, np.uint8)

    def clear(self) -> None:
        """Forget every row; the buffers stay as large as they have become."""
        self.n = 0
        self.payload_used = 0
        self.runs.clear()

    def reserve_rows(self, extra: int) -> None:
        """Make room for `extra` rows after the last one. May replace the column arrays: take no views across it."""
        if self.n + extra <= self.capacity:
            return
        self.capacity = max(self.n + extra, 2 * self.capacity)
        for name in (*_INT64_COLUMNS, "x", "reason"):
            old = getattr(self, name)
            grown = np.zeros((self.capacity, *old.shape[1:]), old.dtype)
            grown[: self.n] = old[: self.n]
            setattr(self, name, grown)

    def reserve_payload(self, extra: int) -> None:
        """Make room for `extra` bytes and the padding after those in use. May replace the payload array."""
        needed = self.payload_used + extra + PADDING
        if needed <= len(self.payload):
            return
        grown = np.zeros(max(needed, 2 * len(self.payload)), np.uint8)
        grown[: self.payload_used] = self.payload[: self.payload_used]
        self.payload = grown

    def append_payload(self, content: bytes | bytearray | memoryview) -> int:
        """Copy `content` behind the payload in use and return where it begins."""
        at, size = self.payload_used, len(content)
        self.reserve_payload(size)
        self.payload[at : at + size] = np.frombuffer(content, np.uint8)
        self.payload_used = at + size
        return at

    def extend_run(self, topic: str, partition: int, stop: int) -> None:
        """Rows [n, stop) have been written and come from this partition: they become part of the batch."""
        last = self.runs[-1] if self.runs else None
        if last is not None and (last.topic, last.partition, last.stop) == (topic, partition, self.n):
            self.runs[-1] = Run(topic, partition, last.start, stop)
        elif stop > self.n:
            self.runs.append(Run(topic, partition, self.n, stop))
        self.n = stop

    def truncate(self, stop: int) -> None:
        """Forget rows [stop, n); their bytes stay in the payload until `clear`."""
        self.n = stop
        while self.runs and self.runs[-1].start >= stop:
            self.runs.pop()
        if self.runs and self.runs[-1].stop > stop:
            last = self.runs[-1]
            self.runs[-1] = Run(last.topic, last.partition, last.start, stop)

    def rows_by_source(self) -> dict[Source, NDArray[np.int64]]:
        """The rows of each (topic, partition), ascending, which is their offset order."""
        parts: dict[Source, list[NDArray[np.int64]]] = {}
        for run in self.runs:
            parts.setdefault((run.topic, run.partition), []).append(np.arange(run.start, run.stop, dtype=np.int64))
        return {source: np.concatenate(rows) if len(rows) > 1 else rows[0] for source, rows in parts.items()}
