"""What a cluster says to who only asks: brokers and their settings, members of a group, the brokers' clocks.

Nothing is written and no group is joined.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kafka.protocol.admin import DescribeConfigsRequest, DescribeGroupsRequest
from kafka.protocol.consumer import FetchRequest
from kafka.protocol.metadata import MetadataRequest

from streamlstm.errors import RetryError
from streamlstm.transport.access import Permission
from streamlstm.transport.cluster import (
    ACCESS_CODES,
    Cluster,
    CoordinatorKind,
    Lost,
    NotSent,
    code_name,
    denied,
)
from streamlstm.transport.fetched import APPEND_TIME, CONTROL, HEADER
from streamlstm.transport.offsets import LATEST, list_offsets
from streamlstm.transport.settings import MIB

_BROKER_RESOURCE = 4
_FRAME = 12  # bytes of a record batch that its length doesn't count
_READ_COMMITTED = 1
_BEGINNING = 1024
_ASKED = (
    "transaction.max.timeout.ms",
    "group.min.session.timeout.ms",
    "group.max.session.timeout.ms",
    "offsets.retention.minutes",
)


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """A broker; `configs` is empty where we may not see them (DescribeConfigs on the cluster)."""

    node: int
    address: str
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MemberFacts:
    client_id: str
    host: str
    instance_id: str | None


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A group as its coordinator sees it; `state` is Kafka's word ("Stable", "Empty", "Dead": unknown, ...)."""

    state: str
    protocol: str
    members: tuple[MemberFacts, ...]


def describe_brokers(cluster: Cluster, deadline: float) -> list[BrokerFacts]:
    """Every broker, in the order of their numbers. Raises AccessError, RetryError."""
    request = MetadataRequest(
        topics=[],
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
        max_version=9,
    )
    answer = cluster.ask(lambda: cluster.send_any(request, cluster.deadline()), deadline, "which brokers there are")
    brokers = sorted(answer.brokers, key=lambda each: each.node_id)
    requests = [(each.node_id, _configs_request(each.node_id)) for each in brokers]
    answers = cluster.send_all(requests, min(deadline, cluster.deadline()))
    return [
        BrokerFacts(each.node_id, f"{each.host}:{each.port}", _configs(described))
        for each, described in zip(brokers, answers, strict=True)
    ]


def _configs_request(node: int) -> Any:
    resource = DescribeConfigsRequest.DescribeConfigsResource(
        resource_type=_BROKER_RESOURCE, resource_name=str(node), configuration_keys=list(_ASKED)
    )
    return DescribeConfigsRequest(resources=[resource], include_synonyms=False, include_documentation=False)


def _configs(answer: Any) -> dict[str, str]:
    if isinstance(answer, NotSent | Lost):
        return {}
    rows = [each for result in answer.results if result.error_code == 0 for each in result.configs]
    return {each.name: each.value for each in rows if each.value is not None}


def describe_group(cluster: Cluster, group: str, deadline: float) -> GroupFacts:
    """Who is in a group. Raises AccessError, RetryError."""

    def ask() -> Any:
        node = cluster.coordinator(CoordinatorKind.GROUP, group, deadline)
        if isinstance(node, NotSent):
            return node
        request = DescribeGroupsRequest(groups=[group], include_authorized_operations=False, max_version=5)
        answer = cluster.send(node, request, min(deadline, cluster.deadline()))
        if isinstance(answer, NotSent | Lost) or answer.groups[0].error_code in (14, 15, 16):
            cluster.forget_coordinator(CoordinatorKind.GROUP, group)
            return answer if isinstance(answer, NotSent | Lost) else NotSent(code_name(answer.groups[0].error_code))
        return answer

    found = cluster.ask(ask, deadline, f"who is in group {group!r}").groups[0]
    if found.error_code in ACCESS_CODES:
        raise denied(cluster.settings, [Permission("Describe", "group", group)], found.error_code)
    if found.error_code:
        raise RetryError(f"group {group!r}: {code_name(found.error_code)}")
    members = [MemberFacts(each.client_id, each.client_host, each.group_instance_id) for each in found.members]
    return GroupFacts(found.group_state, found.protocol_data, tuple(members))


def newest_stamps(cluster: Cluster, topic: str, deadline: float) -> dict[int, int]:
    """Partition -> when its leader stamped the end of its log, in epoch milliseconds by the leader's own clock.

    Brokers stamp the marks that end transactions, and what is written to a topic with LogAppendTime; a partition whose
    log ends otherwise is left out. Raises AccessError, RetryError, InputMissingError when the topic isn't there.
    """
    cluster.watch([topic], deadline)
    everything = [(topic, partition) for partition in range(cluster.partitions(topic) or 0)]
    by_leader: dict[int, list[tuple[int, int]]] = {}
    for (_, partition), end in list_offsets(cluster, everything, LATEST, deadline).items():
        leader = cluster.leader(topic, partition)
        if end > 0 and leader is not None:
            by_leader.setdefault(leader, []).append((partition, end - 1))
    requests = [(leader, _fetch(topic, where)) for leader, where in by_leader.items()]
    stamps: dict[int, int] = {}
    for answer in cluster.send_all(requests, min(deadline, cluster.deadline())):
        if isinstance(answer, NotSent | Lost) or answer.error_code:
            continue
        for row in (each for found in answer.responses for each in found.partitions):
            for stamp in _stamps(bytes(row.records or b"")):
                stamps[row.partition_index] = stamp
    return stamps


def _stamps(batches: bytes) -> Iterator[int]:
    """The broker's own times in the headers of whole record batches."""
    at = 0
    while at + HEADER.size <= len(batches):
        _, length, _, magic, _, attributes, _, _, max_time, *_ = HEADER.unpack_from(batches, at)
        if magic == 2 and attributes & (CONTROL | APPEND_TIME):
            yield int(max_time)
        at += max(length, 0) + _FRAME


def _fetch(topic: str, positions: list[tuple[int, int]]) -> Any:
    """The beginning of the batch at each of these offsets: of a large one, its header is enough."""
    rows = [
        FetchRequest.FetchTopic.FetchPartition(
            partition=partition, current_leader_epoch=-1, fetch_offset=offset, last_fetched_epoch=-1,
            log_start_offset=-1, partition_max_bytes=_BEGINNING,
        )
        for partition, offset in positions
    ]  # fmt: skip
    return FetchRequest(
        max_wait_ms=0, min_bytes=0, max_bytes=MIB, isolation_level=_READ_COMMITTED, session_id=0, session_epoch=-1,
        topics=[FetchRequest.FetchTopic(topic=topic, partitions=rows)], forgotten_topics_data=[], rack_id="",
        min_version=4, max_version=12,
    )  # fmt: skip
