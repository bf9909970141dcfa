"""Lines of text as records: each line is a record's value, without key, headers or timestamp."""

import numpy as np

from streamlstm.events.batch import PADDING, EventBatch, Run

NEWLINE = 10
CARRIAGE_RETURN = 13


def line_spans(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Start and length (int64) of every line of `block` that isn't empty; the line ends are left out."""
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == NEWLINE).astype(np.int64)
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64) if len(ends) else ends
    lengths = ends - starts
    with_return = (lengths > 0) & (data[np.maximum(ends - 1, 0)] == CARRIAGE_RETURN)
    lengths = lengths - with_return
    kept = lengths > 0
    return starts[kept], lengths[kept]


def fill_with_lines(
    batch: EventBatch, block: bytes, starts: np.ndarray, lengths: np.ndarray, topic: str, partition: int, offset: int
) -> None:
    """Make `batch` the lines of `block` at `starts`, with offsets counted on from `offset` and timestamp 0.

    The record key is null: the stream id comes from the value.
    """
    n = len(starts)
    batch.clear()
    batch.reserve(rows=n, payload=len(block) + PADDING)
    batch.payload[: len(block)] = np.frombuffer(block, np.uint8)
    batch.payload_used = len(block)
    batch.n = n
    batch.runs.append(Run(topic, partition, 0, n))
    batch.offset[:n] = np.arange(offset, offset + n)
    batch.timestamp[:n] = 0
    batch.key_at[:n] = -1
    batch.key_len[:n] = 0
    batch.value_at[:n] = starts
    batch.value_len[:n] = lengths
    batch.headers_len[:n] = 0
    batch.reason[:n] = 0
