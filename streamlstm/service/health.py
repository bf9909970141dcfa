"""Health means progress: pure verdicts over plain facts that the loop keeps up to date.

Live: the loop turns, and work that waits gets committed. When that fails a restart may help. Brokers that are away, or
refuse commits, are no reason to be restarted: the former make the replica not ready, and both are told by alerts.
Ready: live, a stable member of the group, in touch with the brokers, and no partition restoring or stopped. A
replica that owns no partition is a ready standby.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

START_LIMIT_SECONDS = 600.0
# More than any commit may take (transport.settings.WriterSettings.commit_timeout_ms): until then it may be the brokers'
# part of the cluster that refuses it, too few copies of a partition for example, which no restart mends.
COMMIT_LIMIT_SECONDS = 150.0


class Phase(StrEnum):
    """The life of the daemon, in order; a rebalance goes from RUNNING back to JOINING, brokers lost to CONNECTING."""

    STARTING = "starting"
    CONNECTING = "connecting"
    JOINING = "joining"
    RESTORING = "restoring"
    RUNNING = "running"
    DRAINING = "draining"


@dataclass(slots=True)
class Progress:
    """What the loop says of itself, on a monotonic clock in seconds.

    `last_turn`: the loop's last round, empty or not. `waiting_since`: since when events have been read and not yet
    committed, None with nothing waiting. `connected_since`: since when the brokers answer, None while they don't.
    `restoring`: partitions on their way to be live. `stopped`: partitions whose events can't be answered exactly, and
    why. `listeners` hear of every turn, in the loop's own thread.
    """

    phase_since: float
    phase: Phase = Phase.STARTING
    last_turn: float = 0.0
    waiting_since: float | None = None
    connected_since: float | None = None
    partitions: int = 0
    restoring: int = 0
    stopped: dict[tuple[str, int], str] = field(default_factory=dict)
    listeners: tuple[Callable[["Progress", float], None], ...] = ()

    def enter(self, phase: Phase, now: float) -> None:
        if phase is not self.phase:
            self.phase, self.phase_since = phase, now
        self.last_turn = now
        for listen in self.listeners:
            listen(self, now)


@dataclass(frozen=True, slots=True)
class Check:
    """One named question, its answer, and the figure that decided it."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of /livez or /readyz."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def liveness(progress: Progress, now: float, stalled_after: float) -> Verdict:
    """Is it worth keeping this process? `stalled_after` in seconds."""
    return Verdict(tuple(_live_checks(progress, now, stalled_after)))


def readiness(progress: Progress, now: float, stalled_after: float) -> Verdict:
    """Does this replica do its work, or stand by to?"""
    running = progress.phase is Phase.RUNNING
    phase = f"{progress.phase} for {now - progress.phase_since:.1f} s, {progress.partitions} partitions"
    if progress.restoring:
        phase += f", {progress.restoring} of them not yet live"
    connected = progress.connected_since is not None
    stopped = "; ".join(f"{topic}-{partition}: {why}" for (topic, partition), why in sorted(progress.stopped.items()))
    return Verdict(
        (
            *_live_checks(progress, now, stalled_after),
            Check("phase", running, phase),
            Check("brokers", connected, "answering" if connected else "not answering"),
            Check("partitions", not stopped, stopped or "none stopped"),
        )
    )


def _live_checks(progress: Progress, now: float, stalled_after: float) -> Iterator[Check]:
    if progress.phase is Phase.STARTING:
        started = now - progress.phase_since
        yield Check("start", started <= START_LIMIT_SECONDS, f"starting for {started:.1f} s of {START_LIMIT_SECONDS:g}")
        return
    turned = now - progress.last_turn
    yield Check("loop", turned <= stalled_after, f"last turn {turned:.1f} s ago of {stalled_after:g}")
    yield Check("commit", *_commit_progress(progress, now, stalled_after))


def _commit_progress(progress: Progress, now: float, stalled_after: float) -> tuple[bool, str]:
    if progress.waiting_since is None:
        return True, "nothing waiting"
    if progress.connected_since is None:
        return True, "waiting for the brokers"
    waiting, limit = (
        now - max(progress.waiting_since, progress.connected_since),
        max(stalled_after, COMMIT_LIMIT_SECONDS),
    )
    return waiting <= limit, f"work waiting for {waiting:.1f} s of {limit:g}"
