"""Files of each kind, folders of them, and what the report says of them."""

import gzip
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamlstm.errors import BadDataError
from streamlstm.events.fields import FieldPaths
from streamlstm.history.collector import Rules
from streamlstm.history.columns import Wanted
from streamlstm.history.files import read_files, total_bytes
from streamlstm.history.history import History
from streamlstm.history.report import Kind
from tests.history.hostile import BEGIN, EVENTS, NUMBERS, TIMES, lines, parquet, table, with_good
from tests.history.reading import VALUE, read, rows


class TestFolders:
    def test_all_files_sorted_as_one_history(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "two.csv.gz").write_bytes(gzip.compress(with_good()))
        (tmp_path / "b" / "three.parquet").write_bytes(parquet(ts=TIMES, value=NUMBERS))
        (tmp_path / "a.jsonl").write_bytes(lines(*EVENTS))
        (tmp_path / "README.md").write_text("about")
        (tmp_path / ".hidden.csv").write_text("x")
        history = read(tmp_path)
        assert history.streams == [b"a", b"three", b"two"]
        assert history.start.tolist() == [0, 40, 80, 120]
        assert history.report.notes == [f"{tmp_path}: 1 files passed over: their names end otherwise"]
        assert next(iter(history.report.lines())).startswith(
            f"{tmp_path}/a.jsonl, {tmp_path}/b/three.parquet, {tmp_path}/b/two.csv.gz: 120 of 120 rows kept, 3 streams"
        )

    def test_one_stream_over_several_files(self, tmp_path: Path) -> None:
        """As long as they name it. A file is read once, however often it is given."""
        (tmp_path / "1.jsonl").write_bytes(lines(*EVENTS[20:]))
        (tmp_path / "2.jsonl").write_bytes(lines(*EVENTS[:20]))
        history = read(tmp_path / "1.jsonl", tmp_path, tmp_path / "2.jsonl")
        assert (history.streams, history.rows, history.report.count(Kind.LATE)) == ([b"a"], 40, 20)
        assert history.report.findings[Kind.LATE].place == f"{tmp_path}/2.jsonl:1"

    def test_files_of_one_name_are_two_streams(self, tmp_path: Path) -> None:
        for folder in ("x", "y"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "p.csv").write_bytes(with_good())
        assert read(tmp_path, rules=Rules(max_key_bytes=4096)).streams == [
            f"{tmp_path}/{folder}/p".encode() for folder in "xy"
        ]

    def test_a_file_without_a_good_row(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(with_good())
        (tmp_path / "b.csv").write_bytes(table("x,1"))
        assert f"{tmp_path}/b.csv: none of its rows could be used" in read(tmp_path).report.notes


class TestRange:
    RULES = Rules(begin_ms=TIMES[10], end_ms=TIMES[30])

    def test_a_file_outside(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(with_good())
        (tmp_path / "b.csv").write_bytes(table(f"{TIMES[9]},1", f"{TIMES[30]},1", "x,1"))
        (tmp_path / "c.csv").write_bytes(table(f"{TIMES[20]},1"))
        report = read(tmp_path, rules=self.RULES).report
        assert (report.rows, report.rows_read) == (21, 22)
        outside = "2 rows outside the range that was asked for"
        assert report.notes == [f"{tmp_path}/b.csv: none of its rows could be used: {outside}"]

    def test_everything_outside(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(with_good())
        with pytest.raises(BadDataError) as caught:
            read(tmp_path, rules=Rules(end_ms=TIMES[0]))
        assert str(caught.value) == (
            f"{tmp_path}/a.csv: expected two rows at least, of different times; found 0 good ones among 0 rows, and 40 "
            "rows outside the range that was asked for"
        )


class TestColumns:
    def test_names_that_were_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(table(*(f"{t},1,x,{i},9" for i, t in enumerate(TIMES)), header="at,value,who,load,ts\n"))
        history = read(path, stream="who", time="at", values=("load",))
        assert (history.streams, history.inputs, history.report.notes) == ([b"x"], ("value",), [])
        assert history.x[:, 0].tolist() == NUMBERS

    @pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
    def test_several_inputs(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / name
        cells = [(time, i / 4, -i) for i, time in enumerate(TIMES)]
        path.write_bytes(
            table(*(f"{t},{b},{a}" for t, a, b in cells), header="ts,temp,load\n")
            if name == "a.csv"
            else parquet(ts=TIMES, temp=[b for _, _, b in cells], load=[a for _, a, _ in cells])
        )
        history = read(path, fields=FieldPaths(inputs=("load", "temp")))
        assert rows(history) == {"a": [(t, (a, b)) for t, a, b in cells]}

    def test_fields_of_the_configuration(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(table(*(f"{t // 1000},1,x" for t in TIMES), header="moment,Reading,sensor\n"))
        fields = FieldPaths(stream=("sensor",), time=("moment",), value=("reading",), time_unit="s")
        history = read(path, fields=fields)
        assert (history.streams, history.time.tolist(), history.report.notes) == ([b"x"], TIMES, [])

    def test_delimiter(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(with_good().replace(b",", b"#"))
        assert read(path, delimiter="#").rows == 40


class TestRules:
    def test_missing_inputs_let_through(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(table(f"{BEGIN},1", f"{BEGIN + 1},", f"{BEGIN + 2},NA", f"{BEGIN + 3},nan"))
        (tmp_path / "b.parquet").write_bytes(parquet(ts=[1, 2, 3], value=[1.0, None, float("nan")]))
        (tmp_path / "c.jsonl").write_bytes(lines({"ts": 1, "value": 1}, {"ts": 2, "value": None}))
        history = read(tmp_path, rules=Rules(keep_missing=True))
        assert np.isnan(history.x[:, 0]).tolist() == [False, True, True, False, True, False, True]
        assert history.report.count(Kind.NOT_FINITE) == 2

    def test_arrival_order_is_the_daemons(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(table("5,1", "3,2", "3,3", "9,4"))
        history = read(tmp_path, rules=Rules(order="arrival"))
        assert rows(history) == {"a": [(5, 1.0), (3, 2.0), (3, 3.0), (9, 4.0)]}
        assert (history.report.count(Kind.LATE), history.report.count(Kind.DUPLICATE)) == (2, 1)
        assert len(history.report.notes) == 1  # about the unit of time


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(lines(*EVENTS, {"ts": 5, "value": 1}))

    monkeypatch.setattr(sys, "stdin", Stdin)
    history = read("-")
    assert (history.streams, history.report.sources) == ([b"a", b"stdin"], ["stdin"])
    assert history.rows == 41


def test_progress(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(with_good() * 100))
    (tmp_path / "b.parquet").write_bytes(parquet(ts=TIMES, value=NUMBERS))
    (tmp_path / "c.jsonl").write_bytes(lines(*EVENTS))
    told: list[int] = []
    read_files([str(tmp_path)], Wanted(VALUE), Rules(), told.append)
    assert sum(told) == total_bytes([str(tmp_path)]) == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_places_in_a_long_file(tmp_path: Path) -> None:
    """Rows are counted as they stand, over blocks and past ragged and blank ones."""
    some = [f"{BEGIN + i},{i}" for i in range(600_000)]
    some[100_000] = ""
    some[200_000] = "1,2,3"
    some[300_000] = "x"
    some[590_000] = f"{BEGIN},oops"
    some[595_000] = "7"
    (tmp_path / "a.csv").write_bytes(table(*some))
    report = read(tmp_path).report
    assert report.findings[Kind.RAGGED_ROW].place == f"{tmp_path}/a.csv:200002"
    assert (report.count(Kind.RAGGED_ROW), report.rows, report.rows_read) == (3, 599_995, 599_999)
    assert report.findings[Kind.WRONG_TYPE].place == f"{tmp_path}/a.csv:590002"
    blank = lines("", *EVENTS, "", "", "{oops")
    (tmp_path / "b.jsonl").write_bytes(blank)
    assert read(tmp_path / "b.jsonl").report.findings[Kind.NOT_JSON].place == f"{tmp_path}/b.jsonl:44"


class TestTails:
    @pytest.fixture
    def history(self, tmp_path: Path) -> History:
        text = table("a,1,0", "a,2,0", "a,3,0", "a,4,0", "a,5,0", "b,3,0", "b,9,0", header="stream,ts,value\n")
        (tmp_path / "a.csv").write_bytes(text)
        return read(tmp_path)

    def test_fraction(self, history: History) -> None:
        assert history.tail_after(0.5).tolist() == [2, 6]
        assert history.tail_after(0).tolist() == [0, 5]
        assert history.tail_after(1).tolist() == [5, 7]

    @pytest.mark.parametrize(("time", "tails"), [(0, [0, 5]), (3, [2, 5]), (4, [3, 6]), (9, [5, 6]), (10, [5, 7])])
    def test_time(self, history: History, time: int, tails: list[int]) -> None:
        assert history.tail_from(time).tolist() == tails


ROOT = Path(__file__).parents[2]
MEASURE = """
import sys
from tests.history.reading import read
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
read(sys.argv[1])
before = peak()
assert read(sys.argv[2]).rows == 2_000_000
print(peak() - before)
"""


@pytest.mark.parametrize("name", ["all.csv", "all.parquet", "all.jsonl"])
def test_memory_of_many_rows(name: str, tmp_path: Path) -> None:
    """2M rows take less than a fifth of the 1.5 GB that 10M may, what the process has before apart."""
    times = BEGIN + np.arange(2_000_000) // 1000 * 60_000
    values = np.arange(2_000_000) % 977 / 8
    streams = np.arange(2_000_000) % 1000
    suffix = name.partition(".")[2]
    small, large = tmp_path / f"small.{suffix}", tmp_path / name
    for path, n in ((small, 1000), (large, 2_000_000)):
        if suffix == "parquet":
            path.write_bytes(parquet(stream=streams[:n], ts=times[:n], value=values[:n]))
            continue
        row = "%d,%d,%.3f\n" if suffix == "csv" else '{"stream":"%d","ts":%d,"value":%.3f}\n'
        text = "".join(
            row % each for each in zip(streams[:n].tolist(), times[:n].tolist(), values[:n].tolist(), strict=True)
        )
        path.write_text(("stream,ts,value\n" if suffix == "csv" else "") + text)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(large)],
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
        cwd=ROOT,
    )
    assert float(done.stdout) < 300
