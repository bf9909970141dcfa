"""Where a partition's log ends, with what is in transactions that are still open."""

from collections.abc import Callable
from typing import Any

from kafka.protocol.consumer import ListOffsetsRequest

from streamlstm.errors import InputMissingError
from streamlstm.transport.cluster import ACCESS_CODES, Cluster, NotSent, access_refused, code_name
from streamlstm.transport.offsets import LATEST, Partition

_READ_UNCOMMITTED = 0


def high_watermark(cluster: Cluster, partition: Partition, deadline: float) -> int:
    """The offset behind the last record that is safely stored.

    Every record that had been acknowledged when this was asked lies before it. Raises RetryError at the deadline,
    InputMissingError, AccessError.
    """
    topic, index = partition
    cluster.watch([topic], deadline)
    if cluster.partitions(topic) is None:
        raise InputMissingError(f"topic {topic!r} is not there")
    answer = cluster.ask(_question(cluster, partition, deadline), deadline, f"where {topic}-{index} ends")
    return int(answer.offset)


def _question(cluster: Cluster, partition: Partition, deadline: float) -> Callable[[], Any]:
    topic, index = partition
    names = ListOffsetsRequest.ListOffsetsTopic
    row = names.ListOffsetsPartition(partition_index=index, current_leader_epoch=-1, timestamp=LATEST)
    request = ListOffsetsRequest(
        replica_id=-1,
        isolation_level=_READ_UNCOMMITTED,
        topics=[names(name=topic, partitions=[row])],
        min_version=2,
        max_version=9,
    )

    def ask() -> Any:
        leader = cluster.leader(topic, index)
        if leader is None:
            cluster.refresh(deadline)
            return NotSent(f"{topic}-{index} has no leader")
        answer = cluster.send(leader, request, min(deadline, cluster.deadline()))
        rows = [each for one in getattr(answer, "topics", ()) for each in one.partitions]
        if not rows:
            return answer
        code = rows[0].error_code
        if code in ACCESS_CODES:
            raise access_refused(code, f"topic {topic!r}")
        if code:
            cluster.refresh(deadline)
            return NotSent(code_name(code))
        return rows[0]

    return ask
