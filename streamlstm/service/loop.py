"""The rounds of the daemon: poll, follow the assignment, answer, commit; and the end of them."""

import logging
import time
from collections.abc import Callable

from streamlstm.config import Config
from streamlstm.errors import FencedError, RetryError
from streamlstm.fault_points import reach
from streamlstm.service.committer import Committer
from streamlstm.service.counters import Stage
from streamlstm.service.health import Phase, Progress
from streamlstm.service.heap import give_back_freed_memory
from streamlstm.service.ownership import Ownership
from streamlstm.service.pending import Pending
from streamlstm.service.pipeline import Pipeline
from streamlstm.service.shutdown import Shutdown
from streamlstm.service.sizing import round_bytes
from streamlstm.transport.source import Fetched, Gap, Source

log = logging.getLogger(__name__)

IDLE_POLL_MS = 100
BUSY_POLL_MS = 2
# A poll that brings so much has more waiting behind it: that is computed while the transaction before commits. With
# less to do the loop stands back, for the committer and the clients' threads need the interpreter too.
BEHIND_BYTES = 1 << 18
ENDS_SECONDS = 1.0
# How long taking in snapshots may keep the partitions waiting that are live already.
RESTORE_SECONDS = 0.02
REVOCATION_SECONDS = 5.0
STANDBY_SECONDS = 5.0
CALM_SECONDS = 30.0


def drain_seconds(config: Config) -> float:
    """How long the drain waits for the last transactions."""
    return 3 * config.commit.transaction_timeout_ms / 1000


class Loop:
    """Steps 3 and 4 of the daemon's life, as one member of the group."""

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        source: Source,
        committer: Committer,
        ownership: Ownership,
        progress: Progress,
        shutdown: Shutdown,
    ) -> None:
        self.config = config
        self.pipeline = pipeline
        self.source = source
        self.committer = committer
        self.ownership = ownership
        self.progress = progress
        self.shutdown = shutdown
        self.counters = pipeline.counters
        self.pending = Pending()
        self._before = self.counters.rebalances, self.counters.fetch_errors  # of the sources before this one
        self._unstable_since: float | None = None
        self._stable_since: float | None = None
        self._behind_at: float | None = time.monotonic()
        self._behind = False
        self._interval = config.commit.interval_ms / 1000
        self._look_at_ends_at = 0.0
        self._patience = drain_seconds(config)
        self._revocation = min(REVOCATION_SECONDS, config.kafka.session_timeout_ms / 3000)

    def run(self) -> None:
        while not self.shutdown.requested:
            self.turn()
        self.progress.enter(Phase.DRAINING, time.monotonic())
        reach("draining")
        self._drain()
        log.info("drained", extra={"events": self.counters.events})
        reach("drained")

    def turn(self) -> None:
        """One round: at most one poll, at most one commit begun."""
        self._settle(0.0 if self._behind else self._interval)
        self.source.hold(self._is_full)
        start = time.perf_counter()
        fetched = self.source.poll(self._poll_ms(), round_bytes(self.config))
        now = time.monotonic()
        self._follow_assignment(fetched)
        self._behind = fetched.size >= BEHIND_BYTES
        if fetched.positions:
            reach("polled")
            self.counters.stages[Stage.POLL].observe(time.perf_counter() - start)
            self.pipeline.add(fetched, self.pending, now)
        if self.ownership.restoring:
            self.ownership.restore(self.source, RESTORE_SECONDS)
        self._show_progress(now)
        if self._due(now):
            self._start_commit()
        self._give_back_memory(now)

    def _drain(self) -> None:
        """Commit what has been read. A rebalance that is under way goes on only while somebody polls: then what the
        polls bring is answered too. Raises RetryError when it takes too long.
        """
        if not self._commit_everything(self._patience, self._poll_on):
            raise RetryError(f"the last transaction was not through after {self._patience:.0f} s: it will be aborted")

    def _poll_on(self) -> None:
        fetched = self.source.poll(BUSY_POLL_MS, BEHIND_BYTES)
        self._follow_assignment(fetched)
        if fetched.positions:
            self.pipeline.add(fetched, self.pending, time.monotonic())

    def _poll_ms(self) -> int:
        """How long to wait for events: not beyond the moment when something else is to be done."""
        if self.ownership.restoring or not (self.committer.idle or not self.pending.parts):
            return BUSY_POLL_MS
        if not self.pending.parts:
            return IDLE_POLL_MS
        left = self.committer.started_at + self._interval - time.monotonic()
        return min(IDLE_POLL_MS, int(max(0.0, left) * 1000))

    def _due(self, now: float) -> bool:
        """A commit at most every interval; the first after a quiet time at once."""
        if not self.pending.parts or not self.committer.idle:
            return False
        return self._is_full or now - self.committer.started_at >= self._interval

    @property
    def _is_full(self) -> bool:
        """Whether the next transaction is as large as it may be. Where streams come in numbers, most of it is state."""
        waiting = self.pending.produced_bytes + self.pipeline.unwritten_bytes
        return bool(self.pending.parts) and waiting >= self.config.commit.max_bytes

    def _start_commit(self) -> bool:
        group = self.source.group()
        if group is None or (group == self.committer.refused and not self.source.is_stable):
            return False  # in a rebalance, and the broker would refuse this generation
        self.pipeline.encode(self.pending)
        self.pipeline.add_snapshots(self.pending, time.monotonic(), int(time.time() * 1000))
        pending, self.pending = self.pending, Pending()
        reach("commit_begun")
        self.committer.start(pending, group)
        return True

    def _settle(self, timeout: float = 0.0) -> None:
        try:
            settled = self.committer.settle(timeout)
        except FencedError as error:
            if self.source.member_id == self.committer.member_id:
                raise
            raise RetryError(f"the group knows this replica by another name since it committed: {error}") from error
        if settled is None:
            return
        if settled.is_committed:
            self.pipeline.committed(settled.pending)
        else:
            self.pending.follow(settled.pending)

    def _commit_everything(self, seconds: float, meanwhile: Callable[[], None]) -> bool:
        """Settle what is in flight and commit what is pending; `meanwhile` is done between two looks at a group that
        isn't stable. False when `seconds` were not enough.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._settle(max(0.0, deadline - time.monotonic()))
            if self.committer.idle and not self.pending.parts:
                return True
            if self.committer.idle and not self._start_commit():
                meanwhile()
        return False

    def _follow_assignment(self, fetched: Fetched) -> None:
        """Commit before partitions go, drop what isn't theirs to commit any more, and take in new ones."""
        gone = fetched.lost | fetched.revoked
        if fetched.lost:
            self.pipeline.encode(self.pending)
            self.pending.drop(fetched.lost)
        if fetched.revoked:
            reach("revoking")
            if not self._commit_everything(self._revocation, _stand_by):
                log.warning("partitions go before their last events are committed: their next owner answers those")
                self.pipeline.encode(self.pending)
                self.pending.drop(fetched.revoked)
            reach("revoked")
        if gone:
            self.committer.give_up(gone)
            self.ownership.leave(gone)
        if fetched.assigned:
            if self.source.is_stable:  # room for what comes
                self.ownership.forget_left(self.source.expected() | fetched.assigned.keys())
            self.ownership.enter(fetched, self.source)
        if fetched.gaps:
            self._meet_gaps(fetched.gaps)

    def _meet_gaps(self, gaps: list[Gap]) -> None:
        """The state may begin anew: so what was made of it is committed first, or the gap is met once more."""
        is_committed = self._commit_everything(self._revocation, _stand_by)
        for gap in gaps:
            if is_committed:
                self.ownership.meet(gap, self.source)
            else:
                self.source.seek((gap.topic, gap.partition), gap.wanted)

    def _show_progress(self, now: float) -> None:
        progress, counters, stable = self.progress, self.counters, self.source.is_stable
        self._stable_since = (now if self._stable_since is None else self._stable_since) if stable else None
        coming = self.source.expected() - self.ownership.owned
        if stable:
            self.ownership.forget_left(coming)
        progress.partitions = len(self.ownership.owned) + len(coming)
        progress.restoring = self.ownership.unfinished + len(coming)
        progress.enter(self._phase(now), now)
        waiting = [since for since in (self.committer.oldest, self.pending.since) if since is not None]
        progress.waiting_since = min(waiting, default=None)
        alive = self.source.heartbeat_age() * 1000 < self.config.kafka.session_timeout_ms / 2
        if not alive:
            progress.connected_since = None
        elif progress.connected_since is None:
            progress.connected_since = now
        self._count_rebalances(stable, now)
        if now >= self._look_at_ends_at:
            counters.look_at_ends(self.source.ends(), time.time())
            counters.log_starts, counters.replaying = self.source.starts(), self.pipeline.replaying
            self.pipeline.watch_retention(counters.log_starts)
            self.ownership.look_again(self.source)
            self.pipeline.add_quiet(self.ownership.owned, self.pending, now)
            self._look_at_ends_at = now + ENDS_SECONDS
        counters.streams = self.pipeline.forecaster.n_streams

    def _count_rebalances(self, stable: bool, now: float) -> None:
        rebalances, errors = self._before
        self.counters.rebalances = rebalances + self.source.rebalances
        self.counters.fetch_errors = errors + self.source.poll_errors
        if not stable:
            self._unstable_since = now if self._unstable_since is None else self._unstable_since
        elif self._unstable_since is not None:
            self.counters.rebalance_duration.observe(now - self._unstable_since)
            self._unstable_since = None

    def _give_back_memory(self, now: float) -> None:
        """Once a backlog, that of a rebalance or of brokers that were away, has been worked off for some time."""
        if self._behind or self._stable_since is None:
            self._behind_at = now
        elif self._behind_at is not None and now - self._behind_at >= CALM_SECONDS and self.pipeline.give_back():
            self._behind_at = None
            give_back_freed_memory()

    def _phase(self, now: float) -> Phase:
        """A first assignment is empty until others have given up what is ours: only in time it's that of a standby."""
        if self._stable_since is None:
            return Phase.JOINING
        if self.progress.restoring:
            return Phase.RESTORING
        is_new = self.progress.phase is not Phase.RUNNING and not self.progress.partitions
        return Phase.JOINING if is_new and now - self._stable_since < STANDBY_SECONDS else Phase.RUNNING


def _stand_by() -> None:
    time.sleep(BUSY_POLL_MS / 1000)
