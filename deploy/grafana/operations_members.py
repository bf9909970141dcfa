"""The lower half of the operations dashboard: the group's members, their state, their processes."""

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as m

from deploy.grafana.panels import (
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    areas,
    bars,
    lines,
    listing,
    timeline,
)
from deploy.grafana.promql import (
    BY_SOURCE,
    LEGEND,
    MEMBER,
    RATE,
    increase,
    largest,
    of,
    or_zero,
    rate,
    ratio,
    short_hash,
    total,
)
from streamlstm.service.health import Phase

Panels = list[Builder[m.Panel]]

QUOTE = '"'
PHASE_COLORS = {
    Phase.STARTING: GREY,
    Phase.CONNECTING: RED,
    Phase.JOINING: ORANGE,
    Phase.RESTORING: YELLOW,
    Phase.RUNNING: GREEN,
    Phase.DRAINING: PURPLE,
}


def consumer_group() -> Panels:
    phase = " or ".join(
        f"{of('streamlstm_phase', f'phase={QUOTE}{each}{QUOTE}')} * {k}" for k, each in enumerate(Phase, 1)
    )
    trouble = {
        "requests sent again": "streamlstm_request_retries_total",
        "fetches refused": "streamlstm_fetch_errors_total",
        "brokers lost": "streamlstm_reconnects_total",
        "commits in doubt": "streamlstm_transaction_doubts_total",
    }
    return [
        timeline(
            "Phase of each member",
            "A rebalance goes from running back to joining, brokers lost to connecting.",
            f"max by ({MEMBER}) ({phase})",
            LEGEND,
            {str(k): (each.value, PHASE_COLORS[each]) for k, each in enumerate(Phase, 1)},
            span=16,
        ),
        areas(
            "Partitions by member",
            "Partitions assigned to each member; together, those of the input topic.",
            {LEGEND: total("streamlstm_partitions", by=MEMBER)},
            "none",
        ),
        bars(
            "Rebalances",
            "Changes of the members' assignments; each shows for about four scrapes.",
            {LEGEND: increase("streamlstm_rebalances_total", by=MEMBER, window=RATE)},
            "short",
            span=6,
        ),
        bars(
            "Time in rebalances",
            "Seconds that members were out of a stable group, counted when they are back in; each "
            "shows for about four scrapes.",
            {LEGEND: increase("streamlstm_rebalance_duration_seconds_sum", by=MEMBER, window=RATE)},
            "s",
            span=6,
        ),
        bars(
            "Partitions not live",
            "Being restored, or stopped because their events can't be answered exactly.",
            {"restoring": total("streamlstm_restoring_partitions"), "stopped": total("streamlstm_stopped_partitions")},
            "none",
            span=6,
            colors={"restoring": YELLOW, "stopped": RED},
        ),
        bars(
            "Trouble with the brokers",
            "Requests of the writer sent again, fetches answered with an error, members that "
            "joined anew after the brokers were lost, commits whose outcome had to be found out; each "
            "shows for about four scrapes.",
            {name: increase(metric, window=RATE) for name, metric in trouble.items()},
            "short",
            span=6,
        ),
    ]


def state() -> Panels:
    source, legend = "topic, partition", "{{topic}}-{{partition}}"
    remaining = largest("streamlstm_restore_remaining_records", BY_SOURCE)
    return [
        lines(
            "Streams",
            "Held by each member, and how many one can hold (the smallest).",
            {
                LEGEND: total("streamlstm_streams", by=MEMBER),
                "capacity of a member": f"min({of('streamlstm_streams_capacity')} > 0)",
            },
            "short",
            dashed=("capacity of a member",),
        ),
        lines(
            "Memory",
            "Resident memory of each member, and of that what is set aside for the state of all streams "
            "(the largest). It stands still from the start on.",
            {
                LEGEND: total("process_resident_memory_bytes", by=MEMBER),
                "state of a member": largest("streamlstm_state_bytes"),
            },
            "bytes",
            dashed=("state of a member",),
        ),
        lines(
            "Snapshots written",
            "Bytes of state per second written to the snapshot topic.",
            {LEGEND: rate("streamlstm_snapshot_bytes_total", by=MEMBER)},
            "Bps",
        ),
        lines(
            "Snapshot chunks",
            "Chunks of state written, and read back in a restore, per second.",
            {"written": rate("streamlstm_snapshot_chunks_total"), "restored": rate("streamlstm_restored_chunks_total")},
            "cps",
        ),
        lines(
            "Age of the oldest chunk",
            "By partition, since it was written; about snapshot.interval_ms while events come, "
            "0 when there is nothing to replay.",
            {legend: largest("streamlstm_snapshot_age_seconds", BY_SOURCE, by=source)},
            "s",
        ),
        lines(
            "What a restart would replay",
            "Records from the oldest snapshot of a partition to its committed offset.",
            {legend: largest("streamlstm_replay_records", BY_SOURCE, by=source)},
            "short",
        ),
        lines(
            "Replay against retention",
            "What a restart would replay, as a share of what the input topic still holds: at "
            "100 % the state can't be restored exactly. 0 while retention has cut nothing.",
            {legend: largest("streamlstm_replay_retention_ratio", BY_SOURCE, by=source)},
            "percentunit",
            steps=((None, GREEN), (0.5, YELLOW), (0.75, RED)),
        ),
        lines(
            "Restore",
            "Streams brought back from snapshots, and events replayed, per second.",
            {
                "streams restored": rate("streamlstm_restored_streams_total"),
                "events replayed": rate("streamlstm_replayed_events_total"),
            },
            "cps",
        ),
        lines(
            "Still to replay",
            "Records before the partitions being restored are live (the most of one partition).",
            {"records": or_zero(remaining)},
            "short",
        ),
    ]


def process() -> Panels:
    whole = of("streamlstm_build_info")
    target = "cluster, namespace, job, instance"
    model, config = short_hash(of("streamlstm_model_info")), of("streamlstm_config_info")
    both = (
        f"{whole} * on ({target}) group_left (model_hash, window, hidden, horizons) {model}"
        f" * on ({target}) group_left (group, transactional_id, input, output) {config}"
    )
    descriptors = f"max by ({MEMBER}) ({of('process_open_fds')} / {of('process_max_fds')})"
    return [
        lines(
            "CPU",
            "Cores in use by each member.",
            {LEGEND: rate("process_cpu_seconds_total", by=MEMBER)},
            "short",
            span=6,
        ),
        lines(
            "CPU per event",
            "CPU time of all members over events, both per second.",
            {"CPU per event": ratio(rate("process_cpu_seconds_total"), rate("streamlstm_events_total"))},
            "s",
            span=6,
        ),
        lines(
            "File descriptors",
            "Open ones of those that the process may open.",
            {LEGEND: descriptors},
            "percentunit",
            span=6,
            steps=((None, GREEN), (0.8, RED)),
        ),
        lines(
            "Threads",
            "Of each process.",
            {LEGEND: total("streamlstm_threads", by=MEMBER)},
            "none",
            span=6,
            steady=True,
        ),
        listing(
            "What runs",
            "Version, machine, model and group of each member.",
            both,
            {
                "pod": "Pod",
                "instance": "Instance",
                "version": "Version",
                "cpu": "CPU",
                "cpu_level": "Level",
                "python": "Python",
                "numba": "numba",
                "model_hash": "Model",
                "window": "Window",
                "hidden": "Hidden",
                "horizons": "Horizons",
                "group": "Group",
                "transactional_id": "Transactional id",
                "input": "Input",
                "output": "Output",
            },
            span=18,
        ),
        lines(
            "Kernels",
            "Compiled kernels at the start: loaded from the cache, or compiled, which makes a start slow.",
            {"{{origin}}": total("streamlstm_kernels", by="origin")},
            "none",
            span=6,
            steady=True,
        ),
    ]
