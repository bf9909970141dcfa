"""The metrics page, read by Prometheus' own parser and compared with the table in the code."""

import platform
import re

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deploy.prometheus.metrics_document import DOCUMENT, document
from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status
from streamlstm.kernels import judge_layout
from streamlstm.kernels.compile import compiled_for
from streamlstm.service.counters import BuildInfo, ConfigInfo, Counters, Histogram, ModelInfo, Stage
from streamlstm.service.health import Phase, Progress
from streamlstm.service.metrics import METRICS, Observed, metrics_page
from streamlstm.service.scoring import Scoring
from streamlstm.transport.transaction import WriterCounters

BUILD = BuildInfo("1.2.3", python="3.11", numba="0.68", kafka_python="3.0.12", cpu='a "q" cpu', cpu_level="x86-64-v3")
CONFIG = ConfigInfo(group="g", transactional_id="g-0", input="events", output="forecasts", on_full="refuse")
MODEL = ModelInfo(model_hash="abc", window=0, inputs=1, hidden="50,50", horizons="1,2")


def observed() -> Observed:
    """Every number set to something else, so that a mix-up shows."""
    counters = Counters(events=7, event_bytes=700, produced_bytes=300, anomalies=17, rebalances=3)
    counters.writer = WriterCounters(committed=21, aborted=4, fenced=22, doubts=18, doubt_since=930.0, retries=2)
    counters.fetch_errors, counters.reconnects, counters.restored_chunks = 19, 20, 23
    counters.forecasts[Status.OK], counters.forecasts[Status.WARMUP] = 1, 2
    counters.dead_letters[Reason.NOT_JSON] = counters.dead_letters[Reason.CAPACITY] = 1
    for stage, seconds in zip(Stage, (0.0004, 0.0005, 0.3, 99.0, 0.01, 0.02), strict=True):
        counters.stages[stage].observe(seconds)
    counters.commit_latency.observe(0.2)
    counters.freshness.observe_ages(np.array([1_700_000_019_700, 1_700_000_000_000]), 1_700_000_020_000)
    counters.rebalance_duration.observe(0.7)
    counters.ends, counters.committed = {("events", 5): 142, ("events", 6): 9}, {("events", 5): 100, ("events", 7): 1}
    counters.streams, counters.streams_capacity, counters.state_bytes = 5, 50, 5000
    counters.current_at, counters.log_starts = {("events", 5): 1.7e9 - 3}, {("events", 5): 16}
    counters.replaying = {("events", 6): 14}
    counters.snapshot_written_at = {("events", 5): 980.0}
    counters.last_commit_at, counters.startup_seconds = 1.7e9, 2.5
    counters.snapshot_chunks, counters.snapshot_bytes, counters.snapshot_tags = 11, 1100, {("events", 5): 37}
    counters.restored_streams, counters.replayed_events, counters.restore_seconds = 12, 13, 1.5
    progress = Progress(phase_since=0.0, phase=Phase.RUNNING, partitions=8, restoring=3)
    progress.waiting_since, progress.last_turn, progress.connected_since = 975.0, 999.0, 0.0
    progress.stopped = {("events", 1): "why", ("events", 2): "why"}
    return Observed(
        counters, progress, BUILD, CONFIG, MODEL, scoring(), clock=lambda: 1.7e9, monotonic=lambda: 1000.0,
        started_at=1.6e9,
    )  # fmt: skip


def scoring(level: float = 0.9) -> Scoring:
    totals = np.zeros((2, judge_layout.TOTALS))
    totals[1] = np.arange(1, judge_layout.TOTALS + 1)  # in the order of the constants
    return Scoring((1, 24), totals, level)


def scraped(seen: Observed) -> dict[str, list[Sample]]:
    page = metrics_page(seen)()
    assert page.content_type == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(page.body.decode())
    return {family.name: family.samples for family in families}


def value(samples: dict[str, list[Sample]], name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in samples.values()
        for sample in family
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


def test_page_holds_exactly_the_table() -> None:
    page = metrics_page(observed())().body.decode()
    for row in METRICS:
        assert f"# TYPE {row.name} {row.kind}\n" in page
        assert f"# HELP {row.name} {row.help}\n" in page
    named = set(re.findall(r"# TYPE (streamlstm_\w+)", page))
    assert named == {row.name for row in METRICS}


def test_labels_are_those_of_the_table_and_no_stream_is_one() -> None:
    samples = scraped(observed())
    for row in METRICS:
        family = samples[row.name.removesuffix("_total")] if row.kind == "counter" else samples[row.name]
        assert family, row.name
        for sample in family:
            assert set(sample.labels) - {"le"} == set(row.labels)
            assert not {"stream", "key", "stream_id"} & set(sample.labels)


def test_names_and_units() -> None:
    for row in METRICS:
        assert re.fullmatch(r"streamlstm_[a-z][a-z0-9_]*", row.name)
        assert (row.kind == "counter") == row.name.endswith("_total")
        assert (row.kind == "histogram") <= row.name.endswith("_seconds")
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)(_|$)", row.name)
        assert row.help.endswith(".")
    assert len({row.name for row in METRICS}) == len(METRICS)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("streamlstm_events_total", {}, 7),
        ("streamlstm_event_bytes_total", {}, 700),
        ("streamlstm_forecasts_total", {"status": "ok"}, 1),
        ("streamlstm_forecasts_total", {"status": "warmup"}, 2),
        ("streamlstm_produced_bytes_total", {}, 300),
        ("streamlstm_dead_letters_total", {"reason": "not_json"}, 1),
        ("streamlstm_dead_letters_total", {"reason": "capacity"}, 1),
        ("streamlstm_dead_letters_total", {"reason": "tombstone"}, 0),
        ("streamlstm_transactions_total", {"outcome": "aborted"}, 4),
        ("streamlstm_transactions_total", {"outcome": "committed"}, 21),
        ("streamlstm_transactions_total", {"outcome": "fenced"}, 22),
        ("streamlstm_transaction_doubts_total", {}, 18),
        ("streamlstm_transaction_doubt_seconds", {}, 70),
        ("streamlstm_anomalies_total", {}, 17),
        ("streamlstm_fetch_errors_total", {}, 19),
        ("streamlstm_reconnects_total", {}, 20),
        ("streamlstm_brokers_answering", {}, 1),
        ("streamlstm_waiting_seconds", {}, 25),
        ("streamlstm_turn_age_seconds", {}, 1),
        ("streamlstm_freshness_seconds_bucket", {"le": "0.25"}, 0),
        ("streamlstm_freshness_seconds_bucket", {"le": "5.0"}, 1),
        ("streamlstm_freshness_seconds_bucket", {"le": "30.0"}, 2),
        ("streamlstm_freshness_seconds_count", {}, 2),
        ("streamlstm_freshness_seconds_sum", {}, 20.3),
        ("streamlstm_rebalance_duration_seconds_sum", {}, 0.7),
        ("streamlstm_lag_seconds", {"topic": "events", "partition": "5"}, 3),
        ("streamlstm_input_end_offset", {"topic": "events", "partition": "5"}, 142),
        ("streamlstm_snapshot_age_seconds", {"topic": "events", "partition": "5"}, 20),
        ("streamlstm_replay_retention_ratio", {"topic": "events", "partition": "5"}, 63 / 84),
        ("streamlstm_restored_chunks_total", {}, 23),
        ("streamlstm_restore_remaining_records", {"topic": "events", "partition": "6"}, 14),
        ("streamlstm_coverage_target_ratio", {}, 0.9),
        ("streamlstm_start_time_seconds", {}, 1.6e9),
        ("streamlstm_config_info", {"transactional_id": "g-0", "on_full": "refuse"}, 1),
        ("streamlstm_request_retries_total", {}, 2),
        ("streamlstm_rebalances_total", {}, 3),
        ("streamlstm_stage_duration_seconds_bucket", {"stage": "poll", "le": "0.0005"}, 1),
        ("streamlstm_stage_duration_seconds_bucket", {"stage": "decode", "le": "0.0005"}, 1),
        ("streamlstm_stage_duration_seconds_bucket", {"stage": "step", "le": "0.25"}, 0),
        ("streamlstm_stage_duration_seconds_bucket", {"stage": "step", "le": "0.5"}, 1),
        ("streamlstm_stage_duration_seconds_bucket", {"stage": "encode", "le": "10.0"}, 0),
        ("streamlstm_stage_duration_seconds_bucket", {"stage": "encode", "le": "+Inf"}, 1),
        ("streamlstm_stage_duration_seconds_count", {"stage": "encode"}, 1),
        ("streamlstm_stage_duration_seconds_sum", {"stage": "encode"}, 99),
        ("streamlstm_commit_latency_seconds_sum", {}, 0.2),
        ("streamlstm_lag_records", {"topic": "events", "partition": "5"}, 42),
        ("streamlstm_partitions", {}, 8),
        ("streamlstm_streams", {}, 5),
        ("streamlstm_streams_capacity", {}, 50),
        ("streamlstm_state_bytes", {}, 5000),
        ("streamlstm_last_commit_timestamp_seconds", {}, 1.7e9),
        ("streamlstm_snapshot_chunks_total", {}, 11),
        ("streamlstm_snapshot_bytes_total", {}, 1100),
        ("streamlstm_replay_records", {"topic": "events", "partition": "5"}, 63),
        ("streamlstm_restoring_partitions", {}, 3),
        ("streamlstm_stopped_partitions", {}, 2),
        ("streamlstm_restored_streams_total", {}, 12),
        ("streamlstm_replayed_events_total", {}, 13),
        ("streamlstm_restore_seconds", {}, 1.5),
        ("streamlstm_startup_seconds", {}, 2.5),
        ("streamlstm_phase", {"phase": "running"}, 1),
        ("streamlstm_phase", {"phase": "joining"}, 0),
        ("streamlstm_scored_forecasts_total", {"horizon": "24"}, 1),
        ("streamlstm_scored_forecasts_total", {"horizon": "1"}, 0),
        ("streamlstm_absolute_error_total", {"forecaster": "forecast", "horizon": "24"}, 2),
        ("streamlstm_squared_error_total", {"horizon": "24"}, 3),
        ("streamlstm_absolute_error_total", {"forecaster": "naive", "horizon": "24"}, 4),
        ("streamlstm_absolute_error_total", {"forecaster": "seasonal", "horizon": "24"}, 5),
        ("streamlstm_interval_outcomes_total", {"outcome": "inside", "horizon": "24"}, 6),
        ("streamlstm_interval_outcomes_total", {"outcome": "below", "horizon": "24"}, 7),
        ("streamlstm_interval_outcomes_total", {"outcome": "above", "horizon": "24"}, 8),
        ("streamlstm_interval_width_total", {"horizon": "24"}, 9),
        ("streamlstm_skill_ratio", {"horizon": "24"}, 0.5),
        ("streamlstm_coverage_ratio", {"horizon": "24"}, 6 / 21),
        ("streamlstm_build_info", {"version": "1.2.3", "cpu": 'a "q" cpu', "cpu_level": "x86-64-v3"}, 1),
        ("streamlstm_model_info", {"model_hash": "abc", "hidden": "50,50", "window": "0"}, 1),
    ],
)
def test_each_number_comes_from_its_counter(name: str, labels: dict[str, str], expected: float) -> None:
    assert value(scraped(observed()), name, **labels) == expected


def test_every_row_of_the_table_is_tried_above() -> None:
    (tried,) = [mark for mark in test_each_number_comes_from_its_counter.pytestmark if mark.name == "parametrize"]
    names = {case[0] for case in tried.args[1]}
    of_this_process = {"streamlstm_kernels", "streamlstm_threads"}
    for row in METRICS:
        is_tried = any(name == row.name or name.startswith(row.name + "_") for name in names)
        assert is_tried or row.name in of_this_process, row.name


def test_before_a_model_is_loaded() -> None:
    seen = Observed(Counters(), Progress(0.0), BUILD)
    samples = scraped(seen)
    assert samples["streamlstm_model_info"] == []
    assert value(samples, "streamlstm_phase", phase="starting") == 1


def test_without_intervals_or_scores_nothing_is_said_of_them() -> None:
    seen = observed()
    seen.scoring = scoring(level=0.0)
    samples = scraped(seen)
    assert samples["streamlstm_coverage_ratio"] == samples["streamlstm_interval_outcomes"] == []
    assert samples["streamlstm_coverage_target_ratio"] == []
    assert len(samples["streamlstm_skill_ratio"]) == 1  # nothing is known of the first horizon
    seen.scoring = None
    assert scraped(seen)["streamlstm_scored_forecasts"] == []


def test_a_scrape_reads_the_numbers_of_now() -> None:
    seen = observed()
    page = metrics_page(seen)
    page()
    seen.counters.events = 8
    assert b"streamlstm_events_total 8.0\n" in page().body


def test_lag_is_never_negative_and_needs_both_ends() -> None:
    """A commit may be newer than the last fetch answer."""
    ahead, unknown, gone = ("t", 0), ("t", 1), ("t", 2)
    assert Counters(committed={ahead: 9, gone: 3}, ends={ahead: 8, unknown: 5}).lag() == {ahead: 0}


def test_lag_in_seconds_is_an_upper_bound_of_the_oldest_records_age() -> None:
    where, counters = ("t", 0), Counters()
    counters.committed[where] = 5
    counters.look_at_ends({where: 9}, now=1000.0)
    assert counters.lag_seconds(1007.0) == {where: 7.0}  # no older record is known of
    counters.answered(where, [np.array([-1])], now=1007.0)  # a record without a time says nothing of the others
    assert counters.lag_seconds(1007.0) == {where: 7.0}
    counters.committed[where] = 8
    counters.answered(where, [np.array([400_000, 600_000, -1])], now=1008.0)
    assert counters.lag_seconds(1008.0) == {where: 408.0}  # the one behind those came later than the newest of them
    counters.committed[where] = 9
    assert counters.lag_seconds(1009.0) == {where: 0.0}
    counters.look_at_ends({where: 9}, now=1010.0)
    counters.look_at_ends({where: 12}, now=1011.0)
    assert counters.lag_seconds(1012.0) == {where: 2.0}  # they came when nothing was waiting any more
    counters.look_at_ends({}, now=1013.0)
    assert counters.lag_seconds(1014.0) == {}


def test_freshness_counts_every_record_with_a_timestamp() -> None:
    counters = Counters()
    counters.answered(("t", 0), [np.array([999_900, 990_000]), np.array([-1, 2_000_000])], now=1000.0)
    counted = dict(counters.freshness.cumulative())
    assert counted[0.01] == 1  # from the future, by the clock of its producer
    assert (counted[0.1], counted[5.0], counted[10.0], counted[float("inf")]) == (2, 2, 3, 3)
    assert counters.freshness.total_seconds == pytest.approx(10.1)


def test_retention_matters_once_it_has_dropped_something() -> None:
    where = ("t", 0)
    counters = Counters(committed={where: 100}, snapshot_tags={where: 40}, log_starts={where: 0})
    assert counters.replay_retention() == {where: 0.0}
    counters.log_starts = {where: 20}
    assert counters.replay_retention() == {where: 0.75}
    counters.log_starts = {where: 50}
    assert counters.replay_retention() == {where: 1.2}
    counters.log_starts = {}
    assert counters.replay_retention() == {}


def test_64_partitions_are_fewer_than_3000_series() -> None:
    seen = observed()
    sources = [("events", partition) for partition in range(64)]
    numbers = ("committed", "ends", "log_starts", "current_at", "snapshot_tags", "snapshot_written_at", "replaying")
    for name in numbers:
        setattr(seen.counters, name, dict.fromkeys(sources, 1))
    seen.scoring = Scoring(tuple(range(1, 49)), np.ones((48, judge_layout.TOTALS)), 0.9)
    samples = scraped(seen)
    assert len(samples["streamlstm_lag_seconds"]) == 64
    assert sum(map(len, samples.values())) < 3000


def test_the_document_is_that_of_the_table() -> None:
    assert DOCUMENT.read_text() == document(), "make docs/metrics.md"


def test_the_kernels_are_compiled_for_this_cpu() -> None:
    name, level = compiled_for()
    assert name
    assert level in {platform.machine(), "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"}


def test_process_memory_is_there() -> None:
    assert value(scraped(observed()), "process_resident_memory_bytes") > 1e6


def test_histogram_bounds_are_inclusive_and_cumulative() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.0, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(seconds)
    assert histogram.cumulative() == [(1.0, 2), (2.0, 4), (float("inf"), 5)]
    assert histogram.total_seconds == 7.5
    at_once = Histogram((1.0, 2.0))
    assert at_once.observe_ages(np.array([4000, 3000, 2500, 2000, -1, 1000]), 4000) == 4000
    assert at_once.observe_ages(np.array([5000]), 4000) == 5000  # its clock is ahead
    assert at_once.observe_ages(np.array([], np.int64), 4000) == 0
    assert at_once.cumulative() == [(1.0, 3), (2.0, 5), (float("inf"), 6)]
    assert at_once.total_seconds == 7.5
