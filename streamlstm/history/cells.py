"""Cells of a table as spans of an EventBatch's payload, to its times, inputs and streams."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.fields import TimeUnit
from streamlstm.events.times import DECIMALS, EARLIEST_MS, LATEST_MS, parse_time
from streamlstm.history.columns import Content
from streamlstm.kernels.cells import read_reals, read_times

MISSING = frozenset({"", "null", "none", "na", "n/a", "nil", "-", "?"})
_NOT_FINITE = frozenset({"nan", "inf", "infinity"})
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SHORT_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2})(?::([0-9]{2}(?:\.[0-9]+)?))?(.*)")
_SHORT_OFFSET = re.compile(r"([-+][0-9]{2}):?([0-9]{2})?")


@dataclass(slots=True)
class Spans:
    """Where the cells of a column stand in a payload: int64 [n] each; -1 for null."""

    at: NDArray[np.int64]
    length: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.int64]) -> "Spans":
        return Spans(self.at[rows], self.length[rows])


def place_streams(batch: EventBatch, cells: Spans) -> None:
    """The cells are the stream ids of all rows; an empty one is a reason against its row."""
    n = batch.n
    batch.stream_at[:n], batch.stream_len[:n] = cells.at, cells.length
    batch.reason[:n][(cells.length == 0) & (batch.reason[:n] == Reason.OK)] = Reason.NO_KEY


def place_times(batch: EventBatch, cells: Spans, unit: TimeUnit) -> int:
    """The cells are the event times; returns how many of them are texts without an offset from UTC, and so in UTC."""
    n = batch.n
    handed_on = np.empty(n, np.int64)
    count, naive = read_times(
        batch.payload, 0, n, cells.at, cells.length, DECIMALS[unit], EARLIEST_MS, LATEST_MS, batch.event_time,
        batch.reason, handed_on,
    )  # fmt: skip
    for row in handed_on[:count].tolist():
        text = _text(batch, cells, row)
        time = time_of(text, unit)
        if time is None:
            batch.reason[row] = Reason.BAD_TIME
            _point_at(batch, cells, row)
        else:
            batch.event_time[row] = time
            naive += _SHORT_TIME.fullmatch(text) is not None and not has_offset(text)
    return int(naive)


def place_inputs(batch: EventBatch, cells: Spans, column: int, *, keep_missing: bool) -> None:
    """The cells are the inputs number `column`, as text; with `keep_missing` one that isn't there is NaN."""
    n = batch.n
    handed_on = np.empty(n, np.int64)
    missing = Reason.OK if keep_missing else Reason.NULL_VALUE
    count = read_reals(
        batch.payload, 0, n, cells.at, cells.length, column, missing, batch.x, batch.reason, handed_on
    )  # fmt: skip
    for row in handed_on[:count].tolist():
        number = number_of(_text(batch, cells, row))
        if isinstance(number, float):
            batch.x[row, column] = number
        elif number is Reason.NULL_VALUE and keep_missing:
            batch.x[row, column] = np.nan
        else:
            batch.reason[row] = number
            _point_at(batch, cells, row)


def clear_refused(batch: EventBatch) -> None:
    """Rows with a reason have no stream, no inputs, and no time of their own."""
    rows = np.flatnonzero(batch.reason[: batch.n] != Reason.OK)
    batch.stream_at[rows], batch.stream_len[rows] = -1, 0
    batch.event_time[rows] = batch.timestamp[rows]
    batch.x[rows] = np.nan


def number_of(text: str) -> float | Reason:
    """The number that a cell says, in more ways than JSON knows (`+1`, `.5`, `007`), or the reason why not."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else Reason.NOT_FINITE
    if text.lower() in MISSING:
        return Reason.NULL_VALUE
    return Reason.NOT_FINITE if text.lower().lstrip("+-") in _NOT_FINITE else Reason.WRONG_TYPE


def time_of(text: str, unit: TimeUnit) -> int | None:
    """Epoch ms of a cell, as events.times.parse_time, and of ISO 8601 without seconds or with an offset like +0200."""
    text = text.strip()
    found = parse_time(text, unit)
    return parse_time(whole_time(text), unit) if found is None else found


def whole_time(text: str) -> str:
    """ISO 8601 without seconds, or with an offset like +0200, as RFC 3339 has it; other texts as they are."""
    match = _SHORT_TIME.fullmatch(text)
    if match is None:
        return text
    offset = _SHORT_OFFSET.fullmatch(match[3])
    zone = f"{offset[1]}:{offset[2] or '00'}" if offset else match[3]
    return f"{match[1]}:{match[2] or '00'}{zone}"


def has_offset(text: str) -> bool:
    """Whether a date and time says its offset from UTC."""
    return text.rstrip().endswith(("Z", "z")) or any(sign in text.strip()[10:] for sign in "+-")


def content_of(cells: Sequence[str], unit: TimeUnit) -> Content:
    """What most of some cells of a column are."""
    given = [cell.strip() for cell in cells if cell.strip().lower() not in MISSING]
    if not given:
        return Content.EMPTY
    numbers = sum(number_of(cell) is not Reason.WRONG_TYPE for cell in given)
    if 2 * numbers > len(given):
        return Content.NUMBER
    times = sum(time_of(cell, unit) is not None for cell in given)
    return Content.TIME if 2 * times > len(given) else Content.TEXT


def _text(batch: EventBatch, cells: Spans, row: int) -> str:
    at, size = int(cells.at[row]), int(cells.length[row])
    return batch.payload[at : at + size].tobytes().decode("utf-8", "replace") if at >= 0 else ""


def _point_at(batch: EventBatch, cells: Spans, row: int) -> None:
    """What is shown of the row is the cell that is wrong."""
    batch.value_at[row], batch.value_len[row] = cells.at[row], cells.length[row]
