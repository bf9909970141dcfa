"""What stands in for the fetcher's PartitionRecords: whole record batches, bounded by their bytes."""

from collections.abc import Callable, Iterator
from typing import Any

from kafka.structs import TopicPartition

from streamlstm.transport.consumer import partition_buffer
from streamlstm.transport.fetched import AbortedTransaction, FetchedBatch, FetchedRun, PartitionBytes, PoisonBatch

BUDGET_UNIT = 1024  # bytes of records


class Weighed(list[Any]):
    """Batches whose length is their size in budget units: so the fetcher's bound on records becomes one on bytes."""

    weight = 0

    def __len__(self) -> int:
        return self.weight


class BatchRecords:
    """Takes the place of the fetcher's PartitionRecords."""

    def __init__(self, max_batch_bytes: int, fetch_offset: int, tp: TopicPartition, records: Any, **given: Any) -> None:
        aborted = [AbortedTransaction(t.producer_id, t.first_offset) for t in given["aborted_transactions"] or ()]
        self.topic_partition = tp
        self.bytes_read = 0
        self._bytes = PartitionBytes(
            tp.topic, tp.partition, fetch_offset, partition_buffer(records), aborted, max_batch_bytes
        )
        self._batches: Iterator[FetchedRun | FetchedBatch | PoisonBatch] | None = self._bytes.runs()
        self._on_drain: Callable[[Any], None] = given["on_drain"]

    @property
    def next_fetch_offset(self) -> int:
        return self._bytes.position

    @property
    def leader_epoch(self) -> int:
        return self._bytes.leader_epoch

    def __bool__(self) -> bool:
        return self._batches is not None

    def take(self, budget: int) -> Weighed:
        """Batches up to the budget, the last one over it; drained at the end of the bytes."""
        taken = Weighed()
        while taken.weight < budget and self._batches is not None:
            batch = next(self._batches, None)
            if batch is None:
                self.drain()
                break
            size = 0 if isinstance(batch, PoisonBatch) else len(batch.records)
            taken.append(batch)
            taken.weight += 1 + size // BUDGET_UNIT
            self.bytes_read += 1 + size
        return taken

    def drain(self) -> None:
        if self._batches is not None:
            self._batches = None
            self._on_drain(self)
