"""`streamlstm forecast`: the daemon's path from a file to a file, without a broker.

The values written are the very bytes that the daemon puts in its records for the same events: same decoder, same
engine, same printer. `src` names the topic and partition it is told to, and counts the events as offsets.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from streamlstm.config import Config
from streamlstm.engine.forecaster import Forecaster, refused
from streamlstm.errors import BadDataError, UsageError
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.decode import JsonDecoder
from streamlstm.events.encode import ForecastEncoder
from streamlstm.events.fields import FieldPaths
from streamlstm.events.lines import append_lines, line_spans
from streamlstm.history.columns import Wanted
from streamlstm.history.csv_lines import CsvLines
from streamlstm.history.files import known_format, stem_of
from streamlstm.history.opening import PACKED, STDIN, open_source
from streamlstm.model.model_file import Model, load
from streamlstm.service.wiring import field_paths, forecaster_settings, thread_count
from streamlstm.transport import files


@dataclass(frozen=True, slots=True)
class OfflineOptions:
    """What `streamlstm forecast` was asked for. Paths may be "-"; all are different files.

    `format` auto goes by the file's name, then by its first byte. `dead_letters` is where bad events go as JSON lines;
    None: they are only counted. The columns of CSV are named, or found by their names (history.columns).
    """

    model: Path
    input: str
    output: str
    format: Literal["auto", "jsonl", "csv"] = "auto"
    batch_size: int = 20_000
    threads: int = 1
    topic: str = ""
    partition: int = 0
    first_offset: int = 0
    dead_letters: str | None = None
    stream_column: str | None = None
    time_column: str | None = None
    value_columns: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """What came of the events. `notes` say what was taken for granted of the columns of CSV."""

    events: int
    forecasts: int
    refused: Counter[str]
    notes: tuple[str, ...] = ()


def forecast(options: OfflineOptions, config: Config, progress: Callable[[int], None]) -> Tally:
    """Forecast every event of the input, in input order; `progress` is told the bytes read since the last time.

    Raises InputMissingError, ModelFileError, BadDataError.
    """
    model = load(options.model)
    with ExitStack() as stack:
        source = stack.enter_context(open_source(options.input, progress))
        blocks, paths = _read(source, options, config, model)
        left = iter(blocks)
        begun = list(islice(left, 1))  # what can't be read has emptied no output
        executor = stack.enter_context(ThreadPoolExecutor(thread_count(options.threads), "step"))
        # a line has no record timestamp that its event could be ahead of
        settings = replace(forecaster_settings(config, thread_count(options.threads)), max_ahead_ms=None)
        forecaster = Forecaster(model, settings, executor)
        output = stack.enter_context(files.open_output(options.output))
        letters = stack.enter_context(files.open_output(options.dead_letters)) if options.dead_letters else None
        run = _Run(model, paths, options.topic or config.input.topic, options, forecaster, output, letters)
        for block in chain(begun, left):
            run.forecast(block)
    run.tally.notes = blocks.notes if isinstance(blocks, CsvLines) else ()
    return run.tally


def _read(
    source: io.BufferedReader, options: OfflineOptions, config: Config, model: Model
) -> tuple[Iterable[bytes], FieldPaths]:
    """Blocks of whole JSON lines, and where the fields stand in them. CSV is rewritten with the default names."""
    where = "stdin" if options.input == STDIN else options.input
    head = source.peek(64)
    paths = field_paths(config, model.inputs)
    found = known_format(options.input, head) if head else "lines"
    if found == "parquet" or head.startswith(PACKED):
        name = "Parquet (backtest --output forecasts it)" if found == "parquet" else "compressed bytes: unpack them"
        raise BadDataError(f"{where}: expected CSV or JSON lines, found {name}")
    wanted = Wanted(paths, options.stream_column, options.time_column, options.value_columns)
    if options.format == "csv" or (options.format == "auto" and found == "csv"):
        lines = CsvLines(source, where, stem_of(options.input), wanted)
        return lines, FieldPaths(inputs=model.inputs, time_unit=config.input.time_unit)
    if options.stream_column or options.time_column or options.value_columns:
        raise UsageError(
            f"{where}: expected CSV, as its columns are named; found JSON lines, whose fields are settings (input)"
        )
    return files.read_lines(source), paths


class _Run:
    """One pass over a file: blocks of lines in, forecasts out."""

    def __init__(
        self,
        model: Model,
        paths: FieldPaths,
        topic: str,
        options: OfflineOptions,
        forecaster: Forecaster,
        output: BinaryIO,
        letters: BinaryIO | None,
    ) -> None:
        self.options = options
        self.topic = topic
        self.decoder = JsonDecoder(paths, lets_missing=forecaster.settings.missing != "dead_letter")
        self.forecaster = forecaster
        self.encoder = ForecastEncoder(model.model_hash[:12], model.horizons, level=model.level)
        self.batch = EventBatch(inputs=len(model.inputs), payload=np.zeros(0, np.uint8), capacity=options.batch_size)
        self.output = output
        self.letters = letters
        self.tally = Tally(0, 0, Counter())

    def forecast(self, block: bytes) -> None:
        starts, lengths = line_spans(block)
        size = self.options.batch_size
        for first in range(0, len(starts), size):
            part = slice(first, first + size)
            offset = self.options.first_offset + self.tally.events
            self.batch.clear()
            append_lines(self.batch, block, starts[part], lengths[part], self.topic, self.options.partition, offset)
            self._forecast_batch()

    def _forecast_batch(self) -> None:
        batch = self.batch
        self.decoder.decode(batch, 0, batch.n)
        forecasts = self.forecaster.forecast(batch)
        values = self.encoder.values(batch, forecasts, np.flatnonzero(batch.reason[: batch.n] == Reason.OK))
        bad = refused(batch)
        self.output.write(b"".join(value + b"\n" for value in values))
        self.output.flush()
        for row in bad.tolist():
            self._write_dead_letter(row)
        self.tally.events += batch.n
        self.tally.forecasts += len(values)

    def _write_dead_letter(self, row: int) -> None:
        batch = self.batch
        reason = Reason(int(batch.reason[row])).label
        self.tally.refused[reason] += 1
        if self.letters is not None:
            at = int(batch.value_at[row])
            value = batch.payload[at : at + int(batch.value_len[row])].tobytes().decode("utf-8", "backslashreplace")
            letter = {"offset": int(batch.offset[row]), "reason": reason, "value": value}
            self.letters.write(json.dumps(letter, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
