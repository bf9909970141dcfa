"""The order in which a batch is stepped: wave w holds the w-th event of each stream.

Within a wave all streams are different, so its events may share registers; from wave to wave each stream's events keep
their order. A counting sort: O(N) time and memory, stable, no comparison.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.memory import load_int32, load_word, prefetch, store_int32, store_word

AHEAD = 16  # events from the prefetch of a slot's counter to its use
SHARE_SHIFT = 4  # neighbouring slots go to one share, so that two threads rarely write the same cache line

BAD_SLOT = -1


@compiled
def order_by_wave(
    n: int,
    slots: NDArray[np.int64],
    streams: int,
    share: int,
    shares: int,
    events_of_slot: int,
    wave_of_event: int,
    order: int,
    bounds: int,
) -> int:
    """Order the events of one share; returns the number of waves, or BAD_SLOT when a slot isn't below `streams`.

    slots int64 [n]: the stream of each event, negative to skip it. A stream belongs to one share for ever:
    (slot >> SHARE_SHIFT) % shares. The rest are addresses of scratch that is written:

    events_of_slot  int32 [streams], zero before and after
    wave_of_event   int32 [n]
    order           int64 [n]: on return the positions of the share's events, wave by wave, ascending in each
    bounds          int64 [n + 2]: on return wave w is order[bounds[w] .. bounds[w + 1]]
    """
    waves, first_wave = _count(n, slots, streams, share, shares, events_of_slot, wave_of_event, bounds)
    if waves == BAD_SLOT:
        return BAD_SLOT
    # bounds[w + 2] holds the size of wave w > 0; running sums turn bounds[w + 1] into the place where wave w begins
    store_word(bounds, 0, 0)
    store_word(bounds, 1, 0)
    begin = first_wave
    for wave in range(1, waves):
        size = load_word(bounds, wave + 2)
        store_word(bounds, wave + 1, begin)
        begin += size
    # each event moves the begin of its wave on, so that bounds[w + 1] ends up as the wave's end
    first_end = 0
    for i in range(n):
        wave = int(load_int32(wave_of_event + 4 * i))
        if wave < 0:
            continue
        store_int32(events_of_slot + 4 * slots[i], np.int32(0))
        if wave == 0:
            store_word(order, first_end, i)
            first_end += 1
        else:
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
    events_of_slot: int,
    wave_of_event: int,
    bounds: int,
) -> tuple[int, int]:
    """First pass: each event's wave (-1 when it isn't for this share), the number of waves, the size of wave 0.

    The size of wave w > 0 goes to bounds[w + 2]. Leaves the counts of the slots behind, except on BAD_SLOT.
    """
    waves, first_wave = 0, 0
    for i in range(n):
        if i + AHEAD < n:
            prefetch(events_of_slot + 4 * slots[i + AHEAD])
        slot = slots[i]
        mine = slot >= 0
        if slot >= streams:
            for earlier in range(i):
                if load_int32(wave_of_event + 4 * earlier) >= 0:
                    store_int32(events_of_slot + 4 * slots[earlier], np.int32(0))
            return BAD_SLOT, 0
        if shares > 1:
            mine = mine and (slot >> SHARE_SHIFT) % shares == share
        if not mine:
            store_int32(wave_of_event + 4 * i, np.int32(-1))
            continue
        counter = events_of_slot + 4 * slot
        wave = int(load_int32(counter))
        store_int32(counter, np.int32(wave + 1))
        store_int32(wave_of_event + 4 * i, np.int32(wave))
        if wave == 0:
            first_wave += 1
            waves = max(waves, 1)
        elif wave == waves:
            store_word(bounds, wave + 2, 1)
            waves += 1
        else:
            store_word(bounds, wave + 2, load_word(bounds, wave + 2) + 1)
    return waves, first_wave
