"""Which chunks count, newest first: against a reading of the whole log in its order."""

from hypothesis import given
from hypothesis import strategies as st

from streamlstm.state.newest import Newest
from streamlstm.state.recovery import Flaw
from streamlstm.state.snapshot import ROOT, Leaf

LOW, HIGH = ROOT.children()
BAD = Flaw("corrupt", "bits")


def loaded(*log: tuple[Leaf, str]) -> tuple[Newest, list[int]]:
    """What counts of a log of "chunk", "bad" and "tombstone", and at which places; stops where nothing is missing."""
    newest, counted = Newest(), []
    for place in range(len(log) - 1, -1, -1):
        leaf, what = log[place]
        if newest.is_whole:
            break
        if what == "tombstone":
            newest.bury(leaf)
        elif newest.asks_for(leaf):
            if what == "bad":
                newest.reject(leaf, BAD)
            else:
                newest.count(leaf)
                counted.append(place)
    return newest, sorted(counted)


def test_reading_ends_with_the_last_leaf() -> None:
    newest, counted = loaded((ROOT, "chunk"), (LOW, "chunk"), (HIGH, "chunk"), (LOW, "chunk"), (LOW, "chunk"))
    assert (counted, newest.is_whole, newest.stored) == ([2, 4], True, {LOW, HIGH})


def test_an_older_version_stands_in_for_a_damaged_one() -> None:
    newest, counted = loaded((LOW, "chunk"), (HIGH, "chunk"), (HIGH, "bad"), (LOW, "bad"), (LOW, "bad"))
    assert (counted, newest.is_whole, newest.bad) == ([0, 1], True, {LOW: BAD, HIGH: BAD})


def test_a_tombstone_ends_its_leaf_whatever_lies_before_it() -> None:
    newest, counted = loaded((LOW, "chunk"), (HIGH, "chunk"), (LOW, "tombstone"))
    assert (counted, newest.is_whole, newest.stored) == ([1], False, {HIGH})
    newest, counted = loaded((LOW, "chunk"), (LOW, "tombstone"), (LOW, "bad"))
    assert (counted, newest.bad) == ([], {LOW: BAD})


def test_a_leaf_gives_way_to_what_lies_in_it_and_the_other_way_round() -> None:
    assert loaded((ROOT, "chunk"), (LOW, "chunk"), (HIGH, "chunk"))[1] == [1, 2]
    assert loaded((LOW, "chunk"), (HIGH, "chunk"), (ROOT, "chunk"))[1] == [2]
    newest, counted = loaded((ROOT, "chunk"), (LOW, "chunk"), (HIGH, "bad"))
    assert (counted, newest.is_whole, newest.bad) == ([1], False, {HIGH: BAD})


def test_what_cannot_be_read_matters_until_nothing_is_missing() -> None:
    newest, _ = loaded((ROOT, "chunk"))
    newest.unreadable("gone")
    assert not newest.bad
    newest = Newest()
    newest.unreadable("gone")
    assert newest.bad == {ROOT: Flaw("corrupt", "gone")}


LEAVES = [Leaf(depth, prefix) for depth in range(4) for prefix in range(1 << depth)]


@given(st.lists(st.tuples(st.sampled_from(LEAVES), st.sampled_from(["chunk"] * 4 + ["bad", "tombstone"])), max_size=40))
def test_what_counts_is_the_newest_and_covers_nothing_twice(log: list[tuple[Leaf, str]]) -> None:
    newest, counted = loaded(*log)
    leaves = [log[place][0] for place in counted]
    assert not any(one.overlaps(other) for k, one in enumerate(leaves) for other in leaves[:k])
    for place in counted:
        leaf = log[place][0]
        later = [what for other, what in log[place + 1 :] if other == leaf]
        assert set(later) <= {"bad"}
    covered = sum(1 << (3 - leaf.depth) for leaf in leaves)
    assert newest.is_whole == (covered == 8)
    for place, (leaf, what) in enumerate(log):  # nothing newer is passed over for something older
        if what == "chunk" and (leaf, "tombstone") not in log[place + 1 :]:
            assert any(leaf.overlaps(log[other][0]) and other >= place for other in counted)
