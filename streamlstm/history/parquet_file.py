"""Parquet to a history, column by column as it is typed; columns of text by the rules for CSV."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import BadDataError, InputMissingError
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.times import DECIMALS, EARLIEST_MS, LATEST_MS
from streamlstm.history.arrow import integers, is_text, load, reals, text_spans
from streamlstm.history.cells import Spans, clear_refused, content_of, place_inputs, place_streams, place_times
from streamlstm.history.collector import Collector
from streamlstm.history.columns import Chosen, Content, Wanted, choose
from streamlstm.history.report import shown

BATCH_ROWS = 65_536
SAMPLE_ROWS = 200

_ZONE_NOTE = "times without an offset were taken for UTC"
_PER_MS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
"""How a unit becomes milliseconds: multiply by the first, divide by the second."""


def read_parquet(collector: Collector, where: str, stream: str, wanted: Wanted) -> None:
    """Add every row of the file; `stream` is the one stream of a file without a column of streams.

    Raises InputMissingError, BadDataError, UsageError.
    """
    arrow, module = load("pyarrow", where), load("pyarrow.parquet", where)
    collector.begin_source(where)
    try:
        with module.ParquetFile(where, buffer_size=1 << 20, pre_buffer=False) as file:
            _read(collector, file, where, stream, wanted)
    except arrow.ArrowException as error:
        raise BadDataError(f"{where}: expected Parquet: {shown(str(error))}") from error
    except OSError as error:
        if error.errno:
            raise InputMissingError(f"{where}: cannot be read: {error.strerror or error}") from error
        raise BadDataError(f"{where}: expected Parquet: {shown(str(error))}") from error


def _read(collector: Collector, file: Any, where: str, stream: str, wanted: Wanted) -> None:
    schema = file.schema_arrow
    if not file.metadata.num_rows:
        raise BadDataError(f"{where}: expected rows of events, found none")
    contents = _contents(file, wanted)
    chosen = choose(schema.names, contents, wanted, where, lambda column: _cells(file, schema.names[column]))
    for note in chosen.notes:
        collector.report.note(note)
    used = sorted({chosen.time, *chosen.values, *([] if chosen.stream is None else [chosen.stream])})
    names = [schema.names[i] for i in used]
    reader = _Reader(collector, where, stream, wanted, chosen, schema)
    for part in file.iter_batches(BATCH_ROWS, columns=names, use_threads=False):
        reader.add({i: part.column(name) for i, name in zip(used, names, strict=True)})


def _contents(file: Any, wanted: Wanted) -> list[Content]:
    """By the columns' types, and of text by the first rows."""
    schema = file.schema_arrow
    texts = [field.name for field in schema if is_text(field.type) and schema.names.count(field.name) == 1]
    sample = next(file.iter_batches(SAMPLE_ROWS, columns=texts, use_threads=False), None) if texts else None
    samples = {name: [cell or "" for cell in sample.column(name).to_pylist()] for name in texts} if sample else {}
    return [
        content_of(samples[field.name], wanted.fields.time_unit) if field.name in samples else _content(field.type)
        for field in schema
    ]


def _cells(file: Any, name: str) -> list[str]:
    """The first cells of a column, as texts."""
    return list(map(str, next(file.iter_batches(SAMPLE_ROWS, columns=[name], use_threads=False)).column(0)))


def _content(array_type: Any) -> Content:
    types = load("pyarrow.types", "pyarrow")
    if types.is_timestamp(array_type) or types.is_date(array_type):
        return Content.TIME
    if _is_number(array_type):
        return Content.NUMBER
    if is_text(array_type):
        return Content.TEXT
    return Content.EMPTY if types.is_null(array_type) else Content.OTHER


def _is_number(array_type: Any) -> bool:
    types = load("pyarrow.types", "pyarrow")
    return bool(types.is_integer(array_type) or types.is_floating(array_type) or types.is_decimal(array_type))


class _Reader:
    def __init__(
        self, collector: Collector, where: str, stream: str, wanted: Wanted, chosen: Chosen, schema: Any
    ) -> None:
        self.collector = collector
        self.where = where
        self.stream = stream.encode("utf-8", "replace")
        self.unit = wanted.fields.time_unit
        self.chosen = chosen
        self.schema = schema
        self.batch = EventBatch(1 if chosen.wide else len(chosen.values), np.zeros(0, np.uint8), 1024)
        self.row = 1

    def add(self, columns: dict[int, Any]) -> None:
        n = len(columns[self.chosen.time])
        values = [(value,) for value in self.chosen.values] if self.chosen.wide else [self.chosen.values]
        for some in values:
            if self.chosen.wide:
                name = self.schema.names[some[0]].strip().encode()
                keep = np.flatnonzero(columns[some[0]].is_valid().to_numpy(zero_copy_only=False))
                self._add_rows(
                    {i: columns[i].take(_indices(keep)) for i in (self.chosen.time, *some)}, keep, some, name
                )
            else:
                self._add_rows(columns, np.arange(n), some, self.stream)
        self.row += n

    def _add_rows(
        self, columns: dict[int, Any], rows: NDArray[np.int64], values: tuple[int, ...], stream: bytes
    ) -> None:
        batch, n = self.batch, len(rows)
        batch.clear()
        batch.reserve_rows(n)
        batch.offset[:n] = self.row + rows
        batch.timestamp[:n] = -1
        batch.value_at[:n] = -1
        batch.reason[:n] = Reason.OK
        batch.extend_run(self.where, 0, n)
        self._place_streams(columns, stream)
        self._place_times(columns[self.chosen.time])
        for k, value in enumerate(values):
            self._place_inputs(columns[value], k, value)
        clear_refused(batch)
        self.collector.add(batch)

    def _place_streams(self, columns: dict[int, Any], stream: bytes) -> None:
        batch, n = self.batch, self.batch.n
        if self.chosen.stream is None:
            at = np.full(n, batch.append_payload(stream))
            place_streams(batch, Spans(at, np.full(n, len(stream))))
            return
        column = columns[self.chosen.stream]
        arrow = load("pyarrow", self.where)
        if not is_text(column.type):
            if not arrow.types.is_integer(column.type):
                raise self._wrong(self.chosen.stream, column.type, "text or whole numbers, as stream ids")
            column = column.cast(arrow.string())
        place_streams(batch, text_spans(batch, column))

    def _place_times(self, column: Any) -> None:
        batch, n = self.batch, self.batch.n
        if is_text(column.type):
            if place_times(batch, text_spans(batch, column), self.unit):
                self.collector.report.note(_ZONE_NOTE)
            return
        time, bad = self._times(column)
        bad |= (time < EARLIEST_MS) | (time > LATEST_MS)
        batch.event_time[:n] = time
        batch.reason[:n][bad & (batch.reason[:n] == Reason.OK)] = Reason.BAD_TIME

    def _times(self, column: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Epoch ms int64 [n], rounded down, and which are no times."""
        types = load("pyarrow.types", "pyarrow")
        if types.is_timestamp(column.type):
            if column.type.tz is None:
                self.collector.report.note(_ZONE_NOTE)
            return _scaled(*integers(column), *_PER_MS[column.type.unit])
        if types.is_date(column.type):
            return _scaled(*integers(column), 86_400_000 if types.is_date32(column.type) else 1, 1)
        if types.is_integer(column.type):
            return _scaled(*integers(column), *_PER_MS[self.unit])
        if types.is_floating(column.type) or types.is_decimal(column.type):
            number, bad = reals(column)
            # a float64 holds few fractions of a second exactly: rounded to the microsecond first, as raw events are
            microseconds = np.rint(number * 10.0 ** (6 - DECIMALS[self.unit]))
            bad |= ~(np.abs(microseconds) < 1e18)
            return np.where(bad, 0, microseconds).astype(np.int64) // 1000, bad
        raise self._wrong(self.chosen.time, column.type, "times: timestamps, dates, text or numbers")

    def _place_inputs(self, column: Any, k: int, place: int) -> None:
        batch, n = self.batch, self.batch.n
        keep_missing = self.collector.rules.keep_missing
        if is_text(column.type):
            place_inputs(batch, text_spans(batch, column), k, keep_missing=keep_missing)
            return
        types = load("pyarrow.types", "pyarrow")
        if not (_is_number(column.type) or types.is_null(column.type)):
            raise self._wrong(place, column.type, "numbers")
        number, null = reals(column)
        open_rows = batch.reason[:n] == Reason.OK
        batch.x[:n, k] = number
        batch.reason[:n][open_rows & ~null & ~np.isfinite(number)] = Reason.NOT_FINITE
        if not keep_missing:
            batch.reason[:n][open_rows & null] = Reason.NULL_VALUE

    def _wrong(self, place: int, array_type: Any, expected: str) -> BadDataError:
        name = shown(self.schema.names[place])
        return BadDataError(f"{self.where}: column {name!r}: expected {expected}; found {shown(str(array_type))}")


def _scaled(
    number: NDArray[np.int64], bad: NDArray[np.bool_], factor: int, divisor: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`number` times `factor`, divided and rounded down; what would leave int64 is bad."""
    if factor > 1:
        bad = bad | (np.abs(number) > (1 << 62) // factor) | (number == np.iinfo(np.int64).min)
        number = np.where(bad, 0, number)
    return number * factor // divisor, bad


def _indices(rows: NDArray[np.int64]) -> Any:
    return load("pyarrow", "pyarrow").array(rows)
