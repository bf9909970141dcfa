"""One transaction at a time, on a thread of its own, so that the next batch is computed while the last one commits."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for_futures
from dataclasses import dataclass

from streamlstm.errors import StaleGenerationError
from streamlstm.fault_points import reach
from streamlstm.service.counters import Counters, Stage
from streamlstm.service.pending import Pending, TopicPartition
from streamlstm.transport.group import Group
from streamlstm.transport.transaction import Committed, Writer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settled:
    """What was in flight; unless it is committed, nothing of it is, and it is to be committed with what follows."""

    pending: Pending
    is_committed: bool


class Committer:
    """Holds what is being committed until its outcome is known. One thread calls it.

    `refused`: the membership by which the last commit came too late; None when it came in time.
    """

    def __init__(self, writer: Writer, executor: Executor, counters: Counters, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._executor = executor
        self._counters = counters
        self._clock = clock
        self._in_flight: tuple[Pending, Future[Committed]] | None = None
        self._given_up: set[TopicPartition] = set()
        self.started_at = float("-inf")
        self.member_id = ""
        self.refused: Group | None = None
        self._group: Group | None = None

    @property
    def idle(self) -> bool:
        return self._in_flight is None

    @property
    def oldest(self) -> float | None:
        """Since when the oldest event in flight has been waiting."""
        return self._in_flight[0].since if self._in_flight else None

    def start(self, pending: Pending, group: Group) -> None:
        """Begin to commit `pending`; `settle` must have said that the transaction before is through."""
        self.started_at, self.member_id, self._group = self._clock(), group.member_id, group
        self._given_up.clear()
        self._in_flight = pending, self._executor.submit(self._writer.commit, pending.produce, pending.offsets, group)

    def give_up(self, partitions: set[TopicPartition]) -> None:
        """These have gone while they may be in flight. What comes to nothing of them is their next owner's to answer,
        even where that is this replica again: it has taken up the state of the committed offset by then.
        """
        self._given_up |= partitions

    def settle(self, timeout: float = 0.0) -> Settled | None:
        """What is no longer in flight; None where nothing is, or where it still is after `timeout` seconds.

        Raises the writer's errors, except that the group has moved on: nothing of the transaction is visible to a
        read_committed reader then.
        """
        if self._in_flight is None:
            return None
        pending, outcome = self._in_flight
        if timeout > 0.0:
            wait_for_futures([outcome], timeout)
        if not outcome.done():
            return None
        self._in_flight = None
        reach("settled")
        try:
            committed = outcome.result()
            self.refused = None
        except StaleGenerationError as error:
            self.refused = self._group
            log.info("a rebalance came before the commit; it is repeated", extra={"cause": str(error)})
            pending.drop(self._given_up)
            return Settled(pending, is_committed=False)
        self._count(pending, committed.seconds)
        return Settled(pending, is_committed=True)

    def wait_out(self, meanwhile: Callable[[], None]) -> None:
        """Until what is in flight is over, however it ended; `meanwhile` is done about once a second."""
        while self._in_flight is not None and not self._in_flight[1].done():
            meanwhile()
            wait_for_futures([self._in_flight[1]], 1.0)

    def _count(self, pending: Pending, seconds: float) -> None:
        counters, now = self._counters, time.time()
        for source, part in pending.parts.items():
            counters.events += part.events
            counters.event_bytes += part.event_bytes
            counters.produced_bytes += part.produced_bytes
            for code, n in enumerate(part.by_status.tolist()):
                counters.forecasts[code] += n
            for code, n in enumerate(part.by_reason.tolist()):
                counters.dead_letters[code] += n
            counters.anomalies += part.anomalies
            counters.answered(source, part.timestamps, now)
        counters.committed |= {each: offset for each, offset in pending.offsets.items() if each not in self._given_up}
        counters.stages[Stage.COMMIT].observe(seconds)
        counters.last_commit_at = now
        if pending.since is not None:
            counters.commit_latency.observe(self._clock() - pending.since)
