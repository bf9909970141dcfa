"""What the first rows of a table say of its columns: a header or none, and whose the rows are."""

import codecs
import io
from pathlib import Path

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from streamlstm.errors import BadDataError
from streamlstm.events.fields import FieldPaths
from streamlstm.history.columns import Wanted
from streamlstm.history.csv_head import HEAD_BYTES, csv_head
from streamlstm.history.report import Kind
from tests.history.reading import read

DAYS = [f"2024-01-{day:02}" for day in range(1, 21)]
TIMES = [1_730_000_000_000 + 60_000 * k for k in range(20)]
ONE_STREAM = "all rows were taken for one stream, named after the file; --stream-column names one"


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("".join(f"{row}\n" for row in ([header] if header else []) + rows))
    return path


@pytest.mark.parametrize(
    ("header", "times"),
    [
        ("date,1,2,3", DAYS), ("ts,1,2,3", TIMES), ("Week,1,2,3", DAYS), (",1,2,3", DAYS), ("week,1,2,3", TIMES),
        ("DS,1.5,2e3,-7", TIMES),
    ],
)  # fmt: skip
def test_numbers_as_names(header: str, times: list[object], tmp_path: Path) -> None:
    rows = [f"{time},{k}.5,{k},{2 * k}" for k, time in enumerate(times)]
    named = {} if header[0] in ",dtD" else {"time": header.split(",", maxsplit=1)[0]}
    history = read(write(tmp_path / "f.csv", header, rows), **named)
    assert [each.decode() for each in history.streams] == header.split(",")[1:]
    assert history.rows == 60
    assert not any("no header" in note for note in history.report.notes)


@pytest.mark.parametrize(
    "row",
    [
        "key,{time},{k}",  # a stream that is called as its column may be
        "s1,{time},{k}",
        "{time},{k}",
    ],
)
@pytest.mark.parametrize("times", [DAYS, TIMES], ids=["days", "ms"])
def test_no_header(row: str, times: list[object], tmp_path: Path) -> None:
    history = read(write(tmp_path / "f.csv", "", [row.format(time=time, k=k) for k, time in enumerate(times)]))
    assert history.rows == 20
    assert f"{tmp_path}/f.csv: the first row is no header; columns go by number" in history.report.notes


@pytest.mark.parametrize("first", ["a,,1.5", "a,,1.5,2"])
def test_a_first_row_without_its_time(first: str, tmp_path: Path) -> None:
    """Only pandas leaves a name empty, that of the index, in front of the others."""
    below = [f"b,2026-01-01T00:{k:02}:00Z,2{',3' * (first.count(',') - 2)}" for k in range(20)]
    columns = {"stream": "1", "time": "2", "values": ("3",)}
    report = read(write(tmp_path / "f.csv", first, below), **columns).report
    assert (report.rows, report.rows_read, report.count(Kind.BAD_TIME)) == (20, 21, 1)


def test_columns_that_are_asked_for_by_number(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "", [f"{k},{time},7,{k / 2}" for k, time in enumerate(TIMES, 1)])
    assert read(path, time="2", values=("4",)).x[:3, 0].tolist() == [0.5, 1, 1.5]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("before", range(5))
def test_a_letter_across_the_end_of_the_head(mark: bytes, before: int) -> None:
    """Which isn't the end of the file."""
    begin = mark + b"stream,ts,value\n" + b"a,1730000000000,1\n" * 14_000
    text = begin + b"n" * (HEAD_BYTES - before - len(begin)) + "\N{SNOWMAN}\N{SNOWMAN}".encode()
    head = csv_head(text[:HEAD_BYTES], "f.csv", Wanted(FieldPaths()))
    assert head is not None
    assert head.names == ["stream", "ts", "value"]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_that_is_not_utf8(mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(mark + b"ts,temp\xe9rature\n1,2\n")
    with pytest.raises(BadDataError, match=rf"f\.csv: expected UTF-8, found byte 0xe9 at {len(mark) + 7}"):
        read(path)


def test_a_comment_on_top(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "# made by me", ["ts,value", *(f"{time},1" for time in TIMES)])
    with pytest.raises(BadDataError, match=r"f\.csv: expected a column of times \(.*\), found # made by me"):
        read(path)


class TestWhoseRows:
    """Three sensors, under names that nobody knows."""

    ROWS = tuple(f"{time},{sensor},{k},good" for k, time in enumerate(TIMES) for sensor in "abc")

    @pytest.fixture(params=["csv", "parquet"])
    def path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        path = write(tmp_path / "f.csv", "ts,sensor,value,quality", list(self.ROWS))
        if request.param == "parquet":
            return parquet(path)
        return path

    def test_times_that_come_again(self, path: Path) -> None:
        with pytest.raises(BadDataError) as caught:
            read(path)
        said = str(caught.value)
        assert said.startswith(
            f"{path}: expected a column of streams (stream, unique_id, series, id, key), as most times"
        )
        assert said.endswith("found ts, sensor, value, quality: is it --stream-column sensor?")
        assert len(read(path, stream="sensor").streams) == 3

    @pytest.mark.parametrize("quality", ["good", "bad now and then"])
    def test_times_that_come_again_in_one_stream(self, quality: str, tmp_path: Path) -> None:
        """Several rows a second, and no text that tells them apart."""
        odd = {5: "bad", 17: "bad"} if quality != "good" else {}
        rows = [f"{time},{k}.{i},C,{odd.get(k, 'good')}" for k, time in enumerate(TIMES) for i in range(4)]
        path = write(tmp_path / "f.csv", "ts,value,unit,quality", rows)
        for each in (path, parquet(path)):
            history = read(each)
            assert history.streams == [b"f"]
            assert any(note.endswith(ONE_STREAM) for note in history.report.notes)

    def test_times_of_their_own(self, tmp_path: Path) -> None:
        path = write(tmp_path / "f.csv", "ts,sensor,value,quality", list(self.ROWS[::3]))
        for each in (path, parquet(path)):
            history = read(each)
            assert history.streams == [b"f"]
            assert history.report.notes == [
                f"{each}: no column of streams (stream, unique_id, series, id, key): {ONE_STREAM}"
            ]

    def test_nothing_to_say_where_nothing_is_left(self, tmp_path: Path) -> None:
        assert read(write(tmp_path / "f.csv", "ts,value", [f"{time},1" for time in TIMES])).report.notes == []


def parquet(path: Path) -> Path:
    pq.write_table(pc.read_csv(io.BytesIO(path.read_bytes())), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")
