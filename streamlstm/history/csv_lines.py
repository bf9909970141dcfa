"""CSV as the JSON lines that it stands for, for whoever forecasts its rows one by one as they stand there: columns and
cells are read by the rules for histories.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO

import orjson

from streamlstm.errors import BadDataError
from streamlstm.events.batch import Reason
from streamlstm.history.cells import number_of, whole_time
from streamlstm.history.columns import Wanted
from streamlstm.history.csv_head import HEAD_BYTES, CsvHead, csv_head

_EVENTS_AT_A_TIME = 8192
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")


class CsvLines:
    """The JSON lines of one file, read from its start. `notes` say what was taken for granted of its columns; there are
    no lines, and no notes, of a file without rows. `stream` is the one stream of a file without a column of streams.

    Raises BadDataError, UsageError, at once for what the head shows.
    """

    def __init__(self, file: BinaryIO, where: str, stream: str, wanted: Wanted) -> None:
        self.where = where
        self.stream = stream.encode("utf-8", "replace").decode()
        self.inputs = wanted.fields.inputs
        begin = file.read(HEAD_BYTES)
        self.head = csv_head(begin, where, wanted)
        self.notes = () if self.head is None else self.head.notes
        whole = io.BufferedReader(_Rejoined(begin, file))
        self._text = io.TextIOWrapper(whole, encoding="utf-8-sig", errors="surrogateescape", newline="")

    def __iter__(self) -> Iterator[bytes]:
        """Blocks of lines, one for each row (long), or for each row and series (wide, left to right).

        The fields are stream, ts, and value (one input) or values (several, by name). A cell that is a JSON number is
        copied digit by digit, a missing one is null; NaN and infinities become those tokens, and other text a string,
        which the decoder refuses with a reason. So it does a ragged row, and an event whose text isn't UTF-8: the line
        is the row as a string, which is no object.
        """
        if self.head is None:
            return
        rows = csv.reader(self._text, delimiter=self.head.delimiter)
        lines: list[bytes] = []
        try:
            for row in islice(rows, self.head.first, None):
                lines.extend(self._events(row, self.head))
                if len(lines) >= _EVENTS_AT_A_TIME:
                    yield b"".join(lines)
                    lines.clear()
        except csv.Error as error:
            raise BadDataError(f"{self.where}: line {rows.line_num}: not CSV: {error}") from error
        if lines:
            yield b"".join(lines)

    def _events(self, row: Sequence[str], head: CsvHead) -> Iterator[bytes]:
        if not any(row):
            return
        if len(row) != len(head.names):
            yield _no_object(row, head.delimiter)
            return
        chosen = head.chosen
        time = _time(row[chosen.time])
        values = [_value(row[column]) for column in chosen.values]
        if chosen.wide:
            for column, value in zip(chosen.values, values, strict=True):
                if row[column]:  # an empty cell of a wide table is no event
                    event = _event(head.names[column].strip(), time, {"value": value})
                    yield event or _no_object(row, head.delimiter)
            return
        stream = self.stream if chosen.stream is None else row[chosen.stream]
        if len(values) == 1:
            event = _event(stream, time, {"value": values[0]})
        else:
            event = _event(stream, time, {"values": dict(zip(self.inputs, values, strict=True))})
        yield event or _no_object(row, head.delimiter)


def _event(stream: str, time: object, value: dict[str, object]) -> bytes | None:
    """None where a text isn't UTF-8."""
    try:
        return orjson.dumps({"stream": stream, "ts": time} | value, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return None


def _no_object(row: Sequence[str], delimiter: str) -> bytes:
    """The row as a string; bytes of it that aren't UTF-8 are replaced."""
    text = delimiter.join(row).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return orjson.dumps(text, option=orjson.OPT_APPEND_NEWLINE)


def _time(cell: str) -> object:
    """The number as written, else the text, in the form that the decoder knows: no time at all is none to it too."""
    text = cell.strip()
    return orjson.Fragment(text) if _JSON_NUMBER.match(text) else whole_time(text)


def _value(cell: str) -> object:
    text = cell.strip()
    if _JSON_NUMBER.match(text):
        return orjson.Fragment(text)
    number = number_of(text)
    if number is Reason.NOT_FINITE:
        return orjson.Fragment("NaN" if "nan" in text.lower() else "Infinity")
    return None if number is Reason.NULL_VALUE else text if isinstance(number, Reason) else number


class _Rejoined(io.RawIOBase):
    """`head`, already read for a look at it, in front of the rest of `file`."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._head:
            block, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            block = self._file.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)
