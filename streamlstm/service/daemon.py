"""The daemon's life, top to bottom.

1. Load the model, re-run its golden vectors, compile every kernel: all before the group hears of this member.
2. Connect, check the topics, take over the transactional id (which aborts what a dead predecessor left open), join.
3. Turn (loop.py): settle the last transaction, poll, follow the assignment (ownership.py: bring the state of new
   partitions back), decode, forecast, encode; when a commit is due and the last one is through, hand everything since
   to the committer, with the snapshots whose turn it is, and go on computing.
4. Drain on the first signal: commit what has been read, leave the group, exit 0. While the brokers are away the replica
   waits for them. A fault that a restart may cure exits 75. Either way it goes on at the committed offsets: nothing is
   lost and nothing is answered twice.
"""

import faulthandler
import gc
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

from streamlstm import __version__
from streamlstm.config import Config
from streamlstm.engine.forecaster import Forecaster
from streamlstm.errors import FencedError, RetryError, StaleGenerationError
from streamlstm.kernels.compile import cache_status, compiled_for
from streamlstm.model.model_file import Model, load
from streamlstm.service.committer import Committer
from streamlstm.service.counters import BuildInfo, ConfigInfo, Counters, ModelInfo
from streamlstm.service.health import Phase, Progress, liveness, readiness
from streamlstm.service.heap import keep_freed_memory
from streamlstm.service.http_server import HttpServer, verdict_page
from streamlstm.service.limits import memory_limit
from streamlstm.service.loop import Loop, drain_seconds
from streamlstm.service.metrics import Observed, metrics_page
from streamlstm.service.notify import Notifier
from streamlstm.service.ownership import Ownership
from streamlstm.service.pipeline import Pipeline
from streamlstm.service.reload import Reload
from streamlstm.service.restore import Restorer
from streamlstm.service.scoring import scoring_of, worst_page, worst_streams
from streamlstm.service.shutdown import Shutdown
from streamlstm.service.sizing import predict
from streamlstm.service.warmup import compile_apart, warm_up
from streamlstm.service.wiring import (
    check_cluster,
    checkpoint_of,
    connection_settings,
    forecaster_settings,
    source_settings,
    thread_count,
    writer_settings,
    written_topics,
)
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.source import Source
from streamlstm.transport.transaction import Writer

log = logging.getLogger(__name__)

# Python's own 5 ms would be waited for by whichever of the loop, the committer and the clients' threads comes second.
SWITCH_SECONDS = 0.001
RECONNECT_SECONDS = 1.0
# Beyond the drain: to leave the group, close the connections and end the threads.
LEAVING_SECONDS = 15.0


def run(config: Config, reread: Callable[[], Config]) -> int:
    """Run until a signal asks to stop; returns the exit code. `reread` reads the configuration again. Raises
    StreamlstmError.
    """
    started = time.monotonic()
    faulthandler.enable()  # what every thread was doing, in the log, when a watchdog aborts the process
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_freed_memory()
    counters, progress = Counters(), Progress(phase_since=started, last_turn=started)
    observed = Observed(counters, progress, build_info(), config_info(config))
    with ExitStack() as stack:
        notifier = stack.enter_context(_notifier(config))
        reload = stack.enter_context(Reload(config, reread, notifier))
        shutdown = stack.enter_context(Shutdown())
        progress.listeners = (notifier.turn, reload.turn)
        notifier.starting("loading the model, compiling what the kernel cache lacks")
        if config.metrics.enabled:
            _serve_pages(config, observed, stack)
        model = load(Path(config.model.path))
        compile_apart()
        if shutdown.requested:
            return 0  # asked while the kernels were compiled: the group never hears of this member
        pipeline = _build_pipeline(config, model, counters, observed, stack)
        if shutdown.requested:
            return 0
        notifier.starting("connecting to the brokers")
        cluster = _connect(config)
        stack.callback(cluster.close)
        for warning in check_cluster(cluster, config):
            log.warning(warning)
        ownership = Ownership(config, pipeline, _restorer(config, stack), progress, time.monotonic)
        member = Member(config, pipeline, ownership, cluster, progress, shutdown)
        member.open()
        counters.startup_seconds = time.monotonic() - started
        log.info("started", extra={"version": __version__, "seconds": round(counters.startup_seconds, 2)})
        gc.freeze()  # what lives as long as the process needn't be looked at again
        member.run()
    return 0


class Member:
    """This replica as a member of the group, and again a member after the brokers were away.

    Nothing is lost while they are: what was read and not committed is dropped and read again, and the state in memory
    is used where the committed offsets say that it is the right one.
    """

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        ownership: Ownership,
        cluster: Cluster,
        progress: Progress,
        shutdown: Shutdown,
    ) -> None:
        self.config = config
        self.pipeline = pipeline
        self.ownership = ownership
        self.cluster = cluster
        self.progress = progress
        self.shutdown = shutdown
        self._member_id = ""

    def open(self, timeout_ms: int | None = None) -> None:
        """Take over the transactional id. Raises RetryError, AccessError, ConfigError."""
        self.writer = Writer(self.cluster, writer_settings(self.config), self.pipeline.counters.writer)
        self.writer.open(written_topics(self.config), timeout_ms)

    def run(self) -> None:
        """Until a signal asks to stop. Raises what a restart of the process is better for than another attempt."""
        while not self.shutdown.requested:
            try:
                self._serve()
            except (FencedError, StaleGenerationError):
                raise
            except RetryError as error:
                if self.shutdown.requested:
                    raise
                log.warning("the brokers were lost; joining anew", extra={"why": str(error)})
                self.pipeline.counters.reconnects += 1
                self.progress.enter(Phase.CONNECTING, time.monotonic())
                self.pipeline.drop_unanswered()
                self.ownership.leave(set(self.ownership.owned))
                self._open_again()

    def _serve(self) -> None:
        self.progress.enter(Phase.JOINING, time.monotonic())
        with ExitStack() as stack:
            committing = stack.enter_context(ThreadPoolExecutor(1, "commit"))
            source = Source(self.cluster, source_settings(self.config), self._member_id)
            stack.callback(source.close)
            stack.callback(self._keep_name, source)
            committer = Committer(self.writer, committing, self.pipeline.counters, time.monotonic)
            stack.callback(committer.wait_out, self._turn)
            Loop(self.config, self.pipeline, source, committer, self.ownership, self.progress, self.shutdown).run()

    def _keep_name(self, source: Source) -> None:
        self._member_id = source.member_id

    def _turn(self) -> None:
        """Waiting for the brokers is a turn too."""
        self.progress.enter(self.progress.phase, time.monotonic())

    def _open_again(self) -> None:
        while not self.shutdown.requested:
            try:
                self.open(self.config.commit.request_timeout_ms)
                break
            except FencedError:
                raise
            except RetryError as error:
                log.warning("the brokers are away", extra={"why": str(error)})
                self.progress.enter(Phase.CONNECTING, time.monotonic())
                self.progress.connected_since = None
                self.cluster.pause(RECONNECT_SECONDS)
                self.cluster.bootstrap_again()


def _connect(config: Config) -> Cluster:
    return Cluster.connect(connection_settings(config), time.monotonic)


def _restorer(config: Config, stack: ExitStack) -> Restorer | None:
    """Reads snapshots over connections of its own: a fetch that waits would hold up the commits."""
    if not config.snapshot.enabled:
        return None
    reading = stack.enter_context(ThreadPoolExecutor(1, "restore"))
    restorer = Restorer(lambda: _connect(config), config.input.topic, config.snapshot.topic, reading)
    stack.callback(restorer.close)
    return restorer


def _notifier(config: Config) -> Notifier:
    return Notifier(
        os.environ,
        stalled_after=config.metrics.stalled_after_ms / 1000,
        drain_seconds=drain_seconds(config) + LEAVING_SECONDS,
    )


def build_info() -> BuildInfo:
    return BuildInfo(__version__, platform.python_version(), version("numba"), version("kafka-python"), *compiled_for())


def config_info(config: Config) -> ConfigInfo:
    return ConfigInfo(
        group=config.kafka.group_id,
        transactional_id=writer_settings(config).transactional_id,
        input=config.input.topic,
        output=config.output.topic,
        on_full=config.state.on_full,
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
            "/debug/streams/worst": lambda: worst_page(observed.worst),
        },
    )
    server.start()
    stack.callback(server.stop)
    log.info("metrics", extra={"host": config.metrics.host, "port": server.port})


def _build_pipeline(config: Config, model: Model, counters: Counters, observed: Observed, stack: ExitStack) -> Pipeline:
    threads = thread_count(config.engine.threads)
    stepping = stack.enter_context(ThreadPoolExecutor(threads, "step"))
    warm_up(config, model, stepping)
    log.info("kernels", extra={"cpu": compiled_for()[1], "cache": cache_status()})
    _warn_of_memory(config, model)
    forecaster = Forecaster(model, forecaster_settings(config, threads), stepping)
    observed.model, observed.scoring = _model_info(model), scoring_of(forecaster)
    observed.worst = partial(worst_streams, forecaster)
    log.info("backend", extra={"device": forecaster.backend.device})
    counters.streams_capacity = config.state.max_streams
    counters.state_bytes = forecaster.backend.state_bytes
    return Pipeline(config, forecaster, checkpoint_of(config, forecaster), counters)


def _warn_of_memory(config: Config, model: Model) -> None:
    """The state becomes resident as streams come, so a limit that is too small may show days later, as a SIGKILL."""
    needed, limit = predict(config, model).resident_bytes, memory_limit()
    if needed > limit:
        log.warning("the state will not fit into memory when full",
                    extra={"needs_mb": needed // 10**6, "limit_mb": limit // 10**6})  # fmt: skip


def _model_info(model: Model) -> ModelInfo:
    return ModelInfo(
        model_hash=model.model_hash,
        window=model.window,
        inputs=len(model.inputs),
        hidden=",".join(map(str, model.parameters.hidden)),
        horizons=",".join(map(str, model.horizons)),
    )
