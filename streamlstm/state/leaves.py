"""The leaves of one partition: as of which offset each was written, when, and which of them are due. No state itself.

Times are seconds of the caller's monotonic clock.
"""

from dataclasses import dataclass, field, replace
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.observe import NO_TIME
from streamlstm.state.snapshot import ROOT, Leaf

AT_ONCE = 8  # finding the streams of leaves takes a walk over all streams: worth it for so many leaves
SHORTEST_ROUND = 8  # takes, where there are as many leaves
DEGRADED_MS = 7 * 24 * 3_600_000
"""Streams whose state was lost come back within so much event time, or are told from new ones no more."""
FOREVER = (1 << 63) - 1
NO_SLOTS = np.empty(0, np.int64)


@dataclass(slots=True)
class Entry:
    """What is known of a leaf. The topic's chunk of it is exact for `tag`.

    `tag` None: there was nothing before the partition began. `written_at` None: the topic has no chunk that is right.
    `slots` are those of its streams while chunks are loaded, nothing else. `degraded_until` as in a chunk's header;
    FOREVER until the first chunk after the loss is written.
    """

    tag: int | None = None
    written_at: float | None = None
    degraded_until: int | None = None
    watermark: int | None = None
    slots: NDArray[np.int64] = field(default_factory=lambda: NO_SLOTS)


@dataclass(frozen=True, slots=True)
class Table:
    """Of the leaves in order: the first hash, the tag (0 for none), and the event time until which it's degraded
    (NO_TIME: it isn't).
    """

    firsts: NDArray[np.uint64]
    tags: NDArray[np.int64]
    degraded_until: NDArray[np.int64]


class Leaves:
    """The leaves of a partition; disjoint, and every hash is covered once loading is over.

    `entries` has what is known of each, `stored` the leaves of which the topic holds a record, whatever it says.
    """

    def __init__(self, interval: float, full: int, phase: float = 0.0) -> None:
        """`interval` seconds are the time of a round; about `full` streams go into a chunk. Partitions of different
        `phase`, in [0, 1), have their turns at different times.
        """
        self.entries: dict[Leaf, Entry] = {}
        self.stored: set[Leaf] = set()
        self._interval = interval
        self._full = full
        self._phase = phase
        self._last_take = 0.0
        self._table: Table | None = None
        self._shallowest: int | None = None
        self._oldest: int | None = None

    @property
    def tags(self) -> dict[Leaf, int]:
        return {leaf: entry.tag for leaf, entry in self.entries.items() if entry.tag is not None}

    @property
    def table(self) -> Table:
        if self._table is None:
            ordered = sorted(self.entries.items(), key=lambda item: item[0].first)
            self._table = Table(
                np.array([leaf.first for leaf, _ in ordered], np.uint64),
                np.array([entry.tag or 0 for _, entry in ordered], np.int64),
                np.array([NO_TIME if e.degraded_until is None else e.degraded_until for _, e in ordered], np.int64),
            )
        return self._table

    @property
    def oldest(self) -> int:
        """The least tag; that of a leaf that was never written counts as beyond all."""
        if self._oldest is None:
            self._oldest = min((entry.tag for entry in self.entries.values() if entry.tag is not None), default=1 << 63)
        return self._oldest

    @property
    def oldest_written_at(self) -> float:
        """When the oldest chunk in the topic was written; one that was restored counts as up to a round old."""
        return min((e.written_at for e in self.entries.values() if e.written_at is not None), default=np.inf)

    def below(self, tag: int) -> list[Leaf]:
        """Leaves with a tag below, the oldest first: a few, so that a transaction doesn't grow to the whole state."""
        found = [(entry.tag, leaf) for leaf, entry in self.entries.items() if entry.tag is not None and entry.tag < tag]
        return [leaf for _, leaf in sorted(found)[:AT_ONCE]]

    def _hurries(self, roomy: int) -> bool:
        """Whether the topic lacks a right chunk of a leaf, or one is above depth `roomy`. Asked at every commit, of up
        to thousands of leaves: the answer is remembered until they change.
        """
        if self._shallowest is None:
            unwritten = any(entry.written_at is None for entry in self.entries.values())
            self._shallowest = -1 if unwritten else min(leaf.depth for leaf in self.entries)
        return self._shallowest < roomy

    def begin(self, now: float) -> None:
        """A partition without a past: the root, due at once."""
        self.entries = {ROOT: Entry()}
        self.go_on(now)

    def go_on(self, now: float) -> int | None:
        """Loading is over. The loaded leaves become due one after the other, the oldest first.

        Returns the watermark of the oldest.
        """
        loaded = sorted(
            (e for e in self.entries.values() if e.written_at is not None), key=lambda entry: entry.tag or 0
        )
        for k, entry in enumerate(loaded):
            entry.written_at = now - self._interval * (1 - k / len(loaded))
            entry.slots = NO_SLOTS
        self._last_take = now
        self._table = self._shallowest = self._oldest = None
        oldest = (entry.watermark for entry in loaded if entry.tag == loaded[0].tag)
        return max((watermark for watermark in oldest if watermark is not None), default=None)

    def behind(self, offset: int | None) -> list[Leaf]:
        """The leaves of which the topic has no right chunk as of `offset`."""
        return [leaf for leaf, entry in self.entries.items() if entry.tag != offset or entry.written_at is None]

    def due(self, offset: int | None, now: float, streams: int, together: bool) -> list[Leaf]:
        """The leaves to be written as of `offset`; None: of one as of which nothing was written yet.

        Those that the topic doesn't cover are due at once and all together. Those of which it has no right chunk, and
        those that are crowded, with `streams` in the partition, come next, few at a time: waiting for its turn, a leaf
        could grow to a large part of the state. The others are due when they are as old as a round takes, the oldest
        first, as many as keep the pace. If they go `together`, all are due when one is.
        """
        n = len(self.entries)
        elapsed = min(now - self._last_take, self._interval / SHORTEST_ROUND)
        turn = self._interval * min(1 / SHORTEST_ROUND, AT_ONCE / n)
        is_time = floor(now / turn + self._phase) > floor(self._last_take / turn + self._phase)
        roomy = (streams // (2 * self._full)).bit_length()  # from this depth on; hashes fall evenly
        hurries = self._hurries(roomy)
        if not (is_time or hurries):
            return []
        uncovered: list[Leaf] = []
        waiting: list[tuple[int, float, Leaf]] = []
        for leaf, entry in self.entries.items():
            if leaf not in self.stored:
                uncovered.append(leaf)
            elif entry.written_at is None:
                waiting.append((0, 0.0, leaf))
            elif entry.tag == offset:
                continue
            elif leaf.depth < roomy:
                waiting.append((1, leaf.depth, leaf))
            elif is_time and now - entry.written_at >= self._interval:
                waiting.append((2, entry.written_at, leaf))
        if together and (uncovered or waiting):
            return self.behind(offset)
        waiting.sort()
        limit = ceil(n * elapsed / self._interval) + 1 if is_time else 0
        if hurries and waiting:
            limit = max(limit, 1, AT_ONCE * self._full // max(self._full, streams >> waiting[0][2].depth))
        return uncovered + [leaf for *_, leaf in waiting[:limit]]

    def split(self, leaf: Leaf) -> tuple[Leaf, Leaf]:
        """Put its two children in the place of a leaf."""
        entry = self.entries.pop(leaf)
        low, high = leaf.children()
        self.entries[low], self.entries[high] = replace(entry), entry
        return low, high

    def degraded_until(self, leaf: Leaf, watermark: int | None) -> int | None:
        """What a chunk that is written at this watermark has to say: the loss is over some time after it was first
        written down.
        """
        entry = self.entries[leaf]
        if entry.degraded_until is not None and watermark is not None:
            if entry.degraded_until == FOREVER:
                entry.degraded_until = min(watermark + DEGRADED_MS, FOREVER - 1)
            elif entry.degraded_until < watermark:
                entry.degraded_until = None
        return entry.degraded_until

    def written(self, leaf: Leaf, offset: int, now: float) -> None:
        entry = self.entries[leaf]
        entry.tag, entry.written_at = offset, now
        self.stored.add(leaf)

    def end_take(self, now: float) -> list[Leaf]:
        """What was due is written. Returns the leaves whose records have to go with it."""
        gone = sorted(self.stored - self.entries.keys())
        self.stored.difference_update(gone)
        self._last_take = now
        self._table = self._shallowest = self._oldest = None
        return gone
