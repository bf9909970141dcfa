"""Cells of tables: what the kernels read is what the slower readers say, and what they hand on those decide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.times import parse_time
from streamlstm.history.cells import (
    MISSING,
    Spans,
    clear_refused,
    has_offset,
    number_of,
    place_inputs,
    place_times,
    time_of,
)

NUMBERS = [
    "0", "-0", "1", "1.5", "-2e3", "1e-400", "5e-324", "1e308", "1e309", "0.1000000000000000055", "9" * 19, "9" * 400,
    "1" + "0" * 39, " 5 ", "\t5", "+1", ".5", "5.", "007", "1e5", "1E+5", "1e", "e5", "-", "--1", "1,5", "1_0", "0x1",
    "nan", "NaN", "-inf", "Infinity", "", " ", "NA", "null", "none", "true", "1 2", "\u0661", "\0", "1\0", '1"', '"1"',
    "x" * 100,
]  # fmt: skip
TIMES = [
    "0", "1730000000000", "-1", "1.5", "1730000000000.9", "1e3", "99999999999999999", "2024", "2024-01-31",
    "2024-01-31T00:00:00Z", "2024-01-31 23:59:59.123456789", "2024-01-31T00:00:00+02:00", "2024-01-31 00:00:00-0230",
    "2024-01-31 00:00:00+02", "2024-01-31 05:30", "2024-01-31 05:30Z", "2024-02-30", "2016-12-31T23:59:60Z", 
    "1899-12-31",     "2201-01-01", "12/31/2002 1:00", "yesterday", "", " 2024-01-31 ", "2024-01-31T",
    "2024-01-31T00:00:00ZZ", '2024-01-31"',
    "2024-01-31T00:00:00." + "1" * 60,
]  # fmt: skip
texts = st.text(st.sampled_from('0123456789+-.eE:TZ \tn"aé'), max_size=45)


def column(cells: list[str]) -> tuple[EventBatch, Spans]:
    """A batch with a row for each cell, the texts one behind the other in its payload."""
    batch = EventBatch(1, np.zeros(0, np.uint8), max(len(cells), 1))
    encoded = [cell.encode() for cell in cells]
    at = [batch.append_payload(cell) for cell in encoded]
    batch.extend_run("file", 0, len(cells))
    return batch, Spans(np.array(at, np.int64), np.array([len(cell) for cell in encoded], np.int64))


def check_numbers(cells: list[str]) -> None:
    batch, spans = column(cells)
    place_inputs(batch, spans, 0, keep_missing=False)
    for row, cell in enumerate(cells):
        number = number_of(cell)
        if isinstance(number, float):
            assert (batch.reason[row], batch.x[row, 0].tobytes()) == (Reason.OK, np.float64(number).tobytes()), cell
        else:
            assert batch.reason[row] == number, cell


def check_times(cells: list[str], unit: str) -> None:
    batch, spans = column(cells)
    naive = place_times(batch, spans, unit)  # type: ignore[arg-type]
    expected = [time_of(cell, unit) for cell in cells]  # type: ignore[arg-type]
    for row, time in enumerate(expected):
        if time is None:
            assert batch.reason[row] == Reason.BAD_TIME, cells[row]
        else:
            assert (batch.reason[row], batch.event_time[row]) == (Reason.OK, time), cells[row]
    dated = [cell for cell, time in zip(cells, expected, strict=True) if time is not None and "-" in cell.strip()[1:]]
    assert naive == sum(not has_offset(cell) for cell in dated if number_of(cell) is Reason.WRONG_TYPE)


def test_numbers() -> None:
    check_numbers(NUMBERS)
    for cell in NUMBERS:
        check_numbers([cell])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times(unit: str) -> None:
    check_times(TIMES, unit)
    for cell in TIMES:
        check_times([cell], unit)
        assert parse_time(cell.strip(), unit) in (None, time_of(cell, unit))  # type: ignore[arg-type]


@settings(max_examples=300)
@given(st.lists(texts | st.floats().map(repr) | st.sampled_from(NUMBERS), max_size=20))
def test_any_numbers(cells: list[str]) -> None:
    check_numbers(cells)


@settings(max_examples=300)
@given(
    st.lists(texts | st.datetimes().map(str) | st.integers().map(str) | st.sampled_from(TIMES), max_size=20),
    st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_any_times(cells: list[str], unit: str) -> None:
    check_times(cells, unit)


@settings(max_examples=200)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_reals_come_back(number: float) -> None:
    batch, spans = column([repr(number)])
    place_inputs(batch, spans, 0, keep_missing=False)
    assert batch.x[0, 0].tobytes() == np.float64(number).tobytes()


def test_missing_cells_and_rows_that_have_a_reason() -> None:
    cells = ["1", *sorted(MISSING), "2"]
    for keep_missing, reason in ((True, Reason.OK), (False, Reason.NULL_VALUE)):
        batch, spans = column(cells)
        spans.at[0], spans.length[0] = -1, 0  # null
        batch.reason[len(cells) - 1] = Reason.NO_KEY
        place_inputs(batch, spans, 0, keep_missing=keep_missing)
        clear_refused(batch)
        assert np.isnan(batch.x[: batch.n, 0]).all()
        assert batch.reason[: batch.n].tolist() == [reason] * (len(cells) - 1) + [Reason.NO_KEY]
