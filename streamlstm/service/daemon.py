"""The daemon's life, top to bottom.

1. Load the model, re-run its golden vectors, compile every kernel: all before the group hears of this member.
2. Connect, check the topics, take over the transactional id (which aborts what a dead predecessor left open), join.
3. Turn: settle the last transaction, poll, follow the assignment, decode, forecast, encode; when a commit is due and
   the last one is through, hand everything since to the committer and go on computing.
4. Drain on the first signal: commit what has been read, leave the group, exit 0. A fault that a restart may cure exits
   75, and the next start goes on at the committed offsets: nothing is lost and nothing is answered twice.
"""

import ctypes
import gc
import logging
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from streamlstm import __version__
from streamlstm.config import Config
from streamlstm.engine.forecaster import Forecaster
from streamlstm.errors import RetryError
from streamlstm.kernels.compile import cache_status
from streamlstm.model.model_file import Model, load
from streamlstm.service.committer import Committer
from streamlstm.service.counters import BuildInfo, Counters, ModelInfo, Stage
from streamlstm.service.health import Phase, Progress, liveness, readiness
from streamlstm.service.http_server import HttpServer, verdict_page
from streamlstm.service.metrics import Observed, metrics_page
from streamlstm.service.pipeline import Pending, Pipeline
from streamlstm.service.shutdown import Shutdown
from streamlstm.service.warmup import warm_up
from streamlstm.service.wiring import (
    connection_settings,
    forecaster_settings,
    source_settings,
    thread_count,
    writer_settings,
)
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.source import Fetched, Source
from streamlstm.transport.topics import check_topics
from streamlstm.transport.transaction import Writer

log = logging.getLogger(__name__)

IDLE_POLL_MS = 100
# Python's own 5 ms would be waited for by whichever of the loop, the committer and the clients' threads comes second.
SWITCH_SECONDS = 0.001
BUSY_POLL_MS = 2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# A poll that brings so much has more waiting behind it: that is computed while the transaction before commits. With
# less to do the loop stands back, for the committer and the clients' threads need the interpreter too.
BEHIND_BYTES = 1 << 18
ENDS_SECONDS = 1.0


def run(config: Config) -> int:
    """Run until a signal asks to stop; returns the exit code. Raises StreamlstmError."""
    started = time.monotonic()
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_freed_memory()
    counters, progress = Counters(), Progress(phase_since=started, last_turn=started)
    observed = Observed(counters, progress, build_info())
    with ExitStack() as stack:
        shutdown = stack.enter_context(Shutdown())
        if config.metrics.enabled:
            _serve_pages(config, observed, stack)
        pipeline = _build_pipeline(config, counters, observed, stack)
        if shutdown.requested:
            return 0  # asked while the kernels were compiled: the group never hears of this member
        cluster = Cluster.connect(connection_settings(config), time.monotonic)
        stack.callback(cluster.close)
        written = (config.output.topic, config.dead_letter.topic)
        check_topics(cluster, config.input.topic, written, max_batch_bytes=config.output.max_batch_bytes)
        writer = Writer(cluster, writer_settings(config))
        writer.open(written)
        committing = stack.enter_context(ThreadPoolExecutor(1, "commit"))
        progress.enter(Phase.JOINING, time.monotonic())
        source = Source(cluster, source_settings(config))
        stack.callback(source.close)
        counters.startup_seconds = time.monotonic() - started
        log.info("started", extra={"version": __version__, "seconds": round(counters.startup_seconds, 2)})
        gc.freeze()  # what lives as long as the process needn't be looked at again
        committer = Committer(writer, committing, counters, time.monotonic)
        Loop(config, pipeline, source, committer, progress, shutdown).run()
    return 0


def keep_freed_memory() -> None:
    """Ask glibc to keep freed buffers of up to 32 MiB: by default it unmaps them, and each transaction's record batches
    are then faulted in anew, page by page. One arena for all threads, so that what one frees the others use again.
    Elsewhere than on glibc nothing happens. See mallopt(3).
    """
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(M_ARENA_MAX, 1)
        allocator.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        allocator.mallopt(M_TRIM_THRESHOLD, 64 << 20)


def build_info() -> BuildInfo:
    return BuildInfo(
        __version__, platform.python_version(), version("numba"), version("kafka-python"), platform.machine()
    )


def _serve_pages(config: Config, observed: Observed, stack: ExitStack) -> None:
    stalled = config.metrics.stalled_after_ms / 1000
    server = HttpServer(
        config.metrics.host,
        config.metrics.port,
        {
            "/metrics": metrics_page(observed),
            "/livez": lambda: verdict_page(liveness(observed.progress, time.monotonic(), stalled)),
            "/readyz": lambda: verdict_page(readiness(observed.progress, time.monotonic(), stalled)),
        },
    )
    server.start()
    stack.callback(server.stop)
    log.info("metrics", extra={"host": config.metrics.host, "port": server.port})


def _build_pipeline(config: Config, counters: Counters, observed: Observed, stack: ExitStack) -> Pipeline:
    model = load(Path(config.model.path))
    threads = thread_count(config.engine.threads)
    stepping = stack.enter_context(ThreadPoolExecutor(threads, "step"))
    warm_up(config, model, stepping)
    log.info("kernels", extra={"cache": cache_status()})
    forecaster = Forecaster(model, forecaster_settings(config, threads), stepping)
    observed.model = _model_info(model)
    counters.streams_capacity = config.state.max_streams
    counters.state_bytes = forecaster.backend.arena.nbytes
    return Pipeline(config, forecaster, counters)


def _model_info(model: Model) -> ModelInfo:
    return ModelInfo(
        model_hash=model.model_hash,
        window=model.window,
        inputs=model.parameters.inputs,
        hidden=",".join(map(str, model.parameters.hidden)),
        horizons=",".join(map(str, model.horizons)),
    )


class Loop:
    """Step 3 and 4 of the daemon's life."""

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        source: Source,
        committer: Committer,
        progress: Progress,
        shutdown: Shutdown,
    ) -> None:
        self.config = config
        self.pipeline = pipeline
        self.source = source
        self.committer = committer
        self.progress = progress
        self.shutdown = shutdown
        self.counters = pipeline.counters
        self.pending = Pending()
        self._behind = False
        self._interval = config.commit.interval_ms / 1000
        self._look_at_ends_at = 0.0
        self._patience = 3 * config.commit.transaction_timeout_ms / 1000

    def run(self) -> None:
        while not self.shutdown.requested:
            self.turn()
        self.progress.enter(Phase.DRAINING, time.monotonic())
        self._drain()
        log.info("drained", extra={"events": self.counters.events})

    def _drain(self) -> None:
        """Commit what has been read. A rebalance that is under way goes on only while somebody polls: then what the
        polls bring is answered too. Raises RetryError when it takes too long.
        """
        self._commit_everything(self._poll_on)

    def _poll_on(self) -> None:
        fetched = self.source.poll(BUSY_POLL_MS, BEHIND_BYTES)
        self._follow_assignment(fetched)
        if fetched.positions:
            self.pipeline.add(fetched, self.pending, time.monotonic())

    def turn(self) -> None:
        """One round: at most one poll, at most one commit begun."""
        self._settle(0.0 if self._behind else self._interval)
        if self.pending.produced_bytes >= self.config.commit.max_bytes:
            self._settle(self._patience)
        start = time.perf_counter()
        fetched = self.source.poll(self._poll_ms(), self.config.fetch.max_bytes)
        now = time.monotonic()
        self._follow_assignment(fetched)
        self._behind = fetched.size >= BEHIND_BYTES
        if fetched.positions:
            self.counters.stages[Stage.POLL].observe(time.perf_counter() - start)
            self.pipeline.add(fetched, self.pending, now)
        self._show_progress(now)
        if self._due(now):
            self._start_commit()

    def _poll_ms(self) -> int:
        """How long to wait for events: not beyond the moment when something else is to be done."""
        if not self.pending.parts:
            return IDLE_POLL_MS
        if not self.committer.idle:
            return BUSY_POLL_MS
        left = self.committer.started_at + self._interval - time.monotonic()
        return min(IDLE_POLL_MS, max(0, int(left * 1000)))

    def _due(self, now: float) -> bool:
        """A commit at most every interval; the first after a quiet time at once."""
        if not self.pending.parts or not self.committer.idle:
            return False
        full = self.pending.produced_bytes >= self.config.commit.max_bytes
        return full or now - self.committer.started_at >= self._interval

    def _start_commit(self) -> bool:
        group = self.source.group()
        if not group.stable:
            return False  # in a rebalance: the broker would refuse this generation
        self.pipeline.encode(self.pending)
        pending, self.pending = self.pending, Pending()
        self.committer.start(pending, group)
        return True

    def _settle(self, timeout: float = 0.0) -> None:
        undone = self.committer.settle(timeout)
        if undone is not None:
            self.pending.follow(undone)

    def _commit_everything(self, meanwhile: Callable[[], None]) -> None:
        """Settle what is in flight and commit what is pending; `meanwhile` is done between two looks at a group that
        isn't stable. Raises RetryError when it takes too long.
        """
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            self._settle(max(0.0, deadline - time.monotonic()))
            if self.committer.idle and not self.pending.parts:
                return
            if self.committer.idle and not self._start_commit():
                meanwhile()
        raise RetryError(f"the last transaction was not through after {self._patience:.0f} s: it will be aborted")

    def _follow_assignment(self, fetched: Fetched) -> None:
        """Commit before partitions go, forget them when they have gone, and take note of new ones."""
        if fetched.lost:
            self.pipeline.encode(self.pending)
            self.pending.drop(fetched.lost)
        if fetched.revoked:
            self._commit_everything(lambda: time.sleep(BUSY_POLL_MS / 1000))
        self.progress.gaps -= fetched.lost | fetched.revoked
        for topic, partition in fetched.lost | fetched.revoked:
            streams = self.pipeline.forecaster.release(topic, partition)
            self.counters.committed.pop((topic, partition), None)
            log.info("partition gone", extra={"topic": topic, "partition": partition, "streams": streams})
        self.counters.committed |= fetched.assigned
        for (topic, partition), offset in fetched.assigned.items():
            log.info("partition assigned", extra={"topic": topic, "partition": partition, "offset": offset})
        for gap in fetched.gaps:
            self.progress.gaps.add((gap.topic, gap.partition))
            log.error(
                "records are gone before they were read; the partition waits",
                extra={"topic": gap.topic, "partition": gap.partition, "wanted": gap.wanted, "first": gap.first},
            )

    def _show_progress(self, now: float) -> None:
        progress, counters = self.progress, self.counters
        progress.enter(Phase.RUNNING if self.source.group().stable else Phase.JOINING, now)
        waiting = [since for since in (self.committer.oldest, self.pending.since) if since is not None]
        progress.waiting_since = min(waiting, default=None)
        progress.partitions = len(self.source.assignment())
        alive = self.source.heartbeat_age() * 1000 < self.config.kafka.session_timeout_ms / 2
        if not alive:
            progress.connected_since = None
        elif progress.connected_since is None:
            progress.connected_since = now
        counters.rebalances = self.source.rebalances
        if now >= self._look_at_ends_at:
            counters.ends = self.source.ends()
            self._look_at_ends_at = now + ENDS_SECONDS
        counters.streams = self.pipeline.forecaster.n_streams
