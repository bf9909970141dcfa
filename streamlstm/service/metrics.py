"""Every metric of the daemon: one table, read from plain counters at each scrape.

Names: streamlstm_<noun>_<base unit>, counters end in _total. No stream is ever a label.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from http import HTTPStatus
from typing import Any, Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status
from streamlstm.service.counters import BuildInfo, Counters, Histogram, ModelInfo
from streamlstm.service.health import Phase, Progress
from streamlstm.service.http_server import Page
from streamlstm.service.scoring import Candidate, Landing, Scoring

Labels = tuple[str, ...]


@dataclass(slots=True)
class Observed:
    """What a scrape reads. `model` is None until one is loaded, `scoring` where forecasts aren't judged.
    `worst`: see service/scoring.py.
    """

    counters: Counters
    progress: Progress
    build: BuildInfo
    model: ModelInfo | None = None
    scoring: Scoring | None = None
    worst: Callable[[], list[dict[str, Any]]] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One metric; `read` gives the values of its labels with each number or histogram."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    help: str
    read: Callable[[Observed], Iterable[tuple[Labels, float | Histogram]]]


def _one(read: Callable[[Counters], float | Histogram]) -> Callable[[Observed], list[tuple[Labels, float | Histogram]]]:
    return lambda seen: [((), read(seen.counters))]


def _info(info: BuildInfo | ModelInfo | None) -> list[tuple[Labels, float]]:
    return [(tuple(str(part) for part in astuple(info)), 1)] if info else []


def _scored(
    read: Callable[[Scoring], Iterable[tuple[Labels, Iterable[tuple[int, float]]]]],
) -> Callable[[Observed], Iterable[tuple[Labels, float | Histogram]]]:
    """Numbers of each horizon, the horizon being the last label."""

    def rows(seen: Observed) -> Iterator[tuple[Labels, float | Histogram]]:
        if seen.scoring is not None:
            for labels, values in read(seen.scoring):
                for horizon, value in values:
                    yield (*labels, str(horizon)), value

    return rows


def _names(info: type[BuildInfo] | type[ModelInfo]) -> Labels:
    return tuple(part.name for part in fields(info))


# fmt: off
METRICS: tuple[Row, ...] = (
    Row("streamlstm_events_total", "counter", (), "Records read and committed, forecast or not.",
        _one(lambda c: c.events)),
    Row("streamlstm_event_bytes_total", "counter", (), "Decompressed bytes of the records read and committed.",
        _one(lambda c: c.event_bytes)),
    Row("streamlstm_forecasts_total", "counter", ("status",), "Forecasts committed, by what they are worth.",
        lambda seen: [((Status(code).label,), n) for code, n in enumerate(seen.counters.forecasts)]),
    Row("streamlstm_produced_bytes_total", "counter", (), "Bytes of record batches committed, dead letters included.",
        _one(lambda c: c.produced_bytes)),
    Row("streamlstm_dead_letters_total", "counter", ("reason",), "Dead letters committed, by reason.",
        lambda seen: [((Reason(code).label,), n) for code, n in enumerate(seen.counters.dead_letters) if code]),
    Row("streamlstm_transactions_total", "counter", ("outcome",), "Transactions by how they ended.",
        lambda seen: [((outcome.value,), n) for outcome, n in seen.counters.transactions.items()]),
    Row("streamlstm_request_retries_total", "counter", (), "Requests of the writer that were sent again.",
        _one(lambda c: c.request_retries)),
    Row("streamlstm_rebalances_total", "counter", (), "Changes of this replica's assignment.",
        _one(lambda c: c.rebalances)),
    Row("streamlstm_stage_duration_seconds", "histogram", ("stage",), "Time that a batch spends in each stage.",
        lambda seen: [((stage.value,), histogram) for stage, histogram in seen.counters.stages.items()]),
    Row("streamlstm_commit_latency_seconds", "histogram", (),
        "Time from reading the oldest record of a transaction to its commit.",
        _one(lambda c: c.commit_latency)),
    Row("streamlstm_last_commit_timestamp_seconds", "gauge", (), "When the last transaction was committed; 0 if never.",
        _one(lambda c: c.last_commit_at)),
    Row("streamlstm_lag_records", "gauge", ("topic", "partition"),
        "Records between the committed position and the end of an assigned partition.",
        lambda seen: [((topic, str(partition)), n) for (topic, partition), n in seen.counters.lag().items()]),
    Row("streamlstm_partitions", "gauge", (), "Partitions assigned to this replica.",
        lambda seen: [((), seen.progress.partitions)]),
    Row("streamlstm_streams", "gauge", (), "Streams held.",
        _one(lambda c: c.streams)),
    Row("streamlstm_streams_capacity", "gauge", (), "Streams that can be held.",
        _one(lambda c: c.streams_capacity)),
    Row("streamlstm_state_bytes", "gauge", (), "Memory set aside for the state of all streams.",
        _one(lambda c: c.state_bytes)),
    Row("streamlstm_snapshot_chunks_total", "counter", (), "Chunks of state written to the snapshot topic.",
        _one(lambda c: c.snapshot_chunks)),
    Row("streamlstm_snapshot_bytes_total", "counter", (), "Bytes of state written to the snapshot topic.",
        _one(lambda c: c.snapshot_bytes)),
    Row("streamlstm_replay_records", "gauge", ("topic", "partition"),
        "Records that a restart would replay: from the oldest snapshot of a partition to its committed offset.",
        lambda seen: [((topic, str(p)), n) for (topic, p), n in seen.counters.replay_records().items()]),
    Row("streamlstm_restoring_partitions", "gauge", (), "Assigned partitions that are not live yet.",
        lambda seen: [((), seen.progress.restoring)]),
    Row("streamlstm_stopped_partitions", "gauge", (), "Assigned partitions that are stopped; /readyz says why.",
        lambda seen: [((), len(seen.progress.stopped))]),
    Row("streamlstm_restored_streams_total", "counter", (), "Streams brought back from snapshots.",
        _one(lambda c: c.restored_streams)),
    Row("streamlstm_replayed_events_total", "counter", (), "Events that advanced a restored state without an answer.",
        _one(lambda c: c.replayed_events)),
    Row("streamlstm_restore_seconds", "gauge", (), "What the partition restored last took, replay not included.",
        _one(lambda c: c.restore_seconds)),
    Row("streamlstm_startup_seconds", "gauge", (), "From the start of the process to joining the group.",
        _one(lambda c: c.startup_seconds)),
    Row("streamlstm_phase", "gauge", ("phase",), "1 for the phase that the daemon is in.",
        lambda seen: [((phase.value,), float(phase is seen.progress.phase)) for phase in Phase]),
    Row("streamlstm_scored_forecasts_total", "counter", ("horizon",), "Forecasts whose actual value has come.",
        _scored(lambda scoring: [((), scoring.count())])),
    Row("streamlstm_absolute_error_total", "counter", ("forecaster", "horizon"),
        "Absolute errors, in the unit of the target, of what was emitted and of repeating the last value or season.",
        _scored(lambda scoring: [((each.value,), scoring.absolute(each)) for each in Candidate])),
    Row("streamlstm_squared_error_total", "counter", ("horizon",), "Squared errors of what was emitted.",
        _scored(lambda scoring: [((), scoring.squared())])),
    Row("streamlstm_interval_outcomes_total", "counter", ("outcome", "horizon"),
        "Actual values by where they fell: inside their interval, below or above.",
        _scored(lambda scoring: [((each.value,), scoring.landed(each)) for each in Landing])),
    Row("streamlstm_interval_width_total", "counter", ("horizon",), "Widths of the intervals of these forecasts.",
        _scored(lambda scoring: [((), scoring.widths())])),
    Row("streamlstm_skill_ratio", "gauge", ("horizon",),
        "Absolute errors since the start over those of repeating the last value; below 1 is better than that.",
        _scored(lambda scoring: [((), scoring.skill())])),
    Row("streamlstm_coverage_ratio", "gauge", ("horizon",), "Share of actual values inside their intervals.",
        _scored(lambda scoring: [((), scoring.coverage())])),
    Row("streamlstm_build_info", "gauge", _names(BuildInfo), "What runs; always 1.",
        lambda seen: _info(seen.build)),
    Row("streamlstm_model_info", "gauge", _names(ModelInfo), "Which model runs; always 1.",
        lambda seen: _info(seen.model)),
)
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
