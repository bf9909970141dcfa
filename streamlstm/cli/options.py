"""The options that commands share: where the configuration comes from."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from streamlstm.config import Config

DEFAULT_FILE = Path("streamlstm.toml")


def options(*each: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add these options to a command, in this order in its help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(each):
            command = option(command)
        return command

    return add


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add -c/--config and --set to a command, as `config_file` and `overrides`."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Set one setting; stronger than the environment and the file. May be repeated.",
    )(command)
    return click.option(
        "-c",
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        envvar="STREAMLSTM_CONFIG",
        show_envvar=True,
        help="Configuration file.  [default: streamlstm.toml, where there is one]",
    )(command)


def load_config(config_file: Path | None, overrides: tuple[str, ...]) -> "Config":
    """The configuration from file, environment and --set. Raises ConfigError with every problem."""
    from streamlstm.config import load

    if config_file is None and DEFAULT_FILE.is_file():
        config_file = DEFAULT_FILE
    return load(config_file, os.environ, overrides)
