"""size: how much memory the state takes, before the start."""

from pathlib import Path

import click

from streamlstm.cli.options import config_options, load_config


@click.command()
@config_options
@click.option("--model", "model_file", type=click.Path(path_type=Path), help="Model file instead of model.path.")
@click.option("--streams", type=click.IntRange(1), help="Streams instead of state.max_streams.")
def size(config_file: Path | None, overrides: tuple[str, ...], model_file: Path | None, streams: int | None) -> None:
    """Say how much memory the daemon will take.

    Bytes per stream by part, and resident memory in all once every stream is there.
    """
    if streams is not None:
        overrides = (*overrides, f"state.max_streams={streams}")
    if model_file is not None:
        overrides = (*overrides, f"model.path={model_file}")
    config = load_config(config_file, overrides)
    from streamlstm.model.model_file import load
    from streamlstm.service.sizing import predict

    click.echo(str(predict(config, load(Path(config.model.path)))))
