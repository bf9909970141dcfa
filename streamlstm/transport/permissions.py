"""Whether we may do all that we need to do, asked without doing it: everything that is missing is told at once."""

from collections.abc import Iterable, Sequence, Set
from typing import Any

from kafka.protocol.admin import DescribeGroupsRequest
from kafka.protocol.metadata import MetadataRequest

from streamlstm.errors import AccessError
from streamlstm.transport import requests
from streamlstm.transport.access import OPERATION_CODES, Permission
from streamlstm.transport.cluster import ACCESS_CODES, Cluster, CoordinatorKind, NotSent, denied
from streamlstm.transport.outcomes import Protocol
from streamlstm.transport.requests import Producer

NOTHING: Set[int] = frozenset()
EVERYTHING: Set[int] = frozenset(OPERATION_CODES.values())
_NOT_TOLD = {31}
_NOBODY = -1


def check_permissions(cluster: Cluster, needed: Sequence[Permission]) -> None:
    """Raises AccessError with a line for each permission that is missing, RetryError.

    A topic that isn't there yet lacks nothing. Brokers before Kafka 2.3 don't tell; what they refuse shows later.
    """
    missing = missing_permissions(cluster, needed)
    if missing:
        raise denied(cluster.settings, missing)


def missing_permissions(cluster: Cluster, needed: Sequence[Permission]) -> list[Permission]:
    """Those of `needed` that the brokers don't grant us, in the same order. Raises RetryError."""
    deadline = cluster.deadline(cluster.settings.connect_timeout_ms)
    granted = _topic_operations(cluster, [each.name for each in needed if each.resource == "topic"], deadline)
    missing = []
    for each in needed:
        match each.resource:
            case "topic":
                is_there = each.within(granted.get(each.name, EVERYTHING))
            case "group":
                is_there = each.within(_group_operations(cluster, each.name, deadline))
            case _:
                is_there = _may_write(cluster, each.name, deadline)
        if not is_there:
            missing.append(each)
    return missing


def _topic_operations(cluster: Cluster, topics: Iterable[str], deadline: float) -> dict[str, Set[int]]:
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
    found = {topic.name: _told(topic.authorized_operations) for topic in answer.topics if topic.error_code == 0}
    return found | {topic.name: NOTHING for topic in answer.topics if topic.error_code in ACCESS_CODES}


def _group_operations(cluster: Cluster, group: str, deadline: float) -> Set[int]:
    request = DescribeGroupsRequest(groups=[group], include_authorized_operations=True, max_version=5)
    found = _ask_coordinator(cluster, CoordinatorKind.GROUP, group, request, deadline)
    if found is None or found.groups[0].error_code in ACCESS_CODES:
        return NOTHING
    return _told(found.groups[0].authorized_operations)


def _told(operations: Any) -> Set[int]:
    """A broker that doesn't tell sends bit 31 alone, and an old one nothing."""
    return operations if isinstance(operations, Set) and operations != _NOT_TOLD else EVERYTHING


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
