"""Columns: a batch of events as arrays of equal length, one row per Kafka record.

Spans are positions in `EventBatch.payload`, one byte buffer that holds the decompressed record sections of all the
record batches of this round, padded so that a kernel may read 64 bytes past any span.
"""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

PADDING = 64


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


def _int64(n: int) -> NDArray[np.int64]:
    return np.zeros(n, np.int64)


@dataclass(slots=True)
class EventBatch:
    """N events with F inputs. Column arrays may be longer than N (`n`): they are reused between rounds.

    Times are epoch milliseconds. `key_at` and `value_at` are -1 for null; `headers_at/len` span the raw header section
    of the record, its count varint included, so that it can be copied through untouched.
    `stream_at/len` span the stream id (the record's key, or a field of the value). `x` is as received, unscaled.
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
        for name in ("offset", "timestamp", "key_at", "key_len", "value_at", "value_len", "headers_at"):
            setattr(self, name, _int64(self.capacity))
        for name in ("headers_len", "stream_at", "stream_len", "event_time"):
            setattr(self, name, _int64(self.capacity))
        self.x = np.zeros((self.capacity, self.inputs), np.float64)
        self.reason = np.zeros(self.capacity, np.uint8)
