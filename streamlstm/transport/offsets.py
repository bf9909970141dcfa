"""Questions about offsets: what a group has committed, and where partitions begin and end.

They go over the Cluster's connections and not through the consumer, whose `committed()` may answer with an old reply
after a time-out, and waits without a bound on a dead member's pending offsets.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kafka.protocol.consumer import ListOffsetsRequest, OffsetFetchRequest

from streamlstm.errors import InputMissingError, RetryError
from streamlstm.transport.access import GROUP_DENIED, TOPIC_DENIED, Permission
from streamlstm.transport.cluster import (
    ACCESS_CODES,
    RETRY_PAUSE_SECONDS,
    Cluster,
    CoordinatorKind,
    Lost,
    NotSent,
    code_name,
    denied,
)

Partition = tuple[str, int]

EARLIEST = -2
LATEST = -1

_NOT_COORDINATOR = (14, 15, 16)
_UNSTABLE_OFFSET_COMMIT = 88
_UNKNOWN_TOPIC = 3
_RETRIABLE_LIST = (3, 5, 6, 56, 74, 75, 78)
READ_UNCOMMITTED, READ_COMMITTED = 0, 1


@dataclass(frozen=True, slots=True)
class Later:
    """Not answerable just now."""

    why: str


def committed_offsets(
    cluster: Cluster, group: str, partitions: Iterable[Partition], deadline: float
) -> dict[Partition, int | None]:
    """The stable committed offset of each partition, None where the group has none.

    Waits for transactions that are still moving the offsets (OffsetFetch with require_stable, KIP-447). Raises
    RetryError at the deadline, AccessError.
    """
    wanted = sorted(set(partitions))
    while True:
        found = ask_committed(cluster, group, wanted, deadline)
        if not isinstance(found, Later):
            return found
        if cluster.clock() + RETRY_PAUSE_SECONDS >= deadline:
            raise RetryError(f"the committed offsets of group {group!r} are not known: {found.why}")
        cluster.pause(RETRY_PAUSE_SECONDS)


def ask_committed(
    cluster: Cluster, group: str, wanted: list[Partition], deadline: float
) -> dict[Partition, int | None] | Later:
    """`committed_offsets`, asked once. Raises AccessError, RetryError on an answer that makes no sense."""
    if not wanted:
        return {}
    node = cluster.coordinator(CoordinatorKind.GROUP, group, deadline)
    if isinstance(node, NotSent):
        return Later(node.why)
    answer = cluster.send(node, _offset_fetch(group, wanted), min(deadline, cluster.deadline()))
    if isinstance(answer, NotSent | Lost):
        cluster.forget_coordinator(CoordinatorKind.GROUP, group)
        return Later(answer.why)
    body = answer.groups[0] if answer.groups else answer
    rows = {(topic.name, each.partition_index): each for topic in body.topics for each in topic.partitions}
    codes = {body.error_code, *(each.error_code for each in rows.values())} - {0}
    if GROUP_DENIED in codes:
        raise denied(cluster.settings, [Permission("Describe", "group", group)], GROUP_DENIED)
    if TOPIC_DENIED in codes:
        topics = sorted({topic for (topic, _), row in rows.items() if row.error_code == TOPIC_DENIED})
        raise denied(cluster.settings, (Permission("Describe", "topic", topic) for topic in topics), TOPIC_DENIED)
    if codes:
        if codes & set(_NOT_COORDINATOR):
            cluster.forget_coordinator(CoordinatorKind.GROUP, group)
        if codes <= {*_NOT_COORDINATOR, _UNSTABLE_OFFSET_COMMIT, _UNKNOWN_TOPIC}:
            return Later(", ".join(code_name(code) for code in sorted(codes)))
        raise RetryError(f"the committed offsets of group {group!r}: {', '.join(map(code_name, sorted(codes)))}")
    offsets = {partition: int(each.committed_offset) for partition, each in rows.items()}
    return {partition: offsets[partition] if offsets[partition] >= 0 else None for partition in wanted}


def _offset_fetch(group: str, wanted: list[Partition]) -> Any:
    request, by_topic = OffsetFetchRequest, _by_topic(wanted)
    new, old = request.OffsetFetchRequestGroup, request.OffsetFetchRequestTopic
    topics = [new.OffsetFetchRequestTopics(name=name, partition_indexes=each) for name, each in by_topic.items()]
    return request(
        group_id=group,
        topics=[old(name=name, partition_indexes=each) for name, each in by_topic.items()],
        groups=[new(group_id=group, member_id=None, member_epoch=-1, topics=topics)],
        require_stable=True,
        max_version=9,
    )


def list_offsets(
    cluster: Cluster,
    partitions: Iterable[Partition],
    timestamp: int,
    deadline: float,
    *,
    isolation: int = READ_COMMITTED,
) -> dict[Partition, int]:
    """The offset that stands for `timestamp`: EARLIEST, LATEST (the last stable offset), or epoch milliseconds.

    With a time, the first record at or after it, or the end when there is none. One request per leader. Raises
    RetryError at the deadline, AccessError, InputMissingError when a topic isn't there.
    """
    missing = set(partitions)
    found: dict[Partition, int] = {}
    cluster.watch(sorted({topic for topic, _ in missing}), deadline)
    while missing:
        why = _ask_offsets(cluster, missing, timestamp, isolation, deadline, found)
        missing -= found.keys()
        if missing and cluster.clock() + RETRY_PAUSE_SECONDS >= deadline:
            _raise_unknown(cluster, missing, why)
        if missing:
            cluster.refresh(deadline)
            cluster.pause(RETRY_PAUSE_SECONDS)
    without = [partition for partition, offset in found.items() if offset < 0]
    if without:
        found |= list_offsets(cluster, without, LATEST, deadline, isolation=isolation)
    return found


def high_watermarks(cluster: Cluster, partitions: Iterable[Partition], deadline: float) -> dict[Partition, int]:
    """The offset behind the last record that is safely stored, with what is in transactions that are still open.

    Every record that had been acknowledged when this was asked lies before it. Raises what `list_offsets` raises.
    """
    return list_offsets(cluster, partitions, LATEST, deadline, isolation=READ_UNCOMMITTED)


def _raise_unknown(cluster: Cluster, missing: set[Partition], why: str) -> None:
    topics = cluster.missing(topic for topic, _ in missing)
    if topics:
        raise InputMissingError(f"topic {', '.join(topics)} is not there")
    raise RetryError(f"the offsets of {len(missing)} partitions are not known: {why}")


def _ask_offsets(
    cluster: Cluster,
    wanted: set[Partition],
    timestamp: int,
    isolation: int,
    deadline: float,
    found: dict[Partition, int],
) -> str:
    by_leader: dict[int, list[Partition]] = {}
    for partition in sorted(wanted):
        leader = cluster.leader(*partition)
        if leader is not None:
            by_leader.setdefault(leader, []).append(partition)
    requests = [(leader, _list_request(each, timestamp, isolation)) for leader, each in by_leader.items()]
    why = "no leader" if not requests else ""
    for answer in cluster.send_all(requests, min(deadline, cluster.deadline())):
        if isinstance(answer, NotSent | Lost):
            why = answer.why
            continue
        for topic in answer.topics:
            for each in topic.partitions:
                why = _keep_offset(cluster, topic.name, each, found) or why
    return why


def _keep_offset(cluster: Cluster, topic: str, row: Any, found: dict[Partition, int]) -> str:
    if row.error_code == 0:
        found[topic, row.partition_index] = int(row.offset)
        return ""
    if row.error_code in ACCESS_CODES:
        raise denied(cluster.settings, [Permission("Describe", "topic", topic)], row.error_code)
    if row.error_code not in _RETRIABLE_LIST:
        raise RetryError(f"the offsets of topic {topic!r}: {code_name(row.error_code)}")
    return code_name(row.error_code)


def _list_request(partitions: list[Partition], timestamp: int, isolation: int) -> Any:
    topic = ListOffsetsRequest.ListOffsetsTopic
    row = topic.ListOffsetsPartition
    topics = [
        topic(
            name=name,
            partitions=[row(partition_index=index, current_leader_epoch=-1, timestamp=timestamp) for index in indexes],
        )
        for name, indexes in _by_topic(partitions).items()
    ]
    return ListOffsetsRequest(replica_id=-1, isolation_level=isolation, topics=topics, max_version=9)


def _by_topic(partitions: Iterable[Partition]) -> dict[str, list[int]]:
    grouped: dict[str, list[int]] = {}
    for topic, index in partitions:
        grouped.setdefault(topic, []).append(index)
    return grouped
