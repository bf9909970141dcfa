"""The automatic recipe as a whole: what it finds, says and saves, for made series; the same bytes whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from streamlstm.cli.main import commands
from streamlstm.model.model_file import load

Series = dict[str, Any]
SMALL = ("--hidden", 6, "--batch", 16, "--steps", 200)
HOUR = 3_600_000
ROOT = Path(__file__).parents[2]


def train(*arguments: str | Path | float) -> Result:
    return CliRunner().invoke(commands, ["train", *map(str, arguments)])


def write_csv(path: Path, streams: Series) -> Path:
    rows = [
        f"{name},{1_700_000_000_000 + HOUR * k},{','.join(repr(float(each)) for each in np.atleast_1d(values))}\n"
        for name, series in streams.items()
        for k, values in enumerate(series)
    ]
    width = np.atleast_2d(next(iter(streams.values()))[0]).shape[1]
    path.write_text(f"stream,ts,{','.join(['value', 'other', 'third'][:width])}\n" + "".join(rows))
    return path


def days(rows: int, seed: int = 0) -> Any:
    """A day of 24 hours, bent, and noise."""
    t, random = np.arange(rows), np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * t / 24 + seed)
    return 100 * (seed + 1) + 10 * wave + 4 * np.abs(wave) + random.normal(size=rows)


def test_a_season_is_found_used_and_told(tmp_path: Path) -> None:
    past = write_csv(tmp_path / "past.csv", {f"s{k}": days(500, k) for k in range(4)})
    found = train(past, "-o", tmp_path / "m", "--horizon", 6, *SMALL, "--plot", tmp_path / "curves.png")
    assert found.exit_code == 0, found.output
    assert "season: 24 events (strength 0." in found.stderr
    assert "linear forecasts on the tails (396 events of 4 streams), MAE over that of repeating" in found.stderr
    assert "seasonal naive" in found.stderr
    assert "; a larger set has to gain 0.5 % on the tails" in found.stderr
    assert "network, step 100 of at most 200: loss 0." in found.stderr
    assert "held to 396 events of 4 streams" in found.stdout
    model = load(tmp_path / "m")
    assert model.features is not None
    assert (model.horizons, model.features.period, model.level, model.guard) == ((1, 2, 3, 4, 5, 6), 24, 0.9, True)
    assert (model.origin["recipe"], model.origin["seed"]) == ("auto", "0")
    assert 24 in model.features.lags
    assert len(model.origin["history"]) == 64
    assert all(float(each.split(": ")[1]) < 0.8 for each in model.origin["tail_rel_mae"].split(", "))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_equal_seeds_give_equal_files_for_any_number_of_threads(tmp_path: Path) -> None:
    past = write_csv(tmp_path / "past.csv", {"a": days(300), "b": days(200, 1)})
    files = []
    for name, threads, seed in (("one", 1, 7), ("two", 2, 7), ("other", 1, 8)):
        assert train(past, "-o", tmp_path / name, *SMALL, "--threads", threads, "--seed", seed).exit_code == 0
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_scale_and_level_of_a_stream_change_nothing(tmp_path: Path) -> None:
    """By powers of two the arithmetic is the same."""
    x = np.round(days(300) * 64) / 64
    hashes = []
    for k, series in enumerate((x, x * 2.0**40, x * 2.0**-40)):
        past = write_csv(tmp_path / f"{k}.csv", {"a": series})
        assert train(past, "-o", tmp_path / f"{k}", *SMALL).exit_code == 0
        hashes.append(load(tmp_path / f"{k}").model_hash)
    assert len(set(hashes)) == 1


def test_other_inputs_are_standardised_and_fed(tmp_path: Path) -> None:
    """Only the other input tells where the walk goes."""
    random = np.random.default_rng(3)
    sign = random.normal(size=1500)
    walk = np.cumsum(np.concatenate([[0.0], sign[:-1]]))
    past = write_csv(tmp_path / "p.csv", {"a": np.stack([walk, 1e6 + 50 * sign], axis=1)})
    options = ("--inputs", "value,other", "--hidden", 8, "--steps", 600, "--learning-rate", 0.01)
    found = train(past, "-o", tmp_path / "m", *options)
    assert found.exit_code == 0, found.output
    model = load(tmp_path / "m")
    assert model.inputs == ("value", "other")
    assert model.scaling.offset[1] == pytest.approx(1e6, rel=1e-4)
    assert model.scaling.scale[1] == pytest.approx(50, rel=0.1)
    assert float(model.origin["tail_rel_mae"].split(": ")[1]) < 0.6


def test_what_cannot_be_learned_is_said(tmp_path: Path) -> None:
    walk = np.cumsum(np.random.default_rng(1).normal(size=900))
    found = train(write_csv(tmp_path / "p.csv", {"a": walk}), "-o", tmp_path / "m", *SMALL)
    assert found.exit_code == 0
    assert "season: none found" in found.stderr
    assert float(load(tmp_path / "m").origin["tail_rel_mae"].split(": ")[1]) < 1.05


def test_what_the_tail_is_too_short_for_is_not_told(tmp_path: Path) -> None:
    """12 rows of the tail hold no forecast of 24 steps to anything."""
    walk = np.cumsum(np.random.default_rng(1).normal(size=60))
    found = train(write_csv(tmp_path / "p.csv", {"a": walk}), "-o", tmp_path / "m", "--horizon", 24, *SMALL)
    assert found.exit_code == 0, found.output
    told = [line.split() for line in (found.stderr + found.stdout).splitlines()]
    rows = [line for line in told if line[:2] == ["this", "model"] or line[:1] == ["short"]]
    assert len(rows) == 2
    assert all("-" in row for row in rows)
    assert "nan" not in found.output
    assert "seasonal naive" not in found.output
    assert "24: " not in load(tmp_path / "m").origin["tail_rel_mae"]


def test_a_network_that_adds_nothing_is_left_out(tmp_path: Path) -> None:
    """A straight line has nothing left over."""
    found = train(write_csv(tmp_path / "p.csv", {"a": np.arange(400.0)}), "-o", tmp_path / "m", *SMALL)
    assert found.exit_code == 0, found.output
    assert "the model is the linear forecast alone" in found.stdout
    model = load(tmp_path / "m")
    assert model.parameters.hidden == (1,)
    assert not model.parameters.head_weight.any()
    assert model.origin["network"] == "adds nothing"


def test_without_a_tail(tmp_path: Path) -> None:
    past = write_csv(tmp_path / "p.csv", {"a": days(300)})
    found = train(past, "-o", tmp_path / "m", "--tail", 0, *SMALL)
    assert found.exit_code == 0, found.output
    assert "nothing was kept to hold the model to" in found.stdout
    assert "tail_rel_mae" not in load(tmp_path / "m").origin


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--quantiles", "0.1,0.95"), "two as far from 0 as from 1"),
        (("--quantiles", "0.1"), "two as far from 0 as from 1"),
        (("--quantiles", "0.05,0.95", "--level", "0.8"), "expected those of --level 0.8, found those of 0.9"),
        (("--window", "12"), "--window: doesn't go with --recipe auto"),
        (("--recipe", "keras-tutorial", "--horizon", "3"), "--horizon: doesn't go with --recipe keras-tutorial"),
        (("--recipe", "keras-tutorial", "--no-guard"), "--guard: doesn't go with"),
        (("--topic",), "expected files or --topic, found both"),
        (("--from", "0:7"), "--from, --to: expected a time, as files have no offsets"),
        (("--last", "5"), "--last: doesn't go with files"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    past = write_csv(tmp_path / "p.csv", {"a": days(60)})
    found = train(past, "-o", tmp_path / "m", *options)
    assert found.exit_code != 0
    assert problem in f"{found.output}{found.exception}"


def test_the_level_by_its_ends(tmp_path: Path) -> None:
    past = write_csv(tmp_path / "p.csv", {"a": days(80)})
    assert train(past, "-o", tmp_path / "m", "--quantiles", "0.1,0.9", "--no-guard", *SMALL).exit_code == 0
    model = load(tmp_path / "m")
    assert (model.level, model.guard) == (0.8, False)


@pytest.mark.parametrize(
    ("streams", "problem"),
    [({"a": [5.0] * 100}, "every stream constant"), ({"a": [1.0, 2.0, 1e31]}, "within 1e[+]30, found 1e[+]31|beyond")],
)
def test_what_is_refused(streams: Series, problem: str, tmp_path: Path) -> None:
    found = train(write_csv(tmp_path / "p.csv", streams), "-o", tmp_path / "m")
    assert found.exit_code != 0
    with pytest.raises(type(found.exception), match=problem):  # type: ignore[arg-type]
        raise found.exception  # type: ignore[misc]
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("rows", [2, 3, 5, 9, 14, 30])
def test_a_short_history_makes_a_finite_model(rows: int, tmp_path: Path) -> None:
    found = train(write_csv(tmp_path / "p.csv", {"a": days(rows)}), "-o", tmp_path / "m", "--horizon", 3, *SMALL)
    assert found.exit_code == 0, found.output
    model = load(tmp_path / "m")
    assert model.features is not None
    assert np.isfinite(model.features.skip).all()


def test_a_time_limit_ends_it(tmp_path: Path) -> None:
    past = write_csv(tmp_path / "p.csv", {"a": days(300)})
    found = train(past, "-o", tmp_path / "m", "--steps", 1_000_000, "--hidden", 6, "--time-limit", 0.5)
    assert found.exit_code == 0, found.output
    assert load(tmp_path / "m").origin["time_limit"] == "0.5"


class TestLeftAndGoneOn:
    """kill -9, and signals, while it trains; the same command ends with the bytes of a run that was left alone."""

    @staticmethod
    def begun(folder: Path, *options: str) -> "subprocess.Popen[str]":
        arguments = ("-o", folder / "m", "--checkpoint", folder / "c", "--save-every", "0.01", *SMALL, *options)
        command = [sys.executable, "-m", "streamlstm", "train", folder / "p.csv", *arguments]
        return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, cwd=ROOT)

    @staticmethod
    def until_saved(folder: Path, process: "subprocess.Popen[str]", newer_than: int = 0) -> int:
        while not (folder / "c").exists() or (folder / "c").stat().st_mtime_ns <= newer_than:
            assert process.poll() is None
            time.sleep(0.01)
        return (folder / "c").stat().st_mtime_ns

    def test_kill(self, tmp_path: Path) -> None:
        past = write_csv(tmp_path / "p.csv", {"a": days(300), "b": days(250, 1)})
        assert train(past, "-o", tmp_path / "whole", *SMALL).exit_code == 0
        saved = 0
        for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = self.begun(tmp_path)
            self.until_saved(tmp_path, process, saved)
            os.kill(process.pid, number)
            _, said = process.communicate(timeout=120)
            saved = (tmp_path / "c").stat().st_mtime_ns
            assert process.returncode == code
            assert ("the same command goes on from" in said) == (number != signal.SIGKILL)
        last = self.begun(tmp_path)
        _, said = last.communicate(timeout=240)
        assert last.returncode == 0, said
        assert (tmp_path / "m").read_bytes() == (tmp_path / "whole").read_bytes()
        assert not (tmp_path / "c").exists()

    def test_another_training_is_refused(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "p.csv", {"a": days(300)})
        process = self.begun(tmp_path)
        self.until_saved(tmp_path, process)
        process.kill()
        process.communicate()
        options = ("-o", tmp_path / "m", "--checkpoint", tmp_path / "c", *SMALL, "--seed", 5)
        found = train(tmp_path / "p.csv", *options)
        assert "a checkpoint of another history, version or of other options" in str(found.exception)


def test_ten_lines_of_json(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"ts": HOUR * k, "value": k % 3}) + "\n" for k in range(10)))
    assert train(tmp_path / "p.jsonl", "-o", tmp_path / "m", *SMALL).exit_code == 0
