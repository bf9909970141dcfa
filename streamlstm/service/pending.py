"""What the next transaction will hold, by source partition."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.batch import Reason
from streamlstm.events.encode import EncodedBatch
from streamlstm.events.forecast import Status
from streamlstm.transport.requests import ProduceBatch

TopicPartition = tuple[str, int]


@dataclass(slots=True)
class Part:
    """One source partition's share of a transaction: everything up to, and not including, `offset`.

    The tallies are what the counters gain when it commits; `by_status` and `by_reason` are indexed by their enums.
    `timestamps` are those of the records, epoch milliseconds, int64 arrays that make up `events` together.
    """

    offset: int = -1
    produce: list[ProduceBatch] = field(default_factory=list)
    produced_bytes: int = 0
    events: int = 0
    event_bytes: int = 0
    anomalies: int = 0
    timestamps: list[NDArray[np.int64]] = field(default_factory=list)
    by_status: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Status), np.int64))
    by_reason: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Reason), np.int64))

    def produce_all(self, topic: str, partition: int, batches: list[EncodedBatch]) -> None:
        for encoded in batches:
            self.produce_records(topic, partition, encoded.buffer, encoded.count)

    def produce_records(self, topic: str, partition: int, batch: bytearray, count: int) -> None:
        """A batch of `count` records."""
        self.produce.append(ProduceBatch(topic, partition, batch, count))
        self.produced_bytes += len(batch)

    def extend(self, later: "Part") -> None:
        """Add what follows this part in the same partition."""
        self.offset = later.offset
        self.produce += later.produce
        self.produced_bytes += later.produced_bytes
        self.events += later.events
        self.event_bytes += later.event_bytes
        self.anomalies += later.anomalies
        self.timestamps += later.timestamps
        self.by_status += later.by_status
        self.by_reason += later.by_reason


@dataclass(slots=True)
class Pending:
    """The contents of the next transaction, kept until it is known committed.

    `since` is when its oldest event was read, monotonic seconds; None while it holds positions only.
    """

    parts: dict[TopicPartition, Part] = field(default_factory=dict)
    since: float | None = None

    def part(self, source: TopicPartition) -> Part:
        return self.parts.setdefault(source, Part())

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        return {source: part.offset for source, part in self.parts.items()}

    @property
    def produce(self) -> list[ProduceBatch]:
        return [batch for part in self.parts.values() for batch in part.produce]

    @property
    def produced_bytes(self) -> int:
        return sum(part.produced_bytes for part in self.parts.values())

    def follow(self, former: "Pending") -> None:
        """Put `former`, whose transaction came to nothing, in front of what has been read since."""
        self.since = former.since if former.since is not None else self.since
        later, self.parts = self.parts, former.parts
        for source, part in later.items():
            self.part(source).extend(part)

    def drop(self, sources: set[TopicPartition]) -> None:
        """Forget partitions that belong to somebody else now: their new owner reads those events again."""
        for source in sources:
            self.parts.pop(source, None)
        if not self.parts:
            self.since = None
