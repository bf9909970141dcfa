"""`streamlstm state`: what the snapshot topic holds, read beside the daemon and without its knowledge.

The topic is read as in a restart, newest first until every stream is there; the same chunks count (state/newest.py).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from streamlstm.config import Config
from streamlstm.engine.prediction import row_layout
from streamlstm.errors import BadDataError, InputMissingError, OffsetGoneError, RetryError, UsageError
from streamlstm.kernels.layout import STATE_ABI, StateDtype
from streamlstm.model.model_file import Model, load
from streamlstm.service.stream_columns import Columns, columns_of
from streamlstm.service.wiring import connection_settings
from streamlstm.state.newest import Newest
from streamlstm.state.recovery import Flaw, Problem, flaw_of, problems
from streamlstm.state.slots import stable_hashes
from streamlstm.state.snapshot import ROOT, Chunk, ChunkError, Header, Leaf, decode_chunk
from streamlstm.transport.backward_reader import BackwardReader
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.fetched import PoisonBatch
from streamlstm.transport.offsets import committed_offsets
from streamlstm.transport.produce_one import produce_one
from streamlstm.transport.topics import describe_topics, log_ranges

Progress = Callable[[int], None]

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest sound chunk of a leaf: its header, the size of its value, and all of it where that was asked for."""

    header: Header
    size: int
    chunk: Chunk | None


@dataclass(slots=True)
class Cover:
    """The chunks of one partition; `load` takes the records of the topic, the newest first.

    `model` None: any model and state_dtype will do. `keep` says of which leaves the whole chunk is kept.
    """

    owner: tuple[str, str, int]
    model: Model | None
    state_dtype: StateDtype
    keep: Callable[[Leaf], bool]
    chunks: dict[Leaf, Stored] = field(default_factory=dict)
    newest: Newest = field(default_factory=Newest)
    damaged: list[str] = field(default_factory=list)

    @property
    def flaws(self) -> dict[Leaf, Flaw]:
        """What is wrong with the newest record of a leaf."""
        return self.newest.bad

    def load(self, key: bytes, value: bytes | memoryview | None) -> None:
        leaf = Leaf.of_key(key)
        if leaf is None:
            return
        if value is None:
            self.newest.bury(leaf)
            return
        if not self.newest.asks_for(leaf):
            return
        try:
            chunk = decode_chunk(value)
        except ChunkError as error:
            self.newest.reject(leaf, Flaw("corrupt", error.problem))
            return
        flaw = flaw_of(chunk.header, self._expected(chunk.header))
        if flaw is not None:
            self.newest.reject(leaf, flaw)
            return
        self.newest.count(leaf)
        self.chunks[leaf] = Stored(chunk.header, len(value), chunk if self.keep(leaf) else None)

    def _expected(self, found: Header) -> Header:
        """What a sound chunk in the place of this one would say."""
        group, topic, partition = self.owner
        ours = replace(found, group=group, topic=topic, partition=partition, abi=STATE_ABI)
        if self.model is None:
            return ours
        row_bytes = row_layout(self.model, self.state_dtype).row_bytes
        return replace(ours, model=self.model.model_hash, state_dtype=self.state_dtype, row_bytes=row_bytes)


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What `state list` says of a partition. `problems` is what a restart would say; `notes` what it would get over."""

    partition: int
    cover: Cover
    committed: int | None
    problems: list[Problem]
    notes: list[str]

    @property
    def tags(self) -> list[int]:
        """The offset that each chunk is exact for."""
        return sorted(stored.header.offset for stored in self.cover.chunks.values())

    @property
    def streams(self) -> int:
        return sum(stored.header.streams for stored in self.cover.chunks.values())

    @property
    def size(self) -> int:
        return sum(stored.size for stored in self.cover.chunks.values())


@dataclass(frozen=True, slots=True)
class Found:
    """Where a stream is: its chunk, and its row there."""

    leaf: Leaf
    chunk: Chunk
    row: int


@contextmanager
def opened(config: Config) -> Iterator["Inspection"]:
    """Raises InputMissingError when input or snapshot topic isn't there, RetryError, AccessError, ConfigError."""
    cluster = Cluster.connect(connection_settings(config), time.monotonic)
    try:
        yield Inspection(cluster, config)
    finally:
        cluster.close()


class Inspection:
    """Questions to the snapshot topic of the configured group. `total` is how many offsets one pass reads."""

    def __init__(self, cluster: Cluster, config: Config) -> None:
        self._cluster = cluster
        self._config = config
        self._topic = config.snapshot.topic
        self._patience = (2 * config.commit.transaction_timeout_ms + config.commit.request_timeout_ms) / 1000
        topics = (config.input.topic, self._topic)
        found = describe_topics(cluster, topics, cluster.deadline(cluster.settings.connect_timeout_ms))
        if missing := [topic for topic, facts in found.items() if facts is None]:
            raise InputMissingError(f"topic {', '.join(missing)} is not there")
        facts = found[self._topic]
        self.partitions = range(facts.partitions if facts is not None else 0)
        self._ranges = log_ranges(cluster, self._topic, self.partitions)
        self.total = sum(end - first for first, end in self._ranges.values())

    def overview(self, progress: Progress) -> list[PartitionState]:
        """The state of every partition. Without a model file nothing is said of models."""
        model = load(Path(self._config.model.path)) if Path(self._config.model.path).is_file() else None
        covers = [self._cover(partition, model, lambda _: False, progress) for partition in self.partitions]
        here = [(self._config.input.topic, partition) for partition in self.partitions]
        deadline = self._cluster.deadline(self._cluster.settings.connect_timeout_ms)
        committed = committed_offsets(self._cluster, self._config.kafka.group_id, here, deadline)
        logs = log_ranges(self._cluster, self._config.input.topic, self.partitions)
        bounded = self._config.state.max_streams_per_partition is not None
        return [
            judged(cover, partition, committed[self._config.input.topic, partition], *logs[partition], bounded=bounded)
            for partition, cover in enumerate(covers)
        ]

    def find(self, stream: str, progress: Progress) -> list[Found]:
        """The stream in every partition that has it. Raises BadDataError where the chunk that would have it can't be
        read.
        """
        key = np.array(bytearray(stream.encode()), np.uint8)
        (stable_hash,) = stable_hashes(np.array([len(key)], np.int64), key).tolist()
        found: list[Found] = []
        for partition in self.partitions:
            cover = self._cover(partition, None, lambda leaf: leaf.covers(stable_hash), progress)
            for leaf, flaw in cover.flaws.items():
                if leaf.covers(stable_hash) and leaf not in cover.chunks:
                    raise BadDataError(f"{self._topic}-{partition}, {leaf.key.decode()}: {flaw.message}")
            for leaf, stored in cover.chunks.items():
                if stored.chunk is not None and (row := _row_of(key.tobytes(), stable_hash, stored.chunk)) is not None:
                    found.append(Found(leaf, stored.chunk, row))
        return found

    def columns(self, found: Found) -> Columns:
        """A stream's row, taken apart as the model file says. Raises BadDataError for a chunk of another model."""
        model, header = load(Path(self._config.model.path)), found.chunk.header
        if header.model != model.model_hash:
            raise BadDataError(
                f"{found.leaf.key.decode()} of partition {header.partition} is of model {header.model}; "
                f"{self._config.model.path} is {model.model_hash}"
            )
        return columns_of(model, found.chunk.rows[found.row : found.row + 1], header.state_dtype)

    def export(self, progress: Progress) -> Iterator[tuple[Leaf, Chunk, Columns]]:
        """Every chunk with the columns of its streams, partition by partition. Holds one partition in memory.

        Raises BadDataError for a partition with chunks that can't be used: what is exported is complete.
        """
        model = load(Path(self._config.model.path))
        for partition in self.partitions:
            cover = self._cover(partition, model, lambda _: True, progress)
            for leaf, flaw in cover.flaws.items():
                if leaf not in cover.chunks:
                    raise BadDataError(f"{self._topic}-{partition}, {leaf.key.decode()}: {flaw.message}")
            for leaf, stored in sorted(cover.chunks.items(), key=lambda item: item[0].first):
                if stored.chunk is not None:
                    yield leaf, stored.chunk, columns_of(model, stored.chunk.rows, stored.header.state_dtype)

    def reset(self, stream: str, partition: int) -> int:
        """Write the tombstone that resets the stream behind the events of its partition; returns its offset."""
        given = self._config.input
        if given.stream_source == "field":
            raise UsageError('input.stream_source is "field": a record without a value names no stream')
        deadline = self._cluster.deadline(self._cluster.settings.connect_timeout_ms)
        now_ms = int(time.time() * 1000)
        return produce_one(self._cluster, (given.topic, partition), stream.encode(), None, now_ms, deadline)

    def _cover(self, partition: int, model: Model | None, keep: Callable[[Leaf], bool], progress: Progress) -> Cover:
        for _ in range(_ATTEMPTS):
            owner = (self._config.kafka.group_id, self._config.input.topic, partition)
            cover = Cover(owner, model, self._config.engine.state_dtype, keep)
            try:
                self._read(partition, cover, progress)
            except OffsetGoneError:
                self._ranges |= log_ranges(self._cluster, self._topic, [partition])
            else:
                return cover
        raise RetryError(f"{self._topic}-{partition}: what is being read is dropped again and again")

    def _read(self, partition: int, cover: Cover, progress: Progress) -> None:
        first, end = self._ranges[partition]
        reader = BackwardReader(self._cluster, self._topic, partition, first, end)
        while reader.position > first and not cover.newest.is_whole:
            before = reader.position
            found = reader.read(self._patience)
            if reader.position == before:
                raise RetryError(f"{self._topic}-{partition}: expected records up to offset {before}; found no more")
            for each in found:
                if cover.newest.is_whole:
                    break
                if isinstance(each, PoisonBatch):
                    cover.damaged.append(f"offsets {each.base_offset} to {each.last_offset}: {each.message}")
                    continue
                _, _, key, value, _ = each
                cover.load(key or b"", value)
            progress(before - reader.position)
        progress(reader.position - first)  # what isn't needed


def judged(
    cover: Cover, partition: int, committed: int | None, first: int, end: int, *, bounded: bool
) -> PartitionState:
    """What a restart would say of the chunks, whose input log holds [first, end). In a partition with a bound of
    streams (`bounded`) no older version stands in for a damaged one.
    """
    tags = {leaf: stored.header.offset for leaf, stored in cover.chunks.items()}
    flaws = dict(cover.flaws)
    if bounded:
        if cover.damaged:  # which leaves, nobody knows
            flaws[ROOT] = Flaw("corrupt", cover.damaged[0])
        tags = {leaf: tag for leaf, tag in tags.items() if leaf not in flaws}
    notes = [
        f"{leaf.key.decode()}: the newest version is damaged ({flaw.message}); an older one counts"
        for leaf, flaw in flaws.items()
        if flaw.kind == "corrupt" and leaf in tags
    ]
    notes += [f"a record batch of the snapshot topic cannot be read, {each}" for each in cover.damaged]
    return PartitionState(partition, cover, committed, problems(partition, tags, flaws, committed, first, end), notes)


def _row_of(key: bytes, stable_hash: int, chunk: Chunk) -> int | None:
    hashes = stable_hashes(chunk.key_len, chunk.keys)
    ends = np.cumsum(chunk.key_len, dtype=np.int64)
    for row in np.flatnonzero(hashes == np.uint64(stable_hash)).tolist():
        if chunk.keys[ends[row] - chunk.key_len[row] : ends[row]].tobytes() == key:
            return int(row)
    return None
