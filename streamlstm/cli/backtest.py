"""backtest: how good the forecasts of a history would have been."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamlstm.cli.history_source import HistorySource, source_options
from streamlstm.cli.options import config_options, file_of, load_config
from streamlstm.cli.outputs import STANDARD, Output, require_outputs
from streamlstm.cli.progress import progress_bar
from streamlstm.errors import UsageError

if TYPE_CHECKING:
    from streamlstm.config import Config
    from streamlstm.history.history import History
    from streamlstm.model.model_file import Model
    from streamlstm.service.backtest import Backtest


@click.command()
@click.argument("history", metavar="[FILE]...", nargs=-1)
@config_options
@click.option("--model", type=click.Path(path_type=Path), help="Model file instead of model.path.")
@click.option(
    "--compare", nargs=2, metavar="A B", type=click.Path(path_type=Path), help="Two model files; which is better?"
)
@click.option("--from", "since", default="0.8", metavar="WHERE", help="Share of each stream, or time, to score from.")
@click.option("--period", type=click.IntRange(1), help="Events of a season.  [default: the model's, or none]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="All forecasts, as JSON lines; - is standard output.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="The measures, as JSON; or -."
)
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="One HTML page with everything; or -.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, help="Best and worst streams to list.")
@click.option("--batch-size", type=click.IntRange(1), default=20_000, help="Events per batch; changes no byte.")
@click.option("--threads", type=click.IntRange(0), help="Instead of engine.threads; changes no byte.")
@source_options("--read-from", "--read-to")
def backtest(
    config_file: Path | None,
    overrides: tuple[str, ...],
    model: Path | None,
    compare: tuple[Path, Path] | None,
    since: str,
    period: int | None,
    output: Path | None,
    json_file: Path | None,
    report: Path | None,
    top: int,
    batch_size: int,
    threads: int | None,
    **given: Any,
) -> None:
    """Forecast a history as the daemon would have, and score it.

    FILE: CSV (long or wide), JSON lines, Parquet, folders of them, or - for JSON lines on standard input; or the input
    topic, with --topic.

    Every forecast has the bytes that the daemon would have written for the events as they stand in the topic, those of
    files in the order of time. The first part of each stream warms it up; what follows --from is held to repeating the
    last value, and the value one season before. --compare tests which of two models is better, stream by stream
    (Diebold and Mariano).
    """
    source = HistorySource(**given)
    source.require_one("--read-from", "--read-to")
    config = load_config(config_file, overrides)
    from streamlstm.cli.backtest_text import lines
    from streamlstm.service.backtest import BacktestOptions, read_since
    from streamlstm.service.backtest_document import document

    options = BacktestOptions(
        since=read_since(since), period=period, output=output, batch_size=batch_size,
        threads=config.engine.threads if threads is None else threads,
    )  # fmt: skip
    _refuse_odd(compare, model, output, report)
    paths = compare or (model if model is not None else Path(config.model.path),)
    outputs = [Output("--output", output), Output("--json", json_file), Output("--report", report)]
    read = [("--compare" if compare else "--model", path) for path in paths]
    require_outputs(outputs, [*source.files(), *read, ("-c", file_of(config_file))])
    models = [(str(path), _load(path)) for path in paths]
    past = _read(source, config, models)
    tests = _run(past, config, models, options)
    panels = _panels(tests)
    found = document(past, tests, panels, top)
    for line in lines(found):
        click.echo(line, err=STANDARD in map(str, (output, json_file, report)))
    _write(json_file, report, past, found, tests, panels)


def _write(
    json_file: Path | None, report: Path | None, past: "History", found: Any, tests: list["Backtest"], panels: list[Any]
) -> None:
    if json_file is not None:
        _write_text(json_file, json.dumps(found, indent=1, allow_nan=False) + "\n")
    if report is not None:
        from streamlstm.service.backtest_report import page

        _write_text(report, page(past, found, tests, panels))


def _write_text(path: Path, text: str) -> None:
    if str(path) == STANDARD:
        click.echo(text.encode(), nl=False)
        return
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {path}", err=True)


def _refuse_odd(
    compare: tuple[Path, Path] | None, model: Path | None, output: Path | None, report: Path | None
) -> None:
    """What can't be done is said before anything is read."""
    if compare and (model is not None or output is not None):
        raise UsageError("--compare: expected neither --model nor --output beside it: each is about one model")
    if report is not None:
        from streamlstm.service.backtest_report import require_plots

        require_plots()


def _load(path: Path) -> "Model":
    from streamlstm.model.model_file import load

    return load(path)


def _read(source: HistorySource, config: "Config", models: list[tuple[str, "Model"]]) -> "History":
    from streamlstm.service.backtest import require_comparable

    if len(models) == 2:
        require_comparable(models[0][1], models[1][1])
    return source.read(config, models[0][1].inputs, "arrival")


def _run(past: "History", config: "Config", models: list[tuple[str, "Model"]], options: Any) -> list["Backtest"]:
    from streamlstm.service.backtest import backtest as run

    tests = []
    for path, model in models:
        with progress_bar(past.rows, "forecasting") as progress:
            tests.append(run(path, model, past, config, options, progress))
    return tests


def _panels(tests: list["Backtest"]) -> list[Any]:
    from streamlstm.service.backtest import compare_two

    if len(tests) < 2:
        return []
    horizons = set(tests[0].model.horizons) & set(tests[1].model.horizons)
    with progress_bar(tests[0].evidence.streams * len(horizons), "comparing") as progress:
        return compare_two(tests[0], tests[1], progress)
