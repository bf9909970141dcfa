"""When leaves are due."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from streamlstm.state.leaves import AT_ONCE, FOREVER, Entry, Leaves
from streamlstm.state.snapshot import ROOT, Leaf

INTERVAL, FULL = 60.0, 100


def restored(n_bits: int, now: float = 0.0) -> Leaves:
    """2^n leaves, loaded; the tag of leaf i is 100 + i."""
    leaves = Leaves(INTERVAL, FULL)
    for prefix in range(1 << n_bits):
        leaf = Leaf(n_bits, prefix)
        leaves.entries[leaf] = Entry(tag=100 + prefix, written_at=0.0, watermark=prefix)
        leaves.stored.add(leaf)
    leaves.go_on(now)
    return leaves


def takes(leaves: Leaves, offset: int, start: float, stop: float, step: float) -> Iterator[tuple[float, list[Leaf]]]:
    now = start
    while now < stop:
        found = leaves.due(offset, now, 0, False)
        if found:
            for leaf in found:
                leaves.written(leaf, offset, now)
            assert leaves.end_take(now) == []
            yield now, found
        now += step
        offset += 1


def test_a_partition_begins_with_the_root_due_at_once() -> None:
    leaves = Leaves(INTERVAL, FULL)
    leaves.begin(5.0)
    assert leaves.due(0, 5.0, 0, False) == [ROOT]
    leaves.written(ROOT, 0, 5.0)
    leaves.end_take(5.0)
    assert leaves.due(9, 6.0, 0, False) == []
    assert leaves.due(9, 65.0, 0, False) == [ROOT]


@pytest.mark.parametrize("n_bits", [0, 1, 3, 6, 8, 10])
@pytest.mark.parametrize("step", [0.1, 2.5])
def test_a_round_takes_the_interval_and_is_spread(n_bits: int, step: float) -> None:
    n = 1 << n_bits
    leaves = restored(n_bits)
    done: dict[Leaf, list[float]] = {}
    largest = number = 0
    for now, found in takes(leaves, 10_000, 0.0, 5 * INTERVAL, step):
        number += 1
        largest = max(largest, len(found))
        for leaf in found:
            done.setdefault(leaf, []).append(now)
    assert len(done) == n
    for times in done.values():
        assert 4 <= len(times) <= 6
        pauses = [after - before for before, after in pairwise(times)]
        assert all(INTERVAL <= pause <= 1.3 * INTERVAL for pause in pauses)
    assert largest <= max(n / 8, n * step / INTERVAL, AT_ONCE) + 2
    assert number <= 5 * max(9, n / AT_ONCE + 2)


def test_the_oldest_comes_first() -> None:
    leaves = restored(6)
    first = next(takes(leaves, 10_000, 0.0, INTERVAL, 0.1))[1]
    assert first == [Leaf(6, prefix) for prefix in range(len(first))]


def test_after_a_pause_an_eighth_at_a_time() -> None:
    leaves = restored(8)
    found = [len(found) for _, found in takes(leaves, 10_000, 1000.0, 1000.0 + INTERVAL, 0.1)]
    assert max(found) == 256 // 8 + 1


def test_what_has_seen_nothing_new_is_not_written_again() -> None:
    leaves = restored(3)
    assert leaves.due(103, 1000.0, 0, False) != []
    assert Leaf(3, 3) not in leaves.due(103, 1000.0, 10_000, False)
    for entry in leaves.entries.values():
        entry.tag = 103
    assert leaves.due(103, 1000.0, 0, False) == []
    assert leaves.due(None, 1000.0, 0, False) != []


def test_together_means_all_that_are_behind() -> None:
    leaves = restored(3)
    assert leaves.due(103, 0.1, 0, True) == []
    assert sorted(leaves.due(103, 1000.0, 0, True)) == [Leaf(3, p) for p in range(8) if p != 3]


def test_crowded_leaves_are_due_a_few_at_a_time_the_largest_first() -> None:
    leaves = restored(4)
    leaves.stored.update(leaves.split(Leaf(4, 0)))
    assert leaves.due(500, 0.1, 16 * 2 * FULL - 1, False) == []
    crowded = leaves.due(500, 0.1, 16 * 2 * FULL, False)
    assert crowded == [Leaf(4, prefix) for prefix in range(1, 5)]  # of two chunks each
    assert leaves.due(500, 0.1, 16 * 5 * FULL, False) == [Leaf(4, 1)]
    assert leaves.due(500, 0.1, 1 << 30, False) == [Leaf(4, 1)]


def test_what_the_topic_does_not_cover_is_written_all_at_once_with_the_records_that_go() -> None:
    leaves = restored(1)
    gone = Leaf(1, 1)
    del leaves.entries[gone]
    for prefix in range(32, 64):
        leaves.entries[Leaf(6, prefix)] = Entry(tag=100, degraded_until=FOREVER)
    found = leaves.due(500, 0.1, 0, False)
    assert sorted(found) == [Leaf(6, prefix) for prefix in range(32, 64)]
    for leaf in found:
        leaves.written(leaf, 500, 0.1)
    assert leaves.end_take(0.1) == [gone]
    assert leaves.end_take(0.1) == []


def test_a_wrong_record_is_replaced_soon() -> None:
    leaves = restored(6)
    for prefix in range(20):
        leaves.entries[Leaf(6, prefix)] = Entry(tag=100, degraded_until=FOREVER)
    rounds = [found for _, found in takes(leaves, 500, 0.0, 1.0, 0.1)]
    assert [len(found) for found in rounds] == [8, 8, 4]
    assert {leaf.prefix for found in rounds for leaf in found} == set(range(20))


def test_a_split_passes_everything_on() -> None:
    leaves = Leaves(INTERVAL, FULL)
    leaves.entries[ROOT] = Entry(tag=7, written_at=1.0, degraded_until=FOREVER)
    for leaf in leaves.split(ROOT):
        assert leaves.entries[leaf] == Entry(tag=7, written_at=1.0, degraded_until=FOREVER)
    assert leaves.table.degraded_until.tolist() == [FOREVER, FOREVER]
    assert leaves.table.tags.tolist() == [7, 7]
    assert leaves.table.firsts.tolist() == [0, 1 << 63]


def test_the_watermark_is_that_of_the_oldest() -> None:
    leaves = Leaves(INTERVAL, FULL)
    for leaf, tag, watermark in ((Leaf(1, 0), 5, 50), (Leaf(2, 2), 4, None), (Leaf(2, 3), 4, 40)):
        leaves.entries[leaf] = Entry(tag, 0.0, False, watermark)
    assert leaves.go_on(0.0) == 40
