"""Times as text, against the models, which take them apart in another way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.events.fields import TimeUnit
from streamlstm.events.times import EARLIEST_MS, LATEST_MS, from_integer, parse_number, parse_rfc3339, parse_time
from tests.events.json_model import date_time, number_time
from tests.events.json_texts import date_times, epochs, numbers

UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")


def in_years(milliseconds: int | None) -> int | None:
    return milliseconds if milliseconds is not None and EARLIEST_MS <= milliseconds <= LATEST_MS else None


@pytest.mark.parametrize(
    ("text", "unit", "milliseconds"),
    [
        ("1730000000", "s", 1_730_000_000_000),
        ("1730000000.5", "s", 1_730_000_000_500),
        ("1730000000.12299999999999999999", "s", 1_730_000_000_122),
        ("1.73e9", "s", 1_730_000_000_000),
        ("-1", "ns", -1),
        ("-1e-9999999999999999999999", "ms", -1),
        ("1e-9999999999999999999999", "ms", 0),
        ("0e9999999999999999999999", "ms", 0),
        ("1e9999999999999999999999", "ms", None),
        ("9" * 100_000, "ns", None),
        ("0." + "0" * 100_000 + "1e100000", "s", 100),
        ("2024-05-01T12:00:00Z", "ms", 1_714_564_800_000),
        ("2024-05-01T12:00:00.9999-00:30", "ms", 1_714_566_600_999),
        ("2024-05-01 12:00:00", "s", 1_714_564_800_000),
        ("2024-05-01", "s", 1_714_521_600_000),
        ("1900-01-01T00:00:00Z", "s", EARLIEST_MS),
        ("2200-12-31T23:59:59.999Z", "s", LATEST_MS),
        ("2016-12-31T23:59:60Z", "s", 1_483_228_800_000),
        ("2016-12-31T18:59:60.5-05:00", "s", 1_483_228_800_500),
        ("2016-12-31T22:59:60Z", "s", None),
        ("2201-01-01T00:00:00Z", "s", None),
        ("1900-01-01T00:00:00+00:01", "s", None),
        ("2024-5-1", "s", None),
        ("2024-05-01T12:00", "s", None),
        ("2024-05-01T12:00:00.Z", "s", None),
        ("2024-05-01T12:00:00+0200", "s", None),
        ("2024-05-01Z", "s", None),
        (" 1", "s", None),
        ("1\n", "s", None),
        ("2024-05-01\n", "s", None),
        ("１２", "s", None),
        ("+1", "s", None),
        ("01", "s", None),
        ("nan", "s", None),
        ("", "s", None),
    ],
)
def test_by_example(text: str, unit: TimeUnit, milliseconds: int | None) -> None:
    assert parse_time(text, unit) == milliseconds


@given(date_times)
@settings(max_examples=1000)
def test_dates_as_the_model_reads_them(text: str) -> None:
    assert parse_rfc3339(text) == in_years(date_time(text))


@pytest.mark.parametrize("unit", UNITS)
@given(text=st.data())
@settings(max_examples=300)
def test_numbers_as_the_model_reads_them(unit: TimeUnit, text: st.DataObject) -> None:
    digits = text.draw(epochs(unit) | numbers)
    wanted = in_years(number_time(digits, unit))
    assert parse_number(digits, unit) == wanted
    if digits.lstrip("-").isdigit():
        assert from_integer(int(digits), unit) == wanted
