"""`streamlstm forecast` reads files as train and backtest do: equal forecasts of the same file, however it is made."""

import gzip
import io
import json
from pathlib import Path

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import CliRunner, Result

from streamlstm.cli.main import commands
from streamlstm.errors import BadDataError, InputMissingError, UsageError
from tests.test_backtest_command import write_model

TIMES = [1_730_000_000_000 + 60_000 * k for k in range(60)]
CLOCK = [f"2024-10-27 03:{k:02}" for k in range(60)]
LONG = "stream,ts,value\n" + "".join(f"{s},{t},{k % 7}.5\n" for k, t in enumerate(TIMES) for s in "ab")
LINES = "".join(f'{{"stream":"a","ts":{t},"value":{k % 7}.5}}\n' for k, t in enumerate(TIMES))
SENSORS = "when,sensor,level,quality\n" + "".join(f"{t},{s},{k},good\n" for k, t in enumerate(CLOCK) for s in "ab")

FILES: dict[str, str | bytes] = {
    "short_times.csv": "stream,ts,value\n" + "".join(f"a,{t},{k % 7}.5\n" for k, t in enumerate(CLOCK)),
    "no_header.csv": "".join(f"a,{t},{k % 7}.5\n" for k, t in enumerate(TIMES)),
    "one_column.csv": "ts,cpu\n" + "".join(f"{t},{k % 7}.5\n" for k, t in enumerate(TIMES)),
    "semicolons.csv": LONG.replace(",", ";"),
    "tabs.csv": LONG.replace(",", "\t"),
    "pivot.csv": "date,1,2\n" + "".join(f"{t},{k % 7}.5,{k % 5}\n" for k, t in enumerate(CLOCK)),
    "packed.csv.gz": gzip.compress(LONG.encode()),
    "packed.csv.zst": zstandard.compress(LONG.encode()),
    "marked.csv": "\ufeff" + LONG,
    "marked.jsonl": "\ufeff" + LINES,
    "marked.txt": "\ufeff" + LINES,
    "packed.jsonl.gz": gzip.compress(LINES.encode()),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m.safetensors")


def run(*arguments: object, given: bytes | None = None) -> Result:
    return CliRunner().invoke(commands, [*map(str, arguments)], input=given)


@pytest.mark.parametrize("name", FILES)
def test_the_forecasts_are_those_of_backtest(name: str, model: Path, tmp_path: Path) -> None:
    content = FILES[name]
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    tested = run("backtest", path, "--model", model, "--output", tmp_path / "expected")
    assert tested.exit_code == 0, tested.output
    done = run("forecast", "--input", path, "--model", model, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "refused" not in done.stderr
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes() != b""
    of_tables = [line for line in tested.stderr.splitlines() if line.startswith("note: ") and "offset" not in line]
    assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == of_tables


def test_columns_that_are_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(SENSORS)
    command = ["forecast", "--input", tmp_path / "f.csv", "--model", model]
    refused = run(*command)
    assert isinstance(refused.exception, BadDataError)
    assert "is it --stream-column sensor?" in str(refused.exception)
    done = run(*command, "--stream-column", "sensor", "--time-column", "when", "--value-columns", "level")
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["stream"] for line in done.stdout.splitlines()] == ["a", "b"] * 60


def test_a_row_that_is_not_utf8_is_a_dead_letter(model: Path, tmp_path: Path) -> None:
    rows = "".join(f"a,{TIMES[0] + 1000 * k},{k % 7}.5\n" for k in range(20_000)).encode()
    (tmp_path / "f.csv").write_bytes(b"stream,ts,value\n" + rows + b"pump\xe9,1,2\n" + LONG.encode()[16:])
    letters = tmp_path / "letters"
    done = run("forecast", "--input", tmp_path / "f.csv", "--model", model, "--dead-letters", letters)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 20_120
    assert json.loads(letters.read_text()) == {"offset": 20_000, "reason": "not_object", "value": '"pump\ufffd,1,2"'}


def test_csv_from_a_pipe(model: Path) -> None:
    done = run("forecast", "--input", "-", "--model", model, given=LONG.encode())
    assert (done.exit_code, done.stderr) == (0, "120 events, 120 forecasts\n")
    assert run("forecast", "--input", "-", "--model", model, given=b"").stderr == "0 events, 0 forecasts\n"


def test_what_is_no_text_is_refused(model: Path, tmp_path: Path) -> None:
    pq.write_table(pc.read_csv(io.BytesIO(LONG.encode())), tmp_path / "f.parquet")
    (tmp_path / "f.csv").write_bytes((tmp_path / "f.parquet").read_bytes())
    for name in ("f.parquet", "f.csv"):
        done = run("forecast", "--input", tmp_path / name, "--model", model)
        assert isinstance(done.exception, BadDataError)
        assert f"{name}: expected CSV or JSON lines, found Parquet" in str(done.exception)
    done = run("forecast", "--input", "-", "--model", model, given=gzip.compress(LONG.encode()))
    assert str(done.exception) == "stdin: expected CSV or JSON lines, found compressed bytes: unpack them"
    cut = gzip.compress(LONG.encode())[:-9]
    (tmp_path / "cut.csv.gz").write_bytes(cut)
    done = run("forecast", "--input", tmp_path / "cut.csv.gz", "--model", model)
    assert "cut.csv.gz: its compressed bytes are cut off or damaged" in str(done.exception)


def test_columns_of_what_has_none(model: Path, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text(LINES)
    done = run("forecast", "--input", tmp_path / "f.jsonl", "--model", model, "--stream-column", "s")
    assert isinstance(done.exception, UsageError)
    assert "f.jsonl: expected CSV, as its columns are named; found JSON lines" in str(done.exception)


def test_a_file_that_is_not_there(model: Path, tmp_path: Path) -> None:
    done = run("forecast", "--input", tmp_path / "none.csv", "--model", model)
    assert isinstance(done.exception, InputMissingError)
