"""The order in which a batch is stepped: wave w holds the w-th event of each stream.

Within a wave all streams are different, so its events may share registers; from wave to wave each stream's events keep
their order. A counting sort: O(N) time and memory, stable, no comparison.

A bit per slot tells first events from repeated ones; only the latter touch the counter per slot. A million bits stay in
the second-level cache where a million counters would not.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.memory import load_int32, load_word, store_int32, store_word
from streamlstm.kernels.words import load_byte, store_byte

SHARE_SHIFT = 4  # neighbouring slots go to one share: two threads then rarely write the same line of counters

BAD_SLOT = -1


@compiled
def order_by_wave(
    n: int,
    slots: NDArray[np.int64],
    streams: int,
    share: int,
    shares: int,
    seen: int,
    repeats: int,
    wave_of_event: int,
    order: int,
    bounds: int,
) -> int:
    """Order the events of one share; returns the number of waves, or BAD_SLOT when a slot isn't below `streams`.

    slots int64 [n]: the stream of each event, negative to skip it. A stream belongs to one share for ever:
    (slot >> SHARE_SHIFT) % shares. The rest are addresses of scratch that is written:

    seen            uint8 [streams / 8 + 1], of this share alone, zero before and after
    repeats         int32 [streams], of all shares, zero before and after
    wave_of_event   int32 [n]
    order           int64 [n]: on return the positions of the share's events, wave by wave, ascending in each
    bounds          int64 [n + 2]: on return wave w is order[bounds[w] .. bounds[w + 1]]
    """
    waves, first_wave = _count(n, slots, streams, share, shares, seen, repeats, wave_of_event, bounds)
    if waves == BAD_SLOT:
        return BAD_SLOT
    # bounds[w + 2] holds the size of wave w > 0; running sums turn bounds[w + 1] into the place where wave w begins
    store_word(bounds, 0, 0)
    begin = first_wave
    for later in range(1, waves):
        size = load_word(bounds, later + 2)
        store_word(bounds, later + 1, begin)
        begin += size
    # each event moves the begin of its wave on, so that bounds[w + 1] ends up as the wave's end
    first_end = 0
    for i in range(n):
        wave = int(load_int32(wave_of_event + 4 * i))
        if wave == 0:
            store_byte(seen + (slots[i] >> 3), 0)
            store_word(order, first_end, i)
            first_end += 1
        elif wave > 0:
            store_int32(repeats + 4 * slots[i], np.int32(0))
            end = load_word(bounds, wave + 1)
            store_word(order, end, i)
            store_word(bounds, wave + 1, end + 1)
    store_word(bounds, 1, first_end)
    return waves


@compiled
def _count(
    n: int,
    slots: NDArray[np.int64],
    streams: int,
    share: int,
    shares: int,
    seen: int,
    repeats: int,
    wave_of_event: int,
    bounds: int,
) -> tuple[int, int]:
    """First pass: each event's wave (-1 when it isn't for this share), the number of waves, the size of wave 0.

    The size of wave w > 0 goes to bounds[w + 2]. Leaves `seen` and `repeats` filled, except on BAD_SLOT.
    """
    waves, first_wave = 0, 0
    for i in range(n):
        slot = slots[i]
        if slot >= streams:
            _forget(i, slots, seen, repeats, wave_of_event)
            return BAD_SLOT, 0
        if slot < 0 or (shares > 1 and (slot >> SHARE_SHIFT) % shares != share):
            store_int32(wave_of_event + 4 * i, np.int32(-1))
            continue
        byte, bit = int(load_byte(seen + (slot >> 3))), 1 << (slot & 7)
        if byte & bit == 0:
            store_byte(seen + (slot >> 3), byte | bit)
            store_int32(wave_of_event + 4 * i, np.int32(0))
            first_wave += 1
            waves = max(waves, 1)
            continue
        wave = int(load_int32(repeats + 4 * slot)) + 1
        store_int32(repeats + 4 * slot, np.int32(wave))
        store_int32(wave_of_event + 4 * i, np.int32(wave))
        size = 1
        if wave == waves:
            waves += 1
        else:
            size += load_word(bounds, wave + 2)
        store_word(bounds, wave + 2, size)
    return waves, first_wave


@compiled
def _forget(n: int, slots: NDArray[np.int64], seen: int, repeats: int, wave_of_event: int) -> None:
    """Set what the first n events left in `seen` and `repeats` back to zero."""
    for i in range(n):
        if load_int32(wave_of_event + 4 * i) >= 0:
            store_byte(seen + (slots[i] >> 3), 0)
            store_int32(repeats + 4 * slots[i], np.int32(0))


@compiled("void(int64, int64[::1], int64, int64, int64, int32[::1], int32[::1], int32[::1])")
def rank_waves(
    waves: int,
    slots: NDArray[np.int64],
    order: int,
    bounds: int,
    repeats: int,
    ranked: NDArray[np.int32],
    slot_of_rank: NDArray[np.int32],
    ranked_bounds: NDArray[np.int32],
) -> None:
    """Rank the streams of a batch by how many of its events are theirs, most first, and order each wave by rank.

    `order_by_wave` has made `waves`, `order` and `bounds`, and left `repeats` zero, as it is on return. Wave w then
    holds the events of the ranks [0, its size), so that who takes some ranks takes them through all waves. Written:
    ranked [events in order], slot_of_rank [streams in the batch], ranked_bounds [waves + 1].
    """
    for wave in range(waves + 1):
        ranked_bounds[wave] = load_word(bounds, wave)
    streams = 0
    for wave in range(waves - 1, -1, -1):
        begin = load_word(bounds, wave)
        for at in range(begin, load_word(bounds, wave + 1)):
            event = load_word(order, at)
            seat = repeats + 4 * slots[event]
            rank = load_int32(seat)  # from 1
            if rank == 0:
                slot_of_rank[streams] = slots[event]
                streams += 1
                rank = np.int32(streams)
                store_int32(seat, rank)
            ranked[begin + rank - 1] = event
    for rank in range(streams):
        store_int32(repeats + 4 * slot_of_rank[rank], np.int32(0))
