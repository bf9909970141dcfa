"""Signals: the first SIGTERM or SIGINT asks the loop to drain, the second ends the process at once.

Ending at once is safe: an open transaction is aborted by the next start, exactly as after kill -9. The exit code is
then the shell's for a signal, 128 + its number.
"""

import logging
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_process(code: int) -> None:
    """Leave without unwinding: no `finally` that waits for a broker may hold up a forced stop."""
    logging.shutdown()
    os._exit(code)


class Shutdown:
    """What the loop looks at between two batches: `requested` is set by the first signal.

    As a context manager it takes the signals over, which only the main thread may, and gives them back. `end` leaves
    the process with an exit code.
    """

    def __init__(self, end: Callable[[int], None] = end_process) -> None:
        self.requested = False
        self._end = end
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested:
            log.warning("forced to stop at once; the open transaction will be aborted", extra={"signal": name})
            self._end(128 + number)
        else:
            self.requested = True
            log.info("stopping", extra={"why": name})
