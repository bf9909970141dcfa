"""Which row of the arena belongs to which stream."""

import secrets

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError
from streamlstm.kernels import hash_table

_FREE_SLOT_BYTES = 8
_BUCKET_BYTES = 8
_LOW = 0xFFFFFFFF


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
        self._free = np.zeros(max_streams, np.int64)
        self._counts = np.zeros(3, np.int64)
        self._hashes = np.empty(1024, np.uint64)

    @staticmethod
    def memory_bytes(max_streams: int, max_key_bytes: int = 64) -> int:
        """What a full table takes."""
        per_stream = 8 * _cell_words(max_key_bytes) + _FREE_SLOT_BYTES
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
    ) -> int:
        """Write the slot of each row in [start, stop), all of one partition; returns how many streams are new.

        Rows that have a reason get slot -1 and make no stream. A key over `max_key_bytes` gets the reason key_too_long,
        a new stream in a full table the reason capacity; both slot -1. `payload` is padded (events.batch.PADDING).
        """
        if stop - start > len(self._hashes):
            self._hashes = np.empty(max(stop - start, 2 * len(self._hashes)), np.uint64)
        return int(
            hash_table.assign_slots(
                payload, partition, start, stop, stream_at, stream_len, self.max_key_bytes, self._seed,
                self._multiplier, self._buckets, self._cells, self._free, self._counts, self._hashes, reason, slot,
            )
        )  # fmt: skip

    def release(self, partition: int) -> NDArray[np.int64]:
        """Forget every stream of a partition; returns the freed slots, int64, ascending."""
        found = np.empty(self.n_streams, np.int64)
        n = hash_table.slots_of_partition(partition, self._cells, self._counts, found)
        self.release_slots(found[:n])
        return found[:n]

    def release_slots(self, slots: NDArray[np.int64]) -> int:
        """Forget the streams that hold these slots; returns how many there were (a free slot counts as none)."""
        if len(slots) and not 0 <= int(slots.min()) <= int(slots.max()) < self.max_streams:
            raise InvariantError(f"release of slots {slots.min()}..{slots.max()}; expected 0..{self.max_streams - 1}")
        return int(
            hash_table.release_slots(
                slots, self._seed, self._multiplier, self._buckets, self._cells, self._free, self._counts
            )
        )

    def key_of(self, slot: int) -> tuple[int, bytes]:
        """(partition, key) of the stream that holds `slot`."""
        head = int(self._cells[slot, 0]) if 0 <= slot < self.max_streams else 0
        if head == 0:
            raise InvariantError(f"slot {slot} holds no stream; {self.n_streams} of {self.max_streams} do")
        return (head >> 32) - 1, self._cells[slot, 1:].tobytes()[: head & _LOW]


def _n_buckets(max_streams: int) -> int:
    """A power of two, at least twice the streams, so that probe chains stay short."""
    return 1 << max(1, (2 * max_streams - 1).bit_length())


def _cell_words(max_key_bytes: int) -> int:
    return 1 + (max_key_bytes + 7) // 8
