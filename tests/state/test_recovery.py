"""What a restart finds, and what is made of it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.state.recovery import Flaw, Problem, ancestors, holes, problems, warm_start
from streamlstm.state.snapshot import ROOT, Leaf

L0, L1, L10, L11 = Leaf(1, 0), Leaf(1, 1), Leaf(2, 2), Leaf(2, 3)
DEPTH = 5


@st.composite
def disjoint(draw: st.DrawFn) -> list[Leaf]:
    """Leaves that don't overlap, of a depth up to DEPTH."""
    found = []

    def grow(leaf: Leaf) -> None:
        fate = draw(st.sampled_from(["leaf", "hole", "split", "split"]))
        if fate == "leaf":
            found.append(leaf)
        elif fate == "split" and leaf.depth < DEPTH:
            for child in leaf.children():
                grow(child)

    grow(ROOT)
    return found


@given(disjoint())
def test_holes_and_leaves_cover_every_hash_once(leaves: list[Leaf]) -> None:
    missing = holes(leaves)
    for cell in range(1 << DEPTH):
        place = Leaf(DEPTH, cell).first
        assert sum(leaf.covers(place) for leaf in [*leaves, *missing]) == 1
    for hole in missing:  # the largest there are
        assert hole == ROOT or any(leaf.overlaps(hole.parent) for leaf in leaves)


@given(disjoint())
def test_a_whole_cover_has_no_holes(leaves: list[Leaf]) -> None:
    assert holes([*leaves, *holes(leaves)]) == []


def test_ancestors() -> None:
    assert ancestors(Leaf(3, 5)) == [ROOT, L1, L10]
    assert ancestors(ROOT) == []


def kinds(found: list[Problem]) -> list[str]:
    return [problem.kind for problem in found]


TAGS = {L0: 100, L10: 120, L11: 90}
WHOLE = {L0: Flaw("corrupt", "CRC")}
CASES: list[tuple[str, dict, dict, tuple, list[str], str]] = [
    ("exact", TAGS, {}, (120, 90, 200), [], ""),
    ("exact, no event since", TAGS, {}, (120, 0, 120), [], ""),
    ("nothing at all, a new group", {}, {}, (None, 5, 10), [], ""),
    ("nothing, but answered", {}, {}, (7, 0, 10), ["missing"], "no chunk, but the group has committed offset 7"),
    ("damaged, an older one there", TAGS, WHOLE, (120, 90, 200), [], ""),
    ("damaged", {L10: 120, L11: 90}, WHOLE, (120, 90, 200), ["corrupt"], r"1 of 3 chunks are damaged.*chunk:0: CRC"),
    ("the only one damaged", {}, {ROOT: Flaw("corrupt", "CRC")}, (120, 0, 200), ["corrupt"], "1 of 1"),
    ("gone", {L0: 100, L11: 90}, {}, (120, 90, 200), ["missing"], "no chunk covers chunk:10, where 2 others are there"),
    ("one damaged, one gone", {L11: 90}, WHOLE, (120, 90, 200), ["corrupt", "missing"], "chunk:10"),
    ("another group's", TAGS, {L0: Flaw("foreign", "x")}, (120, 90, 200), ["foreign"], "snapshot topic of its own"),
    ("another model's", {}, {ROOT: Flaw("model", "x")}, (120, 90, 200), ["model"], "1 of 1 chunks are of another"),
    ("another version's", {}, {ROOT: Flaw("abi", "x")}, (120, 90, 200), ["abi"], "rows of another version"),
    ("in another dtype", {}, {ROOT: Flaw("dtype", "x")}, (120, 90, 200), ["dtype"], "another engine.state_dtype"),
    ("moved back", TAGS, {}, (110, 90, 200), ["ahead"], "that of offset 120, but the group has committed 110"),
    ("offset gone", TAGS, {}, (None, 90, 200), ["ahead"], "the group has no committed offset"),
    ("retention", TAGS, {}, (120, 91, 200), ["gap"], "from offset 90 on are needed, but the log holds 91 to 200"),
    ("retention of what is new", TAGS, {}, (120, 150, 200), ["gap"], "90 on are needed"),
    ("retention, nothing to replay", {ROOT: 120}, {}, (120, 130, 200), ["gap"], "120 on are needed"),
    ("cut off", TAGS, {}, (120, 0, 110), ["truncated"], "lost records or was made anew"),
    ("made anew", TAGS, {}, (200, 0, 150), ["truncated"], "the group has committed 200"),
    ("both", {ROOT: 100}, {}, (90, 95, 200), ["ahead", "gap"], "90 on are needed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "tags", "bad", "log", "expected", "text"), CASES, ids=[case[0] for case in CASES])
def test_problems(name: str, tags: dict, bad: dict, log: tuple, expected: list[str], text: str) -> None:
    found = problems(4, tags, bad, *log)
    assert kinds(found) == expected
    assert all(problem.partition == 4 for problem in found)
    assert re.search(text, " ".join(problem.message for problem in found))


def plan(tags: dict, bad: dict, committed: int, first: int, end: int) -> tuple[set[Leaf], set[Leaf], int, int]:
    found = warm_start(tags, problems(4, tags, bad, committed, first, end), committed, first, end)
    return set(found.kept), set(found.lost), found.replay_from, found.live_from


def test_a_damaged_leaf_begins_anew_where_the_replay_begins() -> None:
    assert plan({L10: 120, L11: 90}, WHOLE, 120, 80, 200) == ({L10, L11}, {L0}, 90, 120)


def test_after_a_gap_what_is_older_begins_anew_and_the_whole_log_is_replayed() -> None:
    assert plan(TAGS, {}, 130, 95, 200) == ({L0, L10}, {L11}, 95, 130)
    assert plan(TAGS, {}, 130, 125, 200) == (set(), {L0, L10, L11}, 125, 130)


def test_events_that_are_gone_unanswered_are_passed_over() -> None:
    assert plan(TAGS, {}, 120, 150, 200) == (set(), {L0, L10, L11}, 150, 150)


def test_without_any_chunk_everything_begins_anew_with_the_next_event() -> None:
    assert plan({}, {}, 120, 0, 200) == (set(), {ROOT}, 120, 120)


@pytest.mark.parametrize("kind", ["foreign", "model", "abi", "dtype"])
def test_what_is_somebody_elses_spoils_all(kind: str) -> None:
    assert plan({L1: 120}, {L0: Flaw(kind, "x")}, 130, 0, 200) == (set(), {ROOT}, 130, 130)  # type: ignore[arg-type]


def test_an_offset_that_was_moved_back_is_where_it_goes_on() -> None:
    assert plan(TAGS, {}, 95, 0, 200) == (set(), {ROOT}, 95, 95)


def test_a_log_made_anew_goes_on_from_its_end() -> None:
    assert plan(TAGS, {}, 5000, 0, 200) == (set(), {ROOT}, 200, 200)


@given(
    leaves=disjoint(), data=st.data(), committed=st.integers(0, 12), first=st.integers(0, 8), length=st.integers(0, 12)
)
def test_any_plan_covers_all_and_keeps_only_what_can_be_made_exact(
    leaves: list[Leaf], data: st.DataObject, committed: int, first: int, length: int
) -> None:
    end = first + length
    tags = {leaf: data.draw(st.integers(0, 12)) for leaf in leaves}
    found = problems(0, tags, {}, committed, first, end)
    kept, lost, replay_from, live_from = plan(tags, {}, committed, first, end)
    assert holes([*kept, *lost]) == []
    assert not any(one.overlaps(other) for one in kept for other in lost)
    assert first <= replay_from <= live_from <= end
    assert all(replay_from <= tags[leaf] <= live_from == committed for leaf in kept)
    if not found and tags:
        assert (kept, lost) == (set(leaves), set())
        assert replay_from == min(tags.values())
