"""One record into a topic, outside any transaction."""

from collections.abc import Callable
from typing import Any

from kafka.protocol.producer import ProduceRequest

from streamlstm.errors import BadDataError, InputMissingError, RetryError
from streamlstm.transport.access import Permission
from streamlstm.transport.cluster import ACCESS_CODES, Cluster, Lost, NotSent, code_name, denied
from streamlstm.transport.offsets import Partition
from streamlstm.transport.record_batches import encode_batch

_ALL_REPLICAS = -1
_NOT_YET = (3, 5, 6, 19)  # partition unknown, without or with another leader, too few replicas: not appended
_UNSURE = (7, 20)  # time-out, too few replicas after it was appended


def produce_one(
    cluster: Cluster, partition: Partition, key: bytes | None, value: bytes | None, timestamp: int, deadline: float
) -> int:
    """Write a record and return its offset, once all replicas in sync have it. `timestamp` is epoch milliseconds.

    Never written twice. Raises InputMissingError (no such partition), BadDataError (the broker doesn't take it),
    AccessError, and RetryError when it isn't known whether it was written.
    """
    topic, index = partition
    cluster.watch([topic], deadline)
    count = cluster.partitions(topic)
    if index >= count if count is not None else cluster.is_missing(topic):
        raise InputMissingError(f"partition {index} of topic {topic!r} is not there")
    request = _request(partition, encode_batch([(key, value)], timestamp), int(cluster.settings.request_timeout_ms))
    row = cluster.ask(_attempt(cluster, partition, request, deadline), deadline, f"writing to {topic}-{index}")
    return int(row.base_offset)


def _request(partition: Partition, buffer: bytearray, timeout_ms: int) -> Any:
    data = ProduceRequest.TopicProduceData
    row = data.PartitionProduceData(index=partition[1], records=bytes(buffer))
    return ProduceRequest(
        transactional_id=None,
        acks=_ALL_REPLICAS,
        timeout_ms=timeout_ms,
        topic_data=[data(name=partition[0], partition_data=[row])],
        min_version=3,
        max_version=11,
    )


def _attempt(cluster: Cluster, partition: Partition, request: Any, deadline: float) -> Callable[[], Any]:
    topic, index = partition

    def attempt() -> Any:
        leader = cluster.leader(topic, index)
        if leader is None:
            cluster.refresh(deadline)
            return NotSent(f"{topic}-{index} has no leader")
        answer = cluster.send(leader, request, min(deadline, cluster.deadline()))
        if isinstance(answer, NotSent):
            return answer
        if isinstance(answer, Lost):
            raise RetryError(f"{topic}-{index}: the record may have been written, or not: {answer.why}")
        (row,) = [each for one in answer.responses for each in one.partition_responses]
        code = int(row.error_code)
        if code in _NOT_YET:
            cluster.refresh(deadline)
            return NotSent(code_name(code))
        if code in ACCESS_CODES:
            raise denied(cluster.settings, [Permission("Write", "topic", topic)], code)
        if code in _UNSURE:
            raise RetryError(f"{topic}-{index}: the record may have been written, or not: {code_name(code)}")
        if code:
            raise BadDataError(f"{topic}-{index} takes no such record: {row.error_message or code_name(code)}")
        return row

    return attempt
