"""The options of `train`."""

from dataclasses import dataclass
from pathlib import Path

import click

from streamlstm.cli.history_source import HistorySource
from streamlstm.cli.models import listed
from streamlstm.cli.numbers import FiniteRange, finite
from streamlstm.cli.options import options

AUTO = "auto"
TUTORIALS = ("keras-tutorial", "pytorch-tutorial")
OF_AUTO = {
    "horizon": "--horizon", "level": "--level", "quantiles": "--quantiles", "guard": "--guard", "steps": "--steps",
    "time_limit": "--time-limit", "checkpoint": "--checkpoint", "save_every": "--save-every", "plot": "--plot",
}  # fmt: skip
OF_TUTORIALS = {"window": "--window", "epochs": "--epochs"}
_SIZE = click.IntRange(1)


@dataclass(frozen=True, slots=True)
class Asked(HistorySource):
    """The command line."""

    output: Path
    recipe: str
    hidden: int | None
    layers: int | None
    batch: int | None
    learning_rate: float | None
    tail: float
    seed: int
    threads: int
    window: int | None
    epochs: int | None
    horizon: int | None
    level: float | None
    quantiles: tuple[float, ...]
    guard: bool | None
    steps: int | None
    time_limit: float | None
    checkpoint: Path | None
    save_every: float | None
    plot: Path | None
    inputs: tuple[str, ...]
    config_file: Path | None
    overrides: tuple[str, ...]


network_options = options(
    click.option("--recipe", type=click.Choice((AUTO, *TUTORIALS)), default=AUTO, help="How to train."),
    click.option("--hidden", type=click.IntRange(1, 4096), help="Hidden size of each layer.  [default: the recipe's]"),
    click.option("--layers", type=click.IntRange(1, 8), help="LSTM layers.  [default: the recipe's]"),
    click.option("--batch", type=_SIZE, help="Windows or crops per step.  [default: the recipe's]"),
    click.option("--learning-rate", type=FiniteRange(0, 1, min_open=True), help="Adam's.  [default: the recipe's]"),
    click.option("--tail", type=FiniteRange(0, 0.9), default=0.2, help="Share of each stream kept for the scores."),
    click.option("--seed", type=click.IntRange(0), default=0, help="Of initial weights and order."),
    click.option("--threads", type=click.IntRange(0), default=0, help="0: one per core; changes no bit."),
    click.option(
        "--window", type=click.IntRange(1, 65_536), help="Tutorials: events that a forecast sees.  [default: 24]"
    ),
    click.option("--epochs", type=_SIZE, help="Tutorials: passes over all windows.  [default: 10]"),
)


_PATH = click.Path(path_type=Path)
auto_options = options(
    click.option("--horizon", type=click.IntRange(1, 1024), help="Steps ahead, from 1 to this.  [default: 1]"),
    click.option("--level", type=FiniteRange(0, 1, max_open=True), help="Of the intervals; 0: none.  [default: 0.9]"),
    click.option(
        "--quantiles", callback=listed(finite), metavar="LOW,HIGH", help="The level by its ends, such as 0.05,0.95."
    ),
    click.option("--guard/--no-guard", default=None, help="Weigh the model against naive forecasts.  [default: guard]"),
    click.option("--steps", type=_SIZE, help="Of training at most.  [default: 10000]"),
    click.option("--time-limit", type=FiniteRange(0, min_open=True), metavar="SECONDS", help="Of training at most."),
    click.option("--checkpoint", type=_PATH, metavar="FILE", help="Keep the state of training here; go on from it."),
    click.option(
        "--save-every", type=FiniteRange(0), metavar="SECONDS", help="Between two checkpoints.  [default: 30]"
    ),
    click.option("--plot", type=_PATH, metavar="FILE.png", help="Save the curves as a picture."),
)
