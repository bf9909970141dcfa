"""Files and folders of them to one History."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamlstm.errors import BadDataError, InputMissingError
from streamlstm.history.collector import Collector, Rules
from streamlstm.history.columns import Wanted
from streamlstm.history.csv_file import read_csv
from streamlstm.history.history import History
from streamlstm.history.lines import read_lines
from streamlstm.history.opening import STDIN, Progress, open_source
from streamlstm.history.parquet_file import read_parquet
from streamlstm.history.report import Report

Format = Literal["csv", "lines", "parquet"]

FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "lines",
    ".parquet": "parquet",
    ".pq": "parquet",
}
PACKED = (".gz", ".zst")

_PARQUET = b"PAR1"


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read: its path, or "-"; the stream that it is where it names none."""

    path: str
    stream: str


def read_files(paths: Sequence[str], wanted: Wanted, rules: Rules, progress: Progress = lambda read: None) -> History:
    """One history of files, folders (all files below them whose names end as FORMATS say, sorted) and "-", standard
    input as JSON lines. The format goes by the name, compression apart (gzip, zstd), else by the first bytes.

    Raises InputMissingError, BadDataError, UsageError.
    """
    collector = Collector(wanted.fields.inputs, rules)
    for source in sources_of(paths, collector.report):
        _read(collector, source, wanted, progress)
    return collector.finish()


def total_bytes(paths: Sequence[str]) -> int:
    """What `progress` will have been told of in the end, about; 0 where it can't be known."""
    files = [each for each in sources_of(paths, Report()) if each.path != STDIN]
    return sum(os.path.getsize(each.path) for each in files if os.path.isfile(each.path))


def sources_of(paths: Sequence[str], report: Report) -> list[Source]:
    """The files in the order in which they are read, each once. Raises InputMissingError."""
    found = dict.fromkeys(path for given in paths for path in _expanded(given, report))
    if not found:
        raise InputMissingError("history: expected a file or a folder, found none")
    stems = [stem_of(path) for path in found]
    return [
        Source(path, stem if stems.count(stem) == 1 else os.path.splitext(path)[0])
        for path, stem in zip(found, stems, strict=True)
    ]


def _expanded(given: str, report: Report) -> Iterator[str]:
    if given == STDIN or not os.path.isdir(given):
        if os.path.exists(given) and not os.path.isfile(given):  # what a first look takes from a pipe is gone
            raise InputMissingError(f"{given}: expected a file or a folder, found neither; - reads standard input")
        yield given
        return
    files = sorted(str(path) for path in Path(given).rglob("*") if path.is_file() and not path.name.startswith("."))
    known = [path for path in files if _suffix(path) in FORMATS]
    if not known:
        raise InputMissingError(f"{given}: expected files ending in {', '.join(FORMATS)}; found {len(files)} others")
    if len(known) < len(files):
        report.note(f"{given}: {len(files) - len(known):,} files passed over: their names end otherwise")
    yield from known


def _unpacked(path: str) -> Path:
    """The name without the ending of its compression."""
    plain = Path(path)
    return plain.with_suffix("") if plain.suffix.lower() in PACKED else plain


def _suffix(path: str) -> str:
    return _unpacked(path).suffix.lower()


def stem_of(path: str) -> str:
    """The stream that a file is where it names none."""
    return "stdin" if path == STDIN else _unpacked(path).stem


def known_format(path: str, head: bytes) -> Format:
    """By the name, compression apart, else by the first bytes."""
    known = FORMATS.get(_suffix(path))
    if head.startswith(_PARQUET):
        return "parquet"
    return known or ("lines" if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") else "csv")


def _read(collector: Collector, source: Source, wanted: Wanted, progress: Progress) -> None:
    path = source.path
    kind = format_of(path)
    if kind == "parquet":
        read_parquet(collector, path, source.stream, wanted)
        progress(os.path.getsize(path))
    elif kind == "csv":
        told = [lambda read: None, progress]  # it is opened for a look at first
        read_csv(collector, lambda: open_source(path, told.pop(0)), path, source.stream, wanted)
    else:
        with open_source(path, progress) as file:
            read_lines(collector, file, "stdin" if path == STDIN else path, source.stream, wanted.fields)


def format_of(path: str) -> Format:
    """By its name, or by a first look at it. Raises InputMissingError, BadDataError."""
    if path == STDIN:
        return "lines"
    with open_source(path, lambda read: None) as file:
        head = file.peek(64)
    known = known_format(path, head)
    if known != "parquet" and not head:
        raise BadDataError(f"{path}: expected events, found an empty file")
    return known
