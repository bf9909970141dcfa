"""The batches of one transaction on their way to their partitions."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from streamlstm.errors import BatchRefusedError
from streamlstm.transport.access import TOPIC_DENIED
from streamlstm.transport.cluster import code_name
from streamlstm.transport.outcomes import Step, Verdict, verdict
from streamlstm.transport.requests import (
    Partition,
    ProduceBatch,
    Refusal,
    add_partitions_codes,
    add_partitions_denied,
)

REQUESTS_PER_LEADER = 4
_REASONS = {10: "too_large", 18: "too_large", 32: "invalid_timestamp"}


class Outbox:
    """Batches in order per partition, one of each partition under way at a time.

    `sequences` are the writer's: per partition, the sequence number of the next record at this epoch. `denied` are the
    topics that a broker doesn't let us write to.
    """

    def __init__(self, batches: Sequence[ProduceBatch], sequences: dict[Partition, int]) -> None:
        self.batches = batches
        self._sequences = sequences
        self._unsent: dict[Partition, deque[int]] = {}
        self._refused: tuple[int, Refusal] | None = None
        self.denied: set[str] = set()
        self.rewind()

    def rewind(self) -> None:
        """Everything is to be sent, from the first batch on."""
        self._unsent = {}
        for index, batch in enumerate(self.batches):
            self._unsent.setdefault((batch.topic, batch.partition), deque()).append(index)

    @property
    def partitions(self) -> list[Partition]:
        """Where something is still to be sent."""
        return list(self._unsent)

    @property
    def is_last_round(self) -> bool:
        """Whether the heads are all that is still to be sent."""
        return all(len(indexes) == 1 for indexes in self._unsent.values())

    def heads(self) -> dict[Partition, ProduceBatch]:
        """The next batch of each partition."""
        return {partition: self.batches[indexes[0]] for partition, indexes in self._unsent.items()}

    def take(self, refusals: Mapping[Partition, Refusal]) -> set[int]:
        """Strike out what one Produce reply says was taken; its codes."""
        for partition, refusal in refusals.items():
            indexes = self._unsent[partition]
            if refusal.code:
                if refusal.code == TOPIC_DENIED:
                    self.denied.add(partition[0])
                if verdict(Step.PRODUCE, refusal.code) is Verdict.BATCH_REFUSED:
                    self._refused = indexes[0], refusal
                continue
            batch = self.batches[indexes.popleft()]
            self._sequences[partition] = (self._sequences.get(partition, 0) + batch.count) & 0x7FFFFFFF
            if not indexes:
                del self._unsent[partition]
        return {refusal.code for refusal in refusals.values()}

    def announced(self, answer: Any) -> set[int]:
        """The codes of an AddPartitionsToTxn reply."""
        self.denied |= add_partitions_denied(answer)
        return add_partitions_codes(answer)

    def refused(self) -> BatchRefusedError | None:
        """The error for the batch that the broker will never take."""
        if self._refused is None:
            return None
        index, refusal = self._refused
        batch = self.batches[index]
        message = (
            f"the broker refuses a batch of {len(batch.buffer)} bytes for partition {batch.partition} of topic "
            f"{batch.topic!r}: {code_name(refusal.code)} {refusal.message}"
        )
        reason = _REASONS.get(refusal.code, "invalid_record")
        return BatchRefusedError(index, reason, refusal.records, message.rstrip())


def in_parts(batches: Sequence[ProduceBatch], max_bytes: int) -> list[list[ProduceBatch]]:
    """Requests of at most `max_bytes`, one batch at least. What a few don't hold waits for the next round."""
    parts: list[list[ProduceBatch]] = []
    size = max_bytes
    for batch in batches:
        if size + len(batch.buffer) > max_bytes:
            if len(parts) == REQUESTS_PER_LEADER:
                break
            parts.append([])
            size = 0
        parts[-1].append(batch)
        size += len(batch.buffer)
    return parts
