"""The operations dashboard: is it healthy, and if not, where does it hang?"""

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as m

from deploy.grafana.frame import choice, dashboard
from deploy.grafana.operations_members import consumer_group, process, state
from deploy.grafana.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    areas,
    bars,
    distribution,
    lines,
    tile,
)
from deploy.grafana.promql import (
    BY_SOURCE,
    RATE,
    increase,
    largest,
    of,
    or_named_zero,
    or_zero,
    quantile,
    rate,
    ratio,
    total,
)
from streamlstm.events.forecast import Status
from streamlstm.service.counters import Stage

Panels = list[Builder[m.Panel]]

ALERTS = "Streamlstm.*"

FRESH_SECONDS = 5.0
"""The objective of the alerts: 99 % of records are answered so fast."""

COMMIT_APART = f'stage!="{Stage.COMMIT}"'

STATUS_COLORS = {
    Status.OK: GREEN,
    Status.WARMUP: BLUE,
    Status.GAP: YELLOW,
    Status.LATE: ORANGE,
    Status.DEGRADED: RED,
    Status.FILLED: PURPLE,
}
OUTCOME_COLORS = {"committed": GREEN, "aborted": ORANGE, "fenced": RED}


def operations() -> build.Dashboard:
    made = dashboard(
        "streamlstm-operations",
        "streamlstm / operations",
        "Is it healthy, and if not, where does it hang?",
        past="1h",
        refresh="30s",
    )
    of_lag = of("streamlstm_lag_records")
    made = made.with_variable(choice("topic", "Topic", f"label_values({of_lag}, topic)", "Input topic."))
    made = made.with_variable(choice("partition", "Partition", f"label_values({of_lag}, partition)", "Of the input."))
    for title, panels in (
        ("Is it healthy?", _health()),
        ("Flow: what comes in, what goes out, what waits", _flow()),
        ("Latency and transactions", _latency()),
        ("Consumer group", consumer_group()),
        ("State, snapshots, restore", state()),
        ("Process, build, model", process()),
    ):
        made = made.with_row(build.Row(title))
        for panel in panels:
            made = made.with_panel(panel)
    return made


def _health() -> Panels:
    return [*_symptoms(), *_figures()]


def _symptoms() -> Panels:
    firing = (
        f'ALERTS{{cluster=~"$cluster",namespace=~"$namespace",job=~"$job",alertname=~"{ALERTS}",alertstate="firing"}}'
    )
    in_time = ratio(
        increase("streamlstm_freshness_seconds_bucket", f'le="{FRESH_SECONDS}"'),
        increase("streamlstm_freshness_seconds_count"),
    )
    return [
        tile(
            "Members running",
            "Members in the phase running: stable in the group, state restored, brokers there.",
            total("streamlstm_phase", 'phase="running"'),
            "none",
            steps=((None, RED), (1, GREEN)),
            decimals=0,
        ),
        tile(
            "Alerts firing",
            "Alerts of streamlstm that fire now; docs/runbooks says what to do about each.",
            or_zero(f"count({firing})"),
            "none",
            steps=((None, GREEN), (1, RED)),
            decimals=0,
        ),
        tile(
            "Answered in time",
            "Share of records answered within 5 s of their timestamp, over the range of the "
            "dashboard. The objective is 99 %.",
            in_time,
            "percentunit",
            steps=((None, RED), (0.98, YELLOW), (0.99, GREEN)),
            over_range=True,
            decimals=2,
        ),
        tile(
            "Freshness, p99",
            "Time from a record's timestamp to the commit of its answer: 99 of 100 are faster.",
            quantile(0.99, "streamlstm_freshness_seconds"),
            "s",
            steps=((None, GREEN), (FRESH_SECONDS, YELLOW), (60, RED)),
        ),
        tile(
            "Oldest unanswered",
            "Age of the oldest record without an answer, of the worst partition (an upper bound).",
            largest("streamlstm_lag_seconds", BY_SOURCE),
            "s",
            steps=((None, GREEN), (FRESH_SECONDS, YELLOW), (60, RED)),
        ),
        tile(
            "Lag",
            "Records between the committed offsets and the last stable offsets, all partitions.",
            f"sum({largest('streamlstm_lag_records', BY_SOURCE, by='topic, partition')})",
            "short",
            decimals=0,
        ),
    ]


def _figures() -> Panels:
    letters = ratio(rate("streamlstm_dead_letters_total", 'reason!="tombstone"'), rate("streamlstm_events_total"))
    waiting = f"{total('streamlstm_restoring_partitions')} + {total('streamlstm_stopped_partitions')}"
    used = f"max({ratio(of('streamlstm_streams'), of('streamlstm_streams_capacity'))})"
    return [
        tile("Events", "Records answered per second.", rate("streamlstm_events_total"), "eps"),
        tile(
            "Dead letters",
            "Share of records that got a dead letter instead of a forecast; resets (tombstones) don't count.",
            or_zero(letters),
            "percentunit",
            steps=((None, GREEN), (0.01, YELLOW), (0.05, RED)),
            decimals=2,
        ),
        tile(
            "Partitions not live",
            "Assigned partitions that are being restored, or are stopped (/readyz says why).",
            waiting,
            "none",
            steps=((None, GREEN), (1, YELLOW)),
            decimals=0,
        ),
        tile(
            "Fullest member",
            "Streams held of those that can be held, of the fullest member. Beyond 100 % state.on_full decides.",
            used,
            "percentunit",
            steps=((None, GREEN), (0.8, YELLOW), (0.9, RED)),
            decimals=1,
        ),
        tile(
            "Transaction in doubt",
            "Since when the outcome of a transaction has been unknown; 0: none is.",
            largest("streamlstm_transaction_doubt_seconds"),
            "s",
            steps=((None, GREEN), (5, YELLOW), (60, RED)),
            decimals=1,
        ),
        tile(
            "CPU per event",
            "CPU time of the processes over events, both per second.",
            ratio(rate("process_cpu_seconds_total"), rate("streamlstm_events_total")),
            "s",
        ),
    ]


def _flow() -> Panels:
    arriving = f"sum(max by (topic, partition) (rate({of('streamlstm_input_end_offset', BY_SOURCE)}[{RATE}])))"
    letters = rate("streamlstm_dead_letters_total", by="reason")
    source, legend = "topic, partition", "{{topic}}-{{partition}}"
    return [
        lines(
            "Events",
            "Records that arrive in the input (offsets of the last stable offset) and that are answered.",
            {"arriving": arriving, "answered": rate("streamlstm_events_total")},
            "eps",
        ),
        areas(
            "Forecasts by status",
            "What the forecasts are worth: warmup, gap, late, degraded and filled ones say so.",
            {"{{status}}": rate("streamlstm_forecasts_total", by="status")},
            "eps",
            colors={status.label: color for status, color in STATUS_COLORS.items()},
        ),
        bars(
            "Dead letters by reason",
            "Records that could not be forecast, by the reason in the dead letter's headers.",
            {"{{reason}}": or_named_zero(letters, "reason", "none")},
            "eps",
            colors={"none": GREEN},
        ),
        lines(
            "Lag by partition",
            "Records between the committed offset and the last stable offset.",
            {legend: largest("streamlstm_lag_records", BY_SOURCE, by=source)},
            "short",
        ),
        lines(
            "Oldest unanswered record by partition",
            "An upper bound of its age; 0 without lag.",
            {legend: largest("streamlstm_lag_seconds", BY_SOURCE, by=source)},
            "s",
            steps=((None, GREEN), (FRESH_SECONDS, YELLOW), (60, RED)),
        ),
        lines(
            "Bytes",
            "Decompressed bytes of what is read, and bytes of the record batches written, dead letters included.",
            {"read": rate("streamlstm_event_bytes_total"), "written": rate("streamlstm_produced_bytes_total")},
            "Bps",
        ),
    ]


def _latency() -> Panels:
    freshness = "streamlstm_freshness_seconds"
    commit, stages = "streamlstm_commit_latency_seconds", "streamlstm_stage_duration_seconds"
    return [
        lines(
            "Freshness",
            "From a record's timestamp to the commit of its answer: 50, 90 and 99 of 100 are faster.",
            {f"p{100 * share:.0f}": quantile(share, freshness) for share in (0.5, 0.9, 0.99)},
            "s",
            steps=((None, GREEN), (FRESH_SECONDS, YELLOW), (60, RED)),
        ),
        distribution(
            "Freshness, all records",
            "Records per second by the time from their timestamp to the commit of their answer.",
            rate(f"{freshness}_bucket", by="le"),
            "s",
        ),
        lines(
            "Commit latency",
            "From reading the oldest record of a transaction to its commit.",
            {f"p{100 * share:.0f}": quantile(share, commit) for share in (0.5, 0.99)},
            "s",
        ),
        lines(
            "Stages, p99",
            "Time that a batch spends in each stage: 99 of 100 are faster.",
            {"{{stage}}": quantile(0.99, stages, by="stage")},
            "s",
        ),
        areas(
            "Where the loop's time goes",
            "Share of the loop's time in each stage, the mean of the members. Poll is waiting, for "
            "records most of all; members whose other stages take all of it have no headroom. "
            "Commits have a thread of their own.",
            {"{{stage}}": f"avg by (stage) (rate({of(f'{stages}_sum', COMMIT_APART)}[{RATE}]))"},
            "percentunit",
            colors={Stage.POLL: GREY},
        ),
        lines(
            "Transactions",
            "Ended per second, by outcome; an unknown one is settled before it is counted.",
            {"{{outcome}}": rate("streamlstm_transactions_total", by="outcome")},
            "cps",
            colors=OUTCOME_COLORS,
        ),
    ]
