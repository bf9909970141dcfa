"""SIGHUP: the configuration is read again, and what can change while the daemon runs does: the table [log].

Everything else is built into what was allocated, compiled, connected or agreed with the group at the start. What has
changed of it is named in the log, and waits for a restart.
"""

import logging
import signal
import sys
from collections.abc import Callable
from functools import reduce
from types import FrameType, TracebackType
from typing import Any, Self

from streamlstm.config import Config
from streamlstm.config.sources import settings
from streamlstm.errors import ConfigError
from streamlstm.service import logs
from streamlstm.service.health import Progress
from streamlstm.service.notify import Notifier

log = logging.getLogger(__name__)

RELOADED = "log."


class Reload:
    """Reads again, by `reread`, in the round of the loop that follows the signal.

    As a context manager it takes SIGHUP over, which only the main thread may. On a terminal it doesn't: there the
    signal says that the terminal is gone, and ends the process as ever.
    """

    def __init__(self, config: Config, reread: Callable[[], Config], notifier: Notifier) -> None:
        self._started_with = self._config = config
        self._reread = reread
        self._notifier = notifier
        self._requested = False
        self._former: Any = None

    def __enter__(self) -> Self:
        if not sys.stderr.isatty():
            self._former = signal.signal(signal.SIGHUP, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._former is not None:
            signal.signal(signal.SIGHUP, self._former)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    def turn(self, progress: Progress, now: float) -> None:
        """The loop has gone round."""
        if not self._requested:
            return
        self._requested = False
        self._notifier.reloading()
        self._reload()
        self._notifier.reloaded()

    def _reload(self) -> None:
        try:
            config = self._reread()
        except ConfigError as error:
            for problem in error.problems:
                log.error("the configuration stays as it was", extra={"why": problem})
            return
        applied = [key for key in changed(self._config, config) if key.startswith(RELOADED)]
        if applied:
            logs.configure(config.log.format, config.log.level)
        self._config = config
        waiting = [key for key in changed(self._started_with, config) if not key.startswith(RELOADED)]
        if waiting:
            log.warning("changed settings wait for a restart", extra={"settings": ",".join(waiting)})
        log.info("reloaded", extra={"changed": ",".join(applied) or "nothing"})


def changed(before: Config, after: Config) -> list[str]:
    """The dotted keys of the settings that differ."""
    return [key for key in settings() if _value(before, key) != _value(after, key)]


def _value(config: Config, key: str) -> object:
    return reduce(getattr, key.split("."), config)
