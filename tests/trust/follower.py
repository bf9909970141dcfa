"""Follows the answers while they are written: keeps the ledger, and how long partitions were without after a fault."""

import time
from dataclasses import dataclass

from confluent_kafka import Message, TopicPartition

from tests.trust.judge import Topics
from tests.trust.ledger import FORECAST, LETTER, Ledger
from tests.trust.reader import consumer, offset_in_forecast, offset_in_letter

_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done, to whom, when (epoch seconds). `point` is a named moment, a request type, or empty."""

    kind: str
    point: str
    member: str
    at: float


@dataclass(slots=True)
class Recovery:
    """Seconds from the fault to the first answer, committed and read, to an event that is younger than the fault."""

    fault: Fault
    partition: int
    seconds: float


class Follower:
    """`look` takes what there is; one thread calls it."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self.ledger = Ledger()
        self.recoveries: list[Recovery] = []
        self._waiting: dict[int, list[Fault]] = {}
        self._reader = consumer(topics.bootstrap)
        places = [TopicPartition(topic, p, 0) for topic in (topics.output, topics.dead_letters) for p in topics.numbers]
        self._reader.assign(places)

    def look(self) -> int:
        """Take what has been committed since; returns how many answers that were."""
        youngest: dict[int, int] = {}
        taken = 0
        for message in self._reader.consume(_AT_ONCE, 0.0):
            if message.error() is not None:
                continue  # the broker is away
            taken += 1
            partition = self._enter(message)
            youngest[partition] = max(youngest.get(partition, 0), message.timestamp()[1])
        now = time.time()
        for partition, answered in youngest.items():
            for fault in [fault for fault in self._waiting.get(partition, ()) if fault.at * 1000 <= answered]:
                self._waiting[partition].remove(fault)
                self.recoveries.append(Recovery(fault, partition, now - fault.at))
        return taken

    def _enter(self, message: Message) -> int:
        partition: int = message.partition()
        if message.topic() == self.topics.output:
            self.ledger.enter(partition, offset_in_forecast(message.value()), FORECAST)
        else:
            self.ledger.enter(partition, offset_in_letter(message.headers()), LETTER)
        return partition

    def struck(self, fault: Fault, partitions: set[int]) -> None:
        """Measure how long these partitions, which the fault affects, are without answers to new events."""
        for partition in partitions:
            self._waiting.setdefault(partition, []).append(fault)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def close(self) -> None:
        self._reader.close()
