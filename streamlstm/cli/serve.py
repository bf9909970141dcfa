"""run and health: the daemon, and whether it works."""

import logging
import os
import signal
from pathlib import Path
from types import FrameType

import click

from streamlstm.cli.options import config_options, file_of, load_cluster_config, load_config

log = logging.getLogger(__name__)


@click.command()
@config_options
def run(config_file: Path | None, overrides: tuple[str, ...]) -> int:
    """Run the daemon: events in, forecasts out.

    SIGTERM or Ctrl-C commits what has been read and ends with 0; a second one ends at once. SIGHUP reads the
    configuration again, takes over [log] and says which other changes need a restart.
    """
    signal.signal(signal.SIGTERM, _end_at_once)
    # Before NumPy is there: in what a large array leaves in the heap, each small one would make 2 MB resident. The
    # arena has its huge pages by itself.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    config = load_cluster_config(config_file, overrides)
    from streamlstm.service import logs

    logs.configure(config.log.format, config.log.level)
    log.info("configuration", extra={"file": str(file_of(config_file) or "none")})
    from streamlstm.service.daemon import run as run_daemon

    return run_daemon(config, lambda: load_config(config_file, overrides))


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Until the daemon takes the signal over. Process 1 of a container has no handling of it but its own, and nothing
    has been read that would be lost.
    """
    os._exit(0)


@click.command()
@config_options
def health(config_file: Path | None, overrides: tuple[str, ...]) -> int:
    """Ask the daemon on this machine whether it makes progress.

    Prints what /livez says. Ends with 0 when the daemon is alive, with 75 when it stands still or doesn't answer.
    """
    config = load_config(config_file, overrides)
    from streamlstm.service.ask_health import ask

    click.echo(ask(config.metrics), nl=False)
    return 0
