"""Which row of the arena belongs to which stream."""

import secrets
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ConfigError, InvariantError
from streamlstm.kernels import hash_table, stable_hash

_FREE_SLOT_BYTES = 8
_OWNER_BYTES = 4
_STABLE_HASH_BYTES = 8
_BUCKET_BYTES = 8
_LOW = 0xFFFFFFFF
_PADDING = 64  # bytes that kernels may read past a key


class NoRoomError(ConfigError):
    """Streams that are to be installed find too few free slots."""


class SlotTable:
    """At most `max_streams` streams, each known by (partition, key bytes) and given a slot in [0, max_streams).

    `partition` is a small index of the input topic-partition. Memory is reserved at once and touched as streams come.
    Which stream gets in when the table is nearly full, and which slot it gets, follows from the order of events alone.
    """

    def __init__(self, max_streams: int, max_key_bytes: int = 64, seed: int | None = None) -> None:
        """`seed` guards against keys made to collide and changes no result; None draws a secret one."""
        if not 1 <= max_streams < 1 << 31 or not 1 <= max_key_bytes < 1 << 16:
            raise InvariantError(
                "slot table: expected 1 <= max_streams < 2^31 and 1 <= max_key_bytes < 65536; "
                f"found max_streams={max_streams}, max_key_bytes={max_key_bytes}"
            )
        self.max_streams = max_streams
        self.max_key_bytes = max_key_bytes
        drawn = secrets.randbits(128) if seed is None else (seed * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128)
        self._seed = np.uint64(drawn >> 64)
        self._multiplier = np.uint64(drawn & (1 << 64) - 1 | 1 | 1 << 63)  # odd and large, so that no key bit is lost
        self._buckets = np.zeros(_n_buckets(max_streams), np.uint64)
        self._cells = np.zeros((max_streams, _cell_words(max_key_bytes)), np.uint64)
        self._owner = np.zeros(max_streams, np.int32)
        self._stable = np.zeros(max_streams, np.uint64)
        self._free = np.zeros(max_streams, np.int64)
        self._counts = np.zeros(3, np.int64)
        self._owned, self._hits = np.zeros((2, 16), np.int64)
        self._lifted: set[int] = set()
        self._ring = np.empty(hash_table.RING, np.uint64)

    @staticmethod
    def memory_bytes(max_streams: int, max_key_bytes: int = 64) -> int:
        """What a full table takes."""
        per_stream = 8 * _cell_words(max_key_bytes) + _OWNER_BYTES + _STABLE_HASH_BYTES + _FREE_SLOT_BYTES
        return _n_buckets(max_streams) * _BUCKET_BYTES + max_streams * per_stream

    @property
    def n_streams(self) -> int:
        return int(self._counts[hash_table.N_STREAMS])

    def assign(
        self,
        payload: NDArray[np.uint8],
        partition: int,
        start: int,
        stop: int,
        stream_at: NDArray[np.int64],
        stream_len: NDArray[np.int64],
        reason: NDArray[np.uint8],
        slot: NDArray[np.int64],
        *,
        cap: int | None = None,
        full_stops: bool = False,
    ) -> int:
        """Write the slot of each row in [start, stop), all of one partition; returns the row it stopped at.

        Rows that have a reason get slot -1 and make no stream. A key over `max_key_bytes` gets the reason key_too_long,
        slot -1. A new stream in a full table, or in a partition of `cap` streams, gets the reason capacity, slot -1;
        with `full_stops` the walk ends at its row, which has no reason yet: make room and go on from there. Else
        `stop` is returned. A `cap` of 0 looks up only. `payload` is padded (events.batch.PADDING).
        """
        self._reserve(partition)
        if cap is None or (cap > 0 and partition in self._lifted):
            cap = self.max_streams
        return int(
            hash_table.assign_slots(
                payload, partition, cap, full_stops, start, stop, stream_at,
                stream_len, self.max_key_bytes, self._seed, self._multiplier, self._buckets, self._cells, self._owner,
                self._stable, self._free, self._counts, self._owned, self._hits, self._ring, reason, slot,
            )
        )  # fmt: skip

    def install(self, partition: int, key_len: NDArray[np.integer[Any]], keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Make n new streams: key i is the next key_len[i] of `keys` uint8. Returns their slots, int64 [n].

        None of them may be there already, or twice: InvariantError. NoRoomError when they don't fit, ConfigError when a
        key is too long; nothing is changed then.
        """
        n, free = len(key_len), self.max_streams - self.n_streams
        if n > free:
            raise NoRoomError(
                [f"state.max_streams is {self.max_streams}: {n} more streams are needed, {free} are free"]
            )
        lengths = key_len.astype(np.int64)
        if n and lengths.max() > self.max_key_bytes:
            raise ConfigError(
                [f"state.max_key_bytes is {self.max_key_bytes}: a stored stream has a key of {lengths.max()} bytes"]
            )
        text, starts = _spans(lengths, keys)
        before, slots = self.n_streams, np.empty(n, np.int64)
        self.assign(text, partition, 0, n, starts, lengths, np.zeros(n, np.uint8), slots)
        if self.n_streams - before != n:
            raise InvariantError(f"{n} streams to install; {self.n_streams - before} of them are new")
        return slots

    def streams_of(self, partition: int) -> int:
        """How many streams a partition has."""
        return int(self._owned[partition]) if partition < len(self._owned) else 0

    def cap_hits(self, partition: int) -> int:
        """How often, ever, a new stream found the partition's cap reached. It only grows."""
        self._reserve(partition)
        return int(self._hits[partition])

    def lift_cap(self, partition: int, lifted: bool) -> None:
        """Whether `assign` is to let the partition have more streams than the cap that it's given."""
        (self._lifted.add if lifted else self._lifted.discard)(partition)

    def slots_of(self, partition: int) -> NDArray[np.int64]:
        """The slots of a partition, int64, ascending."""
        found = np.empty(self.streams_of(partition), np.int64)
        hash_table.slots_of_partition(partition, self._owner, self._counts, found)
        return found

    def slots_under(self, partition: int, ranges: Sequence[tuple[int, int]]) -> list[NDArray[np.int64]]:
        """Per range (first, last) of stable hashes the slots of a partition, int64, ascending, in one scan.

        The ranges ascend and don't overlap.
        """
        bounds = np.array(ranges, np.uint64).reshape(-1, 2)
        grouped, found = np.empty((2, self.streams_of(partition)), np.int64)
        starts = np.empty(len(ranges) + 1, np.int64)
        hash_table.slots_under(
            partition, np.ascontiguousarray(bounds[:, 0]), np.ascontiguousarray(bounds[:, 1]), self._owner,
            self._stable, self._counts, starts, found, grouped,
        )  # fmt: skip
        return [grouped[start:stop] for start, stop in pairwise(starts.tolist())]

    def hashes_of(self, slots: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The stable hash of the key of each slot, uint64 [n]."""
        return self._stable[slots]

    def keys_of(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """(key_len uint16 [n], the keys one after the other, uint8) of the streams that hold `slots`."""
        lengths = np.empty(len(slots), np.uint16)
        keys = np.empty(hash_table.key_lengths(slots, self._cells, lengths), np.uint8)
        hash_table.gather_keys(slots, self._cells, keys)
        return lengths, keys

    def release(self, partition: int) -> NDArray[np.int64]:
        """Forget every stream of a partition; returns the freed slots, int64, ascending."""
        found = self.slots_of(partition)
        self.release_slots(found)
        return found

    def release_slots(self, slots: NDArray[np.int64]) -> int:
        """Forget the streams that hold these slots; returns how many there were (a free slot counts as none)."""
        if len(slots) and not 0 <= int(slots.min()) <= int(slots.max()) < self.max_streams:
            raise InvariantError(f"release of slots {slots.min()}..{slots.max()}; expected 0..{self.max_streams - 1}")
        return int(
            hash_table.release_slots(
                slots, self._seed, self._multiplier, self._buckets, self._cells, self._owner, self._free, self._counts,
                self._owned,
            )
        )  # fmt: skip

    def _reserve(self, partition: int) -> None:
        """Have counters for this partition."""
        if partition >= len(self._owned):
            more = np.zeros(max(partition + 1, 2 * len(self._owned)) - len(self._owned), np.int64)
            self._owned, self._hits = np.append(self._owned, more), np.append(self._hits, more)

    def key_of(self, slot: int) -> tuple[int, bytes]:
        """(partition, key) of the stream that holds `slot`."""
        head = int(self._cells[slot, 0]) if 0 <= slot < self.max_streams else 0
        if head == 0:
            raise InvariantError(f"slot {slot} holds no stream; {self.n_streams} of {self.max_streams} do")
        return (head >> 32) - 1, self._cells[slot, 1:].tobytes()[: head & _LOW]


def stable_hashes(key_len: NDArray[np.integer[Any]], keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The stable hash of each key, uint64 [n]: key i is the next key_len[i] of `keys` uint8."""
    lengths = key_len.astype(np.int64)
    text, starts = _spans(lengths, keys)
    hashes = np.empty(len(lengths), np.uint64)
    stable_hash.stable_hashes(text, starts, lengths, hashes)
    return hashes


def _spans(lengths: NDArray[np.int64], keys: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The keys, padded as the kernels need them, and where each begins."""
    text = np.zeros(len(keys) + _PADDING, np.uint8)
    text[: len(keys)] = keys
    return text, np.cumsum(lengths) - lengths


def _n_buckets(max_streams: int) -> int:
    """A power of two, at least 3/2 of the streams: a known key is then found in the cache line of its home, nearly
    always (two probes on average when two thirds are taken; Knuth, TAOCP vol. 3, 6.4).
    """
    return 1 << max(1, (3 * max_streams // 2).bit_length())


def _cell_words(max_key_bytes: int) -> int:
    return 1 + (max_key_bytes + 7) // 8
