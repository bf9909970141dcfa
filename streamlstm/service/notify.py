"""What the service manager is told of the daemon's life: the protocol of sd_notify(3), for units of Type=notify.

    READY=1               once, when every partition that can be restored is live; a standby without any is ready too
    STATUS=               what goes on, in a sentence, for `systemctl status`
    WATCHDOG=1            in the loop's own rounds while `liveness` holds: no thread that is still well answers for it
    EXTEND_TIMEOUT_USEC=  while the start, the restore and the drain get on, however long they take
    RELOADING=1           around a reload (reload.py)
    STOPPING=1            from the first signal on

Without NOTIFY_SOCKET in the environment nothing happens.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from streamlstm.errors import ConfigError
from streamlstm.service.health import START_LIMIT_SECONDS, Phase, Progress, Verdict, liveness

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
MAX_STATUS = 400


class Notifier:
    """This process as its service manager hears of it. The thread of the loop calls it.

    `stalled_after` is that of `liveness`; `drain_seconds`: how long the drain may take. Nothing is waited for: a
    manager that is busy must not hold up the loop, and what it missed is said again. As a context manager it says the
    last word. Raises ConfigError when the manager's variables can't be understood.
    """

    def __init__(self, environ: Mapping[str, str], *, stalled_after: float, drain_seconds: float) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog = _watchdog_seconds(environ, os.getpid())
        self._interval = min(INTERVAL_SECONDS, self._watchdog / 4)
        self._stalled_after = stalled_after
        self._drain_seconds = drain_seconds
        self._socket: socket.socket | None = None
        self._said_at = float("-inf")
        self._is_ready = self._is_stopping = self._is_unheard = False
        self._status = ""

    def __enter__(self) -> Self:
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._socket is None:
            return
        stopping = () if self._is_stopping else ("STOPPING=1",)
        self._send(*stopping, f"STATUS={one_line(str(error)) if error else 'stopped'}")
        self._socket.close()
        self._socket = None

    def starting(self, step: str) -> None:
        """A step of the start begins, before there are rounds. It may take as long as `liveness` lets a start take."""
        self._send(f"STATUS={one_line(step)}", extension(START_LIMIT_SECONDS))

    def turn(self, progress: Progress, now: float) -> None:
        """The loop has gone round; `now` on the monotonic clock, in seconds. Says something once in a second, and at
        once that the daemon is ready or stops.
        """
        if self._socket is None:
            return
        ready = self._is_ready or progress.phase is Phase.RUNNING
        stopping = progress.phase is Phase.DRAINING
        if now - self._said_at < self._interval and (ready, stopping) == (self._is_ready, self._is_stopping):
            return
        self._said_at = now
        live = liveness(progress, now, self._stalled_after)
        said = status_of(progress, live)
        assignments = [f"STATUS={said}"] if said != self._status else []
        assignments += ["READY=1"] if ready and not self._is_ready else []
        assignments += ["STOPPING=1"] if stopping and not self._is_stopping else []
        if live.ok:
            assignments += self._signs_of_life(ready, stopping)
        if assignments and self._send(*assignments):
            self._is_ready, self._is_stopping, self._status = ready, stopping, said

    def _signs_of_life(self, ready: bool, stopping: bool) -> list[str]:
        """An extension behind READY=1 would put off the watchdog too, so there it isn't given."""
        if stopping:
            return [extension(self._drain_seconds)]
        if not ready:
            return [extension(self._stalled_after)]
        return ["WATCHDOG=1"] if self._watchdog < float("inf") else []

    def reloading(self) -> None:
        """The configuration is read again. The time is for Type=notify-reload (systemd 253 and later)."""
        if self._is_ready:
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        if self._is_ready:
            self._send("READY=1")

    def _send(self, *assignments: str) -> bool:
        """One datagram; False when nobody took it."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if not self._is_unheard:
                log.warning("the service manager does not hear", extra={"why": str(error)})
            self._is_unheard = True
            return False
        self._is_unheard = False
        return True


def status_of(progress: Progress, live: Verdict) -> str:
    """The sentence of STATUS=."""
    parts = [f"stalled: {check.detail}" for check in live.checks if not check.ok]
    parts.append(_phase_in_words(progress))
    if progress.phase in (Phase.RESTORING, Phase.RUNNING):
        parts += [] if progress.connected_since is not None else ["the brokers do not answer"]
        parts += [f"stopped {topic}-{partition}: {why}" for (topic, partition), why in sorted(progress.stopped.items())]
    return one_line("; ".join(parts))


def _phase_in_words(progress: Progress) -> str:
    match progress.phase:
        case Phase.STARTING:
            return "starting"
        case Phase.CONNECTING:
            return "the brokers are away"
        case Phase.JOINING:
            return "joining the group"
        case Phase.RESTORING:
            return f"restoring {progress.restoring} of {progress.partitions} partitions"
        case Phase.DRAINING:
            return "draining"
    if not progress.partitions:
        return "standing by, no partition is assigned"
    return f"{progress.partitions - len(progress.stopped)} of {progress.partitions} partitions live"


def one_line(text: str) -> str:
    """As an assignment's value must be: a line break would begin another one."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_STATUS else line[: MAX_STATUS - 3] + "..."


def extension(seconds: float) -> str:
    """From now on so much longer, for the time-out of the start or the stop."""
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"


def _address(text: str) -> str:
    """For socket.sendto, "" for none; `@` stands for the zero byte of Linux' abstract addresses (unix(7))."""
    if text and not (text[0] in "/@" and len(text) > 1):
        raise ConfigError([f"NOTIFY_SOCKET: found {text!r}; expected a path from / or @ and an abstract name"])
    return "\0" + text[1:] if text.startswith("@") else text


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float:
    """How often the manager wants to hear WATCHDOG=1 at least; infinite when it doesn't, or asks another process. See
    sd_watchdog_enabled(3).
    """
    usec, wanted = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec or wanted not in ("", str(pid)):
        return float("inf")
    if not usec.isascii() or not usec.isdigit() or int(usec) == 0:
        raise ConfigError([f"WATCHDOG_USEC: found {usec!r}; expected a number of microseconds"])
    return int(usec) / 1_000_000
