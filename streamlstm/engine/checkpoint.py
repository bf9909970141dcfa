"""The state of the partitions on its way into the snapshot topic and back.

A partition's streams are cut into leaves (state/snapshot.py). Every leaf has a tag: the offset for which its chunk in
the topic is exact. The chunks are written a few at a time, each in the transaction that commits the offset of its tag;
so at any time the topic holds every stream exactly once, as of one offset or another, and nothing waits for an exact
offset. After a restart the chunks are installed, the log is replayed from the oldest tag, and an event advances only
what its leaf doesn't hold yet.

The clock is the caller's: `now` is in seconds of one monotonic clock.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.backend import Backend
from streamlstm.errors import ConfigError, InvariantError
from streamlstm.events.batch import EventBatch
from streamlstm.kernels import stable_hash
from streamlstm.kernels.layout import STATE_ABI
from streamlstm.kernels.observe import NO_TIME
from streamlstm.state.leaves import FOREVER, Entry, Leaves, Table
from streamlstm.state.newest import Newest
from streamlstm.state.recovery import Flaw, Problem, flaw_of, problems, warm_start
from streamlstm.state.slots import SlotTable, stable_hashes
from streamlstm.state.snapshot import (
    HASH_BITS,
    Chunk,
    ChunkError,
    Header,
    Leaf,
    chunk_bytes,
    decode_chunk,
    encode_chunk,
)

TYPICAL_KEY = 16
_GOLDEN = 0.6180339887498949  # its multiples, modulo 1, lie far apart (Knuth, TAOCP vol. 3, 6.4)
_LARGEST = (1 << 63) - 1
_UNKNOWN = -1

Records = list[tuple[bytes, bytes | None]]
"""Keys and values for the snapshot topic, in this order; None is a tombstone."""


class Streams(Protocol):
    """What is stored and restored: a Forecaster."""

    degraded_until: Callable[[int, NDArray[np.int64]], NDArray[np.int64]] | None

    @property
    def slots(self) -> SlotTable: ...

    @property
    def backend(self) -> Backend: ...

    def partition_index(self, topic: str, partition: int) -> int: ...

    def watermark(self, index: int) -> int | None: ...

    def set_watermark(self, index: int, value: int | None) -> None: ...

    def make_room(self, count: int, among: Collection[int]) -> bool: ...

    def replay(self, batch: EventBatch) -> None: ...


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restart has found: replay silently from `replay_from` up to `live_from`, answer from there on.

    Without problems the state is exact then. `older` counts leaves whose newest chunk is damaged and of which an older
    one was taken: exact too, with more to replay.
    """

    replay_from: int
    live_from: int
    streams: int
    problems: list[Problem]
    older: int = 0


@dataclass(slots=True)
class _Partition:
    """`newest`: what was loaded; `end`: of the input's log.
    `log_start`: the first offset that the log holds, -1 until it is told; `is_cut`: it has moved since it first was.

    Leaves as of different offsets are exact as long as no stream's fate depends on another's. It does where a stream is
    refused or evicted because the partition is at its bound. So in the very transaction in which the bound is `hit` all
    leaves are written, and then they are `tied`: written together, until the bound hasn't been hit for a round. A
    replay from leaves of one offset meets the bound again; one from different offsets is known not to, and as it may
    hold streams that came later beside streams that were gone by then, the bound is lifted for it.
    """

    index: int
    leaves: Leaves
    is_loading: bool = True
    newest: Newest = field(default_factory=Newest)
    problems: list[Problem] = field(default_factory=list)
    end: int = 0
    tied: bool = False
    hits: int = 0
    hits_when_written: int = 0
    log_start: int = _UNKNOWN
    is_cut: bool = False


class Checkpoint:
    """The leaves of all partitions of one input topic that this member has. Not thread-safe.

    A partition's life: `begin`; or `load` every record, `finish`, after problems `warm`, and `replay` what was answered
    before. Then `take` with every transaction that commits its offset. `release`.

    Counters: `chunks` written, `chunk_bytes` of their values, `splits` of leaves.
    """

    def __init__(
        self,
        forecaster: Streams,
        *,
        group: str,
        topic: str,
        model_hash: str,
        max_chunk_bytes: int,
        interval_seconds: float,
        bounded: bool = False,
    ) -> None:
        """`bounded`: partitions have a bound of streams (see _Partition).

        Raises ConfigError when a chunk of one stream can be larger than `max_chunk_bytes`.
        """
        self.chunks = self.chunk_bytes = self.splits = 0
        self._forecaster, self._slots, self._backend = forecaster, forecaster.slots, forecaster.backend
        self._max_chunk_bytes = max_chunk_bytes
        self._interval = interval_seconds
        self._bounded = bounded
        self._header = Header(
            group=group, topic=topic, partition=0, offset=0, leader_epoch=-1, model=model_hash, abi=STATE_ABI,
            watermark=None, degraded_until=None, streams=0, row_bytes=self._backend.row_bytes,
            state_dtype=self._backend.layout.state_dtype,
        )  # fmt: skip
        largest = replace(
            self._header, partition=1 << 30, offset=_LARGEST, leader_epoch=1 << 30, watermark=-_LARGEST,
            degraded_until=-_LARGEST, streams=1,
        )  # fmt: skip
        if (needed := chunk_bytes(largest, self._slots.max_key_bytes)) > max_chunk_bytes:
            raise ConfigError([f"snapshot.max_chunk_bytes is {max_chunk_bytes}: one stream needs up to {needed}"])
        self._full = max(1, max_chunk_bytes // (self._header.row_bytes + 2 + TYPICAL_KEY))
        self._partitions: dict[int, _Partition] = {}
        self._degraded: dict[int, Table] = {}

    def begin(self, partition: int, now: float) -> None:
        """A partition without a past: its root is due at once. What was loaded of it is dropped."""
        state = self._loading(partition)
        for leaf in [*state.leaves.entries]:
            self._drop(state, leaf)
        state.is_loading = False
        state.leaves.begin(now)

    def load(self, partition: int, key: bytes, value: bytes | memoryview | None) -> None:
        """Take in one record of the partition of the snapshot topic; the newest comes first (see Newest).

        A record that can't be used is remembered for `finish`, and an older version of its leaf taken. Where streams
        may be evicted, those of partitions that are live make room. Raises NoRoomError when the streams don't fit,
        ConfigError for keys that are too long.
        """
        leaf = Leaf.of_key(key)
        if leaf is None:
            return
        state = self._loading(partition)
        if value is None:
            state.newest.bury(leaf)
            return
        if not state.newest.asks_for(leaf):
            return
        try:
            chunk = decode_chunk(value)
            flaw = flaw_of(chunk.header, replace(self._header, partition=partition))
            if flaw is None:
                _check_keys(leaf, chunk)
        except ChunkError as error:
            flaw = Flaw("corrupt", error.problem)
        if flaw is not None:
            state.newest.reject(leaf, flaw)
            return
        self._install(state, partition, leaf, chunk)
        state.newest.count(leaf)

    def is_whole(self, partition: int) -> bool:
        """Whether all streams of the partition are loaded: older records would change nothing."""
        return self._loading(partition).newest.is_whole

    def unreadable(self, partition: int, why: str) -> None:
        """Some records of the partition of the snapshot topic, at this place, can't be read at all.

        Older versions of their leaves stand in, as for a damaged chunk.
        """
        if self._bounded:
            self._loading(partition).newest.unreadable(why)

    def finish(self, partition: int, committed: int | None, first: int, end: int, now: float) -> Restored:
        """Every record is loaded. The input log holds the offsets from `first` up to `end`, its last stable offset.

        With problems it's either the end, or `warm`. A partition without chunks and committed offset (None) begins.
        """
        state = self._loading(partition)
        if self._bounded:  # the others may be tied: an older version isn't exact then
            for leaf in state.newest.bad:
                self._drop(state, leaf)
        state.leaves.stored |= state.newest.stored
        bad, tags = state.newest.bad, state.leaves.tags
        state.end, older = end, len(bad)
        state.problems = problems(partition, tags, bad, committed, first, end)
        if not tags and not bad and committed is None:
            self.begin(partition, now)
        elif not state.problems:
            self._go_on(state, now)
        live_from = first if committed is None else committed
        streams = self._slots.streams_of(state.index)
        return Restored(min(tags.values(), default=live_from), live_from, streams, state.problems, older)

    def warm(self, partition: int, committed: int, first: int, now: float) -> Restored:
        """Go on although `finish` found problems: keep what is exact, begin the other streams anew, degraded."""
        state = self._partitions[partition]
        plan = warm_start(state.leaves.tags, state.problems, committed, first, state.end)
        for leaf in state.leaves.entries.keys() - plan.kept:
            self._drop(state, leaf)
        for leaf in plan.lost:
            state.leaves.entries[leaf] = Entry(tag=plan.replay_from, degraded_until=FOREVER)
        self._go_on(state, now)
        streams = self._slots.streams_of(state.index)
        return Restored(plan.replay_from, plan.live_from, streams, state.problems)

    def replay(self, batch: EventBatch) -> None:
        """Advance the streams by events that were answered before; those that a chunk holds already get a reason."""
        restored = [(run, self._partitions[run.partition]) for run in batch.runs]
        for run, state in restored:
            table = state.leaves.table
            if run.stop > run.start and batch.offset[run.start] < table.tags.max():
                stable_hash.mark_replayed(
                    batch.payload, run.start, run.stop, batch.stream_at, batch.stream_len, batch.offset, batch.reason,
                    table.firsts, table.tags,
                )  # fmt: skip
            self._slots.lift_cap(state.index, self._bounded and not state.tied)
        self._forecaster.replay(batch)
        for _, state in restored:
            self._slots.lift_cap(state.index, False)

    def take(self, partition: int, offset: int, leader_epoch: int, now: float) -> Records:
        """The records that are due, for the transaction that commits `offset` of the partition.

        The streams must have seen every event below `offset` and none from it on. The records count as written: they
        go out with this transaction or its repetition, or the partition is released.

        A round of all leaves takes the interval: leaves are due when they are that old, the oldest first, and few at a
        time. A leaf that the topic doesn't cover yet is due at once. A leaf as of the same offset isn't written again.
        """
        state = self._partitions[partition]
        leaves = state.leaves
        due = sorted(self._due(state, offset, now), key=lambda leaf: leaf.first)
        state.hits = hits = self._slots.cap_hits(state.index)
        if not due:
            return []
        if len(due) == len(leaves.behind(offset)):
            state.tied, state.hits_when_written = self._bounded and hits > state.hits_when_written, hits
        header = replace(
            self._header, partition=partition, offset=offset, leader_epoch=leader_epoch,
            watermark=self._forecaster.watermark(state.index),
        )  # fmt: skip
        written: Records = []
        under = self._slots.slots_under(state.index, [(leaf.first, leaf.last) for leaf in due])
        for leaf, slots in zip(due, under, strict=True):
            written += self._write(leaves, leaf, slots, header, now)
        gone = leaves.end_take(now)
        if self._degraded:
            self._tell_degraded()
        return [*((leaf.key, None) for leaf in gone), *written]

    def log_begins(self, partition: int, first: int) -> None:
        """The first offset that the input log holds now.

        Once retention is seen to drop events, leaves as of the older half of the log are due at once: however fast the
        log is cut, by time or by size, a restart finds there what it has to replay.
        """
        state = self._partitions[partition]
        state.is_cut = state.is_cut or _UNKNOWN < state.log_start < first
        state.log_start = first

    def due(self, partition: int, now: float, offset: int | None = None) -> bool:
        """Whether `take` would have records; without `offset` for one as of which nothing was written yet."""
        return bool(self._due(self._partitions[partition], offset, now))

    def oldest_tag(self, partition: int) -> int | None:
        """Where a restart would have to read from; None before the first take."""
        return min(self._partitions[partition].leaves.tags.values(), default=None)

    def oldest_written_at(self, partition: int) -> float:
        return self._partitions[partition].leaves.oldest_written_at

    def release(self, partition: int) -> None:
        """Forget a partition, also in the middle of loading. Its streams are released at the Forecaster."""
        if self._partitions.pop(partition, None) is not None:
            self._tell_degraded()

    def _loading(self, partition: int) -> _Partition:
        state = self._partitions.get(partition)
        if state is None:
            index = self._forecaster.partition_index(self._header.topic, partition)
            hits = self._slots.cap_hits(index)
            leaves = Leaves(self._interval, self._full, phase=partition * _GOLDEN % 1)
            state = _Partition(index, leaves, hits=hits, hits_when_written=hits)
            self._partitions[partition] = state
        return state

    def _install(self, state: _Partition, partition: int, leaf: Leaf, chunk: Chunk) -> None:
        if len(chunk.key_len) > self._slots.max_streams - self._slots.n_streams:
            live = [each.index for each in self._partitions.values() if not each.is_loading]
            self._forecaster.make_room(len(chunk.key_len), live)
        try:
            slots = self._slots.install(state.index, chunk.key_len, chunk.keys)
        except ConfigError as error:
            where = f"restoring {self._header.topic}-{partition}"
            raise type(error)([f"{where}: {problem}" for problem in error.problems]) from None
        self._backend.write_rows(slots, chunk.rows)
        header = chunk.header
        state.leaves.entries[leaf] = Entry(header.offset, -np.inf, header.degraded_until, header.watermark, slots)

    def _drop(self, state: _Partition, leaf: Leaf) -> None:
        """Forget a leaf and its streams, while chunks are loaded."""
        found = state.leaves.entries.pop(leaf, None)
        if found is not None:
            self._backend.clear(found.slots)
            self._slots.release_slots(found.slots)

    def _go_on(self, state: _Partition, now: float) -> None:
        state.is_loading = False
        state.newest = Newest()
        self._forecaster.set_watermark(state.index, state.leaves.go_on(now))
        state.tied = self._bounded and len(set(state.leaves.tags.values())) == 1
        self._tell_degraded()

    def _due(self, state: _Partition, offset: int | None, now: float) -> list[Leaf]:
        if self._bounded and not state.tied and self._slots.cap_hits(state.index) > state.hits:
            return state.leaves.behind(offset)
        if state.is_cut and offset is not None:
            half = state.log_start + (offset - state.log_start) // 2
            if state.leaves.oldest < half:
                return state.leaves.behind(offset) if state.tied else state.leaves.below(half)
        return state.leaves.due(offset, now, self._slots.streams_of(state.index), state.tied)

    def _write(self, leaves: Leaves, leaf: Leaf, slots: NDArray[np.int64], header: Header, now: float) -> Records:
        """The chunk of a leaf or, where it's too large, those of its children."""
        entry = leaves.entries[leaf]
        if entry.tag is not None and entry.tag > header.offset:
            raise InvariantError(f"{leaf.key.decode()} of offset {entry.tag} taken as of offset {header.offset}")
        key_len, keys = self._slots.keys_of(slots)
        header = replace(header, streams=len(slots), degraded_until=leaves.degraded_until(leaf, header.watermark))
        if chunk_bytes(header, len(keys)) > self._max_chunk_bytes and leaf.depth < HASH_BITS:
            self.splits += 1
            low, high = leaves.split(leaf)
            is_high = self._slots.hashes_of(slots) >= np.uint64(high.first)
            return [
                *self._write(leaves, low, slots[~is_high], header, now),
                *self._write(leaves, high, slots[is_high], header, now),
            ]
        value = encode_chunk(header, key_len, keys, self._backend.read_rows(slots))
        leaves.written(leaf, header.offset, now)
        self.chunks += 1
        self.chunk_bytes += len(value)
        return [(leaf.key, value)]

    def _tell_degraded(self) -> None:
        every = {state.index: state.leaves.table for state in self._partitions.values()}
        self._degraded = {index: table for index, table in every.items() if (table.degraded_until > NO_TIME).any()}
        self._forecaster.degraded_until = self._degraded_until if self._degraded else None

    def _degraded_until(self, index: int, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        table = self._degraded.get(index)
        if table is None:
            return np.full(len(slots), NO_TIME)
        return table.degraded_until[np.searchsorted(table.firsts, self._slots.hashes_of(slots), side="right") - 1]


def _check_keys(leaf: Leaf, chunk: Chunk) -> None:
    """Raises ChunkError for keys that aren't the leaf's, or that are there twice."""
    hashes = stable_hashes(chunk.key_len, chunk.keys)
    if len(hashes) == 0:
        return
    hashes.sort()
    if not (leaf.covers(int(hashes[0])) and leaf.covers(int(hashes[-1]))):
        raise ChunkError("streams of another leaf")
    if (hashes[1:] == hashes[:-1]).any():  # one key twice; or two of one hash, which happens to somebody some day
        text, ends = chunk.keys.tobytes(), np.cumsum(chunk.key_len, dtype=np.int64).tolist()
        if len({text[start:end] for start, end in pairwise([0, *ends])}) < len(hashes):
            raise ChunkError("a stream is there twice")
