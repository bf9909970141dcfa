"""The verdict over a whole run: every event answered once, in order, with the bytes of an uninterrupted run.

The uninterrupted run is `streamlstm forecast` over the very same events, partition by partition, from the input topic
as the independent reader sees it. Everything is streamed: memory doesn't grow with the length of the run.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.ledger import EXAMPLES, FORECAST, LETTER, Ledger
from tests.trust.reader import (
    PREFIX,
    Headers,
    Record,
    ends_of,
    offset_in_forecast,
    offset_in_letter,
    partition_records,
)


@dataclass(slots=True)
class Verdict:
    """`differing`: answers whose key, value, headers or timestamp are others than in the uninterrupted run."""

    events: int = 0
    forecasts: int = 0
    letters: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    differing: int = 0
    compared: bool = True
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered or self.differing)

    def differs(self, what: str) -> None:
        self.differing += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(what)


@dataclass(frozen=True, slots=True)
class Topics:
    bootstrap: str
    input: str
    output: str
    dead_letters: str
    partitions: int

    @property
    def numbers(self) -> range:
        return range(self.partitions)


def judge(
    topics: Topics, model: Path, folder: Path, settings: Mapping[str, object], compare_bytes: bool = True
) -> Verdict:
    """Read everything again, from the start. `settings`: what of the configuration decides the bytes."""
    verdict, ledger = Verdict(compared=compare_bytes), Ledger()
    ends = ends_of(topics.bootstrap, topics.input, topics.partitions)
    for partition, end in ends.items():
        verdict.events += end

        def read(topic: str, at: int = partition) -> Iterator[Record]:
            return partition_records(topics.bootstrap, topic, at)

        if compare_bytes:
            lines = folder / f"input-{partition}.jsonl"
            write_lines(read(topics.input), lines)
            values, refused = uninterrupted(lines, model, topics.input, partition, settings)
        else:
            values, refused = iter(()), iter(())
        forecasts = _entered(read(topics.output), ledger, partition, FORECAST)
        letters = _entered(read(topics.dead_letters), ledger, partition, LETTER)
        if compare_bytes:
            where = f"{topics.input}-{partition}"
            compare(where, read(topics.input), forecasts, letters, values, refused, verdict)
        for _ in (*forecasts, *letters):
            pass  # what is left of them, to be entered
        for path in folder.glob(f"*-{partition}.jsonl"):
            path.unlink()
    verdict.forecasts, verdict.letters = ledger.answers - ledger.letters, ledger.letters
    verdict.lost, verdict.duplicated, verdict.reordered = ledger.lost(ends), ledger.duplicated, ledger.reordered
    verdict.examples += ledger.examples
    return verdict


def _entered(records: Iterable[Record], ledger: Ledger, partition: int, kind: int) -> Iterator[tuple[int, Record]]:
    """The answers with the source offsets that they name, entered into the ledger on the way."""
    for record in records:
        offset = offset_in_forecast(record.value) if kind == FORECAST else offset_in_letter(record.headers)
        ledger.enter(partition, offset, kind)
        yield offset, record


def write_lines(records: Iterable[Record], path: Path) -> None:
    """The values as lines. Traffic has neither nulls nor line ends nor holes between its offsets."""
    with path.open("wb") as file:
        for count, record in enumerate(records):
            assert record.offset == count, f"offset {record.offset} where {count} is due: lines would be off"
            assert record.value, "a value that is no line"
            file.write(record.value + b"\n")


def uninterrupted(
    lines: Path, model: Path, topic: str, partition: int, settings: Mapping[str, object]
) -> tuple[Iterator[bytes], Iterator[tuple[int, str]]]:
    """Forecasts, and the offsets that were refused with their reasons, of one run over a file."""
    output, letters = (lines.with_name(f"{kind}-{partition}.jsonl") for kind in ("output", "letters"))
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = ["forecast", "--model", model, "--input", lines, "--output", output, "--dead-letters", letters]
    command += ["--topic", topic, "--partition", partition, "--threads", 1, *given]
    subprocess.run([sys.executable, "-m", "streamlstm", *map(str, command)], check=True, capture_output=True)
    return _lines(output), ((letter["offset"], letter["reason"]) for letter in map(json.loads, _lines(letters)))


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")


def compare(
    where: str,
    events: Iterable[Record],
    forecasts: Iterator[tuple[int, Record]],
    letters: Iterator[tuple[int, Record]],
    values: Iterator[bytes],
    refused: Iterator[tuple[int, str]],
    verdict: Verdict,
) -> None:
    """One partition's answers against the uninterrupted run. Answers that are missing or surplus are the ledger's."""
    value, refusal = next(values, None), next(refused, None)
    answer, letter = next(forecasts, None), next(letters, None)
    words: dict[str, Headers] = {}
    for event in events:
        at = event.offset
        while answer is not None and answer[0] < at:
            answer = next(forecasts, None)
        while letter is not None and letter[0] < at:
            letter = next(letters, None)
        forecast = answer[1] if answer is not None and answer[0] == at else None
        refusing = letter[1] if letter is not None and letter[0] == at else None
        if refusal is not None and refusal[0] == at:
            if refusing is not None:
                _compare_letter(where, event, refusing, refusal[1], words, verdict)
            elif forecast is not None:
                verdict.differs(f"{where}, offset {at}: forecast, refused for {refusal[1]} in the uninterrupted run")
            refusal = next(refused, None)
        elif value is not None and offset_in_forecast(value) == at:
            if forecast is not None:
                _compare_forecast(where, event, forecast, value, verdict)
            elif refusing is not None:
                verdict.differs(f"{where}, offset {at}: refused, a forecast in the uninterrupted run: {refusing}")
            value = next(values, None)
        else:
            verdict.differs(f"{where}: the uninterrupted run has no answer to offset {at}")


def _compare_forecast(where: str, event: Record, found: Record, value: bytes, verdict: Verdict) -> None:
    time = json.loads(value)["ts"]
    expected = (event.key, value, event.headers, max(-1, min(time, event.timestamp)))
    if (found.key, found.value, found.headers, found.timestamp) != expected:
        verdict.differs(f"{where}, offset {event.offset}: found {found}, expected {expected}")


def _compare_letter(
    where: str, event: Record, found: Record, reason: str, words: dict[str, Headers], verdict: Verdict
) -> None:
    """A dead letter is the event with our headers behind its own; those for people are the same for one reason."""
    topic, _, partition = where.rpartition("-")
    expected = {"topic": topic, "partition": partition, "offset": str(event.offset), "reason": reason}
    first = tuple((PREFIX + name, text.encode()) for name, text in expected.items())
    own, ours = found.headers[: len(event.headers)], found.headers[len(event.headers) :]
    same = words.setdefault(reason, ours[4:])
    record = (found.key, found.value, own, found.timestamp)
    wanted = (event.key, event.value, event.headers, event.timestamp)
    if record != wanted or ours[:4] != first or ours[4:] != same or len(ours) != 7:
        verdict.differs(f"{where}, offset {event.offset}: dead letter {found}, expected {wanted} and {first}")
