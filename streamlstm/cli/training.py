"""train: from the past of the streams to a model file."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamlstm.cli.models import listed
from streamlstm.cli.progress import progress_bar

if TYPE_CHECKING:
    from streamlstm.service.learn import Learned
    from streamlstm.training.recipes import Pass, Recipe

RECIPES = ("keras-tutorial", "pytorch-tutorial")


@click.command()
@click.argument("history", metavar="FILE...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="MODEL", type=click.Path(path_type=Path), help="File to write.")
@click.option("--recipe", type=click.Choice(RECIPES), required=True, help="How to train.")
@click.option("--window", type=click.IntRange(1, 65_536), default=24, help="Events that a forecast sees.")
@click.option("--hidden", type=click.IntRange(1, 4096), help="Hidden size of each layer.  [default: the recipe's]")
@click.option("--layers", type=click.IntRange(1, 8), help="LSTM layers.  [default: the recipe's]")
@click.option("--epochs", type=click.IntRange(1), help="Passes over all windows.  [default: the recipe's]")
@click.option("--batch", type=click.IntRange(1), help="Windows per step.  [default: the recipe's]")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), help="Adam's.  [default: the recipe's]")
@click.option("--tail", type=click.FloatRange(0, 0.9), default=0.2, help="Share of each stream kept for the scores.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of initial weights and order.")
@click.option("--threads", type=click.IntRange(0), default=0, help="0: one per core; changes no bit.")
@click.option("--inputs", callback=listed(str), metavar="A,B,..", help="Names of the inputs.  [default: value]")
@click.option("--stream-column", help="Column of the stream ids.  [default: found by its name]")
@click.option("--time-column", help="Column of the times.  [default: found by its name]")
@click.option("--value-columns", callback=listed(str), metavar="A,B,..", help="Column of each input.")
def train(
    history: tuple[str, ...],
    output: Path,
    recipe: str,
    window: int,
    hidden: int | None,
    layers: int | None,
    epochs: int | None,
    batch: int | None,
    learning_rate: float | None,
    tail: float,
    seed: int,
    threads: int,
    inputs: tuple[str, ...],
    stream_column: str | None,
    time_column: str | None,
    value_columns: tuple[str, ...],
) -> None:
    """Train a model on the past of the streams.

    FILE: CSV (long or wide), JSON lines, Parquet, folders of them, or - for JSON lines on standard input. One model
    learns from all streams; the end of each is kept aside, and the model is held to repeating the last value there.

    keras-tutorial is LSTM(50) and Dense(1), Adam, MSE, 10 passes of batches of 32; pytorch-tutorial nn.LSTM of two
    layers of 64 and nn.Linear on the last step, Adam(lr=0.001), MSELoss, 10 passes. Both see windows scaled to 0..1.
    """
    from streamlstm.events.fields import FieldPaths
    from streamlstm.history.collector import Rules
    from streamlstm.history.columns import Wanted
    from streamlstm.history.files import read_files, total_bytes
    from streamlstm.model.model_file import save
    from streamlstm.service.learn import LearnOptions, learn
    from streamlstm.training.recipes import RECIPES as RECIPES_BY_NAME

    wanted = Wanted(FieldPaths(inputs=inputs or ("value",)), stream_column, time_column, value_columns)
    with progress_bar(total_bytes(history), "reading") as progress:
        past = read_files(history, wanted, Rules(), progress)
    for line in past.report.lines():
        click.echo(line, err=True)
    chosen = _with(RECIPES_BY_NAME[recipe], hidden, layers, epochs, batch, learning_rate)
    options = LearnOptions(chosen, window, tail, seed, threads or len(os.sched_getaffinity(0)))
    learned = learn(past, options, lambda one_pass: _tell(one_pass, chosen.passes))
    save(learned.model, output)
    click.echo(_verdict(learned))
    click.echo(f"wrote {output}", err=True)


def _with(
    recipe: "Recipe",
    hidden: int | None,
    layers: int | None,
    epochs: int | None,
    batch: int | None,
    learning_rate: float | None,
) -> "Recipe":
    """The recipe with what was asked to be otherwise."""
    return replace(
        recipe,
        hidden=(hidden or recipe.hidden[0],) * (layers or len(recipe.hidden)),
        passes=epochs or recipe.passes,
        batch=batch or recipe.batch,
        adam=replace(recipe.adam, learning_rate=learning_rate or recipe.adam.learning_rate),
    )


def _tell(one_pass: "Pass", passes: int) -> None:
    click.echo(f"epoch {one_pass.number} of {passes}: loss {one_pass.loss:.6g}", err=True)


def _verdict(learned: "Learned") -> str:
    scores = learned.scores
    if not scores.count:
        return f"learned from {learned.windows:,} windows; nothing was kept to hold the model to"
    lines = [
        f"learned from {learned.windows:,} windows; held to {scores.count:,} events after them:",
        f"  this model                 MAE {scores.mae:.6g}  RMSE {scores.rmse:.6g}",
        f"  repeating the last value   MAE {scores.naive_mae:.6g}  RMSE {scores.naive_rmse:.6g}",
        f"  RelMAE {scores.rel_mae:.3f}; better on {scores.better} of {scores.streams} streams",
    ]
    if not scores.rel_mae < 1:
        lines.append(
            "this model is worse than repeating the last value: don't serve it. It forecasts levels, in a scale that "
            "all streams share; a model of the change from the last value does better as a rule"
        )
    return "\n".join(lines)
