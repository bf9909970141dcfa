"""Rows to decode: an EventBatch of given records, in memory that ends where reading on would end the process."""

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.batch import PADDING, EventBatch, Reason
from streamlstm.events.decode import Appended, append_batch
from tests.events.json_model import Expected
from tests.events.record_encoding import Record, records_section

BASE_TIME = 1_700_000_000_000
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(size: int) -> NDArray[np.uint8]:
    """`size` bytes, the last of which stands before a page that can't be read."""
    pages = -(-size // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    whole = np.frombuffer(memory, np.uint8)
    end = whole.ctypes.data + pages * mmap.PAGESIZE
    assert _libc.mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, 0) == 0, ctypes.get_errno()
    return whole[pages * mmap.PAGESIZE - size : pages * mmap.PAGESIZE]


def batch_of(
    records: Sequence[tuple[bytes | None, bytes | None]], inputs: int, timestamps: Sequence[int] | None = None
) -> EventBatch:
    """One row for each (key, value)."""
    times = timestamps or [BASE_TIME + i for i in range(len(records))]
    section = records_section(
        [Record(i, times[i] - BASE_TIME, key, value) for i, (key, value) in enumerate(records)]
    )  # fmt: skip
    batch = EventBatch(inputs, guarded(len(section) + PADDING), len(records))
    outcome = append_batch(
        batch, "events", 0, section, count=len(records), base_offset=0, base_timestamp=BASE_TIME
    )  # fmt: skip
    assert outcome == Appended(0, len(records))
    return batch


def row_of(batch: EventBatch, row: int) -> Expected:
    """What the batch says about a row, as the models say it; and that a refused row says nothing else, but the key of a
    tombstone.
    """
    at, size = int(batch.stream_at[row]), int(batch.stream_len[row])
    reason = Reason(batch.reason[row])
    if reason is Reason.TOMBSTONE and size:
        assert (at, size) == (batch.key_at[row], batch.key_len[row])
        at, size = -1, 0
    if reason is not Reason.OK:
        assert (at, size, batch.event_time[row]) == (-1, 0, batch.timestamp[row])
        assert np.isnan(batch.x[row]).all()
        return Expected(reason)
    stream = batch.payload[at : at + size].tobytes()
    return Expected(reason, stream, int(batch.event_time[row]), tuple(batch.x[row].tolist()))


def same(left: Expected, right: Expected) -> bool:
    """Equal, the inputs bit for bit."""
    return replace(left, x=()) == replace(right, x=()) and np.array_equal(_bits(left.x), _bits(right.x))


def _bits(x: Any) -> NDArray[np.uint64]:
    return np.array(x, np.float64).view(np.uint64)
