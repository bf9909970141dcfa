"""What tests against a real broker need: topics, an independent reader (librdkafka), connections that get closed."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streamlstm.transport.cluster import Cluster
from streamlstm.transport.group import Group
from streamlstm.transport.requests import ProduceBatch
from streamlstm.transport.settings import ConnectionSettings, WriterSettings
from streamlstm.transport.transaction import Writer
from tests.transport.batches import encode


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def make_topic(bootstrap: str, partitions: int = 4, configs: dict[str, str] | None = None) -> str:
    """With the brokers' own replication."""
    name = fresh("topic")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, partitions, config=configs or {})])[name].result(20)
    eventually(lambda: len(admin.list_topics(name, 10).topics[name].partitions) == partitions)
    return name


def eventually(question: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)
    return answer


def read_all(bootstrap: str, topic: str, isolation: str = "read_committed") -> dict[int, list[bytes]]:
    """Every value a reader sees up to the end, by partition, in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": fresh("reader"),
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "check.crcs": True,
            "auto.offset.reset": "error",
        }
    )
    try:
        partitions = list(consumer.list_topics(topic, 10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found: dict[int, list[bytes]] = {partition: [] for partition in partitions}
        ended: set[int] = set()
        deadline = time.monotonic() + 30
        while len(ended) < len(partitions):
            assert time.monotonic() < deadline, f"no end of {topic}: an open transaction?"
            for message in consumer.consume(1000, 0.2):
                if message.error() is None:
                    found[message.partition()].append(message.value())
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        return found
    finally:
        consumer.close()


def produce(bootstrap: str, topic: str, partition: int, values: Sequence[bytes], **configs: Any) -> None:
    """Plain records by librdkafka."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, **configs})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(20) == 0


def transact(bootstrap: str, topic: str, partition: int, values: Sequence[bytes], commit: bool) -> None:
    """A whole transaction by librdkafka, committed or aborted."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": fresh("tx")})
    producer.init_transactions(20)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=partition)
    producer.flush(20)
    if commit:
        producer.commit_transaction(20)
    else:
        producer.abort_transaction(20)


@contextmanager
def connected(bootstrap: str, **settings: Any) -> Iterator[Cluster]:
    cluster = Cluster.connect(ConnectionSettings(tuple(bootstrap.split(",")), **settings), time.monotonic)
    try:
        yield cluster
    finally:
        cluster.close()


@contextmanager
def writing(bootstrap: str, transactional_id: str, security: Any = None, **settings: Any) -> Iterator[Writer]:
    """An opened writer with its own connections."""
    request_timeout_ms = settings.get("request_timeout_ms", 5_000)
    with connected(bootstrap, request_timeout_ms=request_timeout_ms, security=security or {}) as cluster:
        writer = Writer(cluster, WriterSettings(transactional_id, **settings))
        writer.open()
        yield writer


def no_member(group: str) -> Group:
    """Offsets outside any membership, as simple consumers commit them."""
    return Group(group, -1, "", None)


def batch(topic: str, partition: int, values: Sequence[bytes], codec: str = "none") -> ProduceBatch:
    return ProduceBatch(topic, partition, encode(values, codec), len(values))
