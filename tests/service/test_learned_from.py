"""A backtest on what a model has learned from says so."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from streamlstm.cli.main import commands
from streamlstm.history.history import History
from streamlstm.model.model_file import load, save
from streamlstm.service.learned_from import HISTORY, LEARNED_TO, history_hash, overlap_note
from tests.history.reading import read

BEGIN, MINUTE, ROWS = 1_700_000_000_000, 60_000, 200
SMALL = ("--hidden", 4, "--batch", 16, "--steps", 20)
TUTORIAL = ("--recipe", "keras-tutorial", "--epochs", 1, "--hidden", 4)


def run(*arguments: object) -> str:
    found = CliRunner().invoke(commands, [*map(str, arguments)])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.fixture
def past(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = [f"{name},{BEGIN + MINUTE * k},{rng.standard_normal():.4f}\n" for name in "ab" for k in range(ROWS)]
    path = tmp_path / "past.csv"
    path.write_text("stream,ts,value\n" + "".join(rows))
    return path


@pytest.fixture
def history(past: Path) -> History:
    return read(past)


@pytest.mark.parametrize(("options", "last"), [(SMALL, ROWS - 1), (TUTORIAL, ROWS * 4 // 5 - 1)])
def test_the_last_event_learned_from_is_kept(past: Path, tmp_path: Path, options: Any, last: int) -> None:
    run("train", past, "-o", tmp_path / "m", *options)
    assert int(load(tmp_path / "m").origin[LEARNED_TO]) == BEGIN + MINUTE * last


def test_a_backtest_on_it_says_so(past: Path, tmp_path: Path) -> None:
    def backtest() -> tuple[str, str | None, str]:
        said = run(
            "backtest", past, "--model", tmp_path / "m", "--json", tmp_path / "json", "--report", tmp_path / "html"
        )
        note = json.loads((tmp_path / "json").read_text())["models"][0]["note"]
        return said, note, (tmp_path / "html").read_text()

    run("train", past, "-o", tmp_path / "m", *SMALL)
    said, note, page = backtest()
    assert note == (
        "note: the model has learned from events up to 2023-11-15T01:32:20Z, and what is scored begins at "
        "2023-11-15T00:53:20Z: train on an earlier part for an honest figure"
    )
    assert note in said
    assert note[1:] in page
    save(replace(load(tmp_path / "m"), origin={HISTORY: history_hash(read(past))}), tmp_path / "m")
    assert backtest()[1] == (
        "note: the model has learned from all of this history: train on an earlier part for an honest figure"
    )
    run("train", past, "-o", tmp_path / "m", *TUTORIAL)  # from what lies in front of the tails alone
    said, note, page = backtest()
    assert note is None
    assert "has learned from" not in said + page


@pytest.mark.parametrize(
    "origin", [{}, {LEARNED_TO: "soon"}, {LEARNED_TO: "9" * 40}, {LEARNED_TO: str(BEGIN - 1)}, {HISTORY: "0" * 64}]
)
def test_nothing_is_said_without_cause(origin: dict[str, str], history: History) -> None:
    assert overlap_note(origin, history, BEGIN) is None
    assert overlap_note({LEARNED_TO: str(BEGIN)}, history, None) is None
