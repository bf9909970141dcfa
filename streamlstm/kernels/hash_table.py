"""Stream key -> slot: open addressing over preallocated memory, nothing moved but bucket words.

A *cell* per slot holds the whole key: word 0 is `(partition + 1) << 32 | length` (0: the slot is free), then the key's
bytes in 64-bit words, zero-padded. A *bucket* is one word, `hash's upper 32 bits << 32 | slot + 1` (0: empty), found by
linear probing from its home, the hash's top bits; so the home can be read back from the word, and a deletion shifts
later buckets of the chain back instead of leaving a tombstone (Knuth, TAOCP vol. 3, 6.4, algorithm R).

The hash is a seeded folded multiplication (as in Wang Yi's wyhash) whose multiplier is secret too: who doesn't know the
seed can't choose colliding keys. Whatever collides is told apart by the bytes. The seed changes no result, since slots
are given out in the order of events.

Two columns beside the cells are there to be scanned: `owner`, partition + 1 (0: the slot is free), and `stable`, the
key's stable hash.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.memory import prefetch
from streamlstm.kernels.stable_hash import interval_of, stable_hash
from streamlstm.kernels.words import load_word, multiply_fold, signed

KEY_TOO_LONG = np.uint8(11)  # events.batch.Reason; a test holds the two together
CAPACITY = np.uint8(13)

N_STREAMS, HIGH_WATER, N_FREE = 0, 1, 2
"""Places in `counts`: slots in use, slots ever used, slots on the free stack."""

_FAR, _NEAR = 24, 12  # rows ahead: the bucket is asked for at the first, the cell at the second
RING = 32  # a power of two above _FAR: the hashes of the rows ahead
_COARSE, _COARSE_SHIFT = 4096, np.uint64(52)
_ONE = np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)

Words = NDArray[np.uint64]
Int32s = NDArray[np.int32]
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
    "int64(uint8[::1], int64, int64, boolean, int64, int64, int64[::1], int64[::1], int64, uint64, uint64, "
    "uint64[::1], uint64[:, ::1], int32[::1], uint64[::1], int64[::1], int64[::1], int64[::1], "
    "int64[::1], uint64[::1], uint8[::1], int64[::1])"
)
def assign_slots(
    payload: NDArray[np.uint8],
    partition: int,
    cap: int,
    full_stops: bool,
    start: int,
    stop: int,
    stream_at: Int64s,
    stream_len: Int64s,
    max_key_bytes: int,
    seed: np.uint64,
    multiplier: np.uint64,
    buckets: Words,
    cells: Words,
    owner: Int32s,
    stable: Words,
    free: Int64s,
    counts: Int64s,
    owned: Int64s,
    hits: Int64s,
    ring: Words,
    reason: NDArray[np.uint8],
    slot: Int64s,
) -> int:
    """Find or give a slot to every row of [start, stop), in order. Returns the row it stopped at, or `stop`.

    buckets uint64 [2^k], cells uint64 [S, 1 + words], owner int32 [S], stable uint64 [S], free int64 [S] (a stack),
    counts int64 [3], owned and hits int64 [> partition]: streams of each partition, and how often a new one found a
    `cap` above 0 reached; ring uint64 [RING] (scratch).
    Writes slot int64 (-1 where the row has a reason) and `reason`. A new stream that finds no free slot, or `cap`
    streams in its partition, stops the walk when `full_stops`, else it gets the reason `capacity`.
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
    for i in range(start - _FAR, stop):
        ahead = i + _FAR
        if ahead < stop:
            h = np.uint64(0)
            if reason[ahead] == 0 and stream_len[ahead] > max_key_bytes:
                reason[ahead] = KEY_TOO_LONG
            if reason[ahead] == 0:
                h = _hash(text + stream_at[ahead], stream_len[ahead], partition, seed, multiplier)
            ring[ahead & (RING - 1)] = h
            prefetch(bucket_at + (signed(h >> shift) << 3))
        ahead = i + _NEAR
        if start <= ahead < stop:
            h = ring[ahead & (RING - 1)]
            j = signed(h >> shift)
            while buckets[j] != 0 and (buckets[j] ^ h) > _LOW:
                j = (j + 1) & mask
            if buckets[j] != 0:
                cell = cell_at + (signed(buckets[j] & _LOW) - 1) * cell_bytes
                prefetch(cell)
                prefetch(cell + 7 + stream_len[ahead])
        if i < start:
            continue
        slot[i] = -1
        if reason[i] != 0:
            continue
        h = ring[i & (RING - 1)]
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
        if owned[partition] >= cap or (counts[N_FREE] == 0 and counts[HIGH_WATER] == cells.shape[0]):
            if owned[partition] >= cap > 0:
                hits[partition] += 1
            if full_stops:
                return i
            reason[i] = CAPACITY
            continue
        if counts[N_FREE] > 0:
            counts[N_FREE] -= 1
            new = free[counts[N_FREE]]
        else:
            new = counts[HIGH_WATER]
            counts[HIGH_WATER] += 1
        counts[N_STREAMS] += 1
        owned[partition] += 1
        owner[new] = partition + 1
        stable[new] = stable_hash(at, length)
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
    return stop


@compiled("int64(int64, int32[::1], int64[::1], int64[::1])")
def slots_of_partition(partition: int, owner: Int32s, counts: Int64s, found: Int64s) -> int:
    """Write the slots of a partition to found int64 [S], ascending; returns how many."""
    n = 0
    for s in range(counts[HIGH_WATER]):
        if owner[s] == partition + 1:
            found[n] = s
            n += 1
    return n


@compiled(
    "int64(int64, uint64[::1], uint64[::1], int32[::1], uint64[::1], int64[::1], int64[::1], int64[::1], int64[::1])"
)
def slots_under(
    partition: int,
    firsts: Words,
    lasts: Words,
    owner: Int32s,
    stable: Words,
    counts: Int64s,
    ranges: Int64s,
    found: Int64s,
    grouped: Int64s,
) -> int:
    """Write the slots of a partition whose stable hash lies in [firsts[i], lasts[i]], range by range; returns how many.

    The ranges ascend and are disjoint. `ranges` int64 [n + 1] gets where each one's slots begin in `grouped`; slots
    ascend within a range. found and grouped int64 [streams of the partition]; found is scratch.
    """
    n = 0
    ranges[:] = 0
    near = np.zeros(_COARSE, np.bool_)  # which twelve leading bits a range has: most streams are done with here
    for i in range(firsts.shape[0]):
        near[signed(firsts[i] >> _COARSE_SHIFT) : signed(lasts[i] >> _COARSE_SHIFT) + 1] = True
    for s in range(counts[HIGH_WATER]):
        if owner[s] == partition + 1 and near[signed(stable[s] >> _COARSE_SHIFT)]:
            i = interval_of(stable[s], firsts)
            if i >= 0 and stable[s] <= lasts[i]:
                found[n] = s
                ranges[i] += 1
                n += 1
    total = 0
    for i in range(ranges.shape[0]):
        size = ranges[i]
        ranges[i] = total
        total += size
    for k in range(n):
        i = interval_of(stable[found[k]], firsts)
        grouped[ranges[i]] = found[k]
        ranges[i] += 1
    for i in range(ranges.shape[0] - 1, 0, -1):
        ranges[i] = ranges[i - 1]
    ranges[0] = 0
    return n


@compiled("int64(int64[::1], uint64[:, ::1], uint16[::1])")
def key_lengths(slots: Int64s, cells: Words, lengths: NDArray[np.uint16]) -> int:
    """Write the length of each slot's key to uint16 [n]; returns their sum."""
    total = 0
    for i in range(slots.shape[0]):
        length = signed(cells[slots[i], 0] & _LOW)
        lengths[i] = length
        total += length
    return total


@compiled("void(int64[::1], uint64[:, ::1], uint8[::1])")
def gather_keys(slots: Int64s, cells: Words, keys: NDArray[np.uint8]) -> None:
    """Write the slots' keys one after the other to keys uint8 [their lengths' sum]."""
    end = 0
    for i in range(slots.shape[0]):
        for k in range(signed(cells[slots[i], 0] & _LOW)):
            keys[end] = (cells[slots[i], 1 + (k >> 3)] >> np.uint64(8 * (k & 7))) & np.uint64(0xFF)
            end += 1


@compiled(
    "int64(int64[::1], uint64, uint64, uint64[::1], uint64[:, ::1], int32[::1], int64[::1], int64[::1], int64[::1])"
)
def release_slots(
    slots: Int64s,
    seed: np.uint64,
    multiplier: np.uint64,
    buckets: Words,
    cells: Words,
    owner: Int32s,
    free: Int64s,
    counts: Int64s,
    owned: Int64s,
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
        owner[gone] = 0
        owned[partition] -= 1
        free[counts[N_FREE]] = gone
        counts[N_FREE] += 1
        counts[N_STREAMS] -= 1
        released += 1
    return released
