"""`streamlstm train` as its users call it: files in, a model that serves out, and words about what it is worth."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from streamlstm.cli.main import commands
from streamlstm.model.model_file import load

DATA = Path(__file__).parents[1] / "deploy" / "demo" / "data"


def train(*arguments: str | Path) -> Result:
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
