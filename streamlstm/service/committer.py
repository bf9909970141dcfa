"""One transaction at a time, on a thread of its own, so that the next batch is computed while the last one commits."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for_futures

from streamlstm.service.counters import Counters, Outcome, Stage
from streamlstm.service.pipeline import Pending
from streamlstm.transport.source import Group
from streamlstm.transport.transaction import Writer


class Committer:
    """Holds what is being committed until its outcome is known. One thread calls it."""

    def __init__(self, writer: Writer, executor: Executor, counters: Counters, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._executor = executor
        self._counters = counters
        self._clock = clock
        self._in_flight: tuple[Pending, Future[float]] | None = None
        self.started_at = float("-inf")

    @property
    def idle(self) -> bool:
        return self._in_flight is None

    @property
    def oldest(self) -> float | None:
        """Since when the oldest event in flight has been waiting."""
        return self._in_flight[0].since if self._in_flight else None

    def start(self, pending: Pending, group: Group) -> None:
        """Begin to commit `pending`; `settle` must have said that the transaction before is through."""
        self.started_at = self._clock()
        self._in_flight = pending, self._executor.submit(self._commit, pending, group)

    def settle(self, timeout: float = 0.0) -> Pending | None:
        """What has been committed since the last call, waiting up to `timeout` seconds for it.

        Raises what the writer raised: nothing of the transaction is visible to a read_committed reader then, or, after
        RetryError, whatever is will be found by the next start.
        """
        if self._in_flight is None:
            return None
        pending, outcome = self._in_flight
        if timeout > 0.0:
            wait_for_futures([outcome], timeout)
        if not outcome.done():
            return None
        self._in_flight = None
        seconds = outcome.result()
        self._count(pending, seconds)
        return pending

    def _commit(self, pending: Pending, group: Group) -> float:
        start = self._clock()
        self._writer.commit(pending.produce, pending.offsets, group)
        return self._clock() - start

    def _count(self, pending: Pending, seconds: float) -> None:
        counters = self._counters
        for part in pending.parts.values():
            counters.events += part.events
            counters.event_bytes += part.event_bytes
            counters.produced_bytes += part.produced_bytes
            for code, n in enumerate(part.by_status.tolist()):
                counters.forecasts[code] += n
            for code, n in enumerate(part.by_reason.tolist()):
                counters.dead_letters[code] += n
        counters.transactions[Outcome.COMMITTED] += 1
        counters.stages[Stage.COMMIT].observe(seconds)
        counters.last_commit_at = time.time()
        if pending.since is not None:
            counters.commit_latency.observe(self._clock() - pending.since)
