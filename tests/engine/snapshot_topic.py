"""A partition's log, a compacted snapshot topic, and a member that crashes: what the tests of checkpoints run on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streamlstm.engine.checkpoint import Checkpoint, Restored
from streamlstm.engine.forecaster import Forecaster
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.kernels.layout import STATE_ABI
from streamlstm.state.snapshot import ROOT, Chunk, Header, Leaf, chunk_bytes, decode_chunk

TOPIC, GROUP, MODEL = "events", "forecasters", "sha256:0123456789abcdef"
KEY_BYTES = 16
PARTITIONS = (0, 3)


@dataclass(frozen=True)
class Event:
    offset: int
    key: bytes
    time: int
    x: float
    reason: Reason = Reason.OK


@dataclass
class SnapshotTopic:
    """The records of one partition, in order; and the group's offset, committed with them."""

    records: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    committed: int | None = None

    def live(self) -> dict[bytes, bytes]:
        """The newest value of every key that is no tombstone."""
        newest = dict(self.records)
        return {key: value for key, value in newest.items() if value is not None}

    def compact(self, below: int, drop_tombstones: bool) -> None:
        """Keep of the records below a place those that no later one has replaced, as the broker's cleaner does."""
        last = {key: place for place, (key, _) in enumerate(self.records)}
        self.records = [
            (key, value)
            for place, (key, value) in enumerate(self.records)
            if place >= below or (last[key] == place and not (drop_tombstones and value is None))
        ]

    def chunks(self) -> dict[Leaf, Chunk]:
        found = {Leaf.of_key(key): decode_chunk(value) for key, value in self.live().items()}
        assert None not in found
        return found  # type: ignore[return-value]


def keys_of(chunk: Chunk) -> list[bytes]:
    ends = np.cumsum(chunk.key_len, dtype=np.int64)
    text = chunk.keys.tobytes()
    return [text[end - size : end] for end, size in zip(ends.tolist(), chunk.key_len.tolist(), strict=True)]


def make_batch(parts: Sequence[tuple[int, Sequence[Event]]], inputs: int) -> EventBatch:
    """(partition, events) one after the other."""
    n = sum(len(events) for _, events in parts)
    batch = EventBatch(inputs=inputs, payload=np.zeros(0, np.uint8), capacity=max(1, n))
    row = 0
    for partition, events in parts:
        for event in events:
            batch.stream_at[row], batch.stream_len[row] = -1, 0
            if event.reason in (Reason.OK, Reason.TOMBSTONE):
                batch.stream_at[row], batch.stream_len[row] = batch.append_payload(event.key), len(event.key)
            batch.offset[row], batch.event_time[row], batch.timestamp[row] = event.offset, event.time, event.time
            batch.x[row], batch.reason[row] = event.x, event.reason
            row += 1
        batch.extend_run(TOPIC, partition, row)
    return batch


def chunk_limit(forecaster: Forecaster, streams: int) -> int:
    """A `max_chunk_bytes` into which about so many streams go."""
    row = forecaster.layout.row_bytes
    least = Header(GROUP, TOPIC, 1 << 30, 1 << 62, 1 << 30, MODEL, STATE_ABI, -(1 << 62), -(1 << 62), 1, row)
    return chunk_bytes(least, KEY_BYTES) + 8 + (streams - 1) * (row + 12)


class Member:
    """A process: its forecaster (emptied by a crash) and checkpoint, over two partitions."""

    def __init__(self, forecaster: Forecaster, streams_per_chunk: int, interval: float) -> None:
        self.forecaster = forecaster
        self.now = 0.0
        self.answers: dict[tuple[int, int], tuple] = {}
        self._limit = chunk_limit(forecaster, streams_per_chunk)
        self._interval = interval
        self.bounded = forecaster.settings.max_streams_per_partition is not None
        self.empty()

    def empty(self) -> None:
        for partition in PARTITIONS:
            self.forecaster.release(TOPIC, partition)
        assert self.forecaster.n_streams == 0
        every = np.arange(self.forecaster.settings.max_streams)
        assert not self.forecaster.backend.read_rows(every).any()
        self.checkpoint = Checkpoint(
            self.forecaster, group=GROUP, topic=TOPIC, model_hash=MODEL, max_chunk_bytes=self._limit,
            interval_seconds=self._interval,
            bounded=self.bounded,
        )  # fmt: skip

    def restore(self, partition: int, topic: SnapshotTopic, first: int, end: int) -> Restored:
        for key, value in reversed(topic.records):
            self.checkpoint.load(partition, key, value)
        return self.checkpoint.finish(partition, topic.committed, first, end, self.now)

    def replay(self, parts: Sequence[tuple[int, Sequence[Event]]]) -> None:
        self.checkpoint.replay(make_batch(parts, len(self.forecaster.model.inputs)))

    def answer(self, parts: Sequence[tuple[int, Sequence[Event]]]) -> None:
        batch = make_batch(parts, len(self.forecaster.model.inputs))
        found = self.forecaster.forecast(batch)
        row = 0
        for partition, events in parts:
            for event in events:
                reason = Reason(batch.reason[row])
                answer = () if reason else (found.yhat[row].tobytes(), found.status[row], found.n_seen[row])
                self.answers[partition, event.offset] = (reason, *map(bytes, answer[:1]), *map(int, answer[1:]))
                row += 1

    def rows(self, partition: int) -> dict[bytes, bytes]:
        """The state of a partition's streams."""
        slots = self.forecaster.slots.slots_of(self.forecaster.partition_index(TOPIC, partition))
        rows = self.forecaster.backend.read_rows(slots)
        return {self.forecaster.slots.key_of(slot)[1]: row.tobytes() for slot, row in zip(slots, rows, strict=True)}


def is_cover(leaves: Sequence[Leaf]) -> bool:
    """Whether they cover every hash once."""
    ends = [0, *(leaf.last + 1 for leaf in sorted(leaves, key=lambda leaf: leaf.first))]
    starts = sorted(leaf.first for leaf in leaves)
    return ends == [*starts, ROOT.last + 1]
