"""Which events were answered, how often and in which order. Memory grows with what is out of order, not with time."""

from dataclasses import dataclass, field

FORECAST, LETTER = 0, 1
EXAMPLES = 5


@dataclass(slots=True)
class _Page:
    """One source partition: all offsets below `next` are answered, and those in `beyond`."""

    next: int = 0
    beyond: set[int] = field(default_factory=set)
    latest: list[int] = field(default_factory=lambda: [-1, -1])


@dataclass(slots=True)
class Ledger:
    """Answers in the order in which a reader of committed records sees them, per topic. Sources begin at offset 0."""

    answers: int = 0
    letters: int = 0
    duplicated: int = 0
    reordered: int = 0
    examples: list[str] = field(default_factory=list)
    _pages: dict[int, _Page] = field(default_factory=dict)

    def enter(self, partition: int, offset: int, kind: int) -> None:
        """The next answer of a topic (`kind` FORECAST or LETTER) is to this offset."""
        page = self._pages.setdefault(partition, _Page())
        self.answers += 1
        self.letters += kind == LETTER
        if offset < page.next or offset in page.beyond:
            self.duplicated += 1
            self._example(f"offset {offset} of partition {partition} has a second answer")
            return
        if offset < page.latest[kind]:
            self.reordered += 1
            self._example(f"offset {offset} of partition {partition} is answered behind {page.latest[kind]}")
        page.latest[kind] = max(offset, page.latest[kind])
        page.beyond.add(offset)
        while page.next in page.beyond:
            page.beyond.remove(page.next)
            page.next += 1

    def answered_below(self, partition: int) -> int:
        """Every offset below has an answer."""
        return self._pages.get(partition, _Page()).next

    def complete(self, ends: dict[int, int]) -> bool:
        """Is every offset below the ends answered?"""
        return all(self._pages.get(partition, _Page()).next >= end for partition, end in ends.items())

    def lost(self, ends: dict[int, int]) -> int:
        """How many offsets below the ends (partition -> offset behind the last) have no answer."""
        lost = 0
        for partition, end in ends.items():
            page = self._pages.get(partition, _Page())
            missing = end - page.next - sum(offset < end for offset in page.beyond)
            if missing > 0:
                lost += missing
                self._example(f"{missing} of partition {partition} have no answer, the first is offset {page.next}")
        return lost

    def _example(self, text: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)
