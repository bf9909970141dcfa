"""The topics that a daemon needs: there, with enough partitions, taking batches of the size we write.

Forecasts, dead letters and snapshots keep the partition of their event, so the topics written to need at least as many
partitions as the input has (more do no harm: who adds partitions adds them there first). The input has to keep events
for as long as a restart may need them, and the snapshots must not age. What is wrong is told all at once, with the
commands that mend it; `create` makes what is missing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from kafka.protocol.metadata import MetadataRequest

from streamlstm.errors import InputMissingError, RetryError
from streamlstm.transport.access import TOPIC_DENIED, Permission
from streamlstm.transport.cluster import (
    ACCESS_CODES,
    RETRY_PAUSE_SECONDS,
    Cluster,
    NotSent,
    code_name,
    denied,
)
from streamlstm.transport.offsets import EARLIEST, LATEST, high_watermarks, list_offsets

_UNKNOWN_TOPIC = 3
_NOT_CONTROLLER = 41
_ALREADY_EXISTS = 36
_INVALID_CONFIG = 40
_TOPIC_RESOURCE = 2
_MAX_BYTES = "max.message.bytes"
_FUTURE_LIMIT = "message.timestamp.after.max.ms"
_PAST_LIMIT = "message.timestamp.before.max.ms"
_POLICY = "cleanup.policy"
_RETENTION_TIME = "retention.ms"
_RETENTION_BYTES = "retention.bytes"
_COMPACTION_LAG = "min.compaction.lag.ms"
_ASKED = (
    *(_MAX_BYTES, _FUTURE_LIMIT, _PAST_LIMIT, _POLICY, _RETENTION_TIME, _RETENTION_BYTES, _COMPACTION_LAG),
    *("segment.ms", "min.cleanable.dirty.ratio", "delete.retention.ms"),
    *("min.insync.replicas", "unclean.leader.election.enable"),
)
_NO_LIMIT = str((1 << 63) - 1)
_UNBOUNDED = "-1"
_KEPT_INTERVALS = 4  # how many rounds of snapshots the input has to keep events for
_USUAL_MAX_BYTES = 1_048_588  # max.message.bytes unless said
_FRAME_BYTES = 256  # of a record batch around one chunk
SNAPSHOT_CONFIGS = {
    _POLICY: "compact",
    "segment.ms": "600000",
    "segment.bytes": "104857600",
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": "86400000",
}
"""Of a topic of snapshots: small segments, compacted early, so that a restart has little to read."""

_BROKER_DEFAULT = -1
_CREATE_TIMEOUT_MS = 30_000


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the cluster says of a topic; `configs` is empty when we may not see them. `replicas` is how many copies its
    partition with the fewest has, `lagging` how many copies of all partitions are not in sync.
    """

    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)
    replicas: int = 0
    lagging: int = 0


def check_topics(
    cluster: Cluster,
    input_topic: str,
    written: Sequence[str],
    *,
    keyless: Collection[str] = (),
    max_batch_bytes: int = 0,
    create: bool = False,
) -> None:
    """Return when all is well. With `create`, topics to be written that are missing are made first. Those of `keyless`
    must take records without a key.

    Raises InputMissingError with every problem and its command, AccessError, RetryError (no answer).
    """
    deadline = cluster.deadline(cluster.settings.connect_timeout_ms)
    found = describe_topics(cluster, (input_topic, *written), deadline)
    source = found[input_topic]
    missing = [topic for topic in dict.fromkeys(written) if found[topic] is None]
    if create and missing and source is not None:
        _create(cluster, missing, source.partitions, {_FUTURE_LIMIT: _NO_LIMIT})
        found = _await(cluster, (input_topic, *written), cluster.deadline(_CREATE_TIMEOUT_MS))
    servers = ",".join(cluster.settings.bootstrap_servers)
    problems = find_problems(found, input_topic, written, max_batch_bytes, servers, keyless)
    if problems:
        raise InputMissingError("\n".join(problems))


def check_snapshot_topic(
    cluster: Cluster,
    input_topic: str,
    snapshot_topic: str,
    *,
    interval_ms: int,
    max_chunk_bytes: int,
    create: bool = False,
) -> list[str]:
    """Return when state can be kept in `snapshot_topic` and replayed from `input_topic`; what is worth a warning.

    A snapshot is at most `interval_ms` old, and its records have `max_chunk_bytes` at most. With `create`, a missing
    snapshot topic is made first. Raises InputMissingError with every problem and its command, AccessError, RetryError.
    """
    topics = (input_topic, snapshot_topic)
    found = describe_topics(cluster, topics, cluster.deadline(cluster.settings.connect_timeout_ms))
    source = found[input_topic]
    if create and source is not None and found[snapshot_topic] is None:
        _create(cluster, [snapshot_topic], source.partitions, _snapshot_configs(max_chunk_bytes))
        found = _await(cluster, topics, cluster.deadline(_CREATE_TIMEOUT_MS))
    servers = ",".join(cluster.settings.bootstrap_servers)
    problems = find_snapshot_problems(found, *topics, interval_ms, max_chunk_bytes, servers)
    if problems:
        raise InputMissingError("\n".join(problems))
    size = source.configs.get(_RETENTION_BYTES, _UNBOUNDED) if source is not None else _UNBOUNDED
    if size == _UNBOUNDED:
        return []
    return [
        f"input topic {input_topic!r} has {_RETENTION_BYTES}={size}: a partition that gets more than that within "
        f"{_KEPT_INTERVALS * interval_ms} ms is snapshotted more often, and loses events while its replica is down"
    ]


def log_ranges(
    cluster: Cluster, topic: str, partitions: Iterable[int], *, with_open: bool = False
) -> dict[int, tuple[int, int]]:
    """The first offset of each partition's log and its last stable offset, which is behind what may be read; or, with
    the transactions that are still open, its high watermark.

    Raises RetryError, AccessError, InputMissingError when the topic isn't there.
    """
    wanted = [(topic, partition) for partition in partitions]
    deadline = cluster.deadline(cluster.settings.connect_timeout_ms)
    first = list_offsets(cluster, wanted, EARLIEST, deadline)
    if with_open:
        end = high_watermarks(cluster, wanted, deadline)
    else:
        end = list_offsets(cluster, wanted, LATEST, deadline)
    return {where[1]: (first[where], end[where]) for where in wanted}


def find_problems(
    found: Mapping[str, TopicFacts | None],
    input_topic: str,
    written: Sequence[str],
    max_batch_bytes: int,
    servers: str,
    keyless: Collection[str] = (),
) -> list[str]:
    """Pure: one line per problem, with the command that mends it."""
    tool = f"kafka-topics.sh --bootstrap-server {servers}"
    source = found[input_topic]
    if source is None:
        return [f"input topic {input_topic!r} is not there; make it: {tool} --create --topic {input_topic}"]
    problems = []
    taken = _limit(source, _FUTURE_LIMIT) if source.configs else 0  # where we may not see it, nothing is held to it
    for topic in dict.fromkeys(written):
        facts, needed = found[topic], source.partitions
        if facts is None:
            command = f"{tool} --create --topic {topic} --partitions {needed} --config {_FUTURE_LIMIT}={_NO_LIMIT}"
            problems.append(f"topic {topic!r} is not there; make it: {command}")
            continue
        if facts.partitions < needed:
            problems.append(
                f"topic {topic!r} has {facts.partitions} partitions, the input {input_topic!r} has {needed}; "
                f"mend it: {tool} --alter --topic {topic} --partitions {needed}"
            )
        for key, least, why in (
            (_MAX_BYTES, max_batch_bytes, "output.max_batch_bytes"),
            (_FUTURE_LIMIT, taken, f"what the input {input_topic!r} takes"),
            (_PAST_LIMIT, int(_NO_LIMIT), "what takes an event of any age"),
        ):
            if _limit(facts, key) < least:
                problems.append(_wrong(topic, facts, key, str(least), f"at least {least}, {why}", servers))
        if topic in keyless and "compact" in _policies(facts):
            why = "delete alone: a compacted topic refuses records without a key, and events may have none"
            problems.append(_wrong(topic, facts, _POLICY, "delete", why, servers))
    return problems


def find_snapshot_problems(
    found: Mapping[str, TopicFacts | None],
    input_topic: str,
    snapshot_topic: str,
    interval_ms: int,
    max_chunk_bytes: int,
    servers: str,
) -> list[str]:
    """Pure: one line per problem, with the command that mends it."""
    tool = f"kafka-topics.sh --bootstrap-server {servers}"
    source, facts = found[input_topic], found[snapshot_topic]
    if source is None:
        return [f"input topic {input_topic!r} is not there; make it: {tool} --create --topic {input_topic}"]
    kept = _KEPT_INTERVALS * interval_ms
    why = f"at least {kept}, {_KEPT_INTERVALS} times snapshot.interval_ms: a restart reads these events again"
    problems = []
    policies = _policies(source)
    if "delete" in policies and 0 <= _limit(source, _RETENTION_TIME) < kept:
        problems.append(_wrong(input_topic, source, _RETENTION_TIME, str(kept), why, servers))
    if "compact" in policies and _limit(source, _COMPACTION_LAG) < kept:
        problems.append(_wrong(input_topic, source, _COMPACTION_LAG, str(kept), why, servers))
    if facts is None:
        configs = " ".join(f"--config {key}={value}" for key, value in _snapshot_configs(max_chunk_bytes).items())
        command = f"{tool} --create --topic {snapshot_topic} --partitions {source.partitions} {configs}"
        return [*problems, f"snapshot topic {snapshot_topic!r} is not there; make it: {command}"]
    if facts.partitions < source.partitions:
        problems.append(
            f"snapshot topic {snapshot_topic!r} has {facts.partitions} partitions, the input {input_topic!r} has "
            f"{source.partitions}; mend it: {tool} --alter --topic {snapshot_topic} --partitions {source.partitions}"
        )
    if _POLICY in facts.configs and _policies(facts) != {"compact"}:
        problems.append(_wrong(snapshot_topic, facts, _POLICY, "compact", "compact alone, or state ages away", servers))
    largest = max_chunk_bytes + _FRAME_BYTES
    if _limit(facts, _MAX_BYTES) < largest:
        expected = f"at least {largest}, a chunk of snapshot.max_chunk_bytes in its record batch"
        problems.append(_wrong(snapshot_topic, facts, _MAX_BYTES, str(largest), expected, servers))
    return problems


def _snapshot_configs(max_chunk_bytes: int) -> dict[str, str]:
    largest = max_chunk_bytes + _FRAME_BYTES
    return SNAPSHOT_CONFIGS | ({_MAX_BYTES: str(largest)} if largest > _USUAL_MAX_BYTES else {})


def _wrong(topic: str, facts: TopicFacts, key: str, better: str, expected: str, servers: str) -> str:
    command = alter_command(servers, topic, key, better)
    return f"topic {topic!r} has {key}={facts.configs[key]}; expected {expected}; mend it: {command}"


def alter_command(servers: str, topic: str, key: str, value: str) -> str:
    """What gives a topic another setting."""
    return f"kafka-configs.sh --bootstrap-server {servers} --alter --topic {topic} --add-config {key}={value}"


def _policies(facts: TopicFacts) -> set[str]:
    """What happens to old records; nothing when it isn't known."""
    return {each.strip() for each in facts.configs.get(_POLICY, "").split(",")}


def _limit(facts: TopicFacts, key: str) -> int:
    """The topic's limit; none when it isn't known, or the broker is older than the limit."""
    return int(facts.configs.get(key, _NO_LIMIT))


def describe_topics(cluster: Cluster, topics: Sequence[str], deadline: float) -> dict[str, TopicFacts | None]:
    """Each topic's facts, None for one that isn't there. Raises AccessError, RetryError."""
    names = list(dict.fromkeys(topics))
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name=name) for name in names],
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
        max_version=9,
    )
    answer = cluster.ask(_to_any(cluster, request), deadline, "which topics there are")
    found: dict[str, TopicFacts | None] = dict.fromkeys(names)
    for topic in answer.topics:
        if topic.error_code in ACCESS_CODES:
            raise denied(cluster.settings, [Permission("Describe", "topic", topic.name)], topic.error_code)
        if topic.error_code not in (0, _UNKNOWN_TOPIC):
            raise RetryError(f"topic {topic.name!r}: {code_name(topic.error_code)}")
        if topic.error_code == 0:
            copies = [len(each.replica_nodes) for each in topic.partitions]
            in_sync = sum(len(each.isr_nodes) for each in topic.partitions)
            found[topic.name] = TopicFacts(len(copies), {}, min(copies, default=0), sum(copies) - in_sync)
    there = [name for name, facts in found.items() if facts is not None]
    for name, configs in _describe_configs(cluster, there, deadline).items():
        facts = found[name]
        if facts is not None:
            found[name] = replace(facts, configs=configs)
    return found


def _describe_configs(cluster: Cluster, topics: Sequence[str], deadline: float) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    resource = DescribeConfigsRequest.DescribeConfigsResource
    request = DescribeConfigsRequest(
        resources=[
            resource(
                resource_type=_TOPIC_RESOURCE,
                resource_name=name,
                configuration_keys=list(_ASKED),
            )
            for name in topics
        ],
        include_synonyms=False,
        include_documentation=False,
    )
    answer = cluster.ask(_to_any(cluster, request), deadline, "how the topics are configured")
    return {
        result.resource_name: {each.name: each.value for each in result.configs if each.value is not None}
        for result in answer.results
        if result.error_code == 0
    }


def _to_any(cluster: Cluster, request: Any) -> Callable[[], Any]:
    return lambda: cluster.send_any(request, cluster.deadline())


def _create(cluster: Cluster, topics: Sequence[str], partitions: int, configs: Mapping[str, str]) -> None:
    """With the broker's own replication, and the broker's own settings beside `configs`."""
    deadline = cluster.deadline(_CREATE_TIMEOUT_MS)
    left = list(topics)
    while left:
        request = _create_request(left, partitions, configs)
        answer = cluster.ask(_to_controller(cluster, request, deadline), deadline, f"creating topic {', '.join(left)}")
        if forbidden := sorted(each.name for each in answer.topics if each.error_code in ACCESS_CODES):
            raise denied(cluster.settings, [Permission("Create", "topic", name) for name in forbidden], TOPIC_DENIED)
        for result in answer.topics:
            code = result.error_code
            if code in (0, _ALREADY_EXISTS):
                left.remove(result.name)
            elif code == _INVALID_CONFIG and _FUTURE_LIMIT in configs:
                # a broker before 3.6 knows no such limit, neither as a setting nor in effect
                configs = {key: value for key, value in configs.items() if key != _FUTURE_LIMIT}
            elif code != _NOT_CONTROLLER or cluster.clock() >= deadline:
                raise RetryError(f"creating topic {result.name!r}: {code_name(code)} {result.error_message or ''}")
        if left:
            cluster.refresh(deadline)


def _create_request(topics: Sequence[str], partitions: int, configs: Mapping[str, str]) -> Any:
    topic = CreateTopicsRequest.CreatableTopic
    rows = [
        topic(
            name=name,
            num_partitions=partitions,
            replication_factor=_BROKER_DEFAULT,
            assignments=[],
            configs=[topic.CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
        )
        for name in topics
    ]
    return CreateTopicsRequest(topics=rows, timeout_ms=_CREATE_TIMEOUT_MS, validate_only=False, min_version=4)


def _to_controller(cluster: Cluster, request: Any, deadline: float) -> Callable[[], Any]:
    def send() -> Any:
        node = cluster.controller()
        if node is None:
            cluster.refresh(deadline)
            return NotSent("no controller is known")
        return cluster.send(node, request, deadline)

    return send


def _await(cluster: Cluster, topics: Sequence[str], deadline: float) -> dict[str, TopicFacts | None]:
    """Until the new topics are known to the brokers, or the deadline."""
    while True:
        found = describe_topics(cluster, topics, deadline)
        if None not in found.values() or cluster.clock() >= deadline:
            return found
        cluster.pause(RETRY_PAUSE_SECONDS)
