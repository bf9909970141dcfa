"""One record, read back by librdkafka; and made-up answers for what a broker rarely says."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from streamlstm.errors import AccessError, BadDataError, InputMissingError, RetryError
from streamlstm.transport.cluster import Lost, NotSent
from streamlstm.transport.produce_one import produce_one
from streamlstm.transport.settings import ConnectionSettings
from tests.transport.live import connected, fresh, make_topic, produce

TIME = 1_730_000_000_000


@pytest.mark.kafka
def test_a_tombstone_and_a_value(kafka: str) -> None:
    topic = make_topic(kafka, 2)
    produce(kafka, topic, 1, [b"before"])
    with connected(kafka) as cluster:
        assert produce_one(cluster, (topic, 1), b"key", None, TIME, cluster.deadline()) == 1
        assert produce_one(cluster, (topic, 1), None, b"value", TIME + 1, cluster.deadline()) == 2
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": fresh("reader"), "check.crcs": True})
    consumer.assign([TopicPartition(topic, 1, 1)])
    found = [consumer.consume(1, 20)[0] for _ in range(2)]
    consumer.close()
    assert [(each.offset(), each.key(), each.value(), each.timestamp()[1]) for each in found] == [
        (1, b"key", None, TIME),
        (2, None, b"value", TIME + 1),
    ]


@pytest.mark.kafka
def test_what_cannot_be_written(kafka: str) -> None:
    topic = make_topic(kafka, 1, {"max.message.bytes": "1000"})
    with connected(kafka) as cluster:
        with pytest.raises(BadDataError, match="takes no such record"):
            produce_one(cluster, (topic, 0), b"key", b"x" * 5_000, TIME, cluster.deadline())
        with pytest.raises(InputMissingError, match="partition 1 of topic"):
            produce_one(cluster, (topic, 1), b"key", None, TIME, cluster.deadline())


class Scripted:
    """A cluster whose answers are given; a code is one of Kafka's."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self.answers: Iterator[Any] = iter(answers)
        self.settings = ConnectionSettings(("double:9092",), request_timeout_ms=1_000)
        self.refreshed = 0

    def watch(self, topics: Sequence[str], deadline: float) -> None:
        assert topics == ["events"]

    def is_missing(self, topic: str) -> bool:
        self.refreshed += 1
        return False

    def partitions(self, topic: str) -> int:
        return 4

    def leader(self, topic: str, partition: int) -> int:
        return 1

    def refresh(self, deadline: float) -> bool:
        self.refreshed += 1
        return True

    def deadline(self) -> float:
        return 1.0

    def send(self, node: int, request: Any, deadline: float) -> Any:
        answer = next(self.answers)
        if not isinstance(answer, int):
            return answer
        row = SimpleNamespace(error_code=answer, base_offset=77, error_message=None)
        return SimpleNamespace(responses=[SimpleNamespace(partition_responses=[row])])

    def ask(self, question: Any, deadline: float, what: str) -> Any:
        while isinstance(answer := question(), NotSent):
            pass
        return answer


def write(*answers: Any) -> tuple[int, Scripted]:
    cluster = Scripted(answers)
    return produce_one(cluster, ("events", 3), b"key", None, TIME, 9.0), cluster  # type: ignore[arg-type]


def test_goes_to_the_leader_once_it_is_known() -> None:
    offset, cluster = write(NotSent("no connection"), 6, 19, 0)
    assert (offset, cluster.refreshed) == (77, 2)


@pytest.mark.parametrize("answer", [Lost("time-out"), 7, 20])
def test_is_never_written_twice(answer: Any) -> None:
    with pytest.raises(RetryError, match="may have been written, or not"):
        write(answer, 0)


def test_refused() -> None:
    with pytest.raises(AccessError, match="'events'"):
        write(29)
    with pytest.raises(BadDataError, match="takes no such record"):
        write(87)
