"""`streamlstm doctor`: what a good operator would check, asked without joining the group and without writing.

One thing is left behind: kernels that had to be compiled stay in their cache, as after `check`. Each area is tried by
itself, so that without brokers the rest is still said. The verdicts are pure (doctor_host, doctor_cluster,
doctor_topics); here the facts are gathered.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from streamlstm.config import Config
from streamlstm.engine.checkpoint import TYPICAL_KEY
from streamlstm.engine.prediction import row_layout
from streamlstm.errors import InputMissingError, StreamlstmError
from streamlstm.kernels.compile import cache_folder, cache_tally
from streamlstm.kernels.vector import machine
from streamlstm.model.model_file import Model, load
from streamlstm.service.checks import compile_kernels
from streamlstm.service.doctor_cluster import (
    Clocks,
    Offsets,
    judge_brokers,
    judge_clocks,
    judge_group,
    judge_timeouts,
)
from streamlstm.service.doctor_findings import Finding, Section, bad, doubtful, good, skipped, told
from streamlstm.service.doctor_host import host_facts, judge_host
from streamlstm.service.doctor_topics import judge_state, judge_topics
from streamlstm.service.inspect_state import Progress, opened
from streamlstm.service.sizing import predict
from streamlstm.service.wiring import check_cluster, connection_settings, written_topics
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.offsets import committed_offsets
from streamlstm.transport.survey import describe_brokers, describe_group, newest_stamps
from streamlstm.transport.topics import describe_topics, log_ranges

LOOK_AGAIN_SECONDS = 1.0
"""Between two looks at the brokers' clocks: a daemon under load commits several times in so long."""

WRITTEN_MB_PER_SECOND = 20.0
"""Of chunks in one transaction: what slow brokers take too."""

Bar = Callable[[int, str], AbstractContextManager[Progress]]


def examine(config: Config, *, quick: bool, bar: Bar) -> Iterator[Section]:
    """Area by area, as it is found. `quick` leaves out what computes or reads much: kernels and snapshots."""
    yield Section("configuration", (good("settings", "every one is valid"), *_unusual(config)))
    model, findings = _model(config, quick)
    sizing = predict(config, model) if model is not None else None
    yield Section("host", tuple(judge_host(config, host_facts(config), sizing)))
    yield Section("model", (*findings, *judge_bound(config, model)))
    with _connected(config) as (cluster, why):
        if cluster is None:
            yield Section("brokers", why)
            return
        yield Section("brokers", tuple(_tried("brokers", _look_at_brokers(cluster, config))))
        yield Section("topics", tuple(_tried("topics", _look_at_topics(cluster, config))))
        yield Section("group", tuple(_tried("group", _look_at_group(cluster, config))))
    if config.snapshot.enabled and not quick:
        yield Section("state", tuple(_tried("snapshots", _look_at_state(config, bar))))


def _unusual(config: Config) -> Iterator[Finding]:
    if not config.snapshot.enabled:
        yield doubtful(
            "snapshot.enabled", "false", "true: a restart begins every stream anew", "snapshot.enabled = true"
        )


def judge_bound(config: Config, model: Model | None) -> Iterator[Finding]:
    """Whether the state of a partition that reaches its bound goes out in time (engine/checkpoint.py: _Partition)."""
    bound, timeout_ms = config.state.max_streams_per_partition, config.commit.transaction_timeout_ms
    if bound is None or model is None or not config.snapshot.enabled:
        return
    row_bytes = row_layout(model, config.engine.state_dtype).row_bytes
    whole, room = bound * (row_bytes + TYPICAL_KEY) / 1e6, WRITTEN_MB_PER_SECOND * timeout_ms / 1000
    if whole > room:
        yield doubtful(
            "state.max_streams_per_partition",
            f"{bound:,}: a partition that reaches it writes all of its state at once, {whole:,.0f} MB",
            f"at most {room:,.0f} MB, which is sure to go out within commit.transaction_timeout_ms = {timeout_ms}",
            "a lower bound and more partitions, or a longer time-out",
        )


def _tried(about: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, the last of them the error that ended them, if any."""
    try:
        yield from findings
    except StreamlstmError as error:
        yield from (told(about, line, type(error)) for line in str(error).splitlines())
    except OSError as error:
        yield bad(about, f"{error.filename}: {error.strerror}", "a file that can be read", "", InputMissingError)


def _model(config: Config, quick: bool) -> tuple[Model | None, list[Finding]]:
    found: list[Model] = []

    def look() -> Iterator[Finding]:
        model = load(Path(config.model.path))
        found.append(model)
        hidden = ", ".join(map(str, model.parameters.hidden))
        yield good("model", f"{config.model.path}, hash {model.model_hash[:12]}, hidden units {hidden}")
        cpu, vectors = machine()
        if vectors == "portable":
            yield doubtful("cpu", f"{cpu}, without AVX2 and FMA", "x86-64-v3: steps take many times as long", "")
        else:
            yield good("cpu", f"{cpu}, {vectors}")
        if quick:
            yield skipped("kernels", "--quick")
        else:
            yield from _kernels(config, model)

    findings = list(_tried("model", look()))
    return (found[0] if found else None), findings


def _kernels(config: Config, model: Model) -> Iterator[Finding]:
    began = time.monotonic()
    compile_kernels(config, model)
    seconds = time.monotonic() - began
    loaded, compiled, problems = cache_tally()
    folder = cache_folder()
    yield good("golden vectors", "come out of the kernels that will serve")
    for problem in problems:
        expected = "a folder that this user may write, and nobody else: else every start compiles"
        yield doubtful("kernel cache", problem, expected, "STREAMLSTM_CACHE_DIR=/var/cache/streamlstm")
    if compiled and not problems:
        found = f"{compiled} kernels had to be compiled, {seconds:.1f} s; they are in {folder} now"
        expected = "all of them there: a start that compiles takes so much longer"
        yield doubtful("kernel cache", found, expected, "run this as the daemon's user, before its start")
    elif not problems:
        yield good("kernel cache", f"{loaded} loaded from {folder} in {seconds:.1f} s")


@contextmanager
def _connected(config: Config) -> Iterator[tuple[Cluster | None, tuple[Finding, ...]]]:
    clusters: list[Cluster] = []

    def connect() -> Iterator[Finding]:
        clusters.append(Cluster.connect(connection_settings(config), time.monotonic))
        yield from ()

    why = tuple(_tried("brokers", connect()))
    try:
        yield (clusters[0] if clusters else None), why
    finally:
        for cluster in clusters:
            cluster.close()


def _servers(config: Config) -> str:
    return ",".join(config.kafka.bootstrap_servers)


def _deadline(cluster: Cluster) -> float:
    return cluster.deadline(cluster.settings.connect_timeout_ms)


def _look_at_brokers(cluster: Cluster, config: Config) -> Iterator[Finding]:
    brokers = describe_brokers(cluster, _deadline(cluster))
    yield from judge_brokers(config, brokers, cluster.features(_deadline(cluster)), _servers(config))
    yield from judge_timeouts(config, brokers)
    topic = written_topics(config)[-1]  # that of the snapshots, which the daemon may read in any case
    if describe_topics(cluster, [topic], _deadline(cluster))[topic] is not None:
        yield judge_clocks(_clocks(cluster, topic))


def _clocks(cluster: Cluster, topic: str) -> Clocks:
    before = newest_stamps(cluster, topic, _deadline(cluster))
    before_ms = time.time_ns() // 1_000_000
    if before:
        cluster.pause(LOOK_AGAIN_SECONDS)
    after = newest_stamps(cluster, topic, _deadline(cluster))
    return Clocks(before, before_ms, after, time.time_ns() // 1_000_000)


def _look_at_topics(cluster: Cluster, config: Config) -> Iterator[Finding]:
    topics = (config.input.topic, *written_topics(config))
    found = describe_topics(cluster, topics, _deadline(cluster))
    problems, warnings = list[str](), list[str]()
    try:
        warnings = check_cluster(cluster, config)
    except InputMissingError as error:
        problems = str(error).splitlines()
    yield from judge_topics(config, found, problems, warnings, _servers(config))


def _look_at_group(cluster: Cluster, config: Config) -> Iterator[Finding]:
    topic, group = config.input.topic, config.kafka.group_id
    facts = describe_topics(cluster, [topic], _deadline(cluster))[topic]
    if facts is None:
        yield skipped("group", f"topic {topic!r} is not there")
        return
    partitions = range(facts.partitions)
    committed = committed_offsets(cluster, group, [(topic, each) for each in partitions], _deadline(cluster))
    ranges = log_ranges(cluster, topic, partitions)
    offsets = {each: Offsets(committed[topic, each], *ranges[each]) for each in partitions}
    yield from judge_group(config, describe_group(cluster, group, _deadline(cluster)), offsets)


def _look_at_state(config: Config, bar: Bar) -> Iterator[Finding]:
    try:
        with opened(config) as inspection, bar(inspection.total, "reading snapshots") as progress:
            states = inspection.overview(progress)
    except InputMissingError as error:
        yield skipped("snapshots", str(error))  # told among the topics
        return
    yield from judge_state(config, states, inspection.total)
