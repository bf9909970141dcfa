"""import and show: from a foreign model file to ours, and what ours says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click

from streamlstm.cli.numbers import FiniteRange, finite
from streamlstm.cli.outputs import Output, require_outputs
from streamlstm.errors import UsageError

Numbers = tuple[float, ...]


def listed(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], tuple[Any, ...]]:
    """Read an option such as 1,2.5,3 as a tuple; nothing given is an empty one."""

    def read(context: click.Context, option: click.Parameter, text: str | None) -> tuple[Any, ...]:
        try:
            return tuple(kind(part.strip()) for part in text.split(",")) if text else ()
        except ValueError:
            raise click.BadParameter(f"expected {kind.__name__} values with commas between; found {text!r}") from None

    return read


@click.command("import")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="MODEL", type=click.Path(path_type=Path), help="File to write.")
@click.option("--carry", is_flag=True, help="Carry each stream's state from event to event, for ever.")
@click.option(
    "--window", type=click.IntRange(1), help="Run every forecast on the last WINDOW events from a zero state."
)
@click.option("--inputs", callback=listed(str), metavar="A,B,..", help="Names of the inputs, in the model's order.")
@click.option("--target", help="The input that is forecast.  [default: the first]")
@click.option(
    "--horizons", callback=listed(int), metavar="1,2,..", help="Steps ahead of each output.  [default: 1 to O]"
)
@click.option("--predicts", type=click.Choice(["value", "change"]), default="value", help="What an output says.")
@click.option("--interval-ms", type=click.IntRange(1), help="Time between two events of a stream.  [default: observed]")
@click.option(
    "--scaling",
    type=click.Choice(["none", "standard", "minmax", "running"]),
    default="none",
    help="Scaling of the inputs, undone in the forecasts; running: per stream, from what it has seen.",
)
@click.option("--mean", callback=listed(finite), metavar="X,..", help="standard: mean of each input, or one for all.")
@click.option("--std", callback=listed(finite), metavar="X,..", help="standard: standard deviation.")
@click.option("--min", "low", callback=listed(finite), metavar="X,..", help="minmax: what becomes 0.")
@click.option("--max", "high", callback=listed(finite), metavar="X,..", help="minmax: what becomes 1.")
@click.option("--scaling-window", type=click.IntRange(2), help="running: events that count.  [default: 1000]")
@click.option(
    "--level", type=FiniteRange(0, 1, max_open=True), default=0.0, help="Coverage of intervals; they bring scores."
)
@click.option("--guard", is_flag=True, help="Mix in the last value where the model is no better.")
def import_(
    source: Path,
    output: Path,
    carry: bool,
    window: int | None,
    inputs: tuple[str, ...],
    target: str | None,
    horizons: tuple[int, ...],
    predicts: Literal["value", "change"],
    interval_ms: int | None,
    scaling: str,
    mean: Numbers,
    std: Numbers,
    low: Numbers,
    high: Numbers,
    scaling_window: int | None,
    level: float,
    guard: bool,
) -> None:
    """Turn a Keras, PyTorch or ONNX model into a model file.

    FILE: a PyTorch state_dict or checkpoint, safetensors, .keras, .h5, .weights.h5 or .onnx. No code in it is run, and
    neither PyTorch nor TensorFlow is needed. One of --carry and --window must be said unless FILE itself fixes it.
    """
    _refuse_odd(carry, window, scaling, scaling_window)
    require_outputs([Output("-o", output, file_only=True)], [("FILE", source)])
    from streamlstm.model import importing
    from streamlstm.model.describing import describe
    from streamlstm.model.model_file import ScalingKind, save

    options = importing.ImportOptions(
        advance="carry" if carry else window,
        inputs=inputs,
        target=target,
        horizons=horizons,
        predicts=predicts,
        interval_ms=interval_ms,
        level=level,
        guard=guard,
    )
    model, notes = importing.import_model(source, options)
    wanted = importing.make_scaling(
        ScalingKind(scaling), len(model.inputs), mean=mean, std=std, low=low, high=high, window=scaling_window or 1000
    )
    model = replace(model, scaling=wanted, model_hash="")
    save(model, output)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(describe(model))
    click.echo(f"wrote {output}", err=True)


def _refuse_odd(carry: bool, window: int | None, scaling: str, scaling_window: int | None) -> None:
    if carry and window is not None:
        raise UsageError("--carry and --window: expected one of them, found both")
    if scaling_window is not None and scaling != "running":
        raise UsageError(f"--scaling-window: expected --scaling running beside it, found {scaling}")


@click.command()
@click.argument("model_file", metavar="MODEL", type=click.Path(path_type=Path))
def show(model_file: Path) -> None:
    """Say what a model file holds.

    And, measured on made series, how far its forecasts move when engine.state_dtype is not float32.
    """
    from streamlstm.engine.state_error import state_errors
    from streamlstm.model.describing import describe
    from streamlstm.model.model_file import load

    model = load(model_file)
    click.echo(describe(model))
    for each in state_errors(model):
        moved = f"forecasts move by {each.typical:.1e} of the series' deviation, {each.largest:.1e} at most"
        click.echo(f"{each.dtype:<9} state in half the memory: {moved}")
