"""The account of one partition: every event of a range of offsets, and the answers it got. Neither broker nor clock.

    1. `Account.add_events`, `add_unreadable`     what the input holds
    2. `Account.answers`, then, in log order, `Answers.add`, `add_unreadable`, and `skip` where retention has dropped
       what was there; once for the forecasts and once for the dead letters
    3. `Account.close`                            what is wrong

A record batch that can't be read counts as one event: answered by a dead letter for its range of offsets or, where the
daemon could still read it, by answers to some of them.

An unanswered event isn't called missing where retention may have dropped its answer. Answers come in the order of their
events and retention takes them from the start of a log, so that is below the first event answered behind the loss.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.sources import Answered
from streamlstm.kernels import account as bits

KEPT = 100
"""Positions kept of each kind of fault; all are counted."""


class Kind(StrEnum):
    MISSING = "missing"
    DUPLICATE = "duplicate"
    REORDERED = "reordered"
    FOREIGN = "foreign"
    UNREADABLE = "unreadable"


_FAULTS = {
    bits.DUPLICATE: (Kind.DUPLICATE, ""),
    bits.REORDERED: (Kind.REORDERED, ""),
    bits.NO_RECORD: (Kind.FOREIGN, "the input has no such record"),
    bits.AHEAD: (Kind.FOREIGN, "the group has not committed this far"),
    bits.ELSEWHERE: (Kind.FOREIGN, "it names another partition"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: the event's `offset`, -1 where it isn't known; topic and offset of the answer, "" and -1
    for one that is missing.
    """

    kind: Kind
    offset: int
    topic: str = ""
    at: int = -1
    why: str = ""


@dataclass(slots=True)
class Result:
    """What came of the offsets [first, end) of a partition. `counts` has every kind, `findings` the first of each.

    `events` are the records there, `unreadable` the record batches that can't be read, `unchecked` those of both that
    have no answer, all below `checked_from`. `others` are the records in the answers' topics that answer nothing of
    this input.
    """

    first: int
    end: int
    events: int
    unreadable: int
    forecasts: int
    dead_letters: int
    others: int
    checked_from: int
    unchecked: int = 0
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return sum(self.counts.values())


class Account:
    """Two bits for each offset of [first, end)."""

    def __init__(self, first: int, end: int, *, compacted: bool = False) -> None:
        """`compacted`: the input loses records in time, so an answer may have outlived its event."""
        self.first = first
        self.end = max(end, first)
        self.compacted = compacted
        self.known = np.zeros((self.end - first) // 64 + 1, np.uint64)
        self.answered = np.zeros_like(self.known)
        self._events = 0
        self._unreadable: list[tuple[int, int]] = []

    def add_events(self, offsets: NDArray[np.int64]) -> None:
        """Records of the input, int64 [n]; those outside the range are passed over."""
        self._events += int(bits.mark(self.known, self.first, self.end, offsets))

    def add_unreadable(self, first: int, last: int) -> None:
        """A record batch of the input that can't be read; both ends included."""
        start, stop = self.places(first, last)
        if start < stop:
            bits.mark_range(self.known, start, stop)
            self._unreadable.append((start, stop))

    def places(self, first: int, last: int) -> tuple[int, int]:
        """What of the offsets `first` to `last` lies in the range, as bits [start, stop)."""
        return max(first, self.first) - self.first, min(last + 1, self.end) - self.first

    def answers(self, topic: str, *, lossy: bool = False) -> "Answers":
        """`lossy`: the topic is compacted, so any answer may have been dropped."""
        return Answers(self, topic, lossy)

    def close(
        self, forecasts: "Answers", letters: "Answers", *, young: int | None = None, late_start: bool = False
    ) -> Result:
        """The result, once everything has been added.

        `young`: retention has dropped no dead letter of an event from this offset on. `late_start`: the group didn't
        begin at the start of the input, so there is no telling whether it should have answered what came before its
        first answer.
        """
        letters_from = letters.checked_from if young is None else min(letters.checked_from, young)
        floor = max(forecasts.checked_from, letters_from, self.first)
        if late_start:
            floor = max(floor, min(forecasts.first_event, letters.first_event))
        floor = min(floor, self.end)
        result = Result(
            self.first, self.end, self._events, len(self._unreadable), forecasts.inside, letters.inside,
            forecasts.others + letters.others, floor,
        )  # fmt: skip
        self._find_unanswered(floor - self.first, result)
        for answers in (forecasts, letters):
            answers.report(result)
        return result

    def _find_unanswered(self, floor: int, result: Result) -> None:
        """Bits below `floor` are not checkable."""
        missing: list[int] = []
        for start, stop in self._unreadable:
            before = bits.mark_range(self.answered, start, stop)
            if before == 0 and stop > floor:
                missing.append(start)
            elif before == 0:
                result.unchecked += 1
        found = np.empty(KEPT, np.int64)
        stop = self.end - self.first
        count = int(bits.unanswered(self.known, self.answered, floor, stop, found))
        result.unchecked += int(bits.unanswered(self.known, self.answered, 0, floor, found[:0]))
        result.counts[Kind.MISSING] = len(missing) + count
        places = sorted([*missing, *found[: min(count, KEPT)].tolist()])[:KEPT]
        result.findings += [Finding(Kind.MISSING, self.first + place) for place in places]


class Answers:
    """The answers of one topic, added in log order. `inside` counts those to events of the account's range."""

    def __init__(self, account: Account, topic: str, lossy: bool) -> None:
        self.topic = topic
        self.inside = 0
        self.others = 0
        self._account = account
        self._nothing = account.end  # stands for an event behind the last one
        self._highest = -1
        self._lossy = lossy
        self._skipped = False
        self._checked_from = 0
        self._first_event: int | None = None
        self._unreadable: list[Finding] = []
        self._n_unreadable = 0
        self._counts = np.zeros(bits.FAULTS, np.int64)
        self._found = np.zeros((bits.FAULTS, KEPT, 2), np.int64)

    @property
    def first_event(self) -> int:
        """The first event answered; the end of the range where none is."""
        return self._nothing if self._first_event is None else self._first_event

    @property
    def checked_from(self) -> int:
        """Answers to events from here on have not been dropped."""
        return self._nothing if self._skipped or self._lossy else self._checked_from

    def skip(self) -> None:
        """Records that stood before those that come have been dropped."""
        self._skipped = True

    def add_unreadable(self, at: int) -> None:
        """A record batch that can't be read: whatever it answers is missing for every reader."""
        self._n_unreadable += 1
        if self._n_unreadable <= KEPT:
            self._unreadable.append(Finding(Kind.UNREADABLE, -1, self.topic, at, "the record batch cannot be read"))

    def add(self, at: NDArray[np.int64], answered: Answered, committed: int) -> None:
        """Answers that stand at the offsets `at` int64 [n]; the group has committed all events below `committed`."""
        self._note_first(answered.offset, committed)
        done = 0
        for row, (first, last) in sorted(answered.ranges.items()):
            self._add_rows(at[done:row], answered.offset[done:row], committed)
            self._add_range(int(at[row]), first, last, committed)
            done = row + 1
        self._add_rows(at[done:], answered.offset[done:], committed)

    def _note_first(self, events: NDArray[np.int64], committed: int) -> None:
        if self._first_event is None or self._skipped:
            ours = np.flatnonzero((events >= 0) & (events < committed))
            if len(ours):
                event = int(events[ours[0]])
                self._first_event = event if self._first_event is None else self._first_event
                self._checked_from = event if self._skipped else self._checked_from
                self._skipped = False

    def _add_rows(self, at: NDArray[np.int64], events: NDArray[np.int64], committed: int) -> None:
        account = self._account
        self._highest, inside, others = bits.judge(
            np.ascontiguousarray(events), np.ascontiguousarray(at), account.first, account.end, committed,
            account.compacted, account.known, account.answered, self._highest, self._counts, self._found,
        )  # fmt: skip
        self.inside += inside
        self.others += others

    def _add_range(self, at: int, first: int, last: int, committed: int) -> None:
        """One dead letter for a whole record batch; both ends included."""
        account = self._account
        if last >= committed:
            self._note(bits.AHEAD, first, at)
            return
        start, stop = account.places(first, last)
        if start < stop:
            self.inside += 1
            if not account.compacted and bits.count_range(account.known, start, stop) == 0:
                self._note(bits.NO_RECORD, first, at)
                return
            before = bits.mark_range(account.answered, start, stop)
            if before:
                self._note(bits.DUPLICATE, first, at)
                return
            if first < self._highest:
                self._note(bits.REORDERED, first, at)
        self._highest = max(self._highest, last)

    def _note(self, fault: int, event: int, at: int) -> None:
        if self._counts[fault] < KEPT:
            self._found[fault, self._counts[fault]] = event, at
        self._counts[fault] += 1

    def report(self, result: Result) -> None:
        """Put what is wrong into the result."""
        for fault, (kind, _) in _FAULTS.items():
            result.counts[kind] += int(self._counts[fault])
        result.counts[Kind.UNREADABLE] += self._n_unreadable
        result.findings += [*self._findings(), *self._unreadable]

    def _findings(self) -> Iterator[Finding]:
        for fault, (kind, why) in _FAULTS.items():
            kept = min(int(self._counts[fault]), KEPT)
            for event, at in self._found[fault, :kept].tolist():
                yield Finding(kind, max(event, -1), self.topic, at, why)
