"""The independent reader: librdkafka, committed records only. Nothing of streamlstm's transport is used."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

PREFIX = "__streamlstm.errors."
_AT_ONCE = 5_000
_PATIENCE = 60.0
_OFFSET = b'"offset":'

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A record as its reader sees it. Times are epoch milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def consumer(bootstrap: str, **settings: object) -> Consumer:
    own: dict[str, object] = {
        "bootstrap.servers": bootstrap,
        "group.id": f"judge-{uuid.uuid4().hex}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
        "queued.max.messages.kbytes": 16_384,
        "fetch.wait.max.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "log_level": 0,
    }
    return Consumer({**own, **settings})


def record_of(message: Message) -> Record:
    return Record(
        message.offset(), message.timestamp()[1], message.key(), message.value(), tuple(message.headers() or ())
    )


def partition_records(bootstrap: str, topic: str, partition: int) -> Iterator[Record]:
    """Every committed record that the partition holds now, in offset order."""
    reader = consumer(bootstrap, **{"enable.partition.eof": True})
    try:
        reader.assign([TopicPartition(topic, partition, 0)])
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            for message in reader.consume(_AT_ONCE, 0.1):
                error = message.error()
                if error is None:
                    yield record_of(message)
                    until = time.monotonic() + _PATIENCE
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
        raise TimeoutError(f"{topic}-{partition}: neither records nor its end after {_PATIENCE:.0f} s")
    finally:
        reader.close()


def ends_of(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    """Partition -> the offset behind its last record."""
    asking = consumer(bootstrap)
    try:
        found = {p: asking.get_watermark_offsets(TopicPartition(topic, p), 30) for p in range(partitions)}
        return {partition: int(end) for partition, (_, end) in found.items()}
    finally:
        asking.close()


def offset_in_forecast(value: bytes | None) -> int:
    """The source offset that a forecast names; it is the last field."""
    assert value is not None
    return int(value[value.rindex(_OFFSET) + len(_OFFSET) :].rstrip(b"}"))


def offset_in_letter(headers: Headers) -> int:
    """The source offset in a dead letter's headers. Ours are the last ones of each name."""
    return int(dict(headers)[PREFIX + "offset"] or b"")
