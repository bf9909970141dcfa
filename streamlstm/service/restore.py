"""Reads the snapshots of new partitions, newest first, on a thread of its own and over connections of its own.

The loop takes what has been read, chunk by chunk, between its own rounds, until it has every stream. Partitions are
read one after another: what waits in memory is bounded, however large the state is.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from threading import Event
from typing import TypeVar

from streamlstm.errors import FencedError, RetryError
from streamlstm.transport.backward_reader import BackwardReader, Stored
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.fetched import PoisonBatch
from streamlstm.transport.topics import log_ranges

Answer = TypeVar("Answer")

QUEUED_RECORDS = 16  # as many as a window has, while the next one is read
READ_SECONDS = 1.0
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """One record of the snapshot topic. Without a value it is a tombstone."""

    key: bytes
    value: memoryview | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Records of the snapshot topic that are damaged; offsets are inclusive."""

    first: int
    last: int
    why: str


@dataclass(frozen=True, slots=True)
class EndOfSnapshots:
    """All has been read, or enough. The input partition holds the offsets [first, end)."""

    first: int
    end: int


Read = ChunkRecord | Unreadable | EndOfSnapshots


@dataclass(slots=True)
class _Job:
    partition: int
    cancelled: Event = field(default_factory=Event)
    has_enough: Event = field(default_factory=Event)
    items: Queue[Read | Exception] = field(default_factory=lambda: Queue(QUEUED_RECORDS))

    def put(self, item: Read | Exception) -> None:
        while not self.cancelled.is_set():
            try:
                return self.items.put(item, timeout=PAUSE_SECONDS)
            except Full:
                continue
        return None


class Restorer:
    """What is being restored, by partition of the input. One thread calls it; `executor` has one thread."""

    def __init__(
        self, connect: Callable[[], Cluster], input_topic: str, snapshot_topic: str, executor: Executor
    ) -> None:
        self._connect = connect
        self._input_topic = input_topic
        self._snapshot_topic = snapshot_topic
        self._executor = executor
        self._jobs: dict[int, _Job] = {}

    def begin(self, partition: int) -> None:
        """Read the partition's snapshots."""
        self.cancel(partition)
        job = self._jobs[partition] = _Job(partition)
        self._executor.submit(self._read, job)

    def cancel(self, partition: int) -> None:
        job = self._jobs.pop(partition, None)
        if job is not None:
            job.cancelled.set()

    def enough(self, partition: int) -> None:
        """Older snapshots of the partition aren't needed: what has been read is the last but for EndOfSnapshots."""
        self._jobs[partition].has_enough.set()

    def close(self) -> None:
        for partition in list(self._jobs):
            self.cancel(partition)

    def take(self, partition: int, timeout: float) -> Read | None:
        """What has been read next; None when nothing came within `timeout` seconds. Nothing comes after EndOfSnapshots.

        Raises what made reading impossible (AccessError, InputMissingError, ..., or a bug).
        """
        items = self._jobs[partition].items
        try:
            item = items.get(timeout=timeout) if timeout > 0 else items.get_nowait()
        except Empty:
            return None
        if isinstance(item, Exception):
            raise item
        if isinstance(item, EndOfSnapshots):
            del self._jobs[partition]
        return item

    def _read(self, job: _Job) -> None:
        cluster: Cluster | None = None
        try:
            cluster = _patiently(job, self._connect)
            if cluster is not None:
                self._read_all(job, cluster)
        except Exception as error:  # a partition that waits for ever would be worse than any of them
            job.put(error)
        finally:
            if cluster is not None:
                cluster.close()

    def _read_all(self, job: _Job, cluster: Cluster) -> None:
        """Up to the high watermark: the mark that ends a transaction comes to each of its partitions by itself, so that
        the committed offset may be there before the chunks that were committed with it.
        """
        found = _patiently(job, lambda: log_ranges(cluster, self._snapshot_topic, [job.partition], with_open=True))
        if found is None:
            return
        first, end = found[job.partition]
        reader = BackwardReader(cluster, self._snapshot_topic, job.partition, first, end)
        while reader.position > first and not job.has_enough.is_set():
            found_there = _patiently(job, lambda: reader.read(READ_SECONDS))
            if found_there is None:
                return
            _put_all(job, found_there)
        found = _patiently(job, lambda: log_ranges(cluster, self._input_topic, [job.partition]))
        if found is not None:
            job.put(EndOfSnapshots(*found[job.partition]))


def _put_all(job: _Job, found: list[Stored]) -> None:
    for each in found:
        if job.has_enough.is_set():
            return
        if isinstance(each, PoisonBatch):
            job.put(Unreadable(each.base_offset, each.last_offset, each.message))
        else:
            _, _, key, value, _ = each
            job.put(ChunkRecord(key or b"", value))


def _patiently(job: _Job, attempt: Callable[[], Answer]) -> Answer | None:
    """The attempt's answer, however long the brokers are away; None once the job is cancelled."""
    while not job.cancelled.is_set():
        try:
            return attempt()
        except FencedError:
            raise
        except RetryError:
            job.cancelled.wait(PAUSE_SECONDS)
    return None
