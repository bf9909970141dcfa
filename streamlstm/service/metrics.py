"""Every metric of the daemon: one table, read from plain counters at each scrape.

Names: streamlstm_<noun>_<base unit>, counters end in _total. No stream is ever a label. docs/metrics.md is made of the
table by deploy/prometheus/metrics_document.py.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields
from http import HTTPStatus
from typing import Any, Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status
from streamlstm.kernels.compile import kernel_counts
from streamlstm.service.counters import BuildInfo, ConfigInfo, Counters, Histogram, ModelInfo, TopicPartition
from streamlstm.service.health import Phase, Progress
from streamlstm.service.http_server import Page
from streamlstm.service.scoring import Candidate, Landing, Scoring
from streamlstm.transport.transaction import WriterCounters

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float | Histogram]]

_TASKS = "/proc/self/task"


@dataclass(slots=True)
class Observed:
    """What a scrape reads. `model` is None until one is loaded, `scoring` where forecasts aren't judged.
    `worst`: see service/scoring.py. `clock` gives epoch seconds, `monotonic` those of `progress`.
    """

    counters: Counters
    progress: Progress
    build: BuildInfo
    config: ConfigInfo | None = None
    model: ModelInfo | None = None
    scoring: Scoring | None = None
    worst: Callable[[], list[dict[str, Any]]] | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    started_at: float = field(default_factory=time.time)

    def since(self, moment: float | None) -> float:
        """Seconds since a moment of the monotonic clock; 0 where there is none."""
        return 0.0 if moment is None else max(0.0, self.monotonic() - moment)


@dataclass(frozen=True, slots=True)
class Row:
    """One metric; `read` gives the values of its labels with each number or histogram."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    help: str
    read: Callable[[Observed], Samples]


def _one(read: Callable[[Counters], float | Histogram]) -> Callable[[Observed], Samples]:
    return lambda seen: [((), read(seen.counters))]


def _by_partition(read: Callable[[Observed], Mapping[TopicPartition, float]]) -> Callable[[Observed], Samples]:
    return lambda seen: [((topic, str(partition)), value) for (topic, partition), value in tuple(read(seen).items())]


def _transactions(writer: WriterCounters) -> Samples:
    for outcome, n in (("committed", writer.committed), ("aborted", writer.aborted), ("fenced", writer.fenced)):
        yield (outcome,), n


def _info(info: BuildInfo | ConfigInfo | ModelInfo | None) -> list[tuple[Labels, float]]:
    return [(tuple(str(part) for part in astuple(info)), 1)] if info else []


def _scored(
    read: Callable[[Scoring], Iterable[tuple[Labels, Iterable[tuple[int, float]]]]],
) -> Callable[[Observed], Samples]:
    """Numbers of each horizon, the horizon being the last label."""

    def rows(seen: Observed) -> Iterator[tuple[Labels, float | Histogram]]:
        if seen.scoring is not None:
            for labels, values in read(seen.scoring):
                for horizon, value in values:
                    yield (*labels, str(horizon)), value

    return rows


def _names(info: type[BuildInfo] | type[ConfigInfo] | type[ModelInfo]) -> Labels:
    return tuple(part.name for part in fields(info))


# fmt: off
SECTIONS: dict[str, tuple[Row, ...]] = {
    "Flow": (
        Row("streamlstm_events_total", "counter", (), "Records read and committed, forecast or not.",
            _one(lambda c: c.events)),
        Row("streamlstm_event_bytes_total", "counter", (), "Decompressed bytes of the records read and committed.",
            _one(lambda c: c.event_bytes)),
        Row("streamlstm_forecasts_total", "counter", ("status",), "Forecasts committed, by what they are worth.",
            lambda seen: [((Status(code).label,), n) for code, n in enumerate(seen.counters.forecasts)]),
        Row("streamlstm_anomalies_total", "counter", (), "Forecasts committed whose event was anomalous.",
            _one(lambda c: c.anomalies)),
        Row("streamlstm_dead_letters_total", "counter", ("reason",), "Dead letters committed, by reason.",
            lambda seen: [((Reason(code).label,), n) for code, n in enumerate(seen.counters.dead_letters) if code]),
        Row("streamlstm_produced_bytes_total", "counter", (),
            "Bytes of record batches committed, dead letters included.",
            _one(lambda c: c.produced_bytes)),
    ),
    "Lag and progress": (
        Row("streamlstm_lag_records", "gauge", ("topic", "partition"),
            "Records between the committed offset and the last stable offset of an assigned partition.",
            _by_partition(lambda seen: seen.counters.lag())),
        Row("streamlstm_lag_seconds", "gauge", ("topic", "partition"),
            "Age of the oldest record that isn't answered, at most, by timestamps of records; 0 without lag.",
            _by_partition(lambda seen: seen.counters.lag_seconds(seen.clock()))),
        Row("streamlstm_input_end_offset", "gauge", ("topic", "partition"),
            "Last stable offset of an assigned partition; its rate is that of the input.",
            _by_partition(lambda seen: seen.counters.ends)),
        Row("streamlstm_waiting_seconds", "gauge", (),
            "How long the oldest record that has been read waits for its commit; 0 when none does.",
            lambda seen: [((), seen.since(seen.progress.waiting_since))]),
        Row("streamlstm_turn_age_seconds", "gauge", (), "Time since the last round of the loop, empty or not.",
            lambda seen: [((), seen.since(seen.progress.last_turn))]),
        Row("streamlstm_last_commit_timestamp_seconds", "gauge", (),
            "When the last transaction was committed; 0 if never.",
            _one(lambda c: c.last_commit_at)),
    ),
    "Latency": (
        Row("streamlstm_freshness_seconds", "histogram", (),
            "Age of each record, by its timestamp, when its answer was committed.",
            _one(lambda c: c.freshness)),
        Row("streamlstm_commit_latency_seconds", "histogram", (),
            "Time from reading the oldest record of a transaction to its commit.",
            _one(lambda c: c.commit_latency)),
        Row("streamlstm_stage_duration_seconds", "histogram", ("stage",), "Time that a batch spends in each stage.",
            lambda seen: [((stage.value,), histogram) for stage, histogram in seen.counters.stages.items()]),
    ),
    "Transactions": (
        Row("streamlstm_transactions_total", "counter", ("outcome",), "Transactions by how they ended.",
            lambda seen: _transactions(seen.counters.writer)),
        Row("streamlstm_transaction_doubts_total", "counter", (), "Commits whose outcome had to be found out.",
            _one(lambda c: c.writer.doubts)),
        Row("streamlstm_transaction_doubt_seconds", "gauge", (),
            "How long the outcome of a commit has been unknown; 0 when none is.",
            lambda seen: [((), seen.since(seen.counters.writer.doubt_since))]),
        Row("streamlstm_request_retries_total", "counter", (), "Requests of the writer that were sent again.",
            _one(lambda c: c.writer.retries)),
    ),
    "Brokers and group": (
        Row("streamlstm_phase", "gauge", ("phase",), "1 for the phase that the daemon is in.",
            lambda seen: [((phase.value,), float(phase is seen.progress.phase)) for phase in Phase]),
        Row("streamlstm_brokers_answering", "gauge", (), "1 while the group's coordinator answers, else 0.",
            lambda seen: [((), float(seen.progress.connected_since is not None))]),
        Row("streamlstm_reconnects_total", "counter", (), "Times that the brokers were lost and the group joined anew.",
            _one(lambda c: c.reconnects)),
        Row("streamlstm_fetch_errors_total", "counter", (), "Polls of the input that ended with a broker's error.",
            _one(lambda c: c.fetch_errors)),
        Row("streamlstm_rebalances_total", "counter", (), "Changes of this replica's assignment.",
            _one(lambda c: c.rebalances)),
        Row("streamlstm_rebalance_duration_seconds", "histogram", (),
            "Time from leaving a stable group, or asking to join one, until it is stable again.",
            _one(lambda c: c.rebalance_duration)),
        Row("streamlstm_partitions", "gauge", (), "Partitions assigned to this replica.",
            lambda seen: [((), seen.progress.partitions)]),
        Row("streamlstm_stopped_partitions", "gauge", (), "Assigned partitions that are stopped; /readyz says why.",
            lambda seen: [((), len(seen.progress.stopped))]),
    ),
    "State": (
        Row("streamlstm_streams", "gauge", (), "Streams held.",
            _one(lambda c: c.streams)),
        Row("streamlstm_streams_capacity", "gauge", (), "Streams that can be held.",
            _one(lambda c: c.streams_capacity)),
        Row("streamlstm_state_bytes", "gauge", (), "Memory set aside for the state of all streams.",
            _one(lambda c: c.state_bytes)),
    ),
    "Snapshots": (
        Row("streamlstm_snapshot_chunks_total", "counter", (), "Chunks of state written to the snapshot topic.",
            _one(lambda c: c.snapshot_chunks)),
        Row("streamlstm_snapshot_bytes_total", "counter", (), "Bytes of state written to the snapshot topic.",
            _one(lambda c: c.snapshot_bytes)),
        Row("streamlstm_snapshot_age_seconds", "gauge", ("topic", "partition"),
            "Time since the oldest chunk of a partition was written, at most; 0 when it has all events.",
            _by_partition(lambda seen: seen.counters.snapshot_age(seen.monotonic()))),
        Row("streamlstm_replay_records", "gauge", ("topic", "partition"),
            "Records that a restart would replay: from the oldest snapshot of a partition to its committed offset.",
            _by_partition(lambda seen: seen.counters.replay_records())),
        Row("streamlstm_replay_retention_ratio", "gauge", ("topic", "partition"),
            "These as a share of the retained log before the committed offset; 0 while retention has dropped nothing.",
            _by_partition(lambda seen: seen.counters.replay_retention())),
    ),
    "Restore": (
        Row("streamlstm_restoring_partitions", "gauge", (), "Assigned partitions that are not live yet.",
            lambda seen: [((), seen.progress.restoring)]),
        Row("streamlstm_restored_chunks_total", "counter", (), "Chunks of state read back from the snapshot topic.",
            _one(lambda c: c.restored_chunks)),
        Row("streamlstm_restored_streams_total", "counter", (), "Streams brought back from snapshots.",
            _one(lambda c: c.restored_streams)),
        Row("streamlstm_replayed_events_total", "counter", (),
            "Events that advanced a restored state without an answer.",
            _one(lambda c: c.replayed_events)),
        Row("streamlstm_restore_remaining_records", "gauge", ("topic", "partition"),
            "Records still to be replayed before a partition is live; it is there for those being replayed only.",
            _by_partition(lambda seen: seen.counters.replaying)),
        Row("streamlstm_restore_seconds", "gauge", (), "What the partition restored last took, replay not included.",
            _one(lambda c: c.restore_seconds)),
        Row("streamlstm_startup_seconds", "gauge", (), "From the start of the process to joining the group.",
            _one(lambda c: c.startup_seconds)),
    ),
    "Quality": (
        Row("streamlstm_scored_forecasts_total", "counter", ("horizon",), "Forecasts whose actual value has come.",
            _scored(lambda scoring: [((), scoring.count())])),
        Row("streamlstm_absolute_error_total", "counter", ("forecaster", "horizon"),
            "Absolute errors, in the target's unit, of what was emitted and of repeating the last value or season.",
            _scored(lambda scoring: [((each.value,), scoring.absolute(each)) for each in Candidate])),
        Row("streamlstm_squared_error_total", "counter", ("horizon",), "Squared errors of what was emitted.",
            _scored(lambda scoring: [((), scoring.squared())])),
        Row("streamlstm_skill_ratio", "gauge", ("horizon",),
            "Absolute errors since the start over those of repeating the last value; below 1 is better than that.",
            _scored(lambda scoring: [((), scoring.skill())])),
        Row("streamlstm_interval_outcomes_total", "counter", ("outcome", "horizon"),
            "Actual values by where they fell: inside their interval, below or above.",
            _scored(lambda scoring: [((each.value,), scoring.landed(each)) for each in Landing])),
        Row("streamlstm_interval_width_total", "counter", ("horizon",), "Widths of the intervals of these forecasts.",
            _scored(lambda scoring: [((), scoring.widths())])),
        Row("streamlstm_coverage_ratio", "gauge", ("horizon",), "Share of actual values inside their intervals.",
            _scored(lambda scoring: [((), scoring.coverage())])),
        Row("streamlstm_coverage_target_ratio", "gauge", (), "Share of actual values that intervals promise to hold.",
            lambda seen: [((), seen.scoring.level)] if seen.scoring and seen.scoring.level else []),
    ),
    "Process": (
        Row("streamlstm_build_info", "gauge", _names(BuildInfo), "What runs; always 1.",
            lambda seen: _info(seen.build)),
        Row("streamlstm_config_info", "gauge", _names(ConfigInfo), "How it is set up; always 1.",
            lambda seen: _info(seen.config)),
        Row("streamlstm_model_info", "gauge", _names(ModelInfo), "Which model runs; always 1.",
            lambda seen: _info(seen.model)),
        Row("streamlstm_kernels", "gauge", ("origin",),
            "Compiled functions: loaded from the cache, or compiled by this process.",
            lambda seen: [((origin,), n) for origin, n in kernel_counts().items()]),
        Row("streamlstm_start_time_seconds", "gauge", (), "When the daemon was started.",
            lambda seen: [((), seen.started_at)]),
        Row("streamlstm_threads", "gauge", (), "Threads of the process.",
            lambda seen: [((), len(os.listdir(_TASKS)))] if os.path.isdir(_TASKS) else []),
    ),
}
METRICS: tuple[Row, ...] = tuple(row for rows in SECTIONS.values() for row in rows)
# fmt: on


class _Table(Collector):
    """Reads every row of METRICS when Prometheus asks."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        for row in METRICS:
            yield _family(row, self._observed)


def _family(row: Row, observed: Observed) -> Metric:
    if row.kind == "histogram":
        histogram = HistogramMetricFamily(row.name, row.help, labels=row.labels)
        for labels, value in row.read(observed):
            assert isinstance(value, Histogram)
            buckets = [(_bound(bound), count) for bound, count in value.cumulative()]
            histogram.add_metric(labels, buckets, sum_value=value.total_seconds)
        return histogram
    family = (CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily)(
        row.name, row.help, labels=row.labels
    )
    for labels, value in row.read(observed):
        assert not isinstance(value, Histogram)
        family.add_metric(labels, value)
    return family


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(bound)


def metrics_page(observed: Observed) -> Callable[[], Page]:
    """The page of /metrics: the table above and the process's own memory, CPU and file descriptors."""
    registry = CollectorRegistry()
    registry.register(_Table(observed))
    ProcessCollector(registry=registry)
    return lambda: Page(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))
