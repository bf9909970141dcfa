"""The group member that reads the input: whole record batches, and every change of the assignment told in the open.

Rebalance protocol (cooperative-sticky, KIP-429), as seen by the caller of `Source.poll`:

1. `revoked`: partitions that this member no longer owns. They get no new owner before this member polls again, so
   commit what was read of them first, with a fresh `group()`; the broker accepts it. All others are read on, and can be
   committed, while the group rebalances.
2. `lost`: partitions that somebody else may own already. Drop what isn't committed; a commit would be refused.
3. `assigned`: new partitions and the offset each begins at: the group's committed one, else the start policy's (those
   are also in `fresh`). They are read from where the caller says with `seek`, once their state is there. While their
   offset isn't known yet (a dead member's transaction is still open), all other partitions go on.
4. `gaps`: the offset to read is not in the log (retention dropped it, or the topic was made anew). The partition
   waits for `seek`.

kafka-python calls its listener on its own I/O thread, where nothing may block or raise: ours only takes notes.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka import errors as kafka_errors
from kafka.structs import MemberState, TopicPartition

from streamlstm.errors import AccessError, ConfigError, FencedError, RetryError
from streamlstm.transport.access import Permission
from streamlstm.transport.cluster import Cluster, denied
from streamlstm.transport.connection import ACCESS_ERRORS
from streamlstm.transport.consumer import (
    close_consumer,
    forget_assignment,
    heartbeat_age,
    heartbeats_stopped,
    note_log_ends,
    open_consumer,
    poll_once,
    positions,
    request_rejoin,
)
from streamlstm.transport.fetched import FetchedBatch, FetchedRun, PoisonBatch
from streamlstm.transport.group import Group
from streamlstm.transport.offsets import EARLIEST, LATEST, Later, Partition, ask_committed, list_offsets
from streamlstm.transport.partition_records import BUDGET_UNIT, BatchRecords
from streamlstm.transport.settings import SourceSettings

__all__ = ["Fetched", "Gap", "Group", "Source"]

CLOSE_TIMEOUT_MS = 500
_QUESTION_SECONDS = 0.05
_CONFIGURED = {
    kafka_errors.InconsistentGroupProtocolError: "kafka.group_id (its members assign partitions in another way)",
    kafka_errors.InvalidSessionTimeoutError: "kafka.session_timeout_ms",
    kafka_errors.InvalidGroupIdError: "kafka.group_id",
}


@dataclass(frozen=True, slots=True)
class Gap:
    """The offset to read, `wanted`, is outside the log, which holds [first, end)."""

    topic: str
    partition: int
    wanted: int
    first: int
    end: int


@dataclass(slots=True)
class Fetched:
    """What a poll brought. `batches` are grouped by partition, in offset order.

    `positions`: per partition that moved, the next offset to read, which is also the one to commit once all batches up
    to here are done; skipped control records and aborted transactions are included. `assigned` maps new partitions to
    the offset they begin at; those for which the group has committed none yet are in `fresh`.
    """

    batches: list[FetchedRun | FetchedBatch | PoisonBatch] = field(default_factory=list)
    positions: dict[Partition, int] = field(default_factory=dict)
    assigned: dict[Partition, int] = field(default_factory=dict)
    fresh: set[Partition] = field(default_factory=set)
    revoked: set[Partition] = field(default_factory=set)
    lost: set[Partition] = field(default_factory=set)
    gaps: list[Gap] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Decompressed bytes of records."""
        return sum(len(batch.records) for batch in self.batches if not isinstance(batch, PoisonBatch))

    def __bool__(self) -> bool:
        return bool(self.batches or self.positions or self.assigned or self.revoked or self.lost or self.gaps)


class _Notes(ConsumerRebalanceListener):  # type: ignore[misc]
    """What happened to the assignment, written on the I/O thread and read between two rounds."""

    def __init__(self) -> None:
        self.consumer: KafkaConsumer = None
        self.assigned: set[TopicPartition] = set()
        self.revoked: set[TopicPartition] = set()
        self.lost: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.consumer.pause(*assigned)
        for partition in assigned:
            self.consumer.seek(partition, 0)  # a placeholder, so that the consumer asks nobody for a position
        self.assigned |= assigned

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.revoked |= revoked

    def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        forget_assignment(self.consumer)
        self.lost |= lost


class Source:
    """One member of the consumer group. Every method is for one and the same thread, `group` and `healthy` for any."""

    def __init__(self, cluster: Cluster, settings: SourceSettings, member_id: str = "") -> None:
        """`member_id`: that of a former Source of this process. Who takes its place needn't wait until the group has
        missed it, for the session time-out.
        """
        self.settings = settings
        self.rebalances = 0
        self.poll_errors = 0
        self._log_starts: dict[Partition, int] = {}
        self._stable_ends: dict[Partition, int] = {}
        self._cluster = cluster
        self._notes = _Notes()
        self._consumer = self._open(member_id)
        self._started: dict[Partition, int] = {}
        self._unstarted: set[Partition] = set()
        self._waiting: set[Partition] = set()
        self._gaps: list[Gap] = []
        self._held = False
        self._unstable_since: float | None = None
        self._assigned_by: tuple[int, str] | None = None

    def _open(self, member_id: str) -> KafkaConsumer:
        def records(fetch_offset: int, tp: TopicPartition, records: Any, **given: Any) -> BatchRecords:
            return BatchRecords(self.settings.max_batch_bytes, fetch_offset, tp, records, **given)

        try:
            consumer = open_consumer(self._cluster.settings, self.settings, records, member_id)
        except ACCESS_ERRORS as error:
            raise self._refused(error) from error
        except kafka_errors.KafkaError as error:
            raise RetryError(f"the consumer cannot start: {error}") from error
        self._notes.consumer = consumer
        note_log_ends(consumer, self._log_starts, self._stable_ends)
        consumer.subscribe(list(self.settings.topics), listener=self._notes)
        return consumer

    def poll(self, timeout_ms: int, max_bytes: int) -> Fetched:
        """What is there now, else what comes within `timeout_ms`; about `max_bytes` of decompressed records at most.

        At least one batch is returned when there is one. A change of the assignment returns at once. Raises FencedError
        (another process has our group instance id), AccessError, RetryError (the group can't be joined).
        """
        deadline = self._cluster.clock() + timeout_ms / 1000
        while True:
            fetched = Fetched(batches=self._take(deadline, max_bytes))
            self._note_changes(fetched)
            self._start_new(fetched, deadline)
            fetched.gaps, self._gaps = self._gaps, []
            for partition, position in positions(self._consumer).items():
                if partition in self._started and self._started[partition] != position:
                    self._started[partition] = fetched.positions[partition] = position
            self._check_membership()
            if (group := self.group()) is not None:
                self._assigned_by = group.generation_id, group.member_id
            if fetched or self._cluster.clock() >= deadline:
                return fetched

    @property
    def is_stable(self) -> bool:
        """Whether this is a member of the group, and no rebalance is under way as far as it knows."""
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    @property
    def member_id(self) -> str:
        return str(self._consumer.group_metadata().member_id)

    def group(self) -> Group | None:
        """The membership to commit by: the one that assigned what is being read. Take it right after a poll.

        In a rebalance too: the broker takes commits while it waits for members to join, for nobody is given a partition
        that its owner hasn't named as free (KIP-429). None once there is a newer generation, until a poll has taken in
        what it assigns.
        """
        found = self._consumer.group_metadata()
        identity = found.generation_id, found.member_id
        joining = found.state == MemberState.REBALANCING and identity == self._assigned_by
        if found.state == MemberState.STABLE or joining:
            return Group(found.group_id, *identity, found.group_instance_id)
        return None

    def assignment(self) -> frozenset[Partition]:
        """The partitions that are being read."""
        return frozenset(self._started)

    def expected(self) -> frozenset[Partition]:
        """The partitions that have been assigned and not yet been given out with their offset."""
        return frozenset(self._unstarted)

    def ends(self) -> dict[Partition, int]:
        """The last stable offset of each partition that is being read, as far as its last fetch answer told: what lies
        behind it belongs to transactions that are still open, and isn't to be read yet.
        """
        return {each: self._stable_ends[each] for each in self._started.keys() & self._stable_ends.keys()}

    def starts(self) -> dict[Partition, int]:
        """The first offset in the log of each partition that is being read, as far as its last fetch answer told."""
        return {partition: self._log_starts[partition] for partition in self._started.keys() & self._log_starts.keys()}

    def heartbeat_age(self) -> float:
        """Seconds since the group coordinator last answered."""
        return heartbeat_age(self._consumer, self._cluster.clock())

    def ask_again(self, partition: Partition) -> None:
        """Tell once more, in `assigned`, where a partition begins that waits for `seek`."""
        if partition in positions(self._consumer):
            self._unstarted.add(partition)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read an assigned partition from this offset on: the answer to its assignment and to a Gap.

        Nothing happens when it has left the assignment meanwhile; the next poll says so.
        """
        where = TopicPartition(*partition)
        with suppress(kafka_errors.IllegalStateError):
            self._consumer.seek(where, offset)
            self._started[partition] = offset
            self._waiting.discard(partition)
            if not self._held:
                self._consumer.resume(where)

    def hold(self, on: bool) -> None:
        """Back-pressure: while it is on, polls keep up the membership and bring no records."""
        if on is self._held:
            return
        self._held = on
        assigned = positions(self._consumer)
        reading = [TopicPartition(*each) for each in self._started if each in assigned and each not in self._waiting]
        (self._consumer.pause if on else self._consumer.resume)(*reading)

    def close(self) -> None:
        """Leave the group (a static member stays until its session ends) and stop the I/O thread."""
        try:
            close_consumer(self._consumer, CLOSE_TIMEOUT_MS)
        except kafka_errors.KafkaError:
            self.poll_errors += 1

    def _take(self, deadline: float, max_bytes: int) -> list[FetchedRun | FetchedBatch | PoisonBatch]:
        left_ms = max(0.0, (deadline - self._cluster.clock()) * 1000)
        budget = max(1, max_bytes // BUDGET_UNIT)
        try:
            taken = poll_once(self._consumer, left_ms, budget)
        except kafka_errors.OffsetOutOfRangeError as error:
            self._note_gaps(error.args[0])
            return []
        except kafka_errors.FencedInstanceIdError as error:
            raise FencedError(
                f"another process is {self.settings.group_instance_id!r} of the group: {error}"
            ) from error
        except ACCESS_ERRORS as error:
            raise self._refused(error) from error
        except kafka_errors.RetriableError:
            self.poll_errors += 1
            self._cluster.pause(min(_QUESTION_SECONDS, left_ms / 1000))
            return []
        except tuple(_CONFIGURED) as error:
            setting = _CONFIGURED[type(error)]
            raise ConfigError([f"{setting}: the group's coordinator refuses it: {type(error).__name__}"]) from error
        except kafka_errors.KafkaError as error:
            raise RetryError(f"reading the input: {type(error).__name__}: {error}") from error
        return [batch for batches in taken.values() for batch in batches]

    def _refused(self, error: kafka_errors.KafkaError) -> AccessError:
        match error:
            case kafka_errors.GroupAuthorizationFailedError():
                return denied(
                    self._cluster.settings, [Permission("Read", "group", self.settings.group_id)], error.errno
                )
            case kafka_errors.TopicAuthorizationFailedError():
                topics = (Permission("Read", "topic", topic) for topic in self.settings.topics)
                return denied(self._cluster.settings, topics, error.errno)
        return self._cluster.refused(error)

    def _note_changes(self, fetched: Fetched) -> None:
        notes = self._notes
        for noted, told in ((notes.lost, fetched.lost), (notes.revoked, fetched.revoked)):
            told.update((each.topic, each.partition) for each in noted)
            noted.clear()
        for gone in fetched.lost | fetched.revoked:
            self._started.pop(gone, None)
            self._unstarted.discard(gone)
            self._waiting.discard(gone)
        if notes.assigned or fetched.lost or fetched.revoked:
            self.rebalances += 1
        self._unstarted.update((each.topic, each.partition) for each in notes.assigned)
        notes.assigned.clear()

    def _start_new(self, fetched: Fetched, deadline: float) -> None:
        """Find where new partitions begin, asking once per round."""
        if not self._unstarted:
            return
        soon = self._cluster.deadline()  # a request that times out takes its connection with it
        found = ask_committed(self._cluster, self.settings.group_id, sorted(self._unstarted), soon)
        if isinstance(found, Later):
            self._cluster.pause(min(_QUESTION_SECONDS, max(0.0, deadline - self._cluster.clock())))
            return
        begin = {partition: offset for partition, offset in found.items() if offset is not None}
        fresh = [partition for partition in found if partition not in begin]
        try:
            begin |= self._policy(fresh, soon)
        except RetryError:
            return
        self._unstarted -= begin.keys()
        assigned = positions(self._consumer)
        fetched.assigned = {partition: offset for partition, offset in begin.items() if partition in assigned}
        fetched.fresh = fetched.assigned.keys() & set(fresh)

    def _policy(self, partitions: list[Partition], deadline: float) -> dict[Partition, int]:
        if not partitions:
            return {}
        when = {"earliest": EARLIEST, "latest": LATEST}.get(self.settings.start, self.settings.start_timestamp_ms or 0)
        return list_offsets(self._cluster, partitions, when, deadline)

    def _note_gaps(self, wanted: dict[TopicPartition, int]) -> None:
        deadline = self._cluster.deadline()
        where = [(each.topic, each.partition) for each in wanted]
        first = list_offsets(self._cluster, where, EARLIEST, deadline)
        end = list_offsets(self._cluster, where, LATEST, deadline)
        for each, offset in wanted.items():
            here = (each.topic, each.partition)
            if first[here] <= offset <= end[here]:
                continue  # a leader that has just changed did not know yet
            self._consumer.pause(each)
            self._waiting.add(here)
            self._gaps.append(Gap(each.topic, each.partition, offset, first[here], end[here]))

    def _check_membership(self) -> None:
        """The client tells nobody when a static member was fenced or a join hangs; this does."""
        if heartbeats_stopped(self._consumer):
            raise FencedError(
                f"the heartbeats of group {self.settings.group_id!r} have stopped: another process is "
                f"{self.settings.group_instance_id or 'this member'!r}"
            )
        now = self._cluster.clock()
        if self.is_stable:
            self._unstable_since = None
            return
        if self._unstable_since is None:
            self._unstable_since = now
        elif now - self._unstable_since > 3 * self.settings.rejoin_after_ms / 1000:
            raise RetryError(
                f"group {self.settings.group_id!r} could not be joined in {now - self._unstable_since:.0f} s"
            )
        elif now - self._unstable_since > self.settings.rejoin_after_ms / 1000:
            request_rejoin(self._consumer)
