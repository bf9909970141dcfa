"""Which streams are held: partitions and their watermarks, time to live, and room for new streams.

A partition's watermark is the largest event time of its well-formed events. A stream whose latest event lies more than
the time to live behind it has expired: its next event begins it anew. So it may be freed at any time without changing
a byte, and is when room is needed, or now and then.

What happens at a partition's own bound depends on its records alone. What happens when all slots are taken depends on
the partitions that share them.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.backend import Backend
from streamlstm.kernels.layout import LAST_TIME, N_SEEN
from streamlstm.kernels.observe import NEVER, NO_TIME
from streamlstm.state.slots import SlotTable

EVICTED_SHARE = 64  # one in so many of a full partition's streams goes, so that finding them is paid for by many


@dataclass(slots=True)
class Partition:
    """`rows` counts the rows since expired streams were last looked for."""

    watermark: int = NO_TIME
    rows: int = 0


class Admission:
    """Over the slots and rows of a Forecaster. Call what frees streams only when no row that has its slot waits for its
    step.
    """

    def __init__(self, slots: SlotTable, backend: Backend, cap: int | None, ttl_ms: int | None) -> None:
        """`cap`: streams that a partition may hold, None: as many as there are slots. `ttl_ms` None: for ever."""
        self.slots = slots
        self.backend = backend
        self.cap = slots.max_streams if cap is None else min(cap, slots.max_streams)
        self.ttl_ms = ttl_ms
        self.partitions: list[Partition] = []
        self.oldest = np.empty(0, np.int64)
        """Per partition a lower bound of its streams' latest event times; NO_TIME when nothing is known."""
        self._indices: dict[tuple[str, int], int] = {}
        self._rows = backend.arena.view(np.int64)
        self._header_at = backend.layout.header_at

    def index(self, topic: str, partition: int) -> int:
        """The number by which the slot table knows a partition."""
        index = self._indices.setdefault((topic, partition), len(self._indices))
        if index == len(self.partitions):
            self.partitions.append(Partition())
            self.oldest = np.append(self.oldest, np.int64(NO_TIME))
        return index

    def partition_of(self, index: int) -> int:
        """The partition whose number `index` is."""
        return next(partition for (_, partition), number in tuple(self._indices.items()) if number == index)

    def release(self, topic: str, partition: int) -> int:
        """Forget a partition's streams and watermark; returns how many streams there were."""
        index = self._indices.get((topic, partition))
        if index is None:
            return 0
        self.set_watermark(index, NO_TIME)
        return self.forget(self.slots.slots_of(index))

    def set_watermark(self, index: int, watermark: int) -> None:
        self.partitions[index] = Partition(watermark)
        self.oldest[index] = NO_TIME

    def is_full(self, index: int) -> bool:
        return self.slots.streams_of(index) >= self.cap or self.slots.n_streams >= self.slots.max_streams

    def forget(self, slots: NDArray[np.int64]) -> int:
        """Free these slots and zero their rows; returns how many held a stream."""
        self.backend.clear(slots)
        return self.slots.release_slots(slots)

    def forget_hollow(self, slots: NDArray[np.int64]) -> int:
        """Free those of `slots` whose streams have seen no event."""
        unique = np.unique(slots)
        return self.forget(unique[self._rows[unique, self._header_at + N_SEEN] == 0])

    def expire(self, index: int, watermark: int) -> int:
        """Free the partition's streams that have expired at this watermark; returns how many."""
        if self.ttl_ms is None or not self.may_expire(index, watermark):
            return 0
        slots = self.slots.slots_of(index)
        last = self._rows[slots, self._header_at + LAST_TIME]
        expired = last < watermark - self.ttl_ms
        self.oldest[index] = last[~expired].min(initial=NEVER)
        return self.forget(slots[expired]) if expired.any() else 0

    def may_expire(self, index: int, watermark: int) -> bool:
        """Whether any stream may have expired, as far as it is known without looking."""
        return self.ttl_ms is not None and int(self.oldest[index]) < watermark - self.ttl_ms

    def expire_any(self, index: int, watermark: int) -> int:
        """Free expired streams of the partition or, when all slots are taken and it has none, of the others.

        `watermark` is that of the row which needs room; the partition's own is ahead of it by what the batch still has.
        """
        freed = self.expire(index, watermark)
        if freed == 0 and self.slots.n_streams >= self.slots.max_streams:
            others = (other for other in range(len(self.partitions)) if other != index)
            freed = sum(self.expire(other, self.partitions[other].watermark) for other in others)
        return freed

    def evict(self, index: int) -> int:
        """Free the partition's least recent streams, by latest event time and stable hash; returns how many."""
        slots = self.slots.slots_of(index)
        if len(slots) == 0:
            return 0
        count = max(1, len(slots) // EVICTED_SHARE)
        last = self._rows[slots, self._header_at + LAST_TIME]
        slots = slots[last <= np.partition(last, count - 1)[count - 1]]  # ties included
        last = self._rows[slots, self._header_at + LAST_TIME]
        return self.forget(slots[np.lexsort((self.slots.hashes_of(slots), last))[:count]])

    def make_room(self, count: int, among: Collection[int], *, evict: bool) -> bool:
        """Have `count` free slots at the cost of the partitions `among`: their expired streams and, with `evict`, the
        least recent ones of whichever has most. Returns whether there are so many. No row may wait for its step.
        """
        for index in among:
            if self._free < count:
                self.expire(index, self.partitions[index].watermark)
        while evict and self._free < count:
            largest = max(among, key=self.slots.streams_of, default=None)
            if largest is None or not self.evict(largest):
                break
        return self._free >= count

    @property
    def _free(self) -> int:
        return self.slots.max_streams - self.slots.n_streams

    def note(self, index: int, rows: int) -> None:
        """So many rows of the partition are done: once there were as many as streams are held, free the expired."""
        partition = self.partitions[index]
        partition.rows += rows
        if partition.rows >= self.slots.n_streams:
            partition.rows = 0
            self.expire(index, partition.watermark)
