"""The JSON lines that a CSV file stands for: those of the events that a history of it has."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streamlstm.errors import BadDataError
from streamlstm.events.fields import FieldPaths
from streamlstm.events.times import parse_time
from streamlstm.history.columns import Wanted
from streamlstm.history.csv_lines import CsvLines
from tests.history.reading import read, rows

TIMES = [1_730_000_000_000 + 60_000 * k for k in range(5)]
CLOCK = [f"2024-10-27 03:{33 + k}" for k in range(5)]


def lines(content: bytes, inputs: Sequence[str] = ("value",), where: str = "data/pump.csv") -> CsvLines:
    return CsvLines(io.BytesIO(content), where, Path(where).stem, Wanted(FieldPaths(inputs=tuple(inputs))))


def events(text: str, inputs: Sequence[str] = ("value",), where: str = "data/pump.csv") -> list[Any]:
    blocks = b"".join(lines(text.encode("utf-8", "surrogateescape"), inputs, where))
    return [json.loads(line, parse_constant=lambda token: token) for line in blocks.splitlines()]


@pytest.mark.parametrize(
    "content",
    [
        "stream,ts,value\n" + "".join(f"{s},{t},{t % 7}.5\n" for t in TIMES for s in "ab"),
        "ts,cpu\n" + "".join(f"{t},{t % 7}.5\n" for t in TIMES),
        "ts,cpu,load\n" + "".join(f"{t},{k},{2 * k}\n" for k, t in enumerate(CLOCK)),
        "ts,cpu,load,comment\n" + "".join(f"{t},{k},,calm\n" for k, t in enumerate(CLOCK)),
        "ts,cpu,load\n" + "".join(f"{TIMES[0] + 1000 * k},{k},{k if k > 250 else ''}\n" for k in range(400)),
        "date;1;2\n" + "".join(f"{t};{k};{-k}\n" for k, t in enumerate(CLOCK)),
        "ts\tvalue\n" + "".join(f"{t}+0200\t{k}\n" for k, t in enumerate(CLOCK)),
        "".join(f"a,{t},{k}\n" for k, t in enumerate(CLOCK)),  # no header
        "".join(f"{t},{k}\n" for k, t in enumerate(TIMES)),
        "\ufeffwhen,what,how much\r\n" + "".join(f"{t},x,{k}\r\n,,\r\n" for k, t in enumerate(CLOCK)),
        'stream,ts,value\n"a ""quoted"" one",1730000000000,+1.5\na,1730000060000,.5\na,1730000120000,007\n',
        "stream,ts,value\na,1730000000000,1\na,1730000060000,2,3\na,1730000120000\na,1730000180000,4\n",  # ragged
    ],
)
def test_they_are_the_events_of_a_history(content: str, tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    path.write_text(content, newline="")
    found: dict[str, list[Any]] = {}
    for each in events(content):
        if isinstance(each, dict):  # a ragged row is none
            found.setdefault(each["stream"], []).append((parse_time(str(each["ts"]), "ms"), each["value"]))
    history = read(path)
    assert found == rows(history)
    of_head = [note.replace(str(path), "data/pump.csv") for note in history.report.notes if "offset" not in note]
    assert list(lines(content.encode()).notes) == of_head


def test_several_inputs_by_name_in_any_order() -> None:
    text = "stream,temp,other,load,ts\na,1,9,2,5\na,,9,3,6\n"
    assert events(text, ("load", "temp")) == [
        {"stream": "a", "ts": 5, "values": {"load": 2, "temp": 1}},
        {"stream": "a", "ts": 6, "values": {"load": 3, "temp": None}},
    ]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("", None), (" 5 ", 5), ("0.10", 0.1), ("+1.5", 1.5), (".5", 0.5), ("007", 7.0), ("NaN", "NaN"), ("nan", "NaN"),
        ("-inf", "Infinity"), ("1e999", 1e999), ("n/a", None), ("1_000", "1_000"), ("word", "word"),
    ],
)  # fmt: skip
def test_cells(cell: str, value: object) -> None:
    assert events(f"stream,ts,value\ns,1,{cell}\n") == [{"stream": "s", "ts": 1, "value": value}]


@pytest.mark.parametrize(
    ("cell", "time"), [("", ""), (" 7 ", 7), ("soon", "soon"), ("2024-01-01 00:10", "2024-01-01 00:10:00")]
)
def test_times(cell: str, time: object) -> None:
    """No time is none to the decoder too: it would take the record's timestamp, which a line doesn't have."""
    assert events(f"stream,ts,value\ns,{cell},1\n") == [{"stream": "s", "ts": time, "value": 1}]


def test_digits_are_copied() -> None:
    line = b"".join(lines(b"ts,value\n1,0.1000000000000000055\n", where="s.csv"))
    assert line == b'{"stream":"s","ts":1,"value":0.1000000000000000055}\n'


def test_files_without_rows() -> None:
    for text in ("", "\n\n", "ts,value\n", "\ufeffts,value\r\n\r\n"):
        assert events(text) == []


def test_a_ragged_row_is_no_object() -> None:
    assert events("ts,value\n1,2,3\n4\n") == ["1,2,3", "4"]


@pytest.mark.parametrize(
    ("header", "good", "row", "found"),
    [
        ("stream,ts,value", "a,1,2", "pump\udce9,1,2", ["pump\ufffd,1,2"]),
        ("stream,ts,value", "a,1,2", "a,1\udce9,2", ["a,1\ufffd,2"]),
        ("stream,ts,value", "a,1,2", "a,1,2\udce9", ["a,1,2\ufffd"]),
        ("stream,ts,value", "a,1,2", "\udce9,1", ["\ufffd,1"]),  # and it is ragged
        ("ts,a,b", "1,2,3", "1,2,\udce9", [{"stream": "a", "ts": 1, "value": 2}, "1,2,\ufffd"]),
        ("stream,ts,value,b", "a,1,2,b", "a,1,2,\udce9", [{"stream": "a", "ts": 1, "value": 2}]),  # nobody reads it
    ],
)
def test_a_row_that_is_not_utf8(header: str, good: str, row: str, found: list[object]) -> None:
    """Far behind the head, which has to be UTF-8: one event less, and the file goes on."""
    all_good = events(f"{header}\n" + f"{good}\n" * 50_000)
    in_between = f"{header}\n" + f"{good}\n" * 49_999 + f"{row}\n{good}\n"
    per_row = len(all_good) // 50_000
    assert events(in_between) == all_good[:-per_row] + found + all_good[-per_row:]


def test_a_name_that_is_not_utf8() -> None:
    assert events("ts,value\n1,2\n", where="pump\udcff.csv") == [{"stream": "pump?", "ts": 1, "value": 2}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stream,ts\na,1\n", r"pump\.csv: expected a column of values"),
        ("stream,load\na,1\n", r"pump\.csv: expected a column of times"),
        ("stream,ts,load\na,1,2\n", r"a column for each input \(load, temp\)"),
        ("stream,ts,value\n" + "a,1,2\n" * 300 + "a," + "x" * 200_000 + ",1\n", r"pump\.csv: line 302: not CSV"),
        ("stream,ts," + "x" * 200_000 + "\n1,2,3\n", r"pump\.csv: row 1: expected CSV"),
        ("ts,temp\udce9rature\n1,2\n", r"pump\.csv: expected UTF-8, found byte 0xe9 at 7"),
    ],
)
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(BadDataError, match=problem):
        events(text, ("load", "temp") if "temp" in problem else ("value",))
