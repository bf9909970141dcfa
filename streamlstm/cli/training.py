"""train: from the past of the streams to a model file."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamlstm.cli.curves import curves, require_plot, save_plot
from streamlstm.cli.history_source import source_options
from streamlstm.cli.models import listed
from streamlstm.cli.options import config_options, file_of, load_config
from streamlstm.cli.outputs import Output, require_outputs
from streamlstm.cli.training_options import (
    AUTO,
    OF_AUTO,
    OF_TUTORIALS,
    Asked,
    auto_options,
    network_options,
)
from streamlstm.cli.training_words import Words, tutorial_verdict, verdict
from streamlstm.errors import UsageError

if TYPE_CHECKING:
    from streamlstm.history.history import History
    from streamlstm.service.learn_auto import AutoOptions
    from streamlstm.training.auto import Event
    from streamlstm.training.recipes import Pass, Recipe


@click.command()
@click.argument("history", metavar="[FILE]...", nargs=-1)
@click.option("-o", "--output", required=True, metavar="MODEL", type=click.Path(path_type=Path), help="File to write.")
@network_options
@auto_options
@click.option(
    "--inputs", callback=listed(str), metavar="A,B,..", help="Names; the first is forecast.  [default: value]"
)
@source_options("--from", "--to")
@config_options
def train(**given: Any) -> int:
    """Train a model on the past of the streams.

    FILE: CSV (long or wide), JSON lines, Parquet, folders of them, or - for JSON lines on standard input; or the input
    topic, with --topic. One model learns from all streams; the end of each is kept aside, and the model is held to
    naive forecasts there.

    auto finds seasons and lags, fits a linear forecast and an LSTM on what that leaves over, keeps what the kept ends
    say is better, and says why. It needs no choices but --horizon.

    keras-tutorial is LSTM(50) and Dense(1), Adam, MSE, 10 passes of batches of 32; pytorch-tutorial nn.LSTM of two
    layers of 64 and nn.Linear on the last step, Adam(lr=0.001), MSELoss, 10 passes. Both see windows scaled to 0..1.
    """
    asked = Asked(**given)
    _refuse_what_does_not_apply(asked)
    config = load_config(asked.config_file, asked.overrides)
    written = {"-o": asked.output, "--checkpoint": asked.checkpoint, "--plot": asked.plot}
    outputs = [Output(option, path, file_only=True) for option, path in written.items()]
    require_outputs(outputs, [*asked.files(), ("-c", file_of(asked.config_file))])
    if asked.plot:
        require_plot(asked.plot)
    options = _options(asked) if asked.recipe == AUTO else None
    past = asked.read(config, asked.inputs or ("value",), "time")
    return _train_by_tutorial(asked, past) if options is None else _train_automatically(asked, options, past)


def _refuse_what_does_not_apply(asked: Asked) -> None:
    """Raises UsageError for options that would be ignored."""
    asked.require_one("--from", "--to")
    for name, option in (OF_TUTORIALS if asked.recipe == AUTO else OF_AUTO).items():
        if getattr(asked, name) not in (None, ()):
            raise UsageError(f"{option}: doesn't go with --recipe {asked.recipe}")
    if asked.save_every is not None and asked.checkpoint is None:
        raise UsageError("--save-every: expected --checkpoint beside it, found none")


def _options(asked: Asked) -> "AutoOptions":
    """Raises UsageError."""
    from streamlstm.service.learn_auto import AutoOptions
    from streamlstm.training.auto import AutoSettings
    from streamlstm.training.fit import FitSettings

    fit = FitSettings()
    fit = replace(
        fit,
        hidden=(asked.hidden or fit.hidden[0],) * (asked.layers or len(fit.hidden)),
        batch=asked.batch or fit.batch,
        learning_rate=asked.learning_rate or fit.learning_rate,
        steps=asked.steps or fit.steps,
    )
    horizons = tuple(range(1, (asked.horizon or 1) + 1))
    return AutoOptions(
        settings=AutoSettings(horizons, asked.seed, fit),
        tail=asked.tail,
        level=_level(asked),
        guard=asked.guard is not False,
        threads=_threads(asked),
        time_limit=asked.time_limit,
        checkpoint=asked.checkpoint,
        save_every=30.0 if asked.save_every is None else asked.save_every,
    )


def _level(asked: Asked) -> float:
    if not asked.quantiles:
        return 0.9 if asked.level is None else asked.level
    low, *others = asked.quantiles
    if len(others) != 1 or not 0 < low < 0.5 or abs(low + others[0] - 1) > 1e-9:
        found = ",".join(f"{each:g}" for each in asked.quantiles)
        raise UsageError(f"--quantiles: expected two as far from 0 as from 1, such as 0.05,0.95; found {found}")
    level = round(others[0] - low, 12)
    if asked.level is not None and asked.level != level:
        raise UsageError(f"--quantiles: expected those of --level {asked.level:g}, found those of {level:g}")
    return level


def _threads(asked: Asked) -> int:
    return asked.threads or len(os.sched_getaffinity(0))


def _train_automatically(asked: Asked, options: "AutoOptions", past: "History") -> int:
    from streamlstm.model.model_file import save
    from streamlstm.service.learn_auto import Interrupted, learn_automatically, signals_as_requests
    from streamlstm.training.auto import TAIL, Advance

    words = Words()
    with curves() as shown, signals_as_requests(options.checkpoint is not None) as stop:

        def tell(event: "Event") -> None:
            if isinstance(event, Advance):
                shown.advance(event)
            for line in words.of(event):
                shown.say(line)

        found = learn_automatically(past, options, time.monotonic, stop, tell)
    if isinstance(found, Interrupted):
        click.echo(f"stopped after {found.steps} steps; the same command goes on from {options.checkpoint}", err=True)
        return 128 + found.signal
    model, learned = found
    save(model, asked.output)
    if options.checkpoint:
        options.checkpoint.unlink(missing_ok=True)
    if asked.plot:
        looks = {stage: fit.looks for stage, fit in learned.fits.items()}
        save_plot(looks, learned.linear.mean if TAIL in looks else None, asked.plot)
    click.echo("\n".join(verdict(learned)))
    click.echo(f"wrote {asked.output}", err=True)
    return 0


def _train_by_tutorial(asked: Asked, past: "History") -> int:
    from streamlstm.model.model_file import save
    from streamlstm.service.learn import LearnOptions, learn
    from streamlstm.training.recipes import RECIPES

    chosen = _with(RECIPES[asked.recipe], asked)
    options = LearnOptions(chosen, asked.window or 24, asked.tail, asked.seed, _threads(asked))
    learned = learn(past, options, lambda one_pass: _tell(one_pass, chosen.passes))
    save(learned.model, asked.output)
    click.echo("\n".join(tutorial_verdict(learned)))
    click.echo(f"wrote {asked.output}", err=True)
    return 0


def _with(recipe: "Recipe", asked: Asked) -> "Recipe":
    """The recipe with what was asked to be otherwise."""
    return replace(
        recipe,
        hidden=(asked.hidden or recipe.hidden[0],) * (asked.layers or len(recipe.hidden)),
        passes=asked.epochs or recipe.passes,
        batch=asked.batch or recipe.batch,
        adam=replace(recipe.adam, learning_rate=asked.learning_rate or recipe.adam.learning_rate),
    )


def _tell(one_pass: "Pass", passes: int) -> None:
    click.echo(f"epoch {one_pass.number} of {passes}: loss {one_pass.loss:.6g}", err=True)
