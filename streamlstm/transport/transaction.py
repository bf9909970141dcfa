"""The writer: whole record batches and source offsets in Kafka transactions, all or nothing.

Ours from the connection layer up, because kafka-python's KafkaProducer loses, doubles and hangs in transactions. What
each reply means is decided in outcomes.py; here the requests are sent and the decisions carried out:

1. PRODUCE: every batch to its partition's leader; one request per leader, all in flight together.
2. OFFSETS: the source offsets, in the name of the group member whose generation the broker checks; in v2 they go out
   with the last batches.
3. COMMIT: EndTxn. Only its definite success ends `commit`; until then the batches are kept and sent again as needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from streamlstm.errors import (
    AccessError,
    ConfigError,
    FencedError,
    InputMissingError,
    InvariantError,
    RetryError,
    StaleGenerationError,
    StreamlstmError,
)
from streamlstm.fault_points import reach
from streamlstm.transport import requests
from streamlstm.transport.access import lacked
from streamlstm.transport.attempt import Attempt, Committed, WriterCounters
from streamlstm.transport.cluster import (
    ACCESS_CODES,
    Cluster,
    CoordinatorKind,
    Lost,
    NotSent,
    code_name,
    denied,
)
from streamlstm.transport.group import Group
from streamlstm.transport.offsets import Later, ask_committed
from streamlstm.transport.outbox import Outbox, in_parts
from streamlstm.transport.outcomes import (
    ALL_NEW,
    LOST,
    MIXED,
    NONE_NEW,
    NOT_SENT,
    Cause,
    Pace,
    Protocol,
    State,
    Step,
    begin,
    decide,
    verdict,
)
from streamlstm.transport.requests import Partition, ProduceBatch, Producer
from streamlstm.transport.settings import WriterSettings

__all__ = ["Committed", "ProduceBatch", "Writer", "WriterCounters"]

_FEATURE = "transaction.version"
_POINTS = {Step.PRODUCE: "produced", Step.OFFSETS: "offsets_sent", Step.COMMIT: "ended"}


class Writer:
    """One transactional id. `commit` is synchronous and for one thread at a time; `counters` may be read by any, and
    go on where an earlier writer of this process has left them.
    """

    def __init__(self, cluster: Cluster, settings: WriterSettings, counters: WriterCounters | None = None) -> None:
        self.settings = settings
        self.counters = WriterCounters() if counters is None else counters
        self.protocol = Protocol.V2
        self._cluster = cluster
        self._producer: Producer | None = None
        self._doubtful_epoch = False  # it was fenced when we were no member: perhaps for our transaction's age
        self._sequences: dict[Partition, int] = {}
        self._settled: dict[Partition, int] = {}

    def open(self, topics: Sequence[str] = (), timeout_ms: int | None = None) -> None:
        """Take over the transactional id: aborts what an earlier process left open, fences it.

        `topics` will be written to. Raises RetryError, AccessError, ConfigError (the transaction time-out is refused).
        """
        deadline = self._cluster.deadline(self.settings.commit_timeout_ms if timeout_ms is None else timeout_ms)
        self._cluster.watch(topics, deadline)
        level = self._cluster.features(deadline).get(_FEATURE, 0)
        chosen = {"v1": Protocol.V1, "v2": Protocol.V2, "auto": Protocol.V2 if level >= 2 else Protocol.V1}
        self.protocol = chosen[self.settings.protocol]
        if self.protocol is Protocol.V2 and level < 2:
            raise ConfigError(
                [f"commit.transaction_protocol: v2 needs {_FEATURE} 2; the cluster has finalized {level}"]
            )
        attempt = self._attempt((), {}, Group("", -1, "", None), deadline)
        state = State(self.protocol, Step.TAKE_OVER)
        while state.step is Step.TAKE_OVER:
            state = self._advance(state, attempt)
        if state.step is Step.FAILED:
            raise self._failure(state, attempt)
        self.counters.doubt_since = None  # what was open is over, and the offsets are asked for

    def commit(
        self,
        batches: Sequence[ProduceBatch],
        offsets: Mapping[Partition, int],
        group: Group,
        timeout_ms: int | None = None,
    ) -> Committed:
        """Write all batches and commit all offsets (the next to read), or nothing of it.

        Batches of a partition keep their order. Blocks until the outcome is definite. Raises, with nothing visible to
        read_committed readers: StaleGenerationError (take `group()` anew, leave out what is no longer ours, call
        again), BatchRefusedError (likewise without that batch). Raises, to be followed by `open` or the end of the
        process: FencedError, AccessError, InputMissingError, RetryError (no definite outcome in time).
        """
        if self._producer is None:
            raise InvariantError("Writer.commit without a successful Writer.open")
        if not offsets:
            raise InvariantError("Writer.commit without source offsets: its outcome could not be found out")
        deadline = self._cluster.deadline(self.settings.commit_timeout_ms if timeout_ms is None else timeout_ms)
        attempt = self._attempt(batches, offsets, group, deadline)
        self._cluster.watch(sorted({batch.topic for batch in batches}), deadline)
        state = State(self.protocol, Step.MEMBERSHIP) if self._doubtful_epoch else begin(self.protocol)
        while not state.terminal:
            state = self._advance(state, attempt)
        if state.step is Step.FAILED:
            raise self._failure(state, attempt)
        return self._settle(attempt)

    def _attempt(
        self, batches: Sequence[ProduceBatch], offsets: Mapping[Partition, int], group: Group, deadline: float
    ) -> Attempt:
        outbox, now = Outbox(batches, self._sequences), self._cluster.clock()
        return Attempt(outbox, offsets, group, now, deadline, self.settings.retry_pause_ms / 1000)

    def close(self) -> None:
        """Forget the producer; nothing is open between two commits. The cluster stays open."""
        self._producer = None

    def _settle(self, attempt: Attempt) -> Committed:
        seconds = self._cluster.clock() - attempt.began
        self._settled.update(attempt.offsets)
        self.counters.committed += 1
        self.counters.commit_seconds += seconds
        self.counters.batches += len(attempt.outbox.batches)
        self.counters.bytes += sum(len(batch.buffer) for batch in attempt.outbox.batches)
        return Committed(seconds, attempt.count)

    def _advance(self, state: State, attempt: Attempt) -> State:
        """Send the request of the state's step, and go where the reply leads."""
        if state.step is Step.COMMIT:
            reach("ending")
        code = self._send(state, attempt)
        age_ms = (self._cluster.clock() - attempt.began) * 1000
        after, pace = decide(state, code, expired=age_ms >= self.settings.transaction_timeout_ms)
        if code and state.step is not Step.VERIFY:
            attempt.why = attempt.why if code in (LOST, NOT_SENT) else f"{state.step.name}: {code_name(code)}"
        if code in ACCESS_CODES and attempt.denied is None:
            read = {topic for topic, _ in attempt.offsets} if state.step is Step.OFFSETS else set()
            lacking = lacked(code, read, attempt.outbox.denied, attempt.group.group_id, self.settings.transactional_id)
            attempt.denied = denied(self._cluster.settings, lacking, code)
        if code == 0 and state.step in _POINTS:
            reach(_POINTS[state.step])
        self._count(state, after)
        if state.step is Step.MEMBERSHIP and after.step is Step.FAILED:
            self._doubtful_epoch = True
        if self._begins_anew(state, after):
            attempt.count += 1
            attempt.began = self._cluster.clock()
            attempt.outbox.rewind()
        if pace is not Pace.NOW and not after.terminal:
            self._wait(after, pace, attempt)
        else:
            attempt.pause = self.settings.retry_pause_ms / 1000
        return after

    def _begins_anew(self, state: State, after: State) -> bool:
        ended = state.step in (Step.TAKE_OVER, Step.INITIALIZE, Step.VERIFY, Step.ABORT)
        return ended and not after.terminal and after.step is begin(self.protocol).step

    def _count(self, state: State, after: State) -> None:
        if after.doubt and not state.doubt:
            self.counters.doubts += 1
            self.counters.doubt_since = self._cluster.clock()
        elif state.doubt and not after.doubt:
            self.counters.doubt_since = None
        if state.step is Step.ABORT and after.step is not Step.ABORT:
            self.counters.aborted += 1
        if after.cause is Cause.FENCED and after.step is Step.FAILED:
            self.counters.fenced += 1

    def _wait(self, after: State, pace: Pace, attempt: Attempt) -> None:
        now = self._cluster.clock()
        if now >= attempt.deadline:
            self._producer = None
            if missing := self._cluster.missing(topic for topic, _ in attempt.outbox.partitions):
                raise InputMissingError(f"output topic {missing[0]!r} is not there; last answer: {attempt.why}")
            raise RetryError(f"no outcome of {after.step.name} in {now - attempt.began:.1f} s: {attempt.why}")
        self.counters.retries += 1
        self._cluster.pause(min(attempt.pause, attempt.deadline - now))
        attempt.pause = min(2 * attempt.pause, self.settings.retry_pause_max_ms / 1000)
        if pace is Pace.RELOCATE:
            self._cluster.forget_coordinator(CoordinatorKind.TRANSACTION, self.settings.transactional_id)
            self._cluster.forget_coordinator(CoordinatorKind.GROUP, attempt.group.group_id)
            self._cluster.refresh(min(attempt.deadline, self._cluster.deadline()))

    def _send(self, state: State, attempt: Attempt) -> int:
        """The reply to the step's request as one code, 0 for success."""
        match state.step:
            case Step.MEMBERSHIP:
                return self._membership(state, attempt)
            case Step.TAKE_OVER | Step.INITIALIZE:
                return self._initialize(state, attempt)
            case Step.VERIFY:
                return self._verify(attempt)
            case Step.ADD_PARTITIONS:
                request = requests.add_partitions(self._known, attempt.outbox.partitions)
                return self._codes(state, self._coordinated(request, attempt), attempt, attempt.outbox.announced)
            case Step.PRODUCE:
                return self._produce(attempt)
            case Step.ADD_OFFSETS:
                request = requests.add_offsets(self._known, attempt.group.group_id)
                return self._codes(state, self._coordinated(request, attempt), attempt, _error_code)
            case Step.OFFSETS:
                answer, attempt.offsets_answer = attempt.offsets_answer, None
                if answer is None:
                    answer = self._grouped(self._offsets(attempt), attempt)
                return self._codes(state, answer, attempt, requests.commit_offsets_codes)
            case _:
                return self._end(state, attempt)

    @property
    def _known(self) -> Producer:
        if self._producer is None:
            raise InvariantError("a transaction without a producer id")
        return self._producer

    def _codes(self, state: State, answer: Any, attempt: Attempt, codes_of: Any) -> int:
        if isinstance(answer, NotSent | Lost):
            attempt.note(state.step, answer)
            return NOT_SENT if isinstance(answer, NotSent) else LOST
        return _weightiest(state.step, codes_of(answer))

    def _coordinated(self, request: Any, attempt: Attempt) -> Any:
        return self._to_coordinator(CoordinatorKind.TRANSACTION, self.settings.transactional_id, request, attempt)

    def _grouped(self, request: Any, attempt: Attempt) -> Any:
        return self._to_coordinator(CoordinatorKind.GROUP, attempt.group.group_id, request, attempt)

    def _to_coordinator(self, kind: CoordinatorKind, key: str, request: Any, attempt: Attempt) -> Any:
        deadline = min(attempt.deadline, self._cluster.deadline(self.settings.request_timeout_ms))
        node = self._cluster.coordinator(kind, key, deadline)
        return node if isinstance(node, NotSent) else self._cluster.send(node, request, deadline)

    def _membership(self, state: State, attempt: Attempt) -> int:
        if attempt.group.generation_id < 0:
            return 0  # offsets outside any membership: there is nothing to ask
        answer = self._grouped(requests.membership(attempt.group), attempt)
        return self._codes(state, answer, attempt, _error_code)

    def _initialize(self, state: State, attempt: Attempt) -> int:
        identity, timeout_ms = self.settings.transactional_id, self.settings.transaction_timeout_ms
        request = requests.initialize(identity, timeout_ms, self._producer if state.step is Step.INITIALIZE else None)
        answer = self._coordinated(request, attempt)
        code = self._codes(state, answer, attempt, _error_code)
        if code == 0:
            self._become(answer.producer_id, answer.producer_epoch)
        return code

    def _become(self, producer_id: int, epoch: int) -> None:
        """A new epoch numbers its batches from 0."""
        self._producer = Producer(self.settings.transactional_id, int(producer_id), int(epoch))
        self._doubtful_epoch = False
        self._sequences.clear()

    def _end(self, state: State, attempt: Attempt) -> int:
        answer = self._coordinated(requests.end(self._known, self.protocol, state.step is Step.COMMIT), attempt)
        code = self._codes(state, answer, attempt, _error_code)
        if code == 0 and self.protocol is Protocol.V2:
            self._become(answer.producer_id, answer.producer_epoch)
        return code

    def _verify(self, attempt: Attempt) -> int:
        """Which way a commit in doubt went, by the group's committed offsets. They move all together or not at all."""
        wanted = sorted(attempt.offsets)
        soon = min(attempt.deadline, self._cluster.deadline(self.settings.request_timeout_ms))
        found = ask_committed(self._cluster, attempt.group.group_id, wanted, soon)
        if isinstance(found, Later):
            attempt.note(Step.VERIFY, found)
            return NOT_SENT
        moved = [each for each in wanted if self._settled.get(each) != attempt.offsets[each]]
        new = [found[each] == attempt.offsets[each] for each in moved]
        if moved and all(new):
            return ALL_NEW
        as_before = all(found[each] == self._settled.get(each, found[each]) for each in wanted)
        return NONE_NEW if as_before and not any(new) else MIXED

    def _produce(self, attempt: Attempt) -> int:
        """Rounds of one batch per partition until all are taken; the weightiest refusal ends them."""
        while attempt.outbox.partitions:
            code = self._produce_round(attempt)
            if code:
                return code
        return 0

    def _produce_round(self, attempt: Attempt) -> int:
        by_leader: dict[int, list[ProduceBatch]] = {}
        for partition, batch in attempt.outbox.heads().items():
            leader = self._cluster.leader(*partition)
            if leader is None:
                attempt.note(Step.PRODUCE, NotSent(f"partition {partition[1]} of topic {partition[0]!r} has no leader"))
                return NOT_SENT
            requests.stamp(batch, self._known, self._sequences.get(partition, 0))
            by_leader.setdefault(leader, []).append(batch)
        timeout_ms = self.settings.request_timeout_ms
        sent = [
            (leader, requests.produce(self._known, self.protocol, part, timeout_ms))
            for leader, batches in by_leader.items()
            for part in in_parts(batches, self.settings.max_request_bytes)
        ]
        deadline = min(attempt.deadline, self._cluster.deadline(timeout_ms))
        along = self._offsets_along(attempt, deadline) if attempt.outbox.is_last_round else []
        answers = self._cluster.send_all(sent + along, deadline)
        attempt.offsets_answer = answers.pop() if along else None
        codes = {code for answer in answers for code in self._taken(answer, attempt)}
        if isinstance(attempt.offsets_answer, Lost):  # whatever else comes, nothing more may be sent at this epoch
            attempt.note(Step.OFFSETS, attempt.offsets_answer)
            codes.add(LOST)
        return _weightiest(Step.PRODUCE, codes)

    def _offsets_along(self, attempt: Attempt, deadline: float) -> list[tuple[int, Any]]:
        """The offsets' request and its broker, to go out beside the last batches: a round trip less. In v1 their group
        has to be announced first.
        """
        if self.protocol is Protocol.V1:
            return []
        node = self._cluster.coordinator(CoordinatorKind.GROUP, attempt.group.group_id, deadline)
        return [] if isinstance(node, NotSent) else [(node, self._offsets(attempt))]

    def _offsets(self, attempt: Attempt) -> Any:
        return requests.commit_offsets(self._known, self.protocol, attempt.group, attempt.offsets)

    def _taken(self, answer: Any, attempt: Attempt) -> set[int]:
        if isinstance(answer, NotSent | Lost):
            attempt.note(Step.PRODUCE, answer)
            return {NOT_SENT if isinstance(answer, NotSent) else LOST}
        return attempt.outbox.take(requests.produce_refusals(answer))

    def _failure(self, state: State, attempt: Attempt) -> StreamlstmError:
        """The error for a state that FAILED. After all but two of them the producer is unusable."""
        identity, why = self.settings.transactional_id, attempt.why
        match state.cause:
            case Cause.STALE_GENERATION:
                return StaleGenerationError(f"group {attempt.group.group_id!r} has moved on ({why})")
            case Cause.BATCH_REFUSED if refused := attempt.outbox.refused():
                return refused
        self._producer = None
        match state.cause:
            case Cause.FENCED:
                return FencedError(f"another process has transactional id {identity!r} or the group instance ({why})")
            case Cause.ACCESS:
                return attempt.denied or AccessError(f"the broker refuses {state.step.name} ({why})")
            case Cause.TIMEOUT_REFUSED:
                found = self.settings.transaction_timeout_ms
                return ConfigError([f"commit.transaction_timeout_ms: {found} is over the broker's limit ({why})"])
        return InvariantError(f"a reply that no transaction should get ({why})")


def _error_code(answer: Any) -> set[int]:
    return {int(answer.error_code)}


def _weightiest(step: Step, codes: set[int]) -> int:
    return max(codes, key=lambda code: (verdict(step, code), code), default=0)
