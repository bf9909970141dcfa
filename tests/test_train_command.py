"""`streamlstm train` as its users call it: files in, a model that serves out, and words about what it is worth."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from streamlstm.cli.main import commands, outcome
from streamlstm.errors import ConfigError
from streamlstm.model.model_file import load

DATA = Path(__file__).parents[1] / "deploy" / "demo" / "data"


def train(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(commands, ["train", *map(str, arguments)])


def write_csv(path: Path, streams: dict[str, list[float]]) -> Path:
    rows = [
        f"{name},{1_700_000_000_000 + 60_000 * k},{value!r}\n"
        for name, values in streams.items()
        for k, value in enumerate(values)
    ]
    path.write_text("stream,ts,value\n" + "".join(rows))
    return path


def wave(rows: int, shift: float = 0.0) -> list[float]:
    return [10 + 3 * float(np.sin(k / 6 + shift)) for k in range(rows)]


@pytest.mark.parametrize("recipe", ["keras-tutorial", "pytorch-tutorial"])
def test_from_a_file_to_forecasts(tmp_path: Path, recipe: str) -> None:
    history = write_csv(tmp_path / "past.csv", {"a": wave(300), "b": wave(250, 2.0)})
    found = train(history, "-o", tmp_path / "model.safetensors", "--recipe", recipe, "--window", 12, "--epochs", 40)
    assert found.exit_code == 0, found.output
    assert "epoch 40 of 40: loss" in found.stderr
    assert "better on 2 of 2 streams" in found.stdout
    model = load(tmp_path / "model.safetensors")
    assert (model.window, model.horizons, model.origin["recipe"], model.origin["windows"]) == (12, (1,), recipe, "416")
    events = tmp_path / "events.jsonl"
    events.write_text("".join(f'{{"ts":{60_000 * k},"value":{v!r},"stream":"c"}}\n' for k, v in enumerate(wave(80, 1))))
    served = CliRunner().invoke(
        commands, ["forecast", "--model", str(tmp_path / "model.safetensors"), "--input", str(events)]
    )
    assert served.exit_code == 0, served.output
    told = [json.loads(line)["yhat"][0] for line in served.stdout.splitlines()]
    actual = np.array(wave(81, 1)[1:])
    assert np.abs(np.array(told) - actual)[20:].mean() < np.abs(np.diff(wave(81, 1)))[20:].mean()


def test_equal_seeds_give_equal_files_for_any_number_of_threads(tmp_path: Path) -> None:
    history = write_csv(tmp_path / "past.csv", {"a": wave(150)})
    files = []
    for name, threads, seed in (("one", 1, 7), ("two", 2, 7), ("other", 1, 8)):
        options = ("--epochs", 2, "--threads", threads, "--seed", seed, "--recipe", "keras-tutorial")
        assert train(history, "-o", tmp_path / name, *options).exit_code == 0
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_model_that_loses_to_the_last_value_is_said_to(tmp_path: Path) -> None:
    walk = np.cumsum(np.random.default_rng(1).standard_normal(600)).tolist()
    history = write_csv(tmp_path / "walk.csv", {"walk": walk})
    found = train(history, "-o", tmp_path / "m", "--recipe", "keras-tutorial", "--epochs", 1)
    assert found.exit_code == 0
    assert "better on 0 of 1 streams\nthis model is worse than repeating the last value: don't serve it" in found.stdout


@pytest.mark.parametrize(
    ("streams", "options", "problem"),
    [
        ({"a": wave(20)}, (), "more than 24 rows before its tail.*the longest has 16"),
        ({"a": wave(2)}, ("--window", 1), "more than 1 rows before its tail.*the longest has 1"),
        ({"a": wave(1)}, ("--window", 1), "expected two rows at least, of different times"),
    ],
)
def test_too_short_a_history_is_refused(
    tmp_path: Path, streams: dict[str, list[float]], options: tuple[object, ...], problem: str
) -> None:
    history = write_csv(tmp_path / "past.csv", streams)
    found = train(history, "-o", tmp_path / "m", "--recipe", "keras-tutorial", *map(str, options))
    assert found.exit_code != 0
    with pytest.raises(type(found.exception), match=problem):  # type: ignore[arg-type]
        raise found.exception  # type: ignore[misc]
    assert not (tmp_path / "m").exists()


def test_a_constant_series_trains_to_a_finite_model(tmp_path: Path) -> None:
    history = write_csv(tmp_path / "past.csv", {"a": [5.0] * 100})
    found = train(history, "-o", tmp_path / "m", "--recipe", "pytorch-tutorial", "--epochs", 1, "--window", 8)
    assert found.exit_code == 0, found.output
    assert np.isfinite(load(tmp_path / "m").golden.y).all()


def test_a_part_of_the_time(tmp_path: Path) -> None:
    """As from a file that ends there; and a backtest from there on is of what the model hasn't seen."""
    whole, end = {"a": wave(300), "b": wave(250, 2.0)}, 1_700_000_000_000 + 60_000 * 200
    history, part = write_csv(tmp_path / "past.csv", whole), {name: each[50:200] for name, each in whole.items()}
    write_csv(tmp_path / "part.csv", {name: [0.0] * 50 + each for name, each in part.items()})
    lines = (tmp_path / "part.csv").read_text().splitlines()
    (tmp_path / "part.csv").write_text("\n".join(line for line in lines if not line.endswith(",0.0")))
    options = ("--steps", 2, "--horizon", 3)
    bounds = ("--from", end - 60_000 * 150, "--to", end)
    for name, given in (("one", (history, *bounds)), ("two", (tmp_path / "part.csv",)), ("all", (history,))):
        found = train(*given, "-o", tmp_path / name, *options)
        assert found.exit_code == 0, found.output
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() != (tmp_path / "all").read_bytes()
    for name, learned in (("one", False), ("all", True)):
        tested = CliRunner().invoke(
            commands, ["backtest", str(history), "--model", str(tmp_path / name), "--from", str(end)]
        )
        assert tested.exit_code == 0, tested.output
        assert ("the model has learned from" in tested.stdout) == learned


def test_without_a_tail_there_are_no_scores(tmp_path: Path) -> None:
    history = write_csv(tmp_path / "past.csv", {"a": wave(60)})
    found = train(history, "-o", tmp_path / "m", "--recipe", "keras-tutorial", "--epochs", 1, "--tail", 0)
    assert found.exit_code == 0
    assert "nothing was kept to hold the model to" in found.stdout


def test_a_real_series(tmp_path: Path) -> None:
    found = train(
        DATA / "nyc_taxi.csv", "-o", tmp_path / "m", "--recipe", "pytorch-tutorial", "--epochs", 1, "--window", 12
    )
    assert found.exit_code == 0
    assert "learned from 8,244 windows; held to 2,064 events after them" in found.stdout


QUICK = ("--recipe", "keras-tutorial", "--epochs", 1, "--window", 4)


class TestConfiguration:
    """Where the fields of an event stand, and the unit of its time, are those of the daemon."""

    def test_the_unit_of_times(self, tmp_path: Path) -> None:
        rows = "".join(f"a,{1_700_000_000_000_000 + 60_000_000 * k},{v}\n" for k, v in enumerate(wave(60)))
        (tmp_path / "us.csv").write_text("stream,ts,value\n" + rows)
        found = train(tmp_path / "us.csv", "-o", tmp_path / "m", *QUICK, "--set", "input.time_unit=us")
        assert found.exit_code == 0, found.output
        assert "2023-11-14" in found.stderr

    def test_the_fields_by_file_and_by_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = [{"device": name, "ts": 60_000 * k, "v": v} for name in "ab" for k, v in enumerate(wave(60))]
        (tmp_path / "past.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
        (tmp_path / "streamlstm.toml").write_text('[input]\nstream_field = "device"\n')
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("STREAMLSTM_INPUT__VALUE_FIELDS", '["v"]')
        found = train("past.jsonl", "-o", "m", *QUICK)
        assert found.exit_code == 0, found.output
        assert "of 2 streams" in found.stdout

    def test_an_unknown_key(self, tmp_path: Path) -> None:
        past = write_csv(tmp_path / "past.csv", {"a": wave(60)})
        found = train(past, "-o", tmp_path / "m", "--set", "input.time_unt=us")
        assert isinstance(found.exception, ConfigError)
        assert "did you mean input.time_unit?" in str(found.exception)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("past.jsonl", ("--stream-column", "device"), "--set input.stream_field=NAME"),
        ("past.jsonl", ("--time-column", "t"), "--set input.time_fields="),
        ("-", ("--value-columns", "v"), "--value-columns: expected a table; - is JSON lines"),
        ("past.csv", ("--save-every", "3"), "--save-every: expected --checkpoint beside it"),
        ("past.csv", ("--level", "nan"), "'--level': expected a finite number, found nan"),
        ("past.csv", ("--time-limit", "inf"), "'--time-limit': expected a finite number, found inf"),
        ("past.csv", ("--quantiles", "0.05,nan"), "'--quantiles': expected finite values"),
    ],
)
def test_options_that_would_be_ignored_or_mean_nothing(
    source: str,
    options: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_csv(tmp_path / "past.csv", {"a": wave(60)})
    (tmp_path / "past.jsonl").write_text('{"device":"a","ts":1,"value":2}\n')
    path = source if source == "-" else str(tmp_path / source)
    assert outcome(["train", path, "-o", str(tmp_path / "m"), *options]) == 64
    assert said in capsys.readouterr().err + caplog.text
