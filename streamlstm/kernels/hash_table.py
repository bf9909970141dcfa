"""Stream key -> slot: open addressing over preallocated memory, nothing moved but bucket words.

A *cell* per slot holds the whole key: word 0 is `(partition + 1) << 32 | length` (0: the slot is free), then the key's
bytes in 64-bit words, zero-padded. A *bucket* is one word, `hash's upper 32 bits << 32 | slot + 1` (0: empty), found by
linear probing from its home, the hash's top bits; so the home can be read back from the word, and a deletion shifts
later buckets of the chain back instead of leaving a tombstone (Knuth, TAOCP vol. 3, 6.4, algorithm R).

The hash is a seeded folded multiplication (as in Wang Yi's wyhash) whose multiplier is secret too: who doesn't know the
seed can't choose colliding keys. Whatever collides is told apart by the bytes. The seed changes no result, since slots
are given out in the order of events.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.memory import prefetch
from streamlstm.kernels.words import load_word, multiply_fold, signed

KEY_TOO_LONG = np.uint8(11)  # events.batch.Reason; a test holds the two together
CAPACITY = np.uint8(13)

N_STREAMS, HIGH_WATER, N_FREE = 0, 1, 2
"""Places in `counts`: slots in use, slots ever used, slots on the free stack."""

_FAR, _NEAR = 24, 12  # rows ahead: the bucket is asked for at the first, the cell at the second
_ONE = np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)

Words = NDArray[np.uint64]
Int64s = NDArray[np.int64]


@embedded
def _hash(at: int, length: int, partition: int, seed: np.uint64, multiplier: np.uint64) -> np.uint64:
    """Hash of (partition, bytes); the key may be in a payload or zero-padded in its cell."""
    h = seed ^ (np.uint64(partition) * _SPREAD) ^ (np.uint64(length) << np.uint64(48))
    i = 0
    while i + 8 <= length:
        h = multiply_fold(h ^ load_word(at + i), multiplier)
        i += 8
    if i < length:
        rest = (_ONE << np.uint64(8 * (length - i))) - _ONE
        h = multiply_fold(h ^ (load_word(at + i) & rest), multiplier)
    return np.uint64(multiply_fold(h ^ _SPREAD, multiplier))


@embedded
def _is_key(at: int, length: int, cell: int) -> bool:
    """Whether the words after `cell`'s first one hold these bytes; the length is known to agree."""
    i = 0
    while i + 8 <= length:
        if load_word(at + i) != load_word(cell + 8 + i):
            return False
        i += 8
    if i < length:
        rest = (_ONE << np.uint64(8 * (length - i))) - _ONE
        same: bool = (load_word(at + i) & rest) == load_word(cell + 8 + i)
        return same
    return True


@compiled(
    "int64(uint8[::1], int64, int64, int64, int64[::1], int64[::1], int64, uint64, uint64, uint64[::1], "
    "uint64[:, ::1], int64[::1], int64[::1], uint64[::1], uint8[::1], int64[::1])"
)
def assign_slots(
    payload: NDArray[np.uint8],
    partition: int,
    start: int,
    stop: int,
    stream_at: Int64s,
    stream_len: Int64s,
    max_key_bytes: int,
    seed: np.uint64,
    multiplier: np.uint64,
    buckets: Words,
    cells: Words,
    free: Int64s,
    counts: Int64s,
    hashes: Words,
    reason: NDArray[np.uint8],
    slot: Int64s,
) -> int:
    """Find or give a slot to every row of [start, stop), in order. Returns how many streams are new.

    buckets uint64 [2^k], cells uint64 [S, 1 + words], free int64 [S] (a stack), counts int64 [3], hashes uint64
    [>= stop - start] (scratch). Writes slot int64 (-1 where the row has a reason) and `reason`.
    """
    n_buckets = buckets.shape[0]
    mask = n_buckets - 1
    bits = 0
    while (1 << bits) < n_buckets:
        bits += 1
    shift = np.uint64(64 - bits)
    text = signed(payload.ctypes.data)
    bucket_at = signed(buckets.ctypes.data)
    cell_at = signed(cells.ctypes.data)
    cell_bytes = cells.shape[1] * 8
    before = signed(counts[N_STREAMS])
    for i in range(start, stop):
        hashes[i - start] = np.uint64(0)
        if reason[i] == 0 and stream_len[i] > max_key_bytes:
            reason[i] = KEY_TOO_LONG
        if reason[i] == 0:
            hashes[i - start] = _hash(text + stream_at[i], stream_len[i], partition, seed, multiplier)
    for i in range(start, stop):
        ahead = i + _FAR
        if ahead < stop:
            prefetch(bucket_at + (signed(hashes[ahead - start] >> shift) << 3))
        ahead = i + _NEAR
        if ahead < stop:
            h = hashes[ahead - start]
            j = signed(h >> shift)
            while buckets[j] != 0 and (buckets[j] ^ h) > _LOW:
                j = (j + 1) & mask
            if buckets[j] != 0:
                cell = cell_at + (signed(buckets[j] & _LOW) - 1) * cell_bytes
                prefetch(cell)
                prefetch(cell + 7 + stream_len[ahead])
        slot[i] = -1
        if reason[i] != 0:
            continue
        h = hashes[i - start]
        at = text + stream_at[i]
        length = stream_len[i]
        head = (np.uint64(partition + 1) << np.uint64(32)) | np.uint64(length)
        j = signed(h >> shift)
        while buckets[j] != 0:
            if (buckets[j] ^ h) <= _LOW:
                found = signed(buckets[j] & _LOW) - 1
                if cells[found, 0] == head and _is_key(at, length, cell_at + found * cell_bytes):
                    slot[i] = found
                    break
            j = (j + 1) & mask
        if slot[i] >= 0:
            continue
        if counts[N_FREE] > 0:
            counts[N_FREE] -= 1
            new = free[counts[N_FREE]]
        elif counts[HIGH_WATER] < cells.shape[0]:
            new = counts[HIGH_WATER]
            counts[HIGH_WATER] += 1
        else:
            reason[i] = CAPACITY
            continue
        counts[N_STREAMS] += 1
        buckets[j] = (h & ~_LOW) | np.uint64(new + 1)
        cells[new, 0] = head
        k = 0
        while k < length:
            word = load_word(at + k)
            if length - k < 8:
                word &= (_ONE << np.uint64(8 * (length - k))) - _ONE
            cells[new, 1 + (k >> 3)] = word
            k += 8
        slot[i] = new
    return signed(counts[N_STREAMS]) - before


@compiled("int64(int64, uint64[:, ::1], int64[::1], int64[::1])")
def slots_of_partition(partition: int, cells: Words, counts: Int64s, found: Int64s) -> int:
    """Write the slots of a partition to found int64 [S], ascending; returns how many."""
    n = 0
    owner = np.uint64(partition + 1)
    for s in range(counts[HIGH_WATER]):
        if cells[s, 0] >> np.uint64(32) == owner:
            found[n] = s
            n += 1
    return n


@compiled("int64(int64[::1], uint64, uint64, uint64[::1], uint64[:, ::1], int64[::1], int64[::1])")
def release_slots(
    slots: Int64s,
    seed: np.uint64,
    multiplier: np.uint64,
    buckets: Words,
    cells: Words,
    free: Int64s,
    counts: Int64s,
) -> int:
    """Forget the keys of these slots and put the slots on the free stack. Slots already free are passed over.

    The first of `slots` is the first to be given out again. Returns how many were released.
    """
    mask = buckets.shape[0] - 1
    bits = 0
    while (1 << bits) <= mask:
        bits += 1
    shift = np.uint64(64 - bits)
    cell_at = signed(cells.ctypes.data)
    cell_bytes = cells.shape[1] * 8
    released = 0
    for i in range(slots.shape[0] - 1, -1, -1):
        gone = slots[i]
        head = cells[gone, 0]
        if head == 0:
            continue
        partition = signed(head >> np.uint64(32)) - 1
        h = _hash(cell_at + gone * cell_bytes + 8, signed(head & _LOW), partition, seed, multiplier)
        hole = signed(h >> shift)
        while signed(buckets[hole] & _LOW) != gone + 1:
            hole = (hole + 1) & mask
        j = hole
        while True:
            j = (j + 1) & mask
            if buckets[j] == 0:
                break
            home = signed(buckets[j] >> shift)
            if ((j - home) & mask) >= ((j - hole) & mask):  # the hole lies between its home and its place
                buckets[hole] = buckets[j]
                hole = j
        buckets[hole] = 0
        cells[gone, :] = 0
        free[counts[N_FREE]] = gone
        counts[N_FREE] += 1
        counts[N_STREAMS] -= 1
        released += 1
    return released
