"""The same pipe from a file or standard input: JSON lines as they are, CSV as the JSON lines it stands for.

Everything after this room is the daemon's own path, so a file gives the bytes that Kafka would have given.
"""

import csv
import io
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from streamlstm.errors import BadDataError, InputMissingError

CHUNK_BYTES = 4 << 20
STREAM_COLUMNS = ("stream", "unique_id", "series", "id", "key")
TIME_COLUMNS = ("ts", "timestamp", "time", "ds", "date", "datetime")
VALUE_COLUMNS = ("value", "target", "y")
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")


@contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """The file at `path`, or standard input for "-". Raises InputMissingError."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """The file at `path`, created or replaced, or standard output for "-". Raises InputMissingError."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        file = Path(path).open("wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be written: {error.strerror}") from error
    with file:
        yield file


def looks_like_csv(path: str, head: bytes) -> bool:
    """A `.csv` or `.tsv` name decides; otherwise a first line that doesn't begin with an opening brace."""
    if Path(path).suffix.lower() in {".csv", ".tsv"}:
        return True
    if Path(path).suffix.lower() in {".json", ".jsonl", ".ndjson"}:
        return False
    return bool(head.strip()) and not head.lstrip().startswith(b"{")


def read_lines(file: BinaryIO, head: bytes = b"", chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Blocks of whole lines, each block ending in a newline; the last line may come without one.

    Yields what has arrived rather than wait for a full block, so that a live pipe is served as it flows.
    """
    rest, block = b"", head or _read_some(file, chunk_bytes)
    while block:
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
        block = _read_some(file, chunk_bytes)
    if rest:
        yield rest + b"\n"


def _read_some(file: BinaryIO, size: int) -> bytes:
    read_available = getattr(file, "read1", file.read)
    return bytes(read_available(size))


@dataclass(frozen=True, slots=True)
class CsvColumns:
    """Where things are in a CSV file.

    long: a stream column and one column per input; single: the same without a stream column (the stream is the file's
    name); wide: every column but the time is a series of its own.
    """

    time: int | None
    stream: int | None
    values: tuple[tuple[int, str], ...]
    wide: bool


def csv_columns(header: Sequence[str], inputs: Sequence[str], where: str) -> CsvColumns:
    """Read a CSV header. Raises BadDataError, naming the file, what was expected and what was found."""
    names = [name.strip() for name in header]
    lower = [name.lower() for name in names]
    time = _first(lower, TIME_COLUMNS)
    stream = _first(lower, STREAM_COLUMNS)
    taken = {time, stream}
    found = _input_columns(names, lower, inputs)
    if found:
        return CsvColumns(time, stream, found, wide=False)
    others = tuple((i, name) for i, name in enumerate(names) if i not in taken)
    if stream is None and others and len(inputs) == 1 and (time is not None or len(others) > 1):
        return CsvColumns(time, None, others, wide=True)
    raise BadDataError(
        f"{where}: header: expected a time column ({', '.join(TIME_COLUMNS)}), a stream column "
        f"({', '.join(STREAM_COLUMNS)}) and the model's inputs ({', '.join(inputs)}), or one column per series; "
        f"found {', '.join(names)}"
    )


def _first(lower: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((lower.index(name) for name in wanted if name in lower), None)


def _input_columns(names: Sequence[str], lower: Sequence[str], inputs: Sequence[str]) -> tuple[tuple[int, str], ...]:
    if all(name in names for name in inputs):
        return tuple((names.index(name), name) for name in inputs)
    column = _first(lower, VALUE_COLUMNS) if len(inputs) == 1 else None
    return ((column, inputs[0]),) if column is not None else ()


def csv_to_json_lines(file: BinaryIO, head: bytes, where: str, inputs: Sequence[str]) -> Iterator[bytes]:
    """The JSON line of every event of a CSV file: one per row (long), or one per row and series (wide, left to right).

    The fields are stream, ts, and value (one input) or values (several, by name).

    A cell that is a JSON number is copied digit by digit; an empty one is null; NaN and infinities become those tokens
    and other text a string, which the decoder refuses with a reason.
    """
    whole = io.BufferedReader(_Rejoined(head, file))
    text = io.TextIOWrapper(whole, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter="\t" if where.endswith(".tsv") else ",")
    default_stream = _readable(Path(where).stem) if where != "-" else "stdin"
    lines: list[bytes] = []
    try:
        header = next(rows, None)
        if header is None:
            return
        columns = csv_columns([_readable(name) for name in header], inputs, where)
        for row in rows:
            if row:
                lines.extend(_row_events(row, columns, default_stream))
            if len(lines) >= 8192:
                yield b"".join(lines)
                lines.clear()
    except csv.Error as error:
        raise BadDataError(f"{where}: line {rows.line_num}: not CSV: {error}") from error
    if lines:
        yield b"".join(lines)


def _row_events(row: Sequence[str], columns: CsvColumns, default_stream: str) -> Iterator[bytes]:
    time = _cell(row, columns.time)
    if columns.wide:
        for column, series in columns.values:
            value = _cell(row, column)
            if value is not None:  # an empty cell of a wide table is no event
                yield _event(series, time, {"value": value})
        return
    stream = default_stream if columns.stream is None else _text(row, columns.stream)
    if len(columns.values) == 1:
        yield _event(stream, time, {"value": _cell(row, columns.values[0][0])})
    else:
        yield _event(stream, time, {"values": {name: _cell(row, column) for column, name in columns.values}})


def _event(stream: str, time: object, value: dict[str, object]) -> bytes:
    event: dict[str, object] = {"stream": stream}
    if time is not None:
        event["ts"] = time
    return orjson.dumps(event | value, option=orjson.OPT_APPEND_NEWLINE)


def _text(row: Sequence[str], column: int) -> str:
    return _readable(row[column]) if column < len(row) else ""


def _readable(text: str) -> str:
    """With a question mark for each byte that isn't UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _cell(row: Sequence[str], column: int | None) -> object:
    """None for an absent or empty cell, the number as written, else the text."""
    if column is None:
        return None
    text = _text(row, column).strip()
    if not text:
        return None
    if _JSON_NUMBER.match(text):
        return orjson.Fragment(text)
    try:
        number = float(text)
    except ValueError:
        return text
    if math.isfinite(number):
        return number
    return orjson.Fragment("NaN" if math.isnan(number) else "Infinity")


class _Rejoined(io.RawIOBase):
    """`head`, already read for a look at it, in front of the rest of `file`."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._head:
            block = _read_some(self._file, len(buffer))
        else:
            block, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)
