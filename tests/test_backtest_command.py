"""`streamlstm backtest` as its users call it: tables, JSON, a page that needs nothing else; and what it refuses."""

import json
import re
import xml.dom.minidom
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from streamlstm.cli.main import commands, outcome
from streamlstm.errors import BadDataError, InputMissingError, UsageError
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind, save
from tests.history.hostile import CORPUS, Kept
from tests.model.random_models import random_parameters

BEGIN = 1_700_000_000_000


def write_model(path: Path, horizons: tuple[int, ...] = (1, 3), inputs: tuple[str, ...] = ("value",)) -> Path:
    parameters = random_parameters(len(inputs), (5,), len(horizons))
    running = Scaling(ScalingKind.RUNNING, (0.0,) * len(inputs), (1.0,) * len(inputs), 50)
    save(
        Model(
            parameters=parameters, window=0, inputs=inputs, target=0, predicts="change", horizons=horizons,
            scaling=running, interval_ms=None, origin={}, golden=make_golden(parameters, 0),
        ),
        path,
    )  # fmt: skip
    return path


def write_history(path: Path, rows: int = 300) -> Path:
    rng = np.random.default_rng(1)
    lines = ["stream,ts,value"]
    for k in range(rows):
        for s, name in enumerate(("calm", "wild", "flat", "$<i>\\frac{\x1b")):
            value = 7.0 if name == "flat" else float(10.0**s * (np.sin(k / 4) + 0.2 * rng.standard_normal()))
            lines.append(f"{name},{BEGIN + 60_000 * k},{value!r}")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("backtest")
    write_model(made / "model.safetensors")
    write_model(made / "other.safetensors", (3,))
    write_history(made / "past.csv")
    return made


def backtest(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(commands, ["backtest", *map(str, arguments)])


def refused(result: Result) -> str:
    assert result.exit_code != 0
    assert result.exception is not None
    return str(result.exception)


def test_tables_and_json(folder: Path) -> None:
    found = backtest(
        folder / "past.csv", "--model", folder / "model.safetensors", "--json", folder / "a.json", "--period", 25
    )
    assert found.exit_code == 0, found.output
    assert "1,200 events; scored are 240, of 4 streams" in found.stdout
    assert re.search(r"repeating the last value.*of 4 streams", found.stdout)
    assert "value one season before" in found.stdout
    assert re.search(r"^horizon +pairs +MAE +RMSE +MASE +RelMAE +RelMAE, seasonal$", found.stdout, re.MULTILINE)
    assert "\x1b" not in found.stdout
    document = json.loads((folder / "a.json").read_text())
    (model,) = document["models"]
    assert document["format"] == 1
    assert document["comparison"] is None
    assert [each["horizon"] for each in model["horizons"]] == [1, 3]
    assert model["overall"]["pairs"] == sum(each["pairs"] for each in model["horizons"]) == 480
    assert (model["period"], model["level"], model["anomalies"], model["overall"]["intervals"]) == (
        25,
        None,
        None,
        None,
    )
    assert model["scored"] == {
        "events": 240, "streams": 4, "first_ms": BEGIN + 240 * 60_000, "last_ms": BEGIN + 299 * 60_000,
    }  # fmt: skip
    assert model["streams"]["ranked"] == 3  # what never changes can't be told from its last value
    listed = [each["stream"] for word in ("worst", "best") for each in model["streams"][word]]
    assert sorted(listed) == sorted(["calm", "wild", "$<i>\\frac{\x1b"])


def test_it_forecasts_what_forecast_does(folder: Path, tmp_path: Path) -> None:
    """However the state is stored; but for `src`, and the order of streams."""
    found = set()
    for dtype in ("float32", "float16", "bfloat16"):
        files, common = [tmp_path / "backtest", tmp_path / "forecast"], ["--model", folder / "model.safetensors"]
        common += ["--set", f"engine.state_dtype={dtype}"]
        assert backtest(folder / "past.csv", *common, "--output", files[0]).exit_code == 0
        given = ["forecast", *common, "--input", folder / "past.csv", "--output", files[1]]
        assert CliRunner().invoke(commands, [str(each) for each in given]).exit_code == 0
        lines = [sorted(line.partition(b',"src"')[0] for line in file.read_bytes().splitlines()) for file in files]
        assert lines[0] == lines[1]
        found.add(tuple(lines[0]))
    assert len(found) == 3


def test_every_key_is_documented(folder: Path) -> None:
    assert backtest(folder / "past.csv", "--compare", folder / "model.safetensors", folder / "other.safetensors",
                    "--json", folder / "b.json").exit_code == 0  # fmt: skip
    promised = (Path(__file__).parents[1] / "docs" / "backtest.md").read_text()

    def keys(value: Any, path: str = "") -> set[str]:
        if isinstance(value, dict):
            inner = {f"{path}{key}" for key in value}
            return inner.union(*(keys(each, "") for key, each in value.items() if key not in ("findings", "origin")))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    missing = {key for key in keys(json.loads((folder / "b.json").read_text())) if f"`{key}`" not in promised}
    assert not missing


class Page(HTMLParser):
    """Tags that a browser would fetch something for, and the texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[tuple[str, str | None]] = []
        self.scripts = 0
        self.headings: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag in ("script", "iframe", "object", "embed", "link", "i\\frac")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action") and not (value or "").startswith("#"):
                self.fetched.append((tag, value))


@pytest.mark.parametrize("two", [False, True], ids=["one model", "two"])
def test_the_page_needs_nothing_from_elsewhere(folder: Path, two: bool) -> None:
    models = ["--model", folder / "model.safetensors"]
    if two:
        models = ["--compare", folder / "model.safetensors", folder / "other.safetensors"]
    found = backtest(folder / "past.csv", *models, "--report", folder / "page.html", "--period", 25)
    assert found.exit_code == 0, found.output
    text = (folder / "page.html").read_text()
    page = Page(text)
    assert page.fetched == []
    assert page.scripts == 0
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text.replace("url(#", "")
    assert "$<i>" not in text
    assert "$&lt;i&gt;\\frac{\\x1b" in text
    assert "#000a" not in text  # every colour that a plot names is the page's
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) > (8 if two else 6)
    for plot in plots:
        xml.dom.minidom.parseString(plot.replace("xlink:href", "href"))
        assert 'role="img" aria-label="' in plot
    identifiers = re.findall(r' id="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_equal_runs_give_equal_pages(folder: Path) -> None:
    pages = []
    for threads in (1, 2):
        options = ("--threads", threads, "--batch-size", 7 * threads, "--report", folder / "same.html")
        assert backtest(folder / "past.csv", "--model", folder / "model.safetensors", *options).exit_code == 0
        pages.append((folder / "same.html").read_bytes())
    assert pages[0] == pages[1]


def test_the_forecasts_are_those_of_forecast(folder: Path) -> None:
    model = ("--model", folder / "model.safetensors")
    assert backtest(folder / "past.csv", *model, "--output", folder / "out.jsonl").exit_code == 0
    command = ["forecast", "--input", folder / "past.csv", "--output", folder / "expected.jsonl", *model]
    assert outcome([str(part) for part in command]) == 0
    assert (folder / "out.jsonl").read_bytes() == (folder / "expected.jsonl").read_bytes()
    piped = backtest(folder / "past.csv", *model, "--output", "-")
    assert piped.stdout_bytes == (folder / "expected.jsonl").read_bytes()


def test_two_models(folder: Path) -> None:
    found = backtest(folder / "past.csv", "--compare", folder / "model.safetensors", folder / "other.safetensors",
                     "--json", folder / "c.json")  # fmt: skip
    assert found.exit_code == 0, found.output
    assert re.search(r"model.safetensors beside .*other.safetensors: better on \d streams, worse on \d", found.stdout)
    document = json.loads((folder / "c.json").read_text())
    (panel,) = document["comparison"]["horizons"]
    assert panel["horizon"] == 3
    assert panel["first_better"] + panel["second_better"] + panel["undecided"] == 4
    assert panel["pairs"] == document["models"][0]["horizons"][1]["pairs"] == 240


class TestRefusals:
    def test_inputs_that_are_not_in_the_file(self, folder: Path) -> None:
        model = write_model(folder / "load.safetensors", inputs=("temp", "load"))
        said = refused(backtest(folder / "past.csv", "--model", model))
        assert "past.csv: expected a column for each input (temp, load), found stream, ts, value" in said

    def test_no_stream_is_long_enough(self, folder: Path) -> None:
        model = write_model(folder / "far.safetensors", (400,))
        assert "expected a stream of more than 400 events" in refused(backtest(folder / "past.csv", "--model", model))

    def test_no_model(self, folder: Path) -> None:
        assert "none.safetensors" in refused(backtest(folder / "past.csv", "--model", folder / "none.safetensors"))

    def test_models_that_have_nothing_in_common(self, folder: Path) -> None:
        other = write_model(folder / "two.safetensors", (2,))
        said = refused(backtest(folder / "past.csv", "--compare", folder / "other.safetensors", other))
        assert "expected a horizon that both models have; found (3,) and (2,)" in said

    def test_one_file_of_two_models(self, folder: Path) -> None:
        models = ("--compare", folder / "model.safetensors", folder / "other.safetensors")
        assert "neither --model nor --output" in refused(backtest(folder / "past.csv", *models, "--output", "x"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("past.csv", "--topic"), "expected files or --topic, found both"),
            ((), "expected files, or --topic; found neither"),
            (("past.csv", "--last", "5"), "--last: doesn't go with files"),
            (("past.csv", "--read-to", "0:7"), "--read-from, --read-to: expected a time, as files have no offsets"),
            (("--topic", "--time-column", "t"), "--time-column: doesn't go with --topic"),
            (("past.csv", "--from", "20"), "--from 20: expected a share of each stream below 1 (0.2 or 20%)"),
        ],
    )
    def test_the_source(self, options: tuple[str, ...], message: str) -> None:
        assert message in refused(backtest(*options))

    def test_columns_of_json_lines(self, folder: Path) -> None:
        (folder / "past.jsonl").write_text('{"ts":1,"load":2}\n')
        options = ("--model", folder / "model.safetensors", "--value-columns", "load")
        said = refused(backtest(folder / "past.csv", folder / "past.jsonl", *options))
        assert "--value-columns: expected a table; " in said
        assert "past.jsonl is JSON lines, whose fields are --set input.value_fields=" in said

    @pytest.mark.parametrize("options", [("--json", "no/such/folder/a.json"), ("--output", "no/such/folder/a.jsonl")])
    def test_files_that_cannot_be_written(self, folder: Path, options: tuple[str, str]) -> None:
        command = ["backtest", folder / "past.csv", "--model", folder / "model.safetensors", *options]
        assert outcome([str(part) for part in command]) == 66

    @pytest.mark.parametrize("option", ["--output", "--json", "--report"])
    @pytest.mark.parametrize("over", ["past.csv", "model.safetensors"])
    def test_nothing_is_written_over_what_is_read(self, tmp_path: Path, option: str, over: str) -> None:
        past, model = write_history(tmp_path / "past.csv", 20), write_model(tmp_path / "model.safetensors")
        before = (tmp_path / over).read_bytes()
        said = refused(backtest(tmp_path, "--model", model, option, tmp_path / over))
        assert f"{option} {tmp_path / over}: expected a file of its own, found that of " in said
        assert (tmp_path / over).read_bytes() == before
        assert past.exists()


@pytest.mark.parametrize("name", CORPUS)
def test_hostile_histories(name: str, folder: Path, tmp_path: Path) -> None:
    content, fate = CORPUS[name]
    (tmp_path / name).write_bytes(content)
    found = backtest(tmp_path / name, "--model", folder / "model.safetensors", "--json", tmp_path / "a.json")
    if found.exit_code == 0:
        assert isinstance(fate, Kept) or name == "one_time.csv"  # in the order of arrival they are five events
        assert json.loads((tmp_path / "a.json").read_text())["models"][0]["overall"]["pairs"] > 0
    else:
        assert isinstance(found.exception, BadDataError | InputMissingError | UsageError)
        assert str(found.exception).isprintable()


@pytest.mark.parametrize("name", ["constant.csv", "two_rows.csv", "1e300.csv", "year_gap.csv", "conflict.csv"])
def test_pages_of_hostile_histories(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(CORPUS[name][0])
    found = backtest(tmp_path / name, "--model", folder / "model.safetensors", "--report", tmp_path / "a.html")
    assert found.exit_code == 0, found.output
    Page((tmp_path / "a.html").read_text())
