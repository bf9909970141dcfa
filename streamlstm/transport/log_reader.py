"""One partition, read by Fetch requests of our own outside any group: for the restore, the audit, and who is curious.

Reads committed records only, as the group member does (fetched.py takes the bytes apart). Kafka answers the requests of
a connection in order, and a Cluster has one connection to each broker: a Fetch that waits at the end of the log holds
up what else goes there over the same Cluster, for MAX_WAIT_MS and the time of an answer of `max_bytes`. So a reader
that works while others commit gets a Cluster of its own; readers of one thread share one.
"""

import math
from typing import Any

from kafka.protocol.consumer import FetchRequest

from streamlstm.errors import InputMissingError, OffsetGoneError, RetryError
from streamlstm.transport.access import Permission
from streamlstm.transport.cluster import (
    ACCESS_CODES,
    RETRY_PAUSE_SECONDS,
    Cluster,
    Lost,
    NotSent,
    code_name,
    denied,
)
from streamlstm.transport.fetched import AbortedTransaction, FetchedBatch, PartitionBytes, PoisonBatch
from streamlstm.transport.offsets import EARLIEST, LATEST, list_offsets
from streamlstm.transport.record_batches import records
from streamlstm.transport.settings import MIB

__all__ = ["LogReader", "records"]

MAX_WAIT_MS = 100

_OFFSET_OUT_OF_RANGE = 1
_UNKNOWN_TOPIC = 3
_RETRIABLE = (-1, _UNKNOWN_TOPIC, 5, 6, 9, 56, 74, 75, 78)
_READ_COMMITTED = 1
_NO_SESSION, _SESSIONLESS = 0, -1
_UNKNOWN = -1
_FIRST_VERSION, _LAST_VERSION = 4, 12  # isolation levels; topics by name


class LogReader:
    """Reads on from `position`. For any thread, one at a time.

    `log_start` and `last_stable`, the first offset and the one behind the last that may be read, are those of the last
    answer, -1 before it.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        partition: int,
        offset: int,
        *,
        max_bytes: int = 4 * MIB,
        max_batch_bytes: int = 64 * MIB,
    ) -> None:
        """An answer holds about `max_bytes`, one whole batch at least; a batch that decompresses to more than
        `max_batch_bytes` is a PoisonBatch.
        """
        self.topic = topic
        self.partition = partition
        self.position = offset
        self.log_start = _UNKNOWN
        self.last_stable = _UNKNOWN
        self._cluster = cluster
        self._max_bytes = max_bytes
        self._max_batch_bytes = max_batch_bytes

    def read(self, timeout: float) -> list[FetchedBatch | PoisonBatch]:
        """What there is at the position, else what comes within `timeout` seconds.

        Returns at once when the position moves, which it may do without a batch: over control records and what was
        aborted. [] and no move: nothing new within the time-out. A broker that falls silent is waited for until its
        request's own time-out. Raises RetryError when at the end of the time-out the brokers had no answer or refused
        it, OffsetGoneError when the position is not in the log, InputMissingError when the topic or partition isn't
        there, AccessError.
        """
        deadline = self._cluster.clock() + timeout
        began, why = self.position, ""
        while True:
            answer = self._ask(deadline)
            if isinstance(answer, NotSent | Lost):
                why = answer.why
            else:
                batches = self._take(answer)
                if self.position != began:
                    return batches
                why = self._held_back()
            if self._cluster.clock() >= deadline:
                self._give_up(why)
                return []
            if why:
                self._cluster.pause(RETRY_PAUSE_SECONDS)
                self._cluster.refresh(min(deadline, self._cluster.deadline()))

    def _ask(self, deadline: float) -> Any:
        """The partition's row of a Fetch response without an error, NotSent or Lost."""
        soon = self._cluster.deadline()  # a request that times out takes its connection with it
        self._cluster.watch([self.topic], soon)
        leader = self._cluster.leader(self.topic, self.partition)
        if leader is None:
            return NotSent("it has no leader")
        left_ms = math.ceil((deadline - self._cluster.clock()) * 1000)
        answer = self._cluster.send(leader, self._request(max(0, min(left_ms, MAX_WAIT_MS))), soon)
        if isinstance(answer, NotSent | Lost):
            return answer
        if answer.error_code:
            return NotSent(code_name(answer.error_code))
        row = next((each for topic in answer.responses for each in topic.partitions), None)
        if row is None:
            return NotSent("the broker asks for patience (its quota is used up)")
        return self._checked(row)

    def _checked(self, row: Any) -> Any:
        code = row.error_code
        if code == 0:
            return row
        if code == _OFFSET_OUT_OF_RANGE:
            return self._outside()
        if code in ACCESS_CODES:
            raise denied(self._cluster.settings, [Permission("Read", "topic", self.topic)], code)
        if code not in _RETRIABLE:
            raise RetryError(f"{self._where()} cannot be read at offset {self.position}: {code_name(code)}")
        return NotSent(code_name(code))

    def _outside(self) -> NotSent:
        """The broker has not got the position: gone for good, or not there yet on a leader that has just changed."""
        here, deadline = (self.topic, self.partition), self._cluster.deadline()
        first = list_offsets(self._cluster, [here], EARLIEST, deadline)[here]
        end = list_offsets(self._cluster, [here], LATEST, deadline)[here]
        if not first <= self.position <= end:
            raise OffsetGoneError(
                f"offset {self.position} of {self._where()} is not in the log, which holds [{first}, {end})", first, end
            )
        return NotSent(code_name(_OFFSET_OUT_OF_RANGE))

    def _take(self, row: Any) -> list[FetchedBatch | PoisonBatch]:
        self.log_start, self.last_stable = int(row.log_start_offset), int(row.last_stable_offset)
        aborted = [AbortedTransaction(each.producer_id, each.first_offset) for each in row.aborted_transactions or ()]
        found = PartitionBytes(
            self.topic, self.partition, self.position, row.records or b"", aborted, self._max_batch_bytes
        )
        batches = list(found)
        self.position = found.position
        return batches

    def _held_back(self) -> str:
        """Why nothing came although there is something to come."""
        if self.position >= self.last_stable:
            return ""
        return f"the broker gives nothing, with offsets up to {self.last_stable} in the log"

    def _give_up(self, why: str) -> None:
        """At the end of the time-out: an error unless there was just nothing to read."""
        if not why:
            return
        if self._cluster.is_missing(self.topic):
            raise InputMissingError(f"topic {self.topic!r} is not there")
        count = self._cluster.partitions(self.topic)
        if count is not None and self.partition >= count:
            raise InputMissingError(f"topic {self.topic!r} has {count} partitions, none of number {self.partition}")
        raise RetryError(f"{self._where()} cannot be read at offset {self.position}: {why}")

    def _where(self) -> str:
        return f"partition {self.partition} of topic {self.topic!r}"

    def _request(self, wait_ms: int) -> Any:
        topic = FetchRequest.FetchTopic
        row = topic.FetchPartition(
            partition=self.partition,
            current_leader_epoch=_UNKNOWN,
            fetch_offset=self.position,
            last_fetched_epoch=_UNKNOWN,
            log_start_offset=_UNKNOWN,
            partition_max_bytes=self._max_bytes,
        )
        return FetchRequest(
            max_wait_ms=wait_ms,
            min_bytes=1,
            max_bytes=self._max_bytes,
            isolation_level=_READ_COMMITTED,
            session_id=_NO_SESSION,
            session_epoch=_SESSIONLESS,
            topics=[topic(topic=self.topic, partitions=[row])],
            forgotten_topics_data=[],
            rack_id="",
            min_version=_FIRST_VERSION,
            max_version=_LAST_VERSION,
        )
