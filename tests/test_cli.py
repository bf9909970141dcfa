"""The command line as a user meets it: real processes where it matters, exit codes for every ending."""

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from streamlstm import __version__, errors
from streamlstm.cli.main import commands, outcome
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, no_scaling, save
from streamlstm.model.parameters import Layer, Parameters

STREAMLSTM = [sys.executable, "-m", "streamlstm"]
COMMANDS = {
    *("init", "check", "compile", "doctor", "run", "health", "import", "show", "forecast", "size", "audit", "state"),
    *("train", "backtest"),
}
SHIPPED = Path(__file__).parent.parent / "deploy" / "streamlstm.toml"
EVENTS = (
    b'{"stream":"a","ts":1,"value":0.5}\n{"stream":"b","ts":1,"value":-1}\n{"ts":1}\n{"stream":"a","ts":2,"value":1}\n'
)


def cli(*arguments: str | Path, given: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*STREAMLSTM, *map(str, arguments)], input=given, capture_output=True, timeout=120, cwd=cwd, check=False
    )


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(7)
    weights = [(0.3 * random.standard_normal(shape)).astype(np.float32) for shape in ((20, 1), (20, 5), (20,), (1, 5))]
    parameters = Parameters((Layer(*weights[:3]),), weights[3], np.zeros(1, np.float32))
    golden = make_golden(parameters, 0, "test")
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(Model(parameters, 0, ("value",), 0, "value", (1,), no_scaling(1), None, {}, golden), path)
    return path


def raising(error: BaseException) -> Callable[[], None]:
    @click.command("raising")
    def command() -> None:
        raise error

    return command


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """The exit code of a command that ends with this exception."""

    def end(error: BaseException) -> int:
        monkeypatch.setitem(commands.commands, "raising", raising(error))
        return outcome(["raising"])

    return end


class TestHelp:
    def test_answers_at_once(self) -> None:
        """Best of five, in a process of its own: under 0.3 s."""
        seconds = []
        for _ in range(5):
            before = time.perf_counter()
            done = cli("--help")
            seconds.append(time.perf_counter() - before)
        assert done.returncode == 0
        assert b"Usage: streamlstm [OPTIONS] COMMAND" in done.stdout
        assert min(seconds) < 0.3

    def test_names_every_command(self) -> None:
        assert set(commands.commands) == COMMANDS

    @pytest.mark.parametrize("name", sorted(COMMANDS))
    def test_of_each_command(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert outcome([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"Usage: streamlstm {name} [OPTIONS]")
        for parameter in commands.commands[name].params:
            assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), parameter.name

    def test_short_help_is_not_cut(self, capsys: pytest.CaptureFixture[str]) -> None:
        outcome(["--help"])
        assert "..." not in capsys.readouterr().out.partition("Commands:")[2]

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert outcome(["--version"]) == 0
        assert capsys.readouterr().out == f"streamlstm {__version__}\n"


class TestExitCodes:
    @pytest.mark.parametrize(
        "arguments", [[], ["bogus"], ["init", "--bogus"], ["forecast"], ["size", "--streams", "0"], ["show"]]
    )
    def test_usage(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert outcome(arguments) == 64
        assert "Usage: streamlstm" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (errors.UsageError("m"), 64),
            (errors.BadDataError("m"), 65),
            (errors.ModelFileError("m", "p"), 65),
            (errors.InputMissingError("m"), 66),
            (errors.RetryError("m"), 75),
            (errors.FencedError("m"), 75),
            (errors.AccessError("m"), 77),
            (errors.ConfigError(["m", "n"]), 78),
            (FileNotFoundError(errno.ENOENT, "No such file", "m"), 66),
            (PermissionError(errno.EACCES, "Permission denied", "m"), 77),
            (OSError(errno.ENOSPC, "No space left on device", "m"), 75),
        ],
    )
    def test_expected_errors_are_told_without_a_traceback(
        self,
        ending: Callable[[BaseException], int],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
        code: int,
    ) -> None:
        monkeypatch.setattr("logging.root.handlers", [])
        assert ending(error) == code
        told = capsys.readouterr().err
        assert told.startswith("streamlstm: m")
        assert "Traceback" not in told
        assert len(told.splitlines()) == (2 if code == 78 else 1)

    @pytest.mark.parametrize("error", [errors.InvariantError("broken"), ZeroDivisionError("broken"), OSError("broken")])
    def test_unexpected_ones_are_logged_whole(
        self, ending: Callable[[BaseException], int], caplog: pytest.LogCaptureFixture, error: BaseException
    ) -> None:
        assert ending(error) == 70
        assert "please report it" in caplog.text
        assert "Traceback" in caplog.text
        assert "broken" in caplog.text

    def test_interrupt(self, ending: Callable[[BaseException], int]) -> None:
        assert ending(KeyboardInterrupt()) == 130

    def test_ctrl_c_ends_a_real_process_quietly(self, model_path: Path) -> None:
        process = subprocess.Popen(
            [*STREAMLSTM, "forecast", "--model", str(model_path), "--input", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(EVENTS)
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'{"stream":"a"'), "a live pipe is served as it flows"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert (process.returncode, told) == (130, b"")

    def test_a_reader_that_leaves_is_no_error(self) -> None:
        """As `streamlstm init - | head -c0` does: quiet, with the shell's code for SIGPIPE."""
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*STREAMLSTM, "init", "-"], stdout=writer, stderr=subprocess.PIPE, check=False)
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")

    def test_console_script_leaves_with_the_code(self, tmp_path: Path) -> None:
        done = cli("size", "-c", tmp_path / "none.toml")
        assert done.returncode == 78
        assert done.stderr.startswith(b"streamlstm: ")


@pytest.mark.parametrize("text", ["20", "-5", "1704067200", "20.5", "yesterday"])
def test_a_range_does_not_begin_shortly_after_1970(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(["audit", f"--from={text}"]) == 64
    assert "expected a time such as 2026-01-31T12:00:00Z" in capsys.readouterr().err


class TestInit:
    def test_writes_the_shipped_file_once(self, tmp_path: Path) -> None:
        first, second = cli("init", cwd=tmp_path), cli("init", cwd=tmp_path)
        assert (first.returncode, second.returncode) == (0, 64)
        assert (tmp_path / "streamlstm.toml").read_text() == SHIPPED.read_text()
        assert b"streamlstm.toml: is already there; --force writes over it" in second.stderr

    def test_force(self, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text("old")
        assert outcome(["init", str(path), "--force"]) == 0
        assert path.read_text() == SHIPPED.read_text()

    def test_to_standard_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert outcome(["init", "-"]) == 0
        assert capsys.readouterr().out == SHIPPED.read_text()

    def test_into_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        done = cli("init", tmp_path / "none" / "c.toml")
        assert done.returncode == 66
        assert b"Traceback" not in done.stderr


class TestConfiguration:
    def test_every_problem_in_one_go(self, tmp_path: Path) -> None:
        (tmp_path / "streamlstm.toml").write_text("[state]\nmax_streams = 0\nmax_stream = 1\n")
        done = cli("size", "--set", "log.level=loud", cwd=tmp_path)
        assert done.returncode == 78
        assert done.stderr.decode().splitlines() == [
            "streamlstm: streamlstm.toml:3: state.max_stream: unknown key; did you mean state.max_streams?",
            "streamlstm: streamlstm.toml:2: state.max_streams: found 0; expected an integer from 1 to 1000000000",
            'streamlstm: --set: log.level: found "loud"; expected one of debug, info, warning, error',
        ]

    def test_file_named_by_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "other.toml").write_text("[state]\nmax_streams = -1\n")
        monkeypatch.setenv("STREAMLSTM_CONFIG", str(tmp_path / "other.toml"))
        done = cli("size")
        assert done.returncode == 78
        assert b"other.toml:2: state.max_streams" in done.stderr


class TestSize:
    def test_parts_add_up(self, model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert outcome(["size", "--model", str(model_path), "--streams", "1000000"]) == 0
        *parts, total = [
            (line[:34].strip(), *(cell.replace(",", "") for cell in line[34:].split()))
            for line in capsys.readouterr().out.splitlines()[1:]
        ]
        assert total[0] == "resident with 1,000,000 streams"
        for column in (1, 2):
            figures = [float(part[column]) for part in parts if part[column] != "-"]
            assert sum(figures) == pytest.approx(float(total[column]), abs=0.5 * len(parts))

    def test_state_in_16_bits_is_smaller(self, model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = {}
        for dtype in ("float32", "float16", "bfloat16"):
            settings = ["--set", f"engine.state_dtype={dtype}"]
            assert outcome(["size", "--model", str(model_path), "--streams", "1000", *settings]) == 0
            (state,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("state"))
            found[dtype] = float(state.split()[-2].replace(",", ""))
        assert found["float32"] == found["float16"] + 64
        assert found["bfloat16"] == found["float16"]

    def test_a_missing_model_is_input_missing(self, tmp_path: Path) -> None:
        assert cli("size", "--model", tmp_path / "none.safetensors").returncode == 66


class TestForecast:
    def test_from_pipe_to_pipe(self, model_path: Path, tmp_path: Path) -> None:
        letters = tmp_path / "letters.jsonl"
        done = cli("forecast", "--model", model_path, "--input", "-", "--dead-letters", letters, given=EVENTS)
        assert done.returncode == 0
        forecasts = [json.loads(line) for line in done.stdout.splitlines()]
        assert [forecast["stream"] for forecast in forecasts] == ["a", "b", "a"]
        assert [forecast["src"]["offset"] for forecast in forecasts] == [0, 1, 3]
        assert done.stderr == b"4 events, 3 forecasts, 1 refused (missing_field 1)\n"
        assert [json.loads(line)["offset"] for line in letters.read_text().splitlines()] == [2]

    def test_src_is_as_told(self, model_path: Path) -> None:
        told = ["--topic", "t", "--partition", "3", "--first-offset", "100"]
        done = cli("forecast", "--model", model_path, "--input", "-", *told, given=EVENTS)
        assert json.loads(done.stdout.splitlines()[0])["src"] == {"topic": "t", "partition": 3, "offset": 100}

    def test_progress_bar_on_a_terminal_only(self, model_path: Path, tmp_path: Path) -> None:
        events = tmp_path / "events.jsonl"
        events.write_bytes(EVENTS)
        files = ["--input", str(events), "--output", str(tmp_path / "out")]
        screen, terminal = pty.openpty()
        command = [*STREAMLSTM, "forecast", "--model", str(model_path), *files]
        done = subprocess.run(command, stderr=terminal, stdout=subprocess.PIPE, timeout=120, check=False)
        os.close(terminal)
        shown = os.read(screen, 65536)
        os.close(screen)
        assert done.returncode == 0
        assert b"forecasting" in shown
        assert b"100%" in shown
        assert b"4 events" in shown
        assert b"forecasting" not in cli("forecast", "--model", model_path, *files).stderr

    def test_missing_input(self, model_path: Path, tmp_path: Path) -> None:
        done = cli("forecast", "--model", model_path, "--input", tmp_path / "none.jsonl")
        assert done.returncode == 66
        assert b"none.jsonl" in done.stderr


class TestShowAndImport:
    def test_show(self, model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert outcome(["show", str(model_path)]) == 0
        shown = capsys.readouterr().out
        assert "carried for ever" in shown
        half, brain = (
            re.search(rf"^{dtype} +state in half the memory: .* by ([0-9.e-]+) of", shown, re.MULTILINE)
            for dtype in ("float16", "bfloat16")
        )
        assert half is not None
        assert brain is not None
        assert 1e-7 < float(half[1]) < float(brain[1]) < 1e-2

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "text.pt").write_text("hello")
        for arguments in (["show"], ["import", "-o", tmp_path / "out", "--carry"]):
            done = cli(*arguments, tmp_path / "text.pt")
            assert done.returncode == 65
            assert b"text.pt" in done.stderr
            assert b"Traceback" not in done.stderr

    def test_carry_and_window_exclude_each_other(self, tmp_path: Path) -> None:
        done = cli("import", "x", "-o", "y", "--carry", "--window", "3")
        assert done.returncode == 64
        assert b"--carry and --window: expected one of them, found both" in done.stderr

    def test_a_window_for_no_running_scaling(self) -> None:
        done = cli("import", "x", "-o", "y", "--carry", "--scaling-window", "9")
        assert done.returncode == 64
        assert b"--scaling-window: expected --scaling running beside it, found none" in done.stderr

    def test_a_level_that_is_no_number(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert outcome(["import", "x", "-o", "y", "--carry", "--level", "nan"]) == 64
        assert "'--level': expected a finite number, found nan" in capsys.readouterr().err

    @pytest.mark.parametrize(("option", "text"), [("--mean", "1,x"), ("--horizons", "1.5"), ("--horizons", "1,,2")])
    def test_lists_that_are_none(self, option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert outcome(["import", "x", "-o", "y", option, text]) == 64
        assert f"Invalid value for '{option}'" in capsys.readouterr().err
