"""The requests of a transaction as kafka-python's messages, and the error codes in their replies."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import crc32c
from kafka.protocol.consumer import HeartbeatRequest
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    ProduceRequest,
    TxnOffsetCommitRequest,
)

from streamlstm.transport.group import Group
from streamlstm.transport.outcomes import Protocol

Partition = tuple[str, int]

_CRC_AT, _ATTRIBUTES_AT, _PRODUCER_AT = 17, 21, 43
_TRANSACTIONAL = 0x10
_ALL_REPLICAS = -1


@dataclass(slots=True)
class ProduceBatch:
    """One record batch v2 for one partition, whole and encoded but for producer, sequence, transactional bit and CRC.

    `count` records; the writer fills the rest in, anew for each attempt.
    """

    topic: str
    partition: int
    buffer: bytearray
    count: int


@dataclass(frozen=True, slots=True)
class Producer:
    """Whom the broker knows us as."""

    transactional_id: str
    producer_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A partition's error in a reply, with the records that the broker blames."""

    partition: Partition
    code: int
    records: tuple[int, ...] = ()
    message: str = ""


def stamp(batch: ProduceBatch, producer: Producer, sequence: int) -> None:
    """Make the batch this producer's: transactional bit, producer id, epoch, base sequence, CRC-32C."""
    buffer = batch.buffer
    (attributes,) = struct.unpack_from(">h", buffer, _ATTRIBUTES_AT)
    struct.pack_into(">h", buffer, _ATTRIBUTES_AT, attributes | _TRANSACTIONAL)
    struct.pack_into(">qhi", buffer, _PRODUCER_AT, producer.producer_id, producer.epoch, sequence)
    struct.pack_into(">I", buffer, _CRC_AT, crc32c.crc32c(memoryview(buffer)[_ATTRIBUTES_AT:]))


def initialize(transactional_id: str, transaction_timeout_ms: int, known: Producer | None) -> Any:
    """A new epoch. With `known` only if that is still the current one, else whoever has the transactional id is fenced.

    What is open of it is aborted.
    """
    return InitProducerIdRequest(
        transactional_id=transactional_id,
        transaction_timeout_ms=transaction_timeout_ms,
        producer_id=-1 if known is None else known.producer_id,
        producer_epoch=-1 if known is None else known.epoch,
        min_version=0 if known is None else 3,
        max_version=4,
    )


def add_partitions(producer: Producer, partitions: Iterable[Partition]) -> Any:
    """Only in protocol v1."""
    request = AddPartitionsToTxnRequest
    topics = [
        request.AddPartitionsToTxnTopic(name=name, partitions=each) for name, each in by_topic(partitions).items()
    ]
    return request(
        v3_and_below_transactional_id=producer.transactional_id,
        v3_and_below_producer_id=producer.producer_id,
        v3_and_below_producer_epoch=producer.epoch,
        v3_and_below_topics=topics,
        max_version=3,
    )


def add_partitions_codes(answer: Any) -> set[int]:
    topics = answer.results_by_topic_v3_and_below
    return {int(each.partition_error_code) for topic in topics for each in topic.results_by_partition}


def produce(producer: Producer, protocol: Protocol, batches: Sequence[ProduceBatch], timeout_ms: int) -> Any:
    """One batch per partition at most."""
    topic = ProduceRequest.TopicProduceData
    rows: dict[str, list[Any]] = {}
    for batch in batches:
        row = topic.PartitionProduceData(index=batch.partition, records=batch.buffer)
        rows.setdefault(batch.topic, []).append(row)
    return ProduceRequest(
        transactional_id=producer.transactional_id,
        acks=_ALL_REPLICAS,
        timeout_ms=timeout_ms,
        topic_data=[topic(name=name, partition_data=each) for name, each in rows.items()],
        min_version=3,
        max_version=12 if protocol is Protocol.V2 else 11,
    )


def produce_refusals(answer: Any) -> dict[Partition, Refusal]:
    """Every partition of the reply; code 0 where the batch was taken."""
    return {
        (topic.name, each.index): Refusal(
            (topic.name, each.index),
            int(each.error_code),
            tuple(error.batch_index for error in each.record_errors or ()),
            each.error_message or "",
        )
        for topic in answer.responses
        for each in topic.partition_responses
    }


def add_offsets(producer: Producer, group_id: str) -> Any:
    """Only in protocol v1."""
    return AddOffsetsToTxnRequest(
        transactional_id=producer.transactional_id,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        group_id=group_id,
        max_version=3,
    )


def commit_offsets(producer: Producer, protocol: Protocol, group: Group, offsets: Mapping[Partition, int]) -> Any:
    """Offsets in the name of a group member: version 3 at least, whose generation the broker checks (KIP-447)."""
    topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
    row = topic.TxnOffsetCommitRequestPartition
    topics = [
        topic(
            name=name,
            partitions=[
                row(
                    partition_index=index,
                    committed_offset=offsets[name, index],
                    committed_leader_epoch=-1,
                    committed_metadata="",
                )
                for index in indexes
            ],
        )
        for name, indexes in by_topic(offsets).items()
    ]
    return TxnOffsetCommitRequest(
        transactional_id=producer.transactional_id,
        group_id=group.group_id,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        generation_id=group.generation_id,
        member_id=group.member_id,
        group_instance_id=group.instance_id,
        topics=topics,
        min_version=3,
        max_version=5 if protocol is Protocol.V2 else 3,
    )


def commit_offsets_codes(answer: Any) -> set[int]:
    return {int(each.error_code) for topic in answer.topics for each in topic.partitions}


def end(producer: Producer, protocol: Protocol, commit: bool) -> Any:
    """EndTxn; in v2 its reply has the producer id and epoch of the next transaction."""
    return EndTxnRequest(
        transactional_id=producer.transactional_id,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        committed=commit,
        max_version=5 if protocol is Protocol.V2 else 3,
    )


def membership(group: Group) -> Any:
    """A heartbeat in the member's name: refused when it isn't a member of that generation any more."""
    return HeartbeatRequest(
        group_id=group.group_id,
        generation_id=group.generation_id,
        member_id=group.member_id,
        group_instance_id=group.instance_id,
        min_version=3,
        max_version=4,
    )


def by_topic(partitions: Iterable[Partition]) -> dict[str, list[int]]:
    grouped: dict[str, list[int]] = {}
    for topic, index in partitions:
        grouped.setdefault(topic, []).append(index)
    return grouped
