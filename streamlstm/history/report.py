"""What a history holds, and what is wrong with it: counted, each with the place of its first example."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

MOST_SHOWN = 80
"""Letters of what is shown from a source."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


class Kind(StrEnum):
    """What may be wrong. Those that name a reason of a dead letter (events.batch.Reason) drop the row, as the daemon
    refuses the event.
    """

    RAGGED_ROW = "ragged_row"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    WRONG_LENGTH = "wrong_length"
    NULL_VALUE = "null_value"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    BAD_TIME = "bad_time"
    NO_KEY = "no_key"
    KEY_TOO_LONG = "key_too_long"
    KEY_ENCODING = "key_encoding"
    TOMBSTONE = "tombstone"
    TOO_FAR_AHEAD = "too_far_ahead"
    CORRUPT_BATCH = "corrupt_batch"
    UNKNOWN_CODEC = "unknown_codec"
    LATE = "late"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    GAP = "gap"
    OFF_INTERVAL = "off_interval"
    CONSTANT = "constant"
    SHORT = "short"


_SENTENCES = {
    Kind.RAGGED_ROW: ("row", "dropped: more or fewer columns than the header"),
    Kind.NOT_JSON: ("row", "dropped: not JSON"),
    Kind.NOT_OBJECT: ("row", "dropped: JSON, but no object"),
    Kind.MISSING_FIELD: ("row", "dropped: no field for an input"),
    Kind.WRONG_TYPE: ("row", "dropped: no number where one is expected, or no text as a stream id"),
    Kind.WRONG_LENGTH: ("row", "dropped: another number of inputs than expected"),
    Kind.NULL_VALUE: ("row", "dropped: no value"),
    Kind.NOT_FINITE: ("row", "dropped: the value is NaN or infinite"),
    Kind.OUT_OF_RANGE: ("row", "dropped: the value is beyond the largest that a model may be given"),
    Kind.BAD_TIME: ("row", "dropped: no time, or one that cannot be read or lies outside the years 1900 to 2200"),
    Kind.NO_KEY: ("row", "dropped: no stream id"),
    Kind.KEY_TOO_LONG: ("row", "dropped: a stream id longer than state.max_key_bytes"),
    Kind.KEY_ENCODING: ("row", "dropped: the stream id is not UTF-8"),
    Kind.TOMBSTONE: ("row", "dropped: a record without a value (at which the daemon resets the stream)"),
    Kind.TOO_FAR_AHEAD: ("row", "dropped: the time is further past the record's timestamp than events.max_ahead_ms"),
    Kind.CORRUPT_BATCH: ("record batch", "passed over: corrupt"),
    Kind.UNKNOWN_CODEC: ("record batch", "passed over: unknown compression codec"),
    Kind.LATE: ("row", "behind a later one of the stream"),
    Kind.DUPLICATE: ("row", "with the time of another row of the stream"),
    Kind.CONFLICT: ("row", "with the time, but not the values, of another row of the stream"),
    Kind.GAP: ("gap", "of more than one and a half intervals"),
    Kind.OFF_INTERVAL: ("step", "from event to event more than a tenth off the stream's interval"),
    Kind.CONSTANT: ("stream", "with one value only"),
    Kind.SHORT: ("stream", "with few rows to learn from"),
}
"""What is counted, and what is said of it."""


@dataclass(slots=True)
class Finding:
    """How often one thing was found. The first example: `place` is file:row (as a spreadsheet counts rows, which is the
    line unless cells have line breaks) or partition:offset; `stream` and `found`, where known, its id and what stood
    there.
    """

    kind: Kind
    count: int
    place: str = ""
    stream: str = ""
    found: str = ""


@dataclass(slots=True)
class Report:
    """What was read. `rows_read` counts every row of the sources, `rows` those that the history holds; times are epoch
    ms, None without rows. `interval_ms` is that of most streams, `interval_streams` how many have it. `notes` say what
    was taken for granted.
    """

    sources: list[str] = field(default_factory=list)
    rows_read: int = 0
    rows: int = 0
    streams: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    interval_ms: int = 0
    interval_streams: int = 0
    findings: dict[Kind, Finding] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: Kind, count: int, place: str = "", stream: str = "", found: str = "") -> None:
        """Count `count` more of a kind; the example is kept if it is the first."""
        if count == 0:
            return
        if kind in self.findings:
            self.findings[kind].count += count
        else:
            self.findings[kind] = Finding(kind, count, place, shown(stream), shown(found))

    def count(self, kind: Kind) -> int:
        return self.findings[kind].count if kind in self.findings else 0

    def note(self, text: str) -> None:
        """Once, however often it is said."""
        if text not in self.notes:
            self.notes.append(text)

    def lines(self) -> Iterator[str]:
        """The report in sentences."""
        what = f"{self.rows:,} of {counted(self.rows_read, 'row')} kept, {counted(self.streams, 'stream')}"
        if self.first_ms is not None and self.last_ms is not None:
            what += f", {time_text(self.first_ms)} to {time_text(self.last_ms)}"
        yield f"{_listed(self.sources)}: {what}"
        if self.interval_ms:
            share = f"{self.interval_streams:,} of {counted(self.streams, 'stream')}"
            yield f"interval: {duration_text(self.interval_ms)} in {share}"
        yield from (self.sentence(each) for kind in Kind if (each := self.findings.get(kind)))
        yield from (f"note: {note}" for note in self.notes)

    def sentence(self, finding: Finding) -> str:
        """12 rows dropped: the value is NaN or infinite; the first: pump.csv:17, stream a: NaN"""
        noun, said = _SENTENCES[finding.kind]
        text = f"{counted(finding.count, noun)} {said}"
        if finding.kind is Kind.OFF_INTERVAL and self.rows > self.streams:
            text += f" ({100 * finding.count / (self.rows - self.streams):.1f} %)"
        example = ", ".join(part for part in (finding.place, finding.stream and f"stream {finding.stream}") if part)
        if not example:
            return text
        first = "the longest" if finding.kind is Kind.GAP else "the first"
        return f"{text}; {first}: {example}" + (f": {finding.found}" if finding.found else "")

    def as_json(self) -> dict[str, Any]:
        """The same for machines: counts and examples by kind."""
        return {
            "sources": self.sources,
            "rows_read": self.rows_read,
            "rows": self.rows,
            "streams": self.streams,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "interval_ms": self.interval_ms,
            "interval_streams": self.interval_streams,
            "findings": {
                each.kind.value: {
                    "count": each.count, "place": each.place, "stream": each.stream, "found": each.found,
                }
                for each in self.findings.values()
            },
            "notes": self.notes,
        }  # fmt: skip


def _listed(sources: list[str]) -> str:
    return ", ".join(sources) if len(sources) <= 3 else f"{', '.join(sources[:2])} and {len(sources) - 2:,} more"


def counted(count: int, noun: str) -> str:
    """1 row, 1,200 rows, 2 record batches"""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"


def shown(text: str) -> str:
    """What a source says, fit for a terminal: a line of no more than MOST_SHOWN letters, without control characters."""
    plain = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:MOST_SHOWN])
    return plain if len(text) <= MOST_SHOWN else f"{plain}..."


def time_text(time_ms: int) -> str:
    """Epoch ms as in RFC 3339, in UTC."""
    when = _EPOCH + timedelta(milliseconds=time_ms)
    return when.isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds").replace("+00:00", "Z")


def duration_text(duration_ms: int) -> str:
    """90000 as 1.5 min"""
    for size, unit in _UNITS:
        if duration_ms >= size:
            return f"{duration_ms / size:.6g} {unit}"
    return f"{duration_ms} ms"
