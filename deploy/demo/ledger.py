"""The check: every event got exactly one answer, the right one, in order."""

from collections import Counter
from collections.abc import Mapping, Sequence

from deploy.demo.series import Series
from deploy.demo.wire import BROKEN, INPUT, Answer, DeadLetter, Forecast

EXAMPLES = 3


class Ledger:
    """Books every answer as a read_committed reader sees it, and judges them all at the end."""

    def __init__(self, series: Sequence[Series]) -> None:
        self._series = {one.stream: one for one in series}
        self._answers: Counter[tuple[int, int]] = Counter()
        self._seen: Counter[str] = Counter()
        self._last_offset: dict[int, int] = {}
        self._wrong: list[str] = []
        self.forecasts = 0
        self.dead_letters: Counter[str] = Counter()

    @property
    def answered(self) -> int:
        return self.forecasts + self.dead_letters.total()

    def book(self, answer: Answer) -> None:
        self._answers[answer.partition, answer.offset] += 1
        if answer.topic != INPUT:
            self._wrong.append(f"source topic {answer.topic}, expected {INPUT}")
        if isinstance(answer, Forecast):
            self._book_forecast(answer)
        else:
            self._book_dead_letter(answer)

    def _book_forecast(self, forecast: Forecast) -> None:
        self.forecasts += 1
        where = f"partition {forecast.partition}, offset {forecast.offset}"
        if forecast.offset <= self._last_offset.get(forecast.partition, -1):
            self._wrong.append(f"{where}: comes after offset {self._last_offset[forecast.partition]}")
        self._last_offset[forecast.partition] = forecast.offset
        series = self._series.get(forecast.stream)
        position = self._seen[forecast.stream]
        self._seen[forecast.stream] += 1
        if series is None or position >= len(series.y):
            self._wrong.append(f"{where}: stream {forecast.stream} has no such event")
            return
        expected = (int(series.ts[position]), float(series.y[position]), position + 1)
        found = (forecast.ts, forecast.y, forecast.n_seen)
        if found != expected:
            self._wrong.append(f"{where}: stream {forecast.stream}, (ts, y, n_seen) {found}, expected {expected}")

    def _book_dead_letter(self, letter: DeadLetter) -> None:
        self.dead_letters[letter.reason] += 1
        expected = BROKEN.get(letter.value or b"", "a forecast")
        if letter.reason != expected:
            where = f"partition {letter.partition}, offset {letter.offset}"
            self._wrong.append(f"{where}: dead letter with reason {letter.reason}, expected {expected}")

    def problems(self, ends: Mapping[int, int]) -> list[str]:
        """What is wrong, given the end offset of every input partition; empty when every promise was kept."""
        total = sum(len(one.y) for one in self._series.values()) + len(BROKEN)
        problems = []
        if sum(ends.values()) != total:
            problems.append(f"the input topic holds {sum(ends.values())} records, {total} were fed")
        records = {(partition, offset) for partition, end in ends.items() for offset in range(end)}
        problems += _listed("events without an answer", sorted(records - self._answers.keys()))
        problems += _listed("answers to events that don't exist", sorted(self._answers.keys() - records))
        twice = sorted(source for source, count in self._answers.items() if count > 1)
        problems += _listed("events answered more than once", twice)
        problems += _listed("wrong answers", self._wrong)
        if self.dead_letters != Counter(BROKEN.values()):
            problems.append(f"dead letters {dict(self.dead_letters)}, expected one of each {sorted(BROKEN.values())}")
        return problems


def _listed(what: str, found: Sequence[object]) -> list[str]:
    examples = "; ".join(str(one) for one in found[:EXAMPLES])
    return [f"{len(found)} {what}, for instance {examples}"] if found else []
