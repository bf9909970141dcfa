"""The order of a batch, against one made with dictionaries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.kernels.waves import BAD_SLOT, SHARE_SHIFT, order_by_wave

STREAMS = 100


def order(slots: list[int], share: int = 0, shares: int = 1) -> tuple[int, list[list[int]]]:
    """The outcome and the events of each wave; checks that bits and counters are zero again."""
    n = len(slots)
    seen, repeats = np.zeros(STREAMS // 8 + 1, np.uint8), np.zeros(STREAMS, np.int32)
    waves_of_events, positions, bounds = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n + 2, np.int64)
    addresses = (a.ctypes.data for a in (seen, repeats, waves_of_events, positions, bounds))
    waves = order_by_wave(n, np.array(slots, np.int64), STREAMS, share, shares, *addresses)
    assert not seen.any()
    assert not repeats.any()
    return waves, [positions[bounds[w] : bounds[w + 1]].tolist() for w in range(max(waves, 0))]


def expected(slots: list[int], share: int = 0, shares: int = 1) -> list[list[int]]:
    waves: list[list[int]] = []
    seen: dict[int, int] = {}
    for event, slot in enumerate(slots):
        if slot < 0 or (slot >> SHARE_SHIFT) % shares != share:
            continue
        wave = seen.get(slot, 0)
        seen[slot] = wave + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(event)
    return waves


@settings(max_examples=300)
@given(st.lists(st.integers(-1, STREAMS - 1), max_size=60), st.integers(1, 4))
def test_waves_hold_the_nth_event_of_each_stream(slots: list[int], shares: int) -> None:
    together: list[int] = []
    for share in range(shares):
        count, waves = order(slots, share, shares)
        assert waves == expected(slots, share, shares)
        assert count == len(waves)
        together += [event for wave in waves for event in wave]
    assert sorted(together) == [event for event, slot in enumerate(slots) if slot >= 0]


def test_one_busy_stream_among_others() -> None:
    slots = [7] * 5000 + [3, 7, 4, 7]
    count, waves = order(slots)
    assert count == 5002
    assert waves == expected(slots)


@pytest.mark.parametrize("slots", [[STREAMS], [1, 2, 1, STREAMS + 5, 1], [0] * 40 + [1 << 40]])
def test_a_slot_out_of_range_is_refused_without_a_trace(slots: list[int]) -> None:
    assert order(slots) == (BAD_SLOT, [])


@pytest.mark.parametrize("slots", [[], [-1], [-1] * 100])
def test_nothing_to_do(slots: list[int]) -> None:
    assert order(slots) == (0, [])
