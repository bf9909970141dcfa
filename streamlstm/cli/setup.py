"""init and check: a configuration, and whether everything it names is there."""

from pathlib import Path

import click

from streamlstm.cli.options import DEFAULT_FILE, config_options, load_config
from streamlstm.errors import UsageError


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=DEFAULT_FILE)
@click.option("--force", is_flag=True, help="Write over a file that is already there.")
def init(path: Path, force: bool) -> None:
    """Write a configuration file with every default.

    PATH is streamlstm.toml unless said; - is standard output.
    """
    from streamlstm.config import render_toml

    text = render_toml()
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path}: is already there; --force writes over it") from None
    click.echo(f"wrote {path}; next: edit it, then `streamlstm check -c {path}`")


@click.command()
@config_options
@click.option("--create-topics", is_flag=True, help="Create the topics that are missing.")
def check(config_file: Path | None, overrides: tuple[str, ...], create_topics: bool) -> int:
    """Check configuration, model, kernels, brokers and topics.

    Tells every problem at once, with the command that mends it.
    """
    config = load_config(config_file, overrides)
    from streamlstm.service.checks import check as check_all

    report = check_all(config, create_topics=create_topics)
    for line in report.lines:
        click.echo(line)
    return report.exit_code
