"""forecast: the same pipe without a broker."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from streamlstm.cli import progress as bars
from streamlstm.cli.models import listed
from streamlstm.cli.options import config_options, file_of, load_config
from streamlstm.cli.outputs import Output, require_outputs

if TYPE_CHECKING:
    from streamlstm.service.offline import Tally


@click.command()
@config_options
@click.option("--model", type=click.Path(path_type=Path), help="Model file instead of model.path.")
@click.option(
    "--input", "source", required=True, metavar="FILE", help="Events, JSON lines or CSV; - is standard input."
)
@click.option("--output", default="-", metavar="FILE", help="Forecasts, one JSON line per event; - is standard output.")
@click.option("--dead-letters", metavar="FILE", help="Refused events, with their reasons; they are always counted.")
@click.option(
    "--format", "kind", type=click.Choice(["auto", "jsonl", "csv"]), default="auto", help="Format of the input."
)
@click.option("--stream-column", help="CSV: that of the stream ids.  [default: found by its name]")
@click.option("--time-column", help="CSV: that of the times.  [default: found by its name]")
@click.option("--value-columns", callback=listed(str), metavar="A,B,..", help="CSV: that of each input.")
@click.option("--batch-size", type=click.IntRange(1), default=20_000, help="Events per batch; changes no byte.")
@click.option("--threads", type=click.IntRange(0), help="Instead of engine.threads; changes no byte.")
@click.option("--topic", help="Topic named in `src`, instead of input.topic.")
@click.option("--partition", type=click.IntRange(0), default=0, help="Partition named in `src`.")
@click.option("--first-offset", type=click.IntRange(0), default=0, help="Offset of the first event in `src`.")
def forecast(
    config_file: Path | None,
    overrides: tuple[str, ...],
    model: Path | None,
    source: str,
    output: str,
    dead_letters: str | None,
    kind: Literal["auto", "jsonl", "csv"],
    batch_size: int,
    threads: int | None,
    topic: str | None,
    partition: int,
    first_offset: int,
    **columns: Any,
) -> None:
    """Forecast the events of a file, without a broker.

    Writes, in input order, the very bytes that the daemon writes as record values for the same events.

    CSV may be long (a stream column, one column per input) or wide (one column per series), and is read as train and
    backtest read it. gzip and zstd are unpacked.
    """
    config = load_config(config_file, overrides)
    from streamlstm.service.offline import OfflineOptions
    from streamlstm.service.offline import forecast as forecast_file

    options = OfflineOptions(
        model=model if model is not None else Path(config.model.path),
        input=source,
        output=output,
        format=kind,
        batch_size=batch_size,
        threads=config.engine.threads if threads is None else threads,
        topic=topic or "",
        partition=partition,
        first_offset=first_offset,
        dead_letters=dead_letters,
        **columns,
    )
    require_outputs(
        [Output("--output", output), Output("--dead-letters", dead_letters)],
        [("--input", source), ("--model", options.model), ("-c", file_of(config_file))],
    )
    with progress_bar(source) as progress:
        tally = forecast_file(options, config, progress)
    for note in tally.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(summary(tally), err=True)


def summary(tally: "Tally") -> str:
    """12 events, 10 forecasts, 2 refused (not_json 1, wrong_type 1)"""
    text = f"{tally.events} events, {tally.forecasts} forecasts"
    if not tally.refused:
        return text
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.refused.items()))
    return f"{text}, {sum(tally.refused.values())} refused ({reasons})"


def progress_bar(source: str) -> AbstractContextManager[Callable[[int], None]]:
    """What to tell the bytes read since the last time: a bar on a terminal where the size is known, else nothing."""
    size = os.path.getsize(source) if source != "-" and os.path.isfile(source) else 0
    return bars.progress_bar(size, "forecasting")
