"""init, check, compile: a configuration, whether everything it names is there, and kernels ahead of the first start."""

import os
import platform
from pathlib import Path

import click

from streamlstm.cli.options import DEFAULT_FILE, config_options, load_cluster_config
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
    config = load_cluster_config(config_file, overrides)
    from streamlstm.service.checks import check as check_all

    report = check_all(config, create_topics=create_topics)
    for line in report.lines:
        click.echo(line)
    return report.exit_code


@click.command("compile")
@click.option(
    "--level",
    type=click.Choice(["x86-64-v2", "x86-64-v3", "x86-64-v4"]),
    help="Level of x86-64 to compile for.  [default: that of this machine]",
)
def compile_(level: str | None) -> None:
    """Compile every kernel ahead of the first start.

    They go into the cache: STREAMLSTM_CACHE_DIR, else XDG_CACHE_HOME, else ~/.cache. Starts only need to read it. A
    machine can compile for a level above its own: nothing is run.
    """
    if level is not None:
        if platform.machine() != "x86_64":
            raise UsageError(f"--level: found {level} on {platform.machine()}; expected a machine of x86-64")
        # Numba reads them when it is imported, which is by the next line.
        os.environ |= {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": ""}
    from streamlstm.service.warmup import compile_beforehand

    click.echo(compile_beforehand(level))
