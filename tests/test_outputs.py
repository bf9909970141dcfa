"""What a command writes: never over what it reads or another output, nor in place of a good file when it fails."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamlstm.cli.main import outcome
from streamlstm.cli.outputs import Output, require_outputs
from streamlstm.errors import AccessError, InputMissingError, UsageError
from streamlstm.service.export_state import write_lines
from streamlstm.service.whole_file import open_whole
from tests.test_backtest_command import write_history, write_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a model, a history, links to both, a file that is no history."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model")
    write_history(tmp_path / "past.csv", 20)
    (tmp_path / "link").symlink_to("past.csv")
    os.link(tmp_path / "model", tmp_path / "hard")
    (tmp_path / "bad.csv").write_text("name;colour\nred;blue\n")
    (tmp_path / "c.toml").write_text("[input]\n")
    (tmp_path / "old").write_text("old")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


FORECAST = ("forecast", "--model", "model", "--input", "past.csv")


@pytest.mark.parametrize(
    ("command", "one", "other"),
    [
        ((*FORECAST, "--output", "o", "--dead-letters", "past.csv"), "--dead-letters past.csv", "--input past.csv"),
        ((*FORECAST, "--output", "link"), "--output link", "--input past.csv"),
        ((*FORECAST, "--output", "hard"), "--output hard", "--model model"),
        ((*FORECAST, "--output", "o", "--dead-letters", "./o"), "--dead-letters ./o", "--output o"),
        ((*FORECAST, "--dead-letters", "-"), "--dead-letters -", "--output -"),
        ((*FORECAST, "-c", "c.toml", "--output", "c.toml"), "--output c.toml", "-c c.toml"),
        (("train", "past.csv", "-o", "past.csv"), "-o past.csv", "FILE past.csv"),
        (("train", "past.csv", "-o", "m", "--checkpoint", "m"), "--checkpoint m", "-o m"),
        (("train", "past.csv", "-o", "m", "--checkpoint", "link"), "--checkpoint link", "FILE past.csv"),
        (("train", ".", "-o", "m", "--plot", "past.csv"), "--plot past.csv", "FILE past.csv"),
        (("import", "model", "-o", "hard"), "-o hard", "FILE model"),
        (("backtest", "past.csv", "--model", "model", "--json", "x", "--report", "x"), "--report x", "--json x"),
        (("backtest", "past.csv", "--model", "model", "--json", "-", "--output", "-"), "--json -", "--output -"),
        (("backtest", "past.csv", "--compare", "bad.csv", "model", "--json", "hard"), "--json hard", "--compare model"),
        (("state", "export", "-c", "c.toml", "c.toml"), "FILE c.toml", "-c c.toml"),
    ],
)
def test_every_file_has_one_use(
    command: tuple[str, ...], one: str, other: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(folder)
    assert outcome(list(command)) == 64
    assert f"{one}: expected a file of its own, found that of {other}" in caplog.text
    assert contents(folder) == before


def test_standard_input_is_a_file_too(folder: Path) -> None:
    kept = os.dup(0)
    file = os.open(folder / "past.csv", os.O_RDONLY)
    try:
        os.dup2(file, 0)
        with pytest.raises(UsageError, match=r"--output past.csv: .* --input -"):
            require_outputs([Output("--output", "past.csv")], [("--input", "-")])
    finally:
        os.dup2(kept, 0)
        os.close(file)
        os.close(kept)


def test_devices_and_what_was_not_asked_for_are_nobodys() -> None:
    require_outputs([Output("--a", "/dev/null"), Output("--b", "/dev/null"), Output("--c", None)], [("-d", None)])


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("train", "bad.csv", "-o", "no/m"), 66, "-o no/m: cannot be written: expected a folder no, found none"),
        (("train", "bad.csv", "-o", "m", "--checkpoint", "no/c"), 66, "--checkpoint no/c: cannot be written"),
        (("train", "bad.csv", "-o", "."), 66, "-o .: cannot be written: expected a file"),
        (("train", "bad.csv", "-o", "/dev/null"), 66, "-o /dev/null: cannot be written: expected a file"),
        (("train", "bad.csv", "-o", "-"), 64, "-o -: expected a file, found standard output"),
        (("train", "bad.csv", "-o", "m", "--plot", "curves.xyz"), 64, "--plot curves.xyz: expected a name ending in"),
        (("train", "bad.csv", "-o", "m", "--plot", "curves"), 64, "found none"),
        (("import", "bad.csv", "-o", "no/m"), 66, "-o no/m: cannot be written"),
        (("backtest", "bad.csv", "--model", "model", "--json", "no/x"), 66, "--json no/x: cannot be written"),
        (("backtest", "bad.csv", "--model", "model", "--report", "."), 66, "--report .: cannot be written"),
        (("forecast", "--model", "bad.csv", "--input", "past.csv", "--output", "no/x"), 66, "--output no/x: cannot be"),
        (("state", "export", "-c", "c.toml", "no/x"), 66, "FILE no/x: cannot be written"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_read(
    command: tuple[str, ...], code: int, said: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(folder)
    assert outcome(list(command)) == code
    assert said in caplog.text
    assert contents(folder) == before


def test_where_one_may_not_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path in ("old", str(folder / "old")))
    require_outputs([Output("--output", "old")], [])
    with pytest.raises(AccessError, match="-o old: cannot be written: permission denied"):  # another takes its place
        require_outputs([Output("-o", "old", file_only=True)], [])
    with pytest.raises(AccessError, match="--output new: cannot be written: permission denied"):
        require_outputs([Output("--output", "new")], [])


@pytest.mark.parametrize("source", ["bad.csv", "none.csv"])
def test_an_input_that_cannot_be_read_empties_no_output(source: str, folder: Path) -> None:
    command = ["forecast", "--model", "model", "--input", source, "--output", "old", "--dead-letters", "letters"]
    assert outcome(command) in (65, 66)
    assert (folder / "old").read_text() == "old"
    assert not (folder / "letters").exists()


def test_the_measures_to_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(["backtest", "past.csv", "--model", "model", "--json", "-"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["format"] == 1
    assert "repeating the last value" in told.err
    assert not (folder / "-").exists()


class TestWhole:
    def test_takes_the_place_in_the_end(self, folder: Path) -> None:
        (folder / "old").chmod(0o600)
        (folder / "alias").symlink_to("old")
        with open_whole("alias") as file:
            file.write(b"new")
            assert (folder / "old").read_text() == "old"
        assert (folder / "old").read_text() == "new"
        assert (folder / "old").stat().st_mode & 0o777 == 0o600
        assert (folder / "alias").is_symlink()
        assert not list(folder.glob(".*.partial"))

    def test_nothing_is_left_of_what_failed(self, folder: Path) -> None:
        def chunks() -> Iterator[Any]:
            yield from ()
            raise InputMissingError("the brokers are away")

        for path in ("old", "new"):
            with pytest.raises(InputMissingError):
                write_lines(path, chunks())
        assert (folder / "old").read_text() == "old"
        assert not (folder / "new").exists()
        assert not list(folder.glob(".*.partial"))

    def test_two_at_a_time_are_each_whole(self, folder: Path) -> None:
        with open_whole("old") as first:
            first.write(b"fir")
            with open_whole("old") as second:
                second.write(b"second")
            first.write(b"st")
        assert (folder / "old").read_text() == "first"

    def test_a_mount_point_gets_the_content(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def busy(partial: Path, target: Path) -> None:
            raise OSError(errno.EBUSY, "Device or resource busy")

        monkeypatch.setattr(Path, "replace", busy)
        with open_whole("old") as file:
            file.write(b"new")
        assert (folder / "old").read_text() == "new"
        assert not list(folder.glob(".*.partial"))

    def test_a_pipe_is_written_where_it_is(self) -> None:
        outlet, inlet = os.pipe()
        with open_whole(f"/proc/self/fd/{inlet}") as file:
            file.write(b"new")
        os.close(inlet)
        with open(outlet, "rb") as found:
            assert found.read() == b"new"

    def test_what_cannot_be_written_is_called_as_it_was_asked_for(self, folder: Path) -> None:
        with pytest.raises(InputMissingError, match=r"^none/x: cannot be written"), open_whole("none/x"):
            pass

    def test_devices_stay(self) -> None:
        with open_whole("/dev/null") as file:
            file.write(b"new")
        assert not Path("/dev/null").is_file()
