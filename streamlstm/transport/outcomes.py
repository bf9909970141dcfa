"""What a broker's reply means for a transaction: a pure decision table over (state, reply).

The steps of one transaction, in order; v1 (KIP-98) announces partitions and group first, v2 (KIP-890) needn't:

    v2:                    PRODUCE ->                OFFSETS -> COMMIT -> COMMITTED
    v1:  ADD_PARTITIONS -> PRODUCE -> ADD_OFFSETS -> OFFSETS -> COMMIT -> COMMITTED

In v2 the offsets may be sent with the last batches; their reply counts at its step, a lost one at PRODUCE already.

A reply is one of four things:

- success: on to the next step;
- a definite refusal that passes: wait, perhaps look up leader or coordinator anew, send the same again;
- a definite refusal of the transaction: ABORT, then either begin again with the retained bytes, or fail with the cause;
- indefinite, LOST: the request may or may not have been carried out, now or later. Then ABORT, and nothing more is sent
  at this epoch: v2's EndTxn bumps it by itself, in v1 (`stained`) INITIALIZE does. So nothing late can land in a later
  transaction. Whether a lost COMMIT took effect is a `doubt`: v2 asks again, for the broker knows the transaction by
  its epoch; v1 makes sure that it is over and VERIFYs what the group has committed.

INITIALIZE names our own epoch (KIP-360), so that its repetition is harmless and a zombie is refused; TAKE_OVER names
none and fences whoever has the transactional id. FENCED means that somebody else has it, except when the broker has
aborted the transaction for its age (`expired`), fenced us at INITIALIZE over a late request of our own, or forgotten
the id. Then MEMBERSHIP asks the group: only who is still a member of its generation may TAKE_OVER.
"""

from dataclasses import dataclass, replace
from enum import Enum, IntEnum, auto

LOST = -1001
NOT_SENT = -1002

ALL_NEW = -2001
NONE_NEW = -2002
MIXED = -2003


class Protocol(IntEnum):
    V1 = 1
    V2 = 2


class Step(Enum):
    MEMBERSHIP = auto()
    TAKE_OVER = auto()
    INITIALIZE = auto()
    VERIFY = auto()
    ADD_PARTITIONS = auto()
    PRODUCE = auto()
    ADD_OFFSETS = auto()
    OFFSETS = auto()
    COMMIT = auto()
    ABORT = auto()
    COMMITTED = auto()
    FAILED = auto()


class Cause(Enum):
    """Why a transaction failed for good."""

    FENCED = auto()
    STALE_GENERATION = auto()
    ACCESS = auto()
    BATCH_REFUSED = auto()
    TIMEOUT_REFUSED = auto()
    UNEXPECTED = auto()


class Verdict(IntEnum):
    """What a reply says, the weightiest last: of several replies to one step the weightiest counts."""

    DONE = 0
    AGAIN = 1
    ELSEWHERE = 2
    ABORTABLE = 3
    TIMEOUT_REFUSED = 4
    BATCH_REFUSED = 5
    UNEXPECTED = 6
    ACCESS = 7
    STALE = 8
    UNKNOWN_ID = 9
    FENCED = 10
    INDEFINITE = 11


class Pace(Enum):
    """How to go on: at once, after a pause, or after a pause and a new look at who leads or coordinates."""

    NOW = auto()
    PAUSE = auto()
    RELOCATE = auto()


@dataclass(frozen=True, slots=True)
class State:
    """`doubt`: a COMMIT was sent and its outcome isn't known. `stained`: v1 may write no more at this epoch.

    `cause`: what to fail with once the transaction is out of the way.
    """

    protocol: Protocol
    step: Step
    doubt: bool = False
    stained: bool = False
    cause: Cause | None = None

    @property
    def terminal(self) -> bool:
        return self.step in (Step.COMMITTED, Step.FAILED)


_ORDER = {
    Protocol.V1: (Step.ADD_PARTITIONS, Step.PRODUCE, Step.ADD_OFFSETS, Step.OFFSETS, Step.COMMIT, Step.COMMITTED),
    Protocol.V2: (Step.PRODUCE, Step.OFFSETS, Step.COMMIT, Step.COMMITTED),
}

_COORDINATION = {
    14: Verdict.ELSEWHERE,  # COORDINATOR_LOAD_IN_PROGRESS
    15: Verdict.ELSEWHERE,  # COORDINATOR_NOT_AVAILABLE
    16: Verdict.ELSEWHERE,  # NOT_COORDINATOR
    51: Verdict.AGAIN,  # CONCURRENT_TRANSACTIONS: the previous one is still completing
    89: Verdict.AGAIN,  # THROTTLING_QUOTA_EXCEEDED
    29: Verdict.ACCESS,  # TOPIC_AUTHORIZATION_FAILED
    30: Verdict.ACCESS,  # GROUP_AUTHORIZATION_FAILED
    31: Verdict.ACCESS,  # CLUSTER_AUTHORIZATION_FAILED
    53: Verdict.ACCESS,  # TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    47: Verdict.FENCED,  # INVALID_PRODUCER_EPOCH
    90: Verdict.FENCED,  # PRODUCER_FENCED
    49: Verdict.UNKNOWN_ID,  # INVALID_PRODUCER_ID_MAPPING: another producer id, or the id was forgotten
    48: Verdict.ABORTABLE,  # INVALID_TXN_STATE
    120: Verdict.ABORTABLE,  # TRANSACTION_ABORTABLE
    -1: Verdict.INDEFINITE,  # UNKNOWN_SERVER_ERROR
    7: Verdict.INDEFINITE,  # REQUEST_TIMED_OUT
    LOST: Verdict.INDEFINITE,
    NOT_SENT: Verdict.ELSEWHERE,
}

_METADATA = {
    3: Verdict.ELSEWHERE,  # UNKNOWN_TOPIC_OR_PARTITION
    5: Verdict.ELSEWHERE,  # LEADER_NOT_AVAILABLE
    6: Verdict.ELSEWHERE,  # NOT_LEADER_OR_FOLLOWER
    56: Verdict.ELSEWHERE,  # KAFKA_STORAGE_ERROR
    74: Verdict.ELSEWHERE,  # FENCED_LEADER_EPOCH
    75: Verdict.ELSEWHERE,  # UNKNOWN_LEADER_EPOCH
    100: Verdict.ELSEWHERE,  # UNKNOWN_TOPIC_ID
}

_TABLES: dict[Step, dict[int, Verdict]] = {
    Step.MEMBERSHIP: {
        27: Verdict.DONE,  # REBALANCE_IN_PROGRESS: still a member
        22: Verdict.STALE,  # ILLEGAL_GENERATION
        25: Verdict.STALE,  # UNKNOWN_MEMBER_ID
        82: Verdict.FENCED,  # FENCED_INSTANCE_ID
    },
    Step.TAKE_OVER: {50: Verdict.TIMEOUT_REFUSED},  # INVALID_TRANSACTION_TIMEOUT
    Step.INITIALIZE: {50: Verdict.TIMEOUT_REFUSED},  # INVALID_TRANSACTION_TIMEOUT
    Step.ADD_PARTITIONS: {**_METADATA, 55: Verdict.AGAIN},  # OPERATION_NOT_ATTEMPTED: for another partition's sake
    Step.PRODUCE: {
        **_METADATA,
        19: Verdict.AGAIN,  # NOT_ENOUGH_REPLICAS
        20: Verdict.INDEFINITE,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
        45: Verdict.ABORTABLE,  # OUT_OF_ORDER_SEQUENCE_NUMBER
        46: Verdict.ABORTABLE,  # DUPLICATE_SEQUENCE_NUMBER
        59: Verdict.ABORTABLE,  # UNKNOWN_PRODUCER_ID
        47: Verdict.ABORTABLE,  # the coordinator, asked to abort, says whether we are fenced
        49: Verdict.ABORTABLE,
        90: Verdict.ABORTABLE,
        10: Verdict.BATCH_REFUSED,  # MESSAGE_TOO_LARGE
        18: Verdict.BATCH_REFUSED,  # RECORD_LIST_TOO_LARGE
        32: Verdict.BATCH_REFUSED,  # INVALID_TIMESTAMP
        87: Verdict.BATCH_REFUSED,  # INVALID_RECORD
    },
    Step.ADD_OFFSETS: {},
    Step.OFFSETS: {
        **_METADATA,
        22: Verdict.STALE,  # ILLEGAL_GENERATION
        25: Verdict.STALE,  # UNKNOWN_MEMBER_ID
        27: Verdict.STALE,  # REBALANCE_IN_PROGRESS
        82: Verdict.FENCED,  # FENCED_INSTANCE_ID
    },
    Step.COMMIT: {},
    Step.ABORT: {},
}

_CAUSES = {
    Verdict.TIMEOUT_REFUSED: Cause.TIMEOUT_REFUSED,
    Verdict.BATCH_REFUSED: Cause.BATCH_REFUSED,
    Verdict.UNEXPECTED: Cause.UNEXPECTED,
    Verdict.ACCESS: Cause.ACCESS,
    Verdict.STALE: Cause.STALE_GENERATION,
    Verdict.FENCED: Cause.FENCED,
}

FENCED_INSTANCE_ID = 82


def verdict(step: Step, code: int) -> Verdict:
    """What `code` (a Kafka error code, LOST or NOT_SENT) means as a reply to `step`."""
    if code == 0:
        return Verdict.DONE
    return _TABLES[step].get(code, _COORDINATION.get(code, Verdict.UNEXPECTED))


def begin(protocol: Protocol) -> State:
    """The state before the first request of a transaction."""
    return State(protocol, _ORDER[protocol][0])


def decide(state: State, code: int, expired: bool = False) -> tuple[State, Pace]:
    """The next state after the reply `code` to `state.step`, and how to go there.

    `expired`: the transaction is older than its time-out, so the broker may have aborted it and bumped the epoch.
    """
    if state.terminal:
        raise ValueError(f"{state.step} takes no reply")
    if state.step is Step.VERIFY:
        return _verified(state, code)
    found = verdict(state.step, code)
    if found is Verdict.DONE:
        return _done(state), Pace.NOW
    if found in (Verdict.AGAIN, Verdict.ELSEWHERE):
        return state, Pace.PAUSE if found is Verdict.AGAIN else Pace.RELOCATE
    if state.step in (Step.MEMBERSHIP, Step.TAKE_OVER):
        return _not_ours(state, found)
    perhaps_ours = found is Verdict.FENCED and (expired or state.step is Step.INITIALIZE) and code != FENCED_INSTANCE_ID
    if perhaps_ours or found is Verdict.UNKNOWN_ID:
        return replace(state, step=Step.MEMBERSHIP), Pace.NOW
    if state.step is Step.INITIALIZE:
        return _not_ours(state, found)
    if state.step in (Step.COMMIT, Step.ABORT):
        return _not_ended(state, found)
    return _not_written(state, found)


def _done(state: State) -> State:
    order = _ORDER[state.protocol]
    if state.step is Step.MEMBERSHIP:
        return replace(state, step=Step.TAKE_OVER)
    if state.step is Step.ABORT and state.stained:
        return replace(state, step=Step.INITIALIZE)
    if state.step not in (Step.TAKE_OVER, Step.INITIALIZE, Step.ABORT):
        return State(state.protocol, order[order.index(state.step) + 1])
    if state.doubt:
        return State(state.protocol, Step.VERIFY, doubt=True)
    return begin(state.protocol) if state.cause is None else replace(state, step=Step.FAILED)


def _verified(state: State, code: int) -> tuple[State, Pace]:
    if code in (LOST, NOT_SENT):
        return state, Pace.PAUSE
    if code == ALL_NEW:
        return State(state.protocol, Step.COMMITTED), Pace.NOW
    if code == NONE_NEW:
        return begin(state.protocol), Pace.NOW
    return State(state.protocol, Step.FAILED, cause=Cause.STALE_GENERATION), Pace.NOW


def _not_ours(state: State, found: Verdict) -> tuple[State, Pace]:
    """The way to a new epoch goes on, or is barred."""
    if found in (Verdict.INDEFINITE, Verdict.ABORTABLE, Verdict.UNKNOWN_ID):
        return state, Pace.RELOCATE
    return _failed(state, found), Pace.NOW


def _not_ended(state: State, found: Verdict) -> tuple[State, Pace]:
    """The reply to EndTxn was not a success."""
    v1 = state.protocol is Protocol.V1
    if found is Verdict.INDEFINITE:
        doubt = state.doubt or state.step is Step.COMMIT
        step = Step.ABORT if v1 else state.step
        return replace(state, step=step, doubt=doubt, stained=v1), Pace.RELOCATE
    if found is not Verdict.ABORTABLE:
        return _failed(state, found), Pace.NOW
    if state.step is Step.COMMIT and not state.doubt:
        return replace(state, step=Step.ABORT, stained=v1), Pace.PAUSE
    return replace(state, step=Step.INITIALIZE), Pace.NOW  # it is over, one way or the other


def _not_written(state: State, found: Verdict) -> tuple[State, Pace]:
    if found in (Verdict.INDEFINITE, Verdict.ABORTABLE):
        pace = Pace.RELOCATE if found is Verdict.INDEFINITE else Pace.PAUSE
        return replace(state, step=Step.ABORT, stained=state.protocol is Protocol.V1), pace
    return replace(state, step=Step.ABORT, cause=_CAUSES[found]), Pace.NOW


def _failed(state: State, found: Verdict) -> State:
    return replace(state, step=Step.FAILED, cause=_CAUSES[found])
