"""The account of a partition against one made of dictionaries, on any input and any answers."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.events.sources import Answered
from streamlstm.kernels.account import ELSEWHERE_ROW, OTHERS_ROW
from streamlstm.service.account import KEPT, Account, Answers, Finding, Kind
from streamlstm.service.audit import CLOCK_SKEW_MS, kept_from

FIRST, END, COMMITTED = 1_000, 1_200, 1_210
NOW = 1_730_000_000_000

Answer = int | tuple[int, int]
"""An event, a code of events/sources.py, or a range of events."""


@dataclass
class Oracle:
    """The same account, one offset at a time."""

    known: set[int]
    unreadable: list[range]
    compacted: bool
    answered: set[int] = field(default_factory=set)
    found: list[tuple[Kind, int, str, int]] = field(default_factory=list)
    inside: dict[str, int] = field(default_factory=dict)
    others: int = 0

    def add(self, topic: str, answers: list[Answer]) -> None:
        highest = -1
        for at, answer in enumerate(answers):
            first, last = answer if isinstance(answer, tuple) else (answer, answer)
            events = [event for event in range(first, last + 1) if FIRST <= event < END]
            existing = [event for event in events if event in self.known or any(event in r for r in self.unreadable)]
            if first == OTHERS_ROW:
                self.others += 1
            elif first == ELSEWHERE_ROW:
                self.found.append((Kind.FOREIGN, -1, topic, at))
            elif last >= COMMITTED:
                self.found.append((Kind.FOREIGN, first, topic, at))
            elif not events:
                highest = max(highest, last)
            else:
                self.inside[topic] = self.inside.get(topic, 0) + 1
                again = any(event in self.answered for event in events)
                if isinstance(answer, tuple) and not existing and not self.compacted:
                    self.found.append((Kind.FOREIGN, first, topic, at))
                    continue
                self.answered.update(events)
                if again:
                    self.found.append((Kind.DUPLICATE, first, topic, at))
                    continue
                if not existing and not self.compacted:
                    self.found.append((Kind.FOREIGN, first, topic, at))
                    continue
                if first < highest:
                    self.found.append((Kind.REORDERED, first, topic, at))
                highest = max(highest, last)

    def missing(self) -> list[int]:
        records = self.known - {event for batch in self.unreadable for event in batch}
        batches = [batch for batch in self.unreadable if not self.answered & set(batch)]
        return sorted([*(records - self.answered), *(batch[0] for batch in batches)])


@st.composite
def inputs(draw: st.DrawFn) -> tuple[list[int], list[range]]:
    """Offsets of records, a few of them out of range, and batches that can't be read between them."""
    known = draw(st.lists(st.integers(FIRST - 5, END + 5), unique=True, max_size=150))
    edges = sorted(draw(st.lists(st.integers(FIRST, END), unique=True, max_size=8)))
    batches = [range(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    return sorted(event for event in known if not any(event in batch for batch in batches)), batches


@st.composite
def answer_lists(draw: st.DrawFn, known: list[int]) -> list[Answer]:
    """Mostly the right ones, with some left out, moved, repeated, and some of other kinds put in between."""
    answers: list[Answer] = [event for event in known if draw(st.integers(0, 9))]
    strange: st.SearchStrategy[Answer] = (
        st.integers(FIRST - 10, COMMITTED + 5)
        | st.sampled_from([OTHERS_ROW, ELSEWHERE_ROW])
        | st.tuples(st.integers(FIRST - 10, COMMITTED), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair)))
    )
    for _ in range(draw(st.integers(0, 6))):
        answers.insert(draw(st.integers(0, len(answers))), draw(strange))
        if draw(st.booleans()):
            answers.insert(draw(st.integers(0, len(answers))), answers.pop(draw(st.integers(0, len(answers) - 1))))
    return answers


def enter(answers: Answers, given: list[Answer], cuts: list[int]) -> None:
    """Add the answers in batches that end at the cuts."""
    edges = sorted({0, len(given), *(cut for cut in cuts if cut < len(given))})
    for start, stop in pairwise(edges):
        part = given[start:stop]
        ranges = {row: each for row, each in enumerate(part) if isinstance(each, tuple)}
        events = [each[0] if isinstance(each, tuple) else each for each in part]
        answers.add(np.arange(start, stop), Answered(np.array(events, np.int64), ranges), COMMITTED)


def account_of(known: list[int], unreadable: list[range] = [], compacted: bool = False) -> Account:  # noqa: B006
    account = Account(FIRST, END, compacted=compacted)
    account.add_events(np.array(known, np.int64))
    for batch in unreadable:
        account.add_unreadable(batch[0], batch[-1])
    return account


def as_said(findings: list[Finding]) -> list[tuple[Kind, int, str, int]]:
    return sorted((each.kind, each.offset, each.topic, each.at) for each in findings)


@settings(max_examples=300)
@given(st.data())
def test_equals_the_oracle(data: st.DataObject) -> None:
    known, unreadable = data.draw(inputs())
    compacted = data.draw(st.booleans())
    split = data.draw(st.sets(st.sampled_from(known))) if known else set()
    lists = {
        "forecasts": data.draw(answer_lists([event for event in known if event not in split])),
        "dead": data.draw(answer_lists(sorted(split))),
    }
    cuts = data.draw(st.lists(st.integers(0, 160), max_size=4))
    account = account_of(known, unreadable, compacted)
    oracle = Oracle({event for event in known if FIRST <= event < END}, unreadable, compacted)
    lines = []
    for topic, given_answers in lists.items():
        lines.append(account.answers(topic))
        enter(lines[-1], given_answers, cuts)
        oracle.add(topic, given_answers)
    result = account.close(*lines)
    missing = oracle.missing()
    assert as_said(result.findings) == sorted([*oracle.found, *((Kind.MISSING, event, "", -1) for event in missing)])
    assert result.counts[Kind.MISSING] == len(missing)
    assert result.faults == len(result.findings)
    assert (result.events, result.unreadable, result.unchecked) == (len(oracle.known), len(unreadable), 0)
    assert (result.forecasts, result.dead_letters) == (oracle.inside.get("forecasts", 0), oracle.inside.get("dead", 0))
    assert result.others == oracle.others


class TestRetention:
    """What retention has dropped can't be told from what never was."""

    def result_of(self, forecasts: list[Answer], letters: list[Answer], skip: str = "", **options: object) -> object:
        account = account_of(list(range(FIRST, FIRST + 10)))
        lines = [account.answers("forecasts"), account.answers("dead")]
        for line, given_answers in zip(lines, (forecasts, letters), strict=True):
            if line.topic in skip:
                line.skip()
            enter(line, given_answers, [])
        return account.close(*lines, **options)  # type: ignore[arg-type]

    def unchecked(self, *arguments: object, **options: object) -> tuple[int, int, int]:
        result = self.result_of(*arguments, **options)  # type: ignore[arg-type]
        return result.unchecked, result.counts[Kind.MISSING], result.checked_from - FIRST  # type: ignore[attr-defined]

    def test_unanswered_events_before_the_first_answer_left_are_not_checkable(self) -> None:
        left: list[Answer] = [FIRST + i for i in (4, 5, 7, 8, 9)]
        assert self.unchecked(left, []) == (0, 5, 0)
        assert self.unchecked(left, [], "forecasts") == (4, 1, 4)

    def test_nothing_left_leaves_nothing_checkable(self) -> None:
        answers: list[Answer] = [FIRST + i for i in range(5)]
        assert self.unchecked(answers, [], "dead") == (5, 0, 200)
        assert self.unchecked([], [], "forecasts") == (10, 0, 200)

    def test_young_events_keep_their_dead_letters(self) -> None:
        answers: list[Answer] = [FIRST + i for i in range(5)]
        assert self.unchecked(answers, [], "dead", young=FIRST + 7) == (2, 3, 7)

    def test_compacted_answers_prove_nothing_missing(self) -> None:
        account = account_of(list(range(FIRST, FIRST + 10)))
        forecasts = account.answers("forecasts", lossy=True)
        enter(forecasts, [FIRST + 3, FIRST + 3, FIRST + 1], [])
        result = account.close(forecasts, account.answers("dead"))
        assert (result.unchecked, result.counts[Kind.MISSING]) == (8, 0)
        assert (result.counts[Kind.DUPLICATE], result.counts[Kind.REORDERED]) == (1, 1)

    def test_dropped_while_it_is_read(self) -> None:
        account = account_of(list(range(FIRST, FIRST + 10)))
        forecasts = account.answers("forecasts")
        enter(forecasts, [FIRST, FIRST + 1], [])
        forecasts.skip()
        enter(forecasts, [OTHERS_ROW, FIRST + 6, FIRST + 7, FIRST + 9], [])
        result = account.close(forecasts, account.answers("dead"))
        assert (result.unchecked, result.counts[Kind.MISSING], result.checked_from) == (4, 1, FIRST + 6)

    def test_a_group_that_began_late(self) -> None:
        late: list[Answer] = [FIRST + 5, FIRST + 6, FIRST + 8, FIRST + 9]
        assert self.unchecked(late, [FIRST + 3], late_start=True) == (3, 2, 3)
        assert self.unchecked([], [], late_start=True) == (10, 0, 200)


class TestUnreadable:
    def test_a_batch_is_one_event(self) -> None:
        account = account_of([FIRST, FIRST + 9], [range(FIRST + 2, FIRST + 9)])
        letters, forecasts = account.answers("dead"), account.answers("forecasts")
        enter(forecasts, [FIRST, FIRST + 9], [])
        enter(letters, [(FIRST + 2, FIRST + 8)], [])
        result = account.close(forecasts, letters)
        assert (result.faults, result.events, result.unreadable, result.dead_letters) == (0, 2, 1, 1)

    def test_answered_while_it_could_be_read(self) -> None:
        account = account_of([FIRST], [range(FIRST + 2, FIRST + 9)])
        forecasts = account.answers("forecasts")
        enter(forecasts, [FIRST, *range(FIRST + 3, FIRST + 9)], [])
        assert account.close(forecasts, account.answers("dead")).faults == 0

    def test_an_unreadable_batch_of_answers(self) -> None:
        account = account_of([FIRST])
        forecasts = account.answers("forecasts")
        forecasts.add_unreadable(17)
        result = account.close(forecasts, account.answers("dead"))
        assert as_said(result.findings) == [(Kind.MISSING, FIRST, "", -1), (Kind.UNREADABLE, -1, "forecasts", 17)]


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ({"cleanup.policy": "delete", "retention.bytes": "-1", "retention.ms": "604800000"}, NOW - 604_800_000),
        ({"cleanup.policy": "delete", "retention.bytes": "-1", "retention.ms": "-1"}, None),
        ({"cleanup.policy": "delete", "retention.bytes": "1000", "retention.ms": "604800000"}, None),
        ({"cleanup.policy": "compact,delete", "retention.bytes": "-1", "retention.ms": "604800000"}, None),
        ({}, None),
    ],
)
def test_what_time_alone_has_dropped(configs: dict[str, str], expected: int | None) -> None:
    assert kept_from(configs, NOW - CLOCK_SKEW_MS) == expected


def test_findings_are_bounded_and_all_are_counted() -> None:
    account = account_of(list(range(FIRST, END)))
    forecasts, letters = account.answers("forecasts"), account.answers("dead")
    enter(forecasts, [*range(FIRST + 1, END), FIRST], [])
    enter(letters, list(range(FIRST, END)), [])
    result = account.close(forecasts, letters)
    assert (result.counts[Kind.DUPLICATE], result.counts[Kind.REORDERED]) == (END - FIRST, 1)
    assert len([each for each in result.findings if each.kind is Kind.DUPLICATE]) == KEPT
    assert len(account_of([]).known) == 4
    nothing = Account(5, 3)
    result = nothing.close(nothing.answers("a"), nothing.answers("b"))
    assert (result.first, result.end, result.faults) == (5, 5, 0)
