"""Signals: the first SIGTERM or SIGINT asks the loop to drain, the second ends the process at once.

Ending at once is safe: an open transaction is aborted by the next start, exactly as after kill -9. The exit code is
then the shell's for a signal, 128 + its number.
"""

import contextlib
import logging
import os
import select
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_process(code: int) -> None:
    """Leave without unwinding: no `finally` that waits for a broker may hold up a forced stop."""
    logging.shutdown()
    os._exit(code)


class Shutdown:
    """What the loop looks at between two batches.

    `requested` is set by the first signal, or by `request`. `wake` is called then, in the main thread between two
    bytecodes: it may only do what a signal handler may, such as writing to a socket. As a context manager it installs
    the handlers and puts the former ones back.
    """

    def __init__(self, wake: Callable[[], None] | None = None, end: Callable[[int], None] = end_process) -> None:
        self.requested = False
        self.wake = wake
        self._end = end
        self._former: dict[signal.Signals, object] = {}
        # A pipe and not a threading.Event: setting an event inside a handler can deadlock with a wait on it.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def install(self) -> None:
        """Take over SIGTERM and SIGINT. Only the main thread may."""
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._handle)

    def close(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type]
        self._former.clear()
        os.close(self._reader)
        os.close(self._writer)

    def request(self, why: str) -> None:
        """Ask the loop to drain and stop."""
        self.requested = True
        log.info("stopping", extra={"why": why})
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")
        if self.wake is not None:
            self.wake()

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until a stop is requested; True when it is."""
        if not self.requested:
            select.select([self._reader], [], [], seconds)
        return self.requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested:
            log.warning("forced to stop at once; the open transaction will be aborted", extra={"signal": name})
            self._end(128 + number)
        else:
            self.request(name)
