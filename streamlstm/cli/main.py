"""The group of commands, and one place where every ending gets its exit code."""

import logging
import os
import sys
import threading
import time
from typing import NoReturn

import click

from streamlstm import __version__
from streamlstm.cli.audit import audit
from streamlstm.cli.backtest import backtest
from streamlstm.cli.doctor import doctor
from streamlstm.cli.memory import size
from streamlstm.cli.models import import_, show
from streamlstm.cli.offline import forecast
from streamlstm.cli.serve import health, run
from streamlstm.cli.setup import check, compile_, init
from streamlstm.cli.state import state
from streamlstm.cli.training import train
from streamlstm.errors import (
    AccessError,
    ConfigError,
    InputMissingError,
    InvariantError,
    RetryError,
    StreamlstmError,
    UsageError,
)

PROGRAM = "streamlstm"
COMPLETION = "_STREAMLSTM_COMPLETE"
INTERRUPTED = 130
BROKEN_PIPE = 141
LEAVING_SECONDS = 2.0


@click.group(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def commands() -> None:
    """Forecasts millions of keyed time series from Kafka, one LSTM step per event.

    Exit codes: 0 clean, 64 usage, 65 bad data or model file, 66 input missing, 70 a bug, 75 a restart may cure it,
    77 access refused, 78 configuration.
    """


_SERVING = (init, check, compile_, doctor, run, health, size, audit, state)
_MODELS = (import_, train, backtest, show, forecast)
for command in (*_SERVING, *_MODELS):
    commands.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """The console script: run a command and leave with its exit code."""
    if COMPLETION in os.environ:
        commands.main(prog_name=PROGRAM)  # the shell asks what could come next
    leave(outcome(arguments))


def leave(code: int) -> NoReturn:
    """End the process. The interpreter would wait for every thread, and a client's may hang in a request for a minute:
    a daemon that has said its last word while it still is a member keeps its partitions from their next owner.
    """
    until = time.monotonic() + LEAVING_SECONDS
    others = [each for each in threading.enumerate() if each is not threading.current_thread() and not each.daemon]
    for each in others:
        each.join(max(0.0, until - time.monotonic()))
    if any(each.is_alive() for each in others):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def outcome(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code. Whatever it raises has been reported on standard error."""
    try:
        # Not commands.main(): it has endings of its own for an interrupt and for a reader that has left.
        with commands.make_context(PROGRAM, sys.argv[1:] if arguments is None else list(arguments)) as context:
            returned = commands.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        error.show()
        return UsageError.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_has_left()
    except InvariantError as error:
        return _unexpected(error)
    except StreamlstmError as error:
        return _expected(error)
    except OSError as error:
        return _unexpected(error) if error.filename is None else _expected(_about_a_file(error))
    except Exception as error:
        return _unexpected(error)
    return returned if isinstance(returned, int) else 0


def _reader_has_left() -> int:
    """As `| head` does. Without this the interpreter would complain when it flushes at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _about_a_file(error: OSError) -> StreamlstmError:
    message = f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return InputMissingError(message)
    return AccessError(message) if isinstance(error, PermissionError) else RetryError(message)


def _expected(error: StreamlstmError) -> int:
    """Report an error whose message is for the user: a line for each problem, no traceback."""
    lines = error.problems if isinstance(error, ConfigError) else (str(error),)
    logged = bool(logging.getLogger().handlers)
    for line in lines:
        if logged:
            logging.getLogger("streamlstm").error(line, extra={"exit_code": error.exit_code})
        else:
            click.echo(f"streamlstm: {line}", err=True)
    return error.exit_code


def _unexpected(error: Exception) -> int:
    from streamlstm.service import logs

    if not logging.getLogger().handlers:
        logs.configure("auto", "info")
    log = logging.getLogger("streamlstm")
    log.error("a bug in streamlstm: please report it with this traceback", exc_info=error)
    return InvariantError.exit_code
