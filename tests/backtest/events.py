"""Tables of past events as the records that a producer would have sent: by another reader than the backtest's.

`backtest FILE` takes a table's columns whole, through pyarrow. Here it is read row by row, as `streamlstm forecast`
reads it: the digits of a cell are those of the record, and the daemon's decoder makes the number.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from pathlib import Path

import numpy as np

from streamlstm.events.fields import FieldPaths
from streamlstm.events.times import EARLIEST_MS, parse_time
from streamlstm.history.columns import Wanted
from streamlstm.history.csv_lines import CsvLines
from streamlstm.history.files import sources_of
from streamlstm.history.opening import open_source
from streamlstm.history.report import Report

HOUR_MS = 3_600_000
FIRST_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """A record's key, "" where the row names no stream, and its value; None begins the stream anew."""

    stream: str
    value: bytes | None


def events_of(paths: Sequence[str], inputs: tuple[str, ...]) -> list[Event]:
    """The rows of CSV files, and folders of them, in the order of time; but none before one of its stream that stands
    in front of it. Rows that can't be read are events too: the daemon refuses them.
    """
    wanted = Wanted(FieldPaths(inputs=inputs))
    timed: list[tuple[int, Event]] = []
    latest: dict[str, int] = {}
    for source in sources_of(tuple(paths), Report()):
        with open_source(source.path, lambda read: None) as file:
            for line in _lines(CsvLines(file, source.path, source.stream, wanted)):
                row = json.loads(line)
                stream = row["stream"] if isinstance(row, dict) else ""
                time = parse_time(str(row["ts"]), "ms") if isinstance(row, dict) else None
                latest[stream] = max(latest.get(stream, EARLIEST_MS), EARLIEST_MS if time is None else time)
                timed.append((latest[stream], Event(stream, line)))
    timed.sort(key=lambda each: each[0])
    return [event for _, event in timed]


def _lines(blocks: CsvLines) -> Iterator[bytes]:
    for block in blocks:
        yield from block.splitlines()


def write_series(path: Path, series: dict[str, Sequence[float]], starts: dict[str, int] | None = None) -> Path:
    """Hourly series as a long table, in the order of time; `starts`: the hour in which one begins, if not the first."""
    begin = starts or {}
    rows = [
        [(begin.get(name, 0) + t, name, value) for t, value in enumerate(np.asarray(values).tolist())]
        for name, values in series.items()
    ]
    with path.open("w") as file:
        file.write("stream,ts,value\n")
        for hour, name, value in merge(*rows, key=lambda row: row[0]):
            file.write(f"{name},{FIRST_MS + HOUR_MS * hour},{value!r}\n")
    return path
