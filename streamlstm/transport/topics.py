"""The topics that a daemon needs: there, with enough partitions, taking batches of the size we write.

Forecasts and dead letters keep the partition of their event, so the topics written to need at least as many partitions
as the input has. What is wrong is told all at once, with the commands that mend it; `create` makes what is missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from kafka.protocol.metadata import MetadataRequest

from streamlstm.errors import InputMissingError, RetryError
from streamlstm.transport.cluster import (
    ACCESS_CODES,
    RETRY_PAUSE_SECONDS,
    Cluster,
    NotSent,
    access_refused,
    code_name,
)

_UNKNOWN_TOPIC = 3
_NOT_CONTROLLER = 41
_ALREADY_EXISTS = 36
_INVALID_CONFIG = 40
_TOPIC_RESOURCE = 2
_MAX_BYTES = "max.message.bytes"
_FUTURE_LIMIT = "message.timestamp.after.max.ms"
_PAST_LIMIT = "message.timestamp.before.max.ms"
_NO_LIMIT = str((1 << 63) - 1)
_BROKER_DEFAULT = -1
_CREATE_TIMEOUT_MS = 30_000


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the cluster says of a topic; `configs` is empty when we may not see them."""

    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)


def check_topics(
    cluster: Cluster,
    input_topic: str,
    written: Sequence[str],
    *,
    max_batch_bytes: int = 0,
    create: bool = False,
) -> None:
    """Return when all is well. With `create`, topics to be written that are missing are made first.

    Raises InputMissingError with every problem and its command, AccessError, RetryError (no answer).
    """
    deadline = cluster.deadline(cluster.settings.connect_timeout_ms)
    found = describe_topics(cluster, (input_topic, *written), deadline)
    source = found[input_topic]
    missing = [topic for topic in dict.fromkeys(written) if found[topic] is None]
    if create and missing and source is not None:
        _create(cluster, missing, source.partitions)
        found = _await(cluster, (input_topic, *written), cluster.deadline(_CREATE_TIMEOUT_MS))
    problems = find_problems(found, input_topic, written, max_batch_bytes, ",".join(cluster.settings.bootstrap_servers))
    if problems:
        raise InputMissingError("\n".join(problems))


def create_topic(cluster: Cluster, topic: str, partitions: int) -> None:
    """Make a topic, if it isn't there, and wait until the brokers know it. Raises AccessError, RetryError."""
    _create(cluster, [topic], partitions)
    _await(cluster, [topic], cluster.deadline(_CREATE_TIMEOUT_MS))


def find_problems(
    found: Mapping[str, TopicFacts | None], input_topic: str, written: Sequence[str], max_batch_bytes: int, servers: str
) -> list[str]:
    """Pure: one line per problem, with the command that mends it."""
    tool = f"kafka-topics.sh --bootstrap-server {servers}"
    source = found[input_topic]
    if source is None:
        return [f"input topic {input_topic!r} is not there; make it: {tool} --create --topic {input_topic}"]
    problems = []
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
            (_FUTURE_LIMIT, _limit(source, _FUTURE_LIMIT), f"what the input {input_topic!r} takes"),
            (_PAST_LIMIT, int(_NO_LIMIT), "what takes an event of any age"),
        ):
            if _limit(facts, key) < least:
                command = f"kafka-configs.sh --bootstrap-server {servers} --alter --topic {topic}"
                problems.append(
                    f"topic {topic!r} has {key}={facts.configs[key]}; expected at least {least}, {why}; "
                    f"mend it: {command} --add-config {key}={least}"
                )
    return problems


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
            raise access_refused(topic.error_code, f"topic {topic.name!r}")
        if topic.error_code not in (0, _UNKNOWN_TOPIC):
            raise RetryError(f"topic {topic.name!r}: {code_name(topic.error_code)}")
        if topic.error_code == 0:
            found[topic.name] = TopicFacts(len(topic.partitions))
    there = [name for name, facts in found.items() if facts is not None]
    for name, configs in _describe_configs(cluster, there, deadline).items():
        facts = found[name]
        if facts is not None:
            found[name] = TopicFacts(facts.partitions, configs)
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
                configuration_keys=[_MAX_BYTES, _FUTURE_LIMIT, _PAST_LIMIT],
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


def _create(cluster: Cluster, topics: Sequence[str], partitions: int) -> None:
    """The broker's own replication and retention; events may carry times in the future, so no limit on those."""
    deadline = cluster.deadline(_CREATE_TIMEOUT_MS)
    left, configs = list(topics), {_FUTURE_LIMIT: _NO_LIMIT}
    while left:
        request = _create_request(left, partitions, configs)
        answer = cluster.ask(_to_controller(cluster, request, deadline), deadline, f"creating topic {', '.join(left)}")
        for result in answer.topics:
            code = result.error_code
            if code in (0, _ALREADY_EXISTS):
                left.remove(result.name)
            elif code in ACCESS_CODES:
                raise access_refused(code, f"creating topic {result.name!r}")
            elif code == _INVALID_CONFIG and configs:
                configs = {}  # a broker before 3.6 knows no such limit, neither as a setting nor in effect
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
