"""Events from files: lines as they come, and the JSON lines that a CSV file stands for."""

import io
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamlstm.errors import BadDataError, InputMissingError
from streamlstm.transport.files import csv_to_json_lines, looks_like_csv, open_input, open_output, read_lines


def events(text: str, inputs: Sequence[str] = ("value",), where: str = "data/pump.csv") -> list[dict[str, object]]:
    content = text.encode("utf-8", "surrogateescape")
    for cut in (0, 1, len(content)):  # however much of the file was read for a look
        blocks = b"".join(csv_to_json_lines(io.BytesIO(content[cut:]), content[:cut], where, inputs))
    return [json.loads(line, parse_constant=lambda token: token) for line in blocks.splitlines()]


def test_long() -> None:
    text = "unique_id,ds,y\na,2024-01-01 00:00:00,1.50\nb,2024-01-01T00:00:00Z,-2e3\n"
    assert events(text) == [
        {"stream": "a", "ts": "2024-01-01 00:00:00", "value": 1.5},
        {"stream": "b", "ts": "2024-01-01T00:00:00Z", "value": -2000.0},
    ]


def test_one_stream_is_named_after_the_file() -> None:
    assert events("timestamp,value\n1730000000000,7\n") == [{"stream": "pump", "ts": 1730000000000, "value": 7}]


def test_wide() -> None:
    text = "time,load,temp\n1,10,20\n2,,21\n"
    assert events(text) == [
        {"stream": "load", "ts": 1, "value": 10},
        {"stream": "temp", "ts": 1, "value": 20},
        {"stream": "temp", "ts": 2, "value": 21},
    ]


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
        ("-inf", "Infinity"), ("1e999", 1e999), ("n/a", "n/a"), ('"a ""quoted"" one"', 'a "quoted" one'),
    ],
)  # fmt: skip
def test_cells(cell: str, value: object) -> None:
    assert events(f"stream,ts,value\ns,1,{cell}\n") == [{"stream": "s", "ts": 1, "value": value}]


def test_digits_are_copied() -> None:
    line = b"".join(csv_to_json_lines(io.BytesIO(b"ts,value\n1,0.1000000000000000055\n"), b"", "s.csv", ("value",)))
    assert line == b'{"stream":"s","ts":1,"value":0.1000000000000000055}\n'


def test_awkward_files() -> None:
    assert events("") == []
    assert events("ts,value\n") == []
    assert events("\ufeffts,value\r\n1,2\r\n\r\n3,4\r\n") == [
        {"stream": "pump", "ts": 1, "value": 2},
        {"stream": "pump", "ts": 3, "value": 4},
    ]
    assert events("stream,ts,value\ns\n") == [{"stream": "s", "value": None}]
    assert events("stream,ts,value\n\udcff,1,2\n") == [{"stream": "?", "ts": 1, "value": 2}]
    assert events("ts\tvalue\n1\t2\n", where="x.tsv") == [{"stream": "x", "ts": 1, "value": 2}]


@pytest.mark.parametrize("header", ["stream,ts", "a", "stream,load"])
def test_a_header_that_says_nothing_is_refused(header: str) -> None:
    with pytest.raises(BadDataError, match=r"pump\.csv: header: expected .*; found " + header.replace(",", ", ")):
        events(f"{header}\n1,2\n")


def test_several_inputs_need_their_columns() -> None:
    with pytest.raises(BadDataError, match=r"inputs \(load, temp\)"):
        events("stream,ts,load\na,1,2\n", ("load", "temp"))


def test_not_csv() -> None:
    with pytest.raises(BadDataError, match=r"pump\.csv: line 2: not CSV"):
        events("stream,ts,value\na," + "x" * 200_000 + ",1\n")
    with pytest.raises(BadDataError, match=r"pump\.csv: line 1: not CSV"):
        events("stream,ts," + "x" * 200_000 + "\n1,2,3\n")


def test_a_header_and_a_name_that_are_not_utf8() -> None:
    wide = events("ts,temp\udce9rature\n1,2\n")
    assert wide == [{"stream": "temp?rature", "ts": 1, "value": 2}]
    assert events("ts,value\n1,2\n", where="pump\udcff.csv") == [{"stream": "pump?", "ts": 1, "value": 2}]


@pytest.mark.parametrize(
    ("path", "head", "csv"),
    [
        ("a.csv", b"{", True), ("a.TSV", b"", True), ("a.jsonl", b"ts,value", False), ("-", b' \n{"ts":1}', False),
        ("-", b"ts,value\n", True), ("-", b"", False), ("noname", b"garbage", True),
    ],
)  # fmt: skip
def test_what_kind_of_file(path: str, head: bytes, csv: bool) -> None:
    assert looks_like_csv(path, head) is csv


def test_lines_come_whole_and_as_they_arrive() -> None:
    assert b"".join(read_lines(io.BytesIO(b"a\nb\nc"), chunk_bytes=2)) == b"a\nb\nc\n"
    assert all(block.endswith(b"\n") for block in read_lines(io.BytesIO(b"abcdef\ngh\n" * 50), chunk_bytes=3))
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source:
        os.write(writer, b"first\nsec")
        blocks = read_lines(source)
        assert next(blocks) == b"first\n"  # while the writer still has the pipe open
        threading.Timer(0.05, lambda: (os.write(writer, b"ond\n"), os.close(writer))).start()
        assert b"".join(blocks) == b"second\n"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(InputMissingError, match=r"nothing\.csv: cannot be read"),
        open_input(str(tmp_path / "nothing.csv")),
    ):
        pass
    with pytest.raises(InputMissingError, match="cannot be written"), open_output(str(tmp_path)):
        pass
