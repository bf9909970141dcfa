"""CSV to a history: cut into cells by pyarrow, the cells read by the rules for events."""

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import BadDataError
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.history.arrow import load, text_spans
from streamlstm.history.cells import Spans, clear_refused, place_inputs, place_streams, place_times
from streamlstm.history.collector import Collector
from streamlstm.history.columns import Wanted
from streamlstm.history.csv_head import HEAD_BYTES, CsvHead, csv_head
from streamlstm.history.report import Kind, shown

BLOCK_BYTES = 4 << 20
_LONG_CELL = 200
_ROW = re.compile(r"Row #([0-9]+)")
_ZONE_NOTE = "times without an offset were taken for UTC"


def read_csv(collector: Collector, opened: Callable[[], BinaryIO], where: str, stream: str, wanted: Wanted) -> None:
    """Add every row of the file that `opened` opens, each time from its start; `stream` is the one stream of a file
    without a column of streams. Raises BadDataError, UsageError.
    """
    load("pyarrow.csv", where)
    collector.begin_source(where)
    with opened() as file:
        head = csv_head(file.read(HEAD_BYTES), where, wanted)
    if head is None:
        raise BadDataError(f"{where}: expected a header and rows of events below it, found none")
    for note in head.notes:
        collector.report.note(note)
    with opened() as file:
        _Reader(collector, where, stream, wanted, head).read(file)


class _Reader:
    def __init__(self, collector: Collector, where: str, stream: str, wanted: Wanted, head: CsvHead) -> None:
        self.collector = collector
        self.where = where
        self.stream = stream.encode("utf-8", "replace")
        self.unit = wanted.fields.time_unit
        self.head = head
        self.chosen = head.chosen
        self.batch = EventBatch(1 if self.chosen.wide else len(self.chosen.values), np.zeros(0, np.uint8), 1024)
        self.ragged: list[int] = []  # the numbers of ragged rows that come behind the rows taken so far
        self.example = ""

    def read(self, file: BinaryIO) -> None:
        arrow = load("pyarrow", self.where)
        row = self.head.first + 1
        try:
            for part in self._parts(file):
                numbers = self._numbers(row, part.num_rows)
                if len(numbers):
                    row = int(numbers[-1]) + 1
                self._add(part, numbers)
        except arrow.ArrowInvalid as error:
            named = _ROW.search(str(error))
            where = f"row {named[1]}" if named else f"behind row {row - 1:,}"
            raise BadDataError(f"{self.where}: {where}: {_reason(str(error))}") from error
        self._count_ragged(len(self.ragged))

    def _parts(self, file: BinaryIO) -> Iterator[Any]:
        arrow, module = load("pyarrow", self.where), load("pyarrow.csv", self.where)
        columns = [str(i) for i in range(len(self.head.names))]
        used = {self.chosen.time, *self.chosen.values, *([] if self.chosen.stream is None else [self.chosen.stream])}
        reader = module.open_csv(
            file,
            read_options=module.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=columns, skip_rows_after_names=self.head.first
            ),
            parse_options=module.ParseOptions(
                delimiter=self.head.delimiter, newlines_in_values=True, ignore_empty_lines=False,
                invalid_row_handler=self._skip,
            ),
            convert_options=module.ConvertOptions(
                column_types=dict.fromkeys(columns, arrow.string()), include_columns=[str(i) for i in sorted(used)],
                strings_can_be_null=False,
            ),
        )  # fmt: skip
        with reader:
            yield from reader

    def _skip(self, row: Any) -> str:
        """What pyarrow calls for a row with another number of columns."""
        if not self.example:
            self.example = row.text
        self.ragged.append(row.number)
        return "skip"

    def _numbers(self, first: int, count: int) -> NDArray[np.int64]:
        """The numbers in the file, from 1 on, of the next `count` rows that aren't ragged, from row `first` on."""
        numbers = np.arange(first, first + count)
        passed = 0
        for ragged in self.ragged:
            if passed == count or ragged > numbers[-1]:
                break
            numbers[ragged - first - passed :] += 1
            passed += 1
        self._count_ragged(passed)
        return numbers

    def _count_ragged(self, count: int) -> None:
        if count:
            self.collector.report.add(
                Kind.RAGGED_ROW, count, f"{self.where}:{self.ragged[0]}", found=self.example.strip()
            )
            self.collector.report.rows_read += count
            del self.ragged[:count]

    def _add(self, part: Any, numbers: NDArray[np.int64]) -> None:
        batch, chosen = self.batch, self.chosen
        batch.clear()
        batch.reserve_rows(len(numbers))
        cells = {int(name): text_spans(batch, part.column(name)) for name in part.schema.names}
        blank = np.all([each.length == 0 for each in cells.values()], axis=0)
        if chosen.wide:
            used = batch.payload_used
            for value in chosen.values:
                rows = np.flatnonzero(~blank & (cells[value].length > 0))  # an empty cell of a wide table is no event
                batch.n, batch.payload_used = 0, used
                batch.runs.clear()
                self._add_rows(cells, rows, numbers, (value,), self.head.names[value].strip().encode())
            return
        self._add_rows(cells, np.flatnonzero(~blank), numbers, chosen.values, self.stream)

    def _add_rows(
        self,
        cells: dict[int, Spans],
        rows: NDArray[np.int64],
        numbers: NDArray[np.int64],
        values: tuple[int, ...],
        stream: bytes,
    ) -> None:
        batch, n = self.batch, len(rows)
        if self.chosen.stream is None:
            at = np.full(n, batch.append_payload(stream))
            streams = Spans(at, np.full(n, len(stream)))
        else:
            streams = cells[self.chosen.stream][rows]
        batch.offset[:n] = numbers[rows]
        batch.timestamp[:n] = -1
        batch.value_at[:n], batch.value_len[:n] = -1, 0
        batch.reason[:n] = Reason.OK
        batch.extend_run(self.where, 0, n)
        place_streams(batch, streams)
        if place_times(batch, cells[self.chosen.time][rows], self.unit):
            self.collector.report.note(_ZONE_NOTE)
        for k, value in enumerate(values):
            place_inputs(batch, cells[value][rows], k, keep_missing=self.collector.rules.keep_missing)
        long = np.flatnonzero(batch.value_len[:n] > _LONG_CELL)
        if len(long):
            where, size = f"{self.where}:{batch.offset[long[0]]}", batch.value_len[long[0]]
            self.collector.report.note(f"{where}: a cell of {size:,} bytes; is a quote left open?")
        clear_refused(batch)
        self.collector.add(batch)


def _reason(message: str) -> str:
    """pyarrow's words in ours, where it says what can happen to a file."""
    if "straddling" in message:
        return f"expected rows of less than {BLOCK_BYTES:,} bytes, found a longer one (a quote that isn't closed?)"
    if "UTF8" in message:
        return "expected UTF-8, found other bytes"
    return f"expected CSV: {shown(message)}"
