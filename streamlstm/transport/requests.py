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

from streamlstm.transport.access import TOPIC_DENIED
from streamlstm.transport.frames import Pieces
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


class _LeanProduce:
    """A ProduceRequest that encodes itself without a copy of the records; kafka-python's encoder makes two.

    Everything else is the request's own: its metaclass allows no subclass of another name.
    """

    name = ProduceRequest.name

    def __init__(self, **fields: Any) -> None:
        object.__setattr__(self, "_request", ProduceRequest(**fields))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._request, name, value)

    def encode(self, version: int | None = None, header: bool = False, framed: bool = False) -> Pieces:
        found = self.API_VERSION if version is None else version
        is_flexible = self.flexible_version_q(found)
        count, text = (_compact_length, _compact_text) if is_flexible else (_length, _text)
        end = b"\0" if is_flexible else b""  # of a structure: no tagged fields (KIP-482)
        pieces, small = Pieces(), bytearray(4 if framed else 0)
        if header:
            given = self._header
            small += struct.pack(">hhi", given.request_api_key, given.request_api_version, given.correlation_id)
            small += _text(given.client_id) + end
        small += text(self.transactional_id) + struct.pack(">hi", self.acks, self.timeout_ms)
        small += count(len(self.topic_data))
        for topic in self.topic_data:
            small += text(topic.name) + count(len(topic.partition_data))
            for row in topic.partition_data:
                small += struct.pack(">i", row.index) + count(len(row.records))
                pieces += [small, row.records]
                small = bytearray(end)
            small += end
        pieces.append(small + end)
        if framed:
            struct.pack_into(">i", pieces[0], 0, sum(map(len, pieces)) - 4)
        return pieces


def _length(n: int) -> bytes:
    return struct.pack(">i", n)


def _compact_length(n: int) -> bytes:
    """An unsigned varint of n + 1."""
    left, found = n + 1, bytearray()
    while left > 0x7F:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    found.append(left)
    return bytes(found)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def _compact_text(text: str) -> bytes:
    encoded = text.encode()
    return _compact_length(len(encoded)) + encoded


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


def add_partitions_denied(answer: Any) -> set[str]:
    """The topics that may not be written to."""
    return {
        topic.name
        for topic in answer.results_by_topic_v3_and_below
        if any(each.partition_error_code == TOPIC_DENIED for each in topic.results_by_partition)
    }


def produce(producer: Producer, protocol: Protocol, batches: Sequence[ProduceBatch], timeout_ms: int) -> Any:
    """One batch per partition at most."""
    topic = ProduceRequest.TopicProduceData
    rows: dict[str, list[Any]] = {}
    for batch in batches:
        row = topic.PartitionProduceData(index=batch.partition, records=batch.buffer)
        rows.setdefault(batch.topic, []).append(row)
    return _LeanProduce(
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
