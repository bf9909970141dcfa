"""A stretch of a partition's log, read newest first, for whom what was written last is right.

Brokers answer forwards only: the log is read a window at a time, the last window first, and the records of a window are
handed over in reverse. A window has as many offsets as had WINDOW_BYTES in the one before. If it turns out to hold far
more, its oldest records are let go, to be read again with the next window.
"""

from collections import deque
from collections.abc import Iterator

from streamlstm.errors import BadDataError
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.fetched import FetchedBatch, PoisonBatch
from streamlstm.transport.log_reader import LogReader
from streamlstm.transport.record_batches import Record, records
from streamlstm.transport.settings import MIB

WINDOW_BYTES = 8 * MIB
MOST_BYTES = 2 * WINDOW_BYTES  # of a window's records in memory, or one record
_FETCH_BYTES = WINDOW_BYTES + MIB  # a window, mostly, in one answer
_FIRST_WINDOW = 8  # offsets
_WIDER = 8  # times as many offsets as before, at most

Stored = Record | PoisonBatch


class BackwardReader:
    """Reads [first, end) from its end on; what is left to be read is [first, position). For one thread."""

    def __init__(self, cluster: Cluster, topic: str, partition: int, first: int, end: int) -> None:
        self.first, self.position = first, max(first, end)
        self._where = cluster, topic, partition
        self._offsets = _FIRST_WINDOW
        self._begin_window()

    def read(self, timeout: float) -> list[Stored]:
        """The records in front of the position, newest first, and what can't be read there; the position moves before
        them. [] and no move: the brokers gave nothing within `timeout` seconds; ask again. Raises what LogReader.read
        raises, and goes on from there when called again.
        """
        while self._reader.position < self.position:
            before = self._reader.position
            for batch in self._reader.read(timeout):
                for last, stored in _stored(batch):
                    if last < self.position:
                        self._keep(last, stored)
            if self._reader.position == before:
                return []
        found = [stored for _, stored in reversed(self._kept)]
        offsets = self.position - self._begins
        self._offsets = min(_WIDER * offsets, offsets * WINDOW_BYTES // max(1, self._bytes))
        self.position = self._begins
        self._begin_window()
        return found

    def _begin_window(self) -> None:
        self._begins = max(self.first, self.position - max(1, self._offsets))
        self._reader = LogReader(*self._where, self._begins, max_bytes=_FETCH_BYTES)
        self._kept: deque[tuple[int, Stored]] = deque()
        self._bytes = 0

    def _keep(self, last: int, stored: Stored) -> None:
        """`last`: its offset."""
        self._kept.append((last, stored))
        self._bytes += _size(stored)
        while self._bytes > MOST_BYTES and len(self._kept) > 1:
            gone, what = self._kept.popleft()
            self._bytes -= _size(what)
            self._begins = gone + 1


def _stored(batch: FetchedBatch | PoisonBatch) -> Iterator[tuple[int, Stored]]:
    """In log order, and the offset of each, the last one of what can't be read."""
    if isinstance(batch, PoisonBatch):
        yield batch.last_offset, batch
        return
    try:
        for record in records(batch):
            yield record[0], record
    except BadDataError as error:
        yield (
            batch.last_offset,
            PoisonBatch(
                batch.topic, batch.partition, batch.base_offset, batch.last_offset, "corrupt_batch", str(error)
            ),
        )


def _size(stored: Stored) -> int:
    return 0 if isinstance(stored, PoisonBatch) else len(stored[3] or b"")
