"""The decision table, by walking through every state with every reply."""

from collections.abc import Iterator

import pytest

from streamlstm.transport import outcomes
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
    Verdict,
    begin,
    decide,
    verdict,
)

CODES = [*range(-1, 131), LOST, NOT_SENT]
VERIFICATIONS = [ALL_NEW, NONE_NEW, MIXED, NOT_SENT]


def replies(state: State) -> list[int]:
    return VERIFICATIONS if state.step is Step.VERIFY else CODES


def walk(protocol: Protocol) -> Iterator[tuple[State, int, bool, State, Pace]]:
    """Every transition that can be reached from the first state."""
    seen, todo = set(), [begin(protocol)]
    while todo:
        state = todo.pop()
        if state in seen or state.terminal:
            continue
        seen.add(state)
        for code in replies(state):
            for expired in (False, True):
                after, pace = decide(state, code, expired)
                yield state, code, expired, after, pace
                todo.append(after)


both = pytest.mark.parametrize("protocol", list(Protocol))


@both
def test_a_transaction_without_trouble(protocol: Protocol) -> None:
    state, steps = begin(protocol), []
    while not state.terminal:
        steps.append(state.step.name)
        state, pace = decide(state, 0)
        assert pace is Pace.NOW
    assert state.step is Step.COMMITTED
    v1 = ["ADD_PARTITIONS", "PRODUCE", "ADD_OFFSETS", "OFFSETS", "COMMIT"]
    assert steps == (v1 if protocol is Protocol.V1 else ["PRODUCE", "OFFSETS", "COMMIT"])


@both
def test_committed_only_by_a_definite_success(protocol: Protocol) -> None:
    """Nothing but a successful EndTxn(commit), or offsets that have all moved, may release the retained bytes."""
    for state, code, _, after, _ in walk(protocol):
        if after.step is Step.COMMITTED:
            assert (state.step, code) in ((Step.COMMIT, 0), (Step.VERIFY, ALL_NEW))


WRITING = (Step.ADD_PARTITIONS, Step.PRODUCE, Step.ADD_OFFSETS, Step.OFFSETS, Step.COMMIT)


@both
def test_nothing_is_sent_again_at_an_epoch_that_an_indefinite_request_had(protocol: Protocol) -> None:
    """v2: the next success is the abort, which bumps the epoch. v1: the state is stained until InitProducerId."""
    for state, code, _, after, _ in walk(protocol):
        if state.step in WRITING[:-1] and verdict(state.step, code) is Verdict.INDEFINITE:
            assert after == State(protocol, Step.ABORT, stained=protocol is Protocol.V1)
        if state.stained and after.step in WRITING:
            assert state.step in (Step.INITIALIZE, Step.TAKE_OVER)
        if protocol is Protocol.V1 and state.step is Step.ABORT and verdict(Step.ABORT, code) is Verdict.INDEFINITE:
            assert after.stained


@both
def test_a_commit_in_doubt_is_never_sent_again_unverified(protocol: Protocol) -> None:
    """From a COMMIT whose outcome is unknown: v2 asks again; else a new epoch and VERIFY, and only then again."""
    settling = {Step.INITIALIZE, Step.MEMBERSHIP, Step.TAKE_OVER, Step.VERIFY}
    settling |= {Step.COMMIT} if protocol is Protocol.V2 else {Step.ABORT}
    for state, code, _, after, _ in walk(protocol):
        if not state.doubt or after.terminal:
            continue
        if state.step is Step.VERIFY and code == NONE_NEW:
            assert after == begin(protocol)
        else:
            assert after.step in settling, (state, code, after)
            assert after.doubt


@both
def test_only_a_member_takes_over(protocol: Protocol) -> None:
    for state, _, _, after, _ in walk(protocol):
        if after.step is Step.TAKE_OVER:
            assert state.step in (Step.MEMBERSHIP, Step.TAKE_OVER)


@both
def test_a_doubt_begins_only_with_a_lost_commit(protocol: Protocol) -> None:
    for state, code, _, after, _ in walk(protocol):
        if after.doubt and not state.doubt:
            assert state.step is Step.COMMIT
            assert verdict(state.step, code) is Verdict.INDEFINITE


@both
def test_a_cause_ends_in_failure_and_never_writes_again(protocol: Protocol) -> None:
    for state, code, _, after, _ in walk(protocol):
        if state.cause is not None:
            assert after.step not in WRITING, (state, code, after)
            assert after.cause is not None
        if after.step is Step.FAILED:
            assert after.cause is not None


@both
def test_every_state_can_still_end(protocol: Protocol) -> None:
    """No reply leads into a corner: with successes from there on, each state reaches an end in a few steps."""
    for _, _, _, after, _ in walk(protocol):
        state, steps = after, 0
        while not state.terminal:
            state, _ = decide(state, NONE_NEW if state.step is Step.VERIFY else 0)
            steps += 1
            assert steps < 12


@both
def test_staying_never_spins(protocol: Protocol) -> None:
    """Where a request is repeated there is a pause before it."""
    for state, _, _, after, pace in walk(protocol):
        if after == state:
            assert pace is not Pace.NOW


@both
def test_fenced_is_the_end_unless_the_transaction_has_expired(protocol: Protocol) -> None:
    committing = State(protocol, Step.COMMIT)
    assert decide(committing, 90)[0] == State(protocol, Step.FAILED, cause=Cause.FENCED)
    asked, _ = decide(committing, 90, expired=True)
    assert asked.step is Step.MEMBERSHIP
    assert decide(State(protocol, Step.INITIALIZE), 90)[0].step is Step.MEMBERSHIP
    assert decide(asked, 0)[0].step is decide(asked, 27)[0].step is Step.TAKE_OVER
    assert decide(asked, 25)[0].cause is Cause.STALE_GENERATION
    assert decide(asked, 82)[0].cause is Cause.FENCED
    offsets = State(protocol, Step.OFFSETS)
    assert decide(offsets, outcomes.FENCED_INSTANCE_ID, expired=True)[0].cause is Cause.FENCED


@both
def test_a_stale_generation_is_aborted_first(protocol: Protocol) -> None:
    for code in (22, 25, 27):
        state, _ = decide(State(protocol, Step.OFFSETS), code)
        assert state == State(protocol, Step.ABORT, cause=Cause.STALE_GENERATION)
        assert decide(state, 0)[0] == State(protocol, Step.FAILED, cause=Cause.STALE_GENERATION)


def test_v2_asks_again_and_v1_looks_at_the_offsets() -> None:
    lost, pace = decide(State(Protocol.V2, Step.COMMIT), LOST)
    assert (lost, pace) == (State(Protocol.V2, Step.COMMIT, doubt=True), Pace.RELOCATE)
    assert decide(lost, 0)[0].step is Step.COMMITTED
    assert decide(lost, 48)[0].step is Step.INITIALIZE
    lost, _ = decide(State(Protocol.V1, Step.COMMIT), LOST)
    assert lost == State(Protocol.V1, Step.ABORT, doubt=True, stained=True)
    for over in (0, 48):
        ended, _ = decide(lost, over)
        assert ended == State(Protocol.V1, Step.INITIALIZE, doubt=True, stained=True)
    asked, _ = decide(ended, 0)
    assert asked.step is Step.VERIFY
    assert decide(asked, ALL_NEW)[0].step is Step.COMMITTED
    assert decide(asked, NONE_NEW)[0] == begin(Protocol.V1)
    assert decide(asked, MIXED)[0].cause is Cause.STALE_GENERATION


def test_a_refused_batch_outweighs_a_moved_leader() -> None:
    assert verdict(Step.PRODUCE, 10) > verdict(Step.PRODUCE, 6) > verdict(Step.PRODUCE, 19)
    assert verdict(Step.PRODUCE, LOST) == max(Verdict)


def test_an_end_takes_no_reply() -> None:
    with pytest.raises(ValueError, match="takes no reply"):
        decide(State(Protocol.V2, Step.COMMITTED), 0)
