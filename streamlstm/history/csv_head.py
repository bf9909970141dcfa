"""What the head of a CSV file says of it: delimiter, header, and which column is what."""

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from streamlstm.errors import BadDataError
from streamlstm.events.fields import TimeUnit
from streamlstm.history.cells import content_of
from streamlstm.history.columns import Chosen, Content, Wanted, choose, usual_names

HEAD_BYTES = 1 << 18
SAMPLE_ROWS = 200

_DELIMITERS = ",;\t|"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class CsvHead:
    """`first` is how many rows, empty ones too, stand before the rows of events; `names` are those of the columns, or
    their numbers where there is no header. `notes` say what was taken for granted.
    """

    delimiter: str
    names: list[str]
    first: int
    chosen: Chosen
    notes: tuple[str, ...]


def csv_head(head: bytes, where: str, wanted: Wanted) -> CsvHead | None:
    """Of a file that begins with `head`, HEAD_BYTES of it where it has so many; None where there are no rows, or only a
    header. Raises BadDataError, UsageError.
    """
    text = _text(head, where)
    delimiter, notes = wanted.delimiter, list[str]()
    if delimiter is None:
        delimiter = _delimiter(text, where)
        if delimiter != "," and not _is_tsv(where):
            notes.append(f"{where}: columns are separated by {delimiter!r}")
    rows = _rows(text, delimiter, where, len(head) == HEAD_BYTES)
    at = next((i for i, row in enumerate(rows) if any(cell.strip() for cell in row)), None)
    if at is None:
        return None
    names, first, sample = rows[at], at + 1, [row for row in rows[at + 1 :] if row]
    if not _is_header(names, sample, wanted):
        notes.append(f"{where}: the first row is no header; columns go by number")
        names, first, sample = [str(i + 1) for i in range(len(names))], at, [names, *sample]
    if not sample:
        return None
    columns = _columns(sample, len(names))
    contents = [content_of(cells, wanted.fields.time_unit) for cells in columns]
    chosen = choose(names, contents, wanted, where, columns.__getitem__)
    return CsvHead(delimiter, names, first, chosen, (*notes, *chosen.notes))


def _text(head: bytes, where: str) -> str:
    if head.startswith(_UTF_16):
        raise BadDataError(f"{where}: expected UTF-8, found UTF-16")
    if b"\0" in head.lstrip(b"\r\n").partition(b"\n")[0]:
        raise BadDataError(f"{where}: expected text, found a zero byte in the first line: binary?")
    plain = head.removeprefix(codecs.BOM_UTF8)
    try:  # the end of the head may have cut a letter
        return codecs.getincrementaldecoder("utf-8")().decode(plain, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError as error:
        at = len(head) - len(plain) + error.start
        raise BadDataError(f"{where}: expected UTF-8, found byte {head[at]:#04x} at {at}") from error


def _is_tsv(where: str) -> bool:
    return where.removesuffix(".gz").removesuffix(".zst").lower().endswith(".tsv")


def _delimiter(text: str, where: str) -> str:
    if _is_tsv(where):
        return "\t"
    header = text.lstrip("\r\n").partition("\n")[0]
    return next((each for each in _DELIMITERS if each in header), ",")


def _rows(text: str, delimiter: str, where: str, cut: bool) -> list[list[str]]:
    """The first rows; one that the end of the head may have cut is left out."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            rows.append(row)
            if len(rows) > SAMPLE_ROWS:
                return rows
    except csv.Error as error:  # a field beyond the limit of this module; below the header pyarrow decides
        if len(rows) < 2:
            raise BadDataError(f"{where}: row {len(rows) + 1}: expected CSV: {error}") from error
        return rows
    return rows[:-1] if cut and len(rows) > 1 else rows


def _is_header(first: Sequence[str], below: Sequence[Sequence[str]], wanted: Wanted) -> bool:
    """Whether the first row names the columns. Names may be numbers, as in a table by the number of a shop: then it is
    one by a name that is asked for or usual, unless that comes again below, or by words on top of a column of times.
    """
    unit: TimeUnit = wanted.fields.time_unit
    kinds = [content_of([cell], unit) for cell in first]
    if not {Content.NUMBER, Content.TIME} & set(kinds):
        return True
    columns, usual = _columns(below, len(first)), usual_names(wanted)
    for cell, kind, cells in zip(first, kinds, columns, strict=True):
        name = cell.strip().lower()
        if kind is not Content.NUMBER and name in usual and cell not in cells:
            return True
    if Content.TIME in kinds:
        return False
    contents = [content_of(cells, unit) for cells in columns]
    if Content.TIME in contents:
        at = contents.index(Content.TIME)
        return kinds[at] is Content.TEXT or (at == 0 and not first[0].strip())  # pandas leaves an index without a name
    return kinds[0] is Content.TEXT and contents[0] is Content.NUMBER


def _columns(rows: Sequence[Sequence[str]], width: int) -> list[tuple[str, ...]]:
    """The cells of each of `width` columns; of a row with more or fewer what there is."""
    return [tuple(row[i] if i < len(row) else "" for row in rows) for i in range(width)]
