"""A partition's part of a fetch response, taken apart into whole record batches.

Pure: bytes in, batches out. The layout is Kafka's record batch v2 (KIP-98):

    base offset i64 | length i32 | leader epoch i32 | magic i8 | CRC-32C u32 | attributes i16 | last offset delta i32
    | base timestamp i64 | max timestamp i64 | producer id i64 | producer epoch i16 | base sequence i32 | count i32

The CRC covers what follows it. Bits of the attributes: 0-2 codec, 3 append time, 4 transactional, 5 control.
Batches of aborted transactions and control batches give nothing but move the position (KIP-98, read_committed). What
cannot be read is a PoisonBatch, and reading goes on behind it.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import crc32c
import numpy as np
from numpy.typing import NDArray

from streamlstm.transport.codecs import UndecodableError, UnknownCodecError, decompress

HEADER = struct.Struct(">qiibIhiqqqhii")
_FRAME = 12
_MAGIC_AT = 16
_CRC_FROM = 21
_DELTA_AT = 23
_CODEC, APPEND_TIME, _TRANSACTIONAL, CONTROL = 0x07, 0x08, 0x10, 0x20
_SMALLEST_RECORD = 7
RUN_BYTES = 1 << 18
_SMALL = 2048  # bytes of a compressed batch that is worth being read together with others
_LENGTH = struct.Struct(">i")
_FIELDS = np.dtype(
    {
        "names": ["base", "epoch", "crc", "attributes", "delta", "base_time", "max_time", "count"],
        "formats": [">i8", ">i4", ">u4", ">i2", ">i4", ">i8", ">i8", ">i4"],
        "offsets": [0, 12, 17, _CRC_FROM, _DELTA_AT, 27, 35, 57],
        "itemsize": HEADER.size,
    }
)

PoisonReason = Literal["corrupt_batch", "unknown_codec"]


@dataclass(slots=True)
class FetchedBatch:
    """One record batch. `records` is its decompressed records section, `count` records of it.

    Offsets are inclusive. Records below `min_offset` lie before the position that was asked for: drop them. Times are
    epoch milliseconds; with `append_time` >= 0 every record has that one (LogAppendTime).
    """

    topic: str
    partition: int
    records: bytes | memoryview
    count: int
    base_offset: int
    last_offset: int
    base_timestamp: int
    append_time: int
    min_offset: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class FetchedRun:
    """Record batches that stand one behind the other: what producers that don't wait for more records leave, one or a
    few to a batch.

    `records` holds their records sections, decompressed; `spans` int64 [n, 7] says of each where it begins and ends in
    there, and then count, base offset, last offset, base timestamp, append time, as in FetchedBatch.
    """

    topic: str
    partition: int
    records: bytes | memoryview
    spans: NDArray[np.int64]
    min_offset: int
    leader_epoch: int

    @property
    def base_offset(self) -> int:
        return int(self.spans[0, 3])

    @property
    def last_offset(self) -> int:
        return int(self.spans[-1, 4])

    def batches(self) -> Iterator[FetchedBatch]:
        """One by one."""
        for start, stop, count, base, last, base_time, append_time in self.spans.tolist():
            yield FetchedBatch(
                self.topic, self.partition, self.records[start:stop], count, base, last, base_time, append_time,
                max(base, self.min_offset), self.leader_epoch,
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PoisonBatch:
    """A batch that cannot be read: to be dead-lettered by reference. Offsets are inclusive."""

    topic: str
    partition: int
    base_offset: int
    last_offset: int
    reason: PoisonReason
    message: str


@dataclass(frozen=True, slots=True)
class AbortedTransaction:
    """What the broker says of a producer's transaction that ended with an abort."""

    producer_id: int
    first_offset: int


class PartitionBytes:
    """Iterates over the batches of one partition's bytes. `position` is the next offset to fetch and to commit."""

    def __init__(
        self,
        topic: str,
        partition: int,
        position: int,
        buffer: bytes | memoryview,
        aborted: Iterable[AbortedTransaction],
        max_batch_bytes: int,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.position = position
        self.leader_epoch = -1
        self._buffer = memoryview(buffer)
        self._at = 0
        self._limit = max_batch_bytes
        self._aborted = sorted(aborted, key=lambda each: each.first_offset, reverse=True)
        self._aborting: set[int] = set()

    def __iter__(self) -> Iterator[FetchedBatch | PoisonBatch]:
        for each in self.runs():
            if isinstance(each, FetchedRun):
                yield from each.batches()
            else:
                yield each

    def runs(self) -> Iterator[FetchedRun | FetchedBatch | PoisonBatch]:
        """As iterating, but sound small batches in a row, RUN_BYTES of them or so, come as one: five times as fast."""
        progress = False
        while True:
            run = self._run()
            if run is not None:
                progress = True
                yield run
                continue
            size = self._next_size()
            if size is None:
                break
            progress = True
            view = self._buffer[self._at : self._at + size]
            batch = self._read(view)
            self._at += size
            if batch is not None:
                yield batch
        if not progress and len(self._buffer):
            yield self._poison(self.position, self.position, "no whole record batch where the broker owes one")

    def _run(self) -> FetchedRun | None:
        """The sound small batches from here on, if there are two at least; the position moves behind them."""
        if self._aborted or self._aborting:
            return None
        bounds = self._bounds()
        if len(bounds) < 3:
            return None
        starts = np.array(bounds[:-1])
        heads = np.frombuffer(self._buffer, np.uint8)[starts[:, None] + np.arange(HEADER.size)].view(_FIELDS)[:, 0]
        last = heads["base"] + heads["delta"].astype(np.int64)
        before = np.concatenate([[max(self.position, int(heads["base"][0])) - 1], last[:-1]])
        sound = (heads["delta"] >= 0) & (last > before) & (heads["epoch"] == heads["epoch"][0])
        sound[1:] &= heads["base"][1:] > before[1:]
        sections = self._sections(bounds, heads, len(starts) if sound.all() else int(np.argmin(sound)))
        count = len(sections)
        if count < 2:
            return None
        heads, last = heads[:count], last[:count]
        append_time = np.where(heads["attributes"] & APPEND_TIME, heads["max_time"], -1)
        records: bytes | memoryview
        if (heads["attributes"] & _CODEC).any():
            records = b"".join(sections)
            stops = np.cumsum([len(each) for each in sections])
            begins = np.concatenate([[0], stops[:-1]])
        else:  # they are where they are, headers between them
            records = self._buffer[bounds[0] : bounds[count]]
            begins, stops = starts[:count] + (HEADER.size - bounds[0]), np.array(bounds[1 : count + 1]) - bounds[0]
        columns = (begins, stops, heads["count"], heads["base"], last, heads["base_time"], append_time)
        spans = np.stack([np.asarray(each, np.int64) for each in columns], axis=1)
        begin, self.position = max(int(heads["base"][0]), self.position), int(last[-1]) + 1
        self.leader_epoch, self._at = int(heads["epoch"][0]), bounds[count]
        return FetchedRun(self.topic, self.partition, records, spans, begin, self.leader_epoch)

    def _bounds(self) -> list[int]:
        """Where small batches begin and end from here on by the lengths that they say, RUN_BYTES of them at most."""
        buffer, at, bounds = self._buffer, self._at, [self._at]
        end = min(len(buffer), at + RUN_BYTES)
        while end - at >= HEADER.size:
            attributes = buffer[at + _CRC_FROM + 1]
            if buffer[at + _MAGIC_AT] != 2 or attributes & CONTROL:
                break
            at += _LENGTH.unpack_from(buffer, at + 8)[0] + _FRAME
            if not bounds[-1] + HEADER.size <= at <= end or (attributes & _CODEC and at - bounds[-1] > _SMALL):
                break
            bounds.append(at)
        return bounds

    def _sections(self, bounds: list[int], heads: NDArray[Any], most: int) -> list[bytes | memoryview]:
        """The records sections, decompressed, of the first `most` batches at most: up to the first that has another CRC
        than it says or can't be decompressed, and to RUN_BYTES.
        """
        found: list[bytes | memoryview] = []
        left, crcs, codecs = RUN_BYTES, heads["crc"].tolist(), (heads["attributes"] & _CODEC).tolist()
        for (start, stop), crc, codec in zip(pairwise(bounds[: most + 1]), crcs, codecs, strict=False):
            if left <= 0 or crc32c.crc32c(self._buffer[start + _CRC_FROM : stop]) != crc:
                break
            try:
                found.append(decompress(codec, self._buffer[start + HEADER.size : stop], self._limit))
            except (UnknownCodecError, UndecodableError):
                break
            left -= len(found[-1])
        return found

    def _next_size(self) -> int | None:
        """Bytes of the next batch; None at the end, and at a batch that the size limit of the fetch has cut."""
        left = len(self._buffer) - self._at
        if left <= _MAGIC_AT:
            return None
        size: int = _LENGTH.unpack_from(self._buffer, self._at + 8)[0] + _FRAME
        return size if _MAGIC_AT < size <= left else None

    def _read(self, view: memoryview) -> FetchedBatch | PoisonBatch | None:
        if view[_MAGIC_AT] != 2:
            message = f"record format v{view[_MAGIC_AT]}; v2 (Kafka 0.11) is the only one that is read"
            return self._broken(view, message)
        if len(view) < HEADER.size:
            return self._broken(view, f"a record batch of {len(view)} bytes, less than its header has")
        header = HEADER.unpack_from(view)
        (base, _, epoch, _, crc, attributes, delta, base_time, max_time, producer, _, _, count) = header
        if crc32c.crc32c(view[_CRC_FROM:]) != crc:
            return self._broken(view, f"CRC-32C of {len(view)} bytes differs from {crc:08x} in the header")
        if delta < 0:
            return self._broken(view, f"the last offset is {-delta} before the first")
        last = base + delta
        if last < self.position:
            return None
        self.leader_epoch = epoch
        if self._skipped(attributes, producer, last):
            self.position = last + 1
            return None
        try:
            records = decompress(attributes & _CODEC, view[HEADER.size :], self._limit)
        except UnknownCodecError as error:
            return self._poison(base, last, str(error), "unknown_codec")
        except UndecodableError as error:
            return self._poison(base, last, str(error))
        start, self.position = max(base, self.position), last + 1
        append_time = max_time if attributes & APPEND_TIME else -1
        return FetchedBatch(
            self.topic, self.partition, records, count, base, last, base_time, append_time, start, epoch
        )

    def _skipped(self, attributes: int, producer: int, last: int) -> bool:
        """Is the batch a control batch or part of an aborted transaction? Keeps book of the transactions.

        A control batch of a producer that is being aborted is the end of that transaction: its commits lie before the
        aborted transaction's first offset.
        """
        if producer >= 0:
            while self._aborted and self._aborted[-1].first_offset <= last:
                self._aborting.add(self._aborted.pop().producer_id)
        if attributes & CONTROL:
            self._aborting.discard(producer)
            return True
        return bool(attributes & _TRANSACTIONAL) and producer in self._aborting

    def _broken(self, view: memoryview, message: str) -> PoisonBatch:
        """A batch whose header can't be trusted. It ends before the next one when that is sound; else by what its size
        allows, and where not even that is believable, one offset on. What follows is then left for the next fetch,
        since nobody knows where it begins.
        """
        base: int = struct.unpack_from(">q", view)[0]
        delta: int = struct.unpack_from(">i", view, _DELTA_AT)[0] if len(view) >= HEADER.size else 0
        most = len(view) // _SMALLEST_RECORD
        next_base = self._sound_base(self._at + len(view))
        if next_base is None and view[_MAGIC_AT] > 1:
            self._at = len(self._buffer)
        if next_base is not None and next_base <= max(base, self.position) + max(most, delta):
            return self._poison(self.position, next_base - 1, message)
        if self.position - most <= base <= self.position + most and 0 <= delta <= most:
            return self._poison(base, base + delta, message)
        return self._poison(self.position, self.position, message)

    def _sound_base(self, at: int) -> int | None:
        """The base offset of the batch that begins at `at` of the buffer, if there is a whole and sound one."""
        if len(self._buffer) - at < HEADER.size:
            return None
        base, length, _, magic, crc, *_ = HEADER.unpack_from(self._buffer, at)
        end = at + _FRAME + length
        if magic != 2 or not at + HEADER.size <= end <= len(self._buffer) or base <= self.position:
            return None
        return int(base) if crc32c.crc32c(self._buffer[at + _CRC_FROM : end]) == crc else None

    def _poison(self, base: int, last: int, message: str, reason: PoisonReason = "corrupt_batch") -> PoisonBatch:
        """The broker gave this batch for `position`: always step past that."""
        last = max(last, self.position)
        base, self.position = min(max(base, self.position), last), last + 1
        return PoisonBatch(self.topic, self.partition, base, last, reason, message)
