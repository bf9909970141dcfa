"""Lines of text as records: each line is a record's value, without key, headers or timestamp."""

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.batch import EventBatch, Reason

NEWLINE = 10
CARRIAGE_RETURN = 13

Int64s = NDArray[np.int64]


def line_spans(block: bytes) -> tuple[Int64s, Int64s]:
    """Start and length of every line of `block` that isn't empty, line ends left out. `block` ends in a newline."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == NEWLINE)
    starts = np.concatenate((np.zeros(min(1, len(ends)), np.int64), ends[:-1] + 1))
    lengths = ends - starts
    lengths -= (lengths > 0) & (text[np.maximum(ends - 1, 0)] == CARRIAGE_RETURN)
    kept = lengths > 0
    return starts[kept], lengths[kept]


def append_lines(
    batch: EventBatch, block: bytes, starts: Int64s, lengths: Int64s, topic: str, partition: int, first_offset: int
) -> None:
    """Add a row for each of the lines of `block` at `starts`, with offsets counted on from `first_offset`.

    The record's key is null and its timestamp 0: stream and time come from the value.
    """
    n, first = len(starts), batch.n
    if n == 0:
        return
    batch.reserve_rows(n)
    begin, end = int(starts[0]), int(starts[-1] + lengths[-1])
    at = batch.append_payload(memoryview(block)[begin:end])
    rows = slice(first, first + n)
    batch.offset[rows] = np.arange(first_offset, first_offset + n)
    batch.timestamp[rows] = 0
    batch.key_at[rows] = -1
    batch.key_len[rows] = 0
    batch.value_at[rows] = starts + (at - begin)
    batch.value_len[rows] = lengths
    batch.headers_at[rows] = at
    batch.headers_len[rows] = 0
    batch.reason[rows] = Reason.OK
    batch.extend_run(topic, partition, first + n)
