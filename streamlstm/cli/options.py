"""The options that commands share: where the configuration comes from."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from streamlstm.config import Config

DEFAULT_FILE = Path("streamlstm.toml")
BROKERS_VARIABLE = "STREAMLSTM_KAFKA__BOOTSTRAP_SERVERS"


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


def file_of(config_file: Path | None) -> Path | None:
    """The configuration file that is read: the one that was named, or the default one where it is there."""
    return DEFAULT_FILE if config_file is None and DEFAULT_FILE.is_file() else config_file


def load_config(config_file: Path | None, overrides: tuple[str, ...]) -> "Config":
    """The configuration from file, environment and --set. Raises ConfigError with every problem."""
    from streamlstm.config import load

    return load(file_of(config_file), os.environ, overrides)


def load_cluster_config(config_file: Path | None, overrides: tuple[str, ...]) -> "Config":
    """`load_config` for a command that talks to the brokers: says so when nobody has told which."""
    config = load_config(config_file, overrides)
    told = BROKERS_VARIABLE in os.environ or any(each.startswith("kafka.bootstrap_servers") for each in overrides)
    if file_of(config_file) is None and not told:
        click.echo(
            f"no configuration file (-c, STREAMLSTM_CONFIG, ./{DEFAULT_FILE}): every setting has its default, brokers "
            f"{', '.join(config.kafka.bootstrap_servers)}",
            err=True,
        )
    return config
