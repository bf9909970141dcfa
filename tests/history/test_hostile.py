"""Whatever a history holds: a clear report or a clear refusal, in one sentence that names the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamlstm.errors import BadDataError, InputMissingError, StreamlstmError, UsageError
from streamlstm.history.collector import Rules
from tests.history.hostile import CORPUS, Kept, Refused, with_good
from tests.history.reading import read

ROOT = Path(__file__).parents[2]


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 100


@pytest.mark.parametrize("name", CORPUS)
def test_report_or_refusal(name: str, tmp_path: Path) -> None:
    content, fate = CORPUS[name]
    path = tmp_path / name
    path.write_bytes(content)
    if isinstance(fate, Refused):
        with pytest.raises(StreamlstmError) as caught:
            read(path)
        assert type(caught.value) is fate.error
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert fate.said in message
        assert message.isprintable()
        assert len(message) < 600
        return
    history = read(path)
    report = history.report
    text = "\n".join(report.lines())
    assert (history.rows, report.rows) == (fate.rows, fate.rows), text
    assert {kind: each.count for kind, each in report.findings.items()} == fate.findings, text
    for said in fate.said:
        assert said in text
    if fate.streams is not None:
        assert tuple(map(history.name, range(len(history.streams)))) == fate.streams
    assert all(line.isprintable() and len(line) < 500 for line in report.lines())
    assert json.loads(json.dumps(report.as_json()))["rows"] == fate.rows
    assert np.isfinite(history.x).all()
    assert all((np.diff(history.time[history.rows_of(s)]) > 0).all() for s in range(len(history.streams)))


@pytest.mark.parametrize("fate", [Kept, Refused])
def test_both_fates_are_there(fate: type) -> None:
    assert sum(isinstance(each, fate) for _, each in CORPUS.values()) > 30


class TestPlaces:
    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissingError, match=r"none\.csv: cannot be read: No such file"):
            read(tmp_path / "none.csv")
        with pytest.raises(InputMissingError, match=r"none\.parquet: cannot be read: No such file"):
            read(tmp_path / "none.parquet")

    def test_nothing(self) -> None:
        with pytest.raises(InputMissingError, match="expected a file or a folder, found none"):
            read()

    @pytest.mark.parametrize("name", ["closed.csv", "closed.parquet", "closed.jsonl"])
    def test_unreadable(self, name: str, tmp_path: Path) -> None:
        """A link to itself can't be opened, whoever asks."""
        (tmp_path / name).symlink_to(tmp_path / name)
        with pytest.raises(InputMissingError, match=f"{name}: cannot be read: Too many levels"):
            read(tmp_path / name)

    def test_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.csv")
        with pytest.raises(InputMissingError, match="expected a file or a folder, found neither"):
            read(tmp_path / "pipe.csv")

    def test_a_folder_without_histories(self, tmp_path: Path) -> None:
        (tmp_path / "photo.jpeg").write_bytes(b"x")
        with pytest.raises(InputMissingError, match=r"expected files ending in \.csv, .*; found 1 others"):
            read(tmp_path)


def test_too_many_rows(tmp_path: Path) -> None:
    (tmp_path / "many.csv").write_bytes(with_good())
    assert read(tmp_path / "many.csv", rules=Rules(max_rows=40)).rows == 40
    with pytest.raises(BadDataError, match=r"many\.csv: the history has more than 39 rows"):
        read(tmp_path / "many.csv", rules=Rules(max_rows=39))


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(with_good())
    with pytest.raises(UsageError, match=r"a\.csv: expected a column 'load', as asked for; found ts, value"):
        read(tmp_path / "a.csv", values=("load",))
    with pytest.raises(UsageError, match="expected 1, one for each input of value; found a, b"):
        read(tmp_path / "a.csv", values=("a", "b"))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_without_pyarrow(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(with_good())
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from tests.history.reading import read\n"
        "from streamlstm.errors import UsageError\n"
        f"try: read({str(tmp_path / name)!r})\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    assert done.stdout.startswith(f"{tmp_path / name}: expected pyarrow, which reads CSV and Parquet: pip install")
    assert "streamlstm[train]" in done.stdout
