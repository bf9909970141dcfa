"""run: the daemon."""

from pathlib import Path

import click

from streamlstm.cli.options import config_options, load_config


@click.command()
@config_options
def run(config_file: Path | None, overrides: tuple[str, ...]) -> int:
    """Run the daemon: events in, forecasts out.

    SIGTERM or Ctrl-C commits what has been read and ends with 0; a second one ends at once. SIGHUP reads the
    configuration again, takes over [log] and says which other changes need a restart.
    """
    config = load_config(config_file, overrides)
    from streamlstm.service import logs

    logs.configure(config.log.format, config.log.level)
    from streamlstm.service.daemon import run as run_daemon

    return run_daemon(config, lambda: load_config(config_file, overrides))
