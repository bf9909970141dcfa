"""Whether we may do all that we need to do, asked without doing it: everything that is missing is told at once."""

from collections.abc import Iterable, Sequence
from typing import Any

from kafka.protocol.admin import DescribeGroupsRequest
from kafka.protocol.metadata import MetadataRequest

from streamlstm.errors import AccessError
from streamlstm.transport import requests
from streamlstm.transport.access import Permission
from streamlstm.transport.cluster import ACCESS_CODES, Cluster, CoordinatorKind, NotSent
from streamlstm.transport.outcomes import Protocol
from streamlstm.transport.requests import Producer

_NOBODY = -1
_NONE = 0


def check_permissions(cluster: Cluster, needed: Sequence[Permission]) -> None:
    """Raises AccessError with a line for each permission that is missing, RetryError.

    A topic that isn't there yet lacks nothing. Brokers before Kafka 2.3 don't tell; what they refuse shows later.
    """
    missing = missing_permissions(cluster, needed)
    if missing:
        raise cluster.denied(missing)


def missing_permissions(cluster: Cluster, needed: Sequence[Permission]) -> list[Permission]:
    """Those of `needed` that the brokers don't grant us, in the same order. Raises RetryError."""
    deadline = cluster.deadline(cluster.settings.connect_timeout_ms)
    granted = _topic_operations(cluster, [each.name for each in needed if each.resource == "topic"], deadline)
    missing = []
    for each in needed:
        if each.resource == "topic":
            operations = granted.get(each.name)
            is_there = operations is None or each.within(operations)
        elif each.resource == "group":
            is_there = each.within(_group_operations(cluster, each.name, deadline))
        else:
            is_there = _may_write(cluster, each.name, deadline)
        if not is_there:
            missing.append(each)
    return missing


def _topic_operations(cluster: Cluster, topics: Iterable[str], deadline: float) -> dict[str, int]:
    """What we may do with each topic that is there (KIP-430)."""
    names = list(dict.fromkeys(topics))
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name=name) for name in names],
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=True,
        max_version=9,
    )
    answer = cluster.ask(lambda: cluster.send_any(request, cluster.deadline()), deadline, "what we may do with topics")
    found = {topic.name: int(topic.topic_authorized_operations) for topic in answer.topics if topic.error_code == 0}
    return found | {topic.name: _NONE for topic in answer.topics if topic.error_code in ACCESS_CODES}


def _group_operations(cluster: Cluster, group: str, deadline: float) -> int:
    request = DescribeGroupsRequest(groups=[group], include_authorized_operations=True, max_version=5)
    found = _ask_coordinator(cluster, CoordinatorKind.GROUP, group, request, deadline)
    if found is None or found.groups[0].error_code in ACCESS_CODES:
        return _NONE
    return int(found.groups[0].authorized_operations)


def _may_write(cluster: Cluster, transactional_id: str, deadline: float) -> bool:
    """By asking to end a transaction of a producer that there is not: nothing ends, and nobody is fenced."""
    request = requests.end(Producer(transactional_id, _NOBODY, _NOBODY), Protocol.V1, commit=False)
    found = _ask_coordinator(cluster, CoordinatorKind.TRANSACTION, transactional_id, request, deadline)
    return found is not None and found.error_code not in ACCESS_CODES


def _ask_coordinator(cluster: Cluster, kind: CoordinatorKind, key: str, request: Any, deadline: float) -> Any:
    """The coordinator's answer; None where we may not even know who it is."""

    def ask() -> Any:
        node = cluster.coordinator(kind, key, cluster.deadline())
        return node if isinstance(node, NotSent) else cluster.send(node, request, cluster.deadline())

    try:
        return cluster.ask(ask, deadline, f"what we may do with {key!r}")
    except AccessError:
        return None
