"""The writer before a broker in memory and a bad network: exactly once, whatever happens to any request."""

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.errors import (
    AccessError,
    BatchRefusedError,
    FencedError,
    InputMissingError,
    InvariantError,
    RetryError,
    StaleGenerationError,
)
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.group import Group
from streamlstm.transport.requests import ProduceBatch
from streamlstm.transport.settings import WriterSettings
from streamlstm.transport.transaction import Writer
from tests.transport.batches import encode
from tests.transport.broker_double import BrokerDouble, ClusterDouble

MEMBER = Group("group", 3, "member", None)
PASSING = {
    "Produce": [3, 5, 6, 19, 51, 56],
    "TxnOffsetCommit": [14, 15, 16, 51],
    "EndTxn": [14, 15, 16, 51],
    "InitProducerId": [14, 15, 16, 51],
    "AddPartitionsToTxn": [14, 16, 51, 3],
    "AddOffsetsToTxn": [14, 16, 51],
    "OffsetFetch": [14, 15, 16, 88],
    "Heartbeat": [14, 15, 16, 27],
}
NETWORK = ["not sent", "lost", "no reply", "late"]


def opened(broker: BrokerDouble, fate: Any = lambda _: "ok") -> tuple[Writer, ClusterDouble]:
    cluster = ClusterDouble(broker)
    writer = Writer(cast(Cluster, cluster), WriterSettings("tx", commit_timeout_ms=600_000))
    writer.open()
    cluster.fate = fate
    return writer, cluster


def written(turn: int, partitions: int = 3) -> list[ProduceBatch]:
    return [ProduceBatch("out", p, encode([b"%d" % turn, b"%d'" % turn]), 2) for p in range(partitions)]


def values(broker: BrokerDouble) -> dict[int, list[bytes]]:
    """The visible record values per partition, straight from the bytes after the header."""
    return {where[1]: [buffer[61:] for buffer in log] for where, log in broker.visible().items()}


@settings(max_examples=400)
@given(st.booleans(), st.data())
def test_exactly_once_on_a_bad_network(v2: bool, data: st.DataObject) -> None:
    """Up to twelve misfortunes anywhere in six transactions of several rounds."""
    broker, left = BrokerDouble(v2, MEMBER), [data.draw(st.integers(0, 12))]

    def fate(request: Any) -> str | int:
        name = type(request).name.removesuffix("Request")
        if left[0] == 0 or data.draw(st.integers(0, 2)):
            return "ok"
        left[0] -= 1
        fates = [*NETWORK, "expire", *PASSING[name]]
        if name == "InitProducerId":
            fates.remove("late")  # it fences whomever it finds, us too: see below
        return data.draw(st.sampled_from(fates))

    writer, _ = opened(broker, fate)
    for turn in range(6):
        batches = written(turn) + written(100 + turn, 1)
        writer.commit(batches, {("in", 0): turn + 1, ("in", 1): 10 * (turn + 1)}, MEMBER)
        assert broker.committed == {("in", 0): turn + 1, ("in", 1): 10 * (turn + 1)}
    once = {p: [bytes(each.buffer[61:]) for turn in range(6) for each in written(turn)[p : p + 1]] for p in range(3)}
    once[0] = [bytes(each.buffer[61:]) for turn in range(6) for each in (written(turn)[0], written(100 + turn)[0])]
    assert values(broker) == once
    assert not broker.open
    assert writer.counters.committed == 6


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "v1"])
def test_no_request_too_many(v2: bool) -> None:
    writer, cluster = opened(BrokerDouble(v2))
    cluster.requests.clear()
    writer.commit(written(1), {("in", 0): 1}, MEMBER)
    v1 = ["AddPartitionsToTxn", "Produce", "Produce", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn"]
    assert cluster.requests == (["Produce", "Produce", "TxnOffsetCommit", "EndTxn"] if v2 else v1)


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "v1"])
def test_a_stale_generation_leaves_nothing_and_the_writer_usable(v2: bool) -> None:
    broker = BrokerDouble(v2, MEMBER)
    writer, _ = opened(broker)
    with pytest.raises(StaleGenerationError):
        writer.commit(written(1), {("in", 0): 1}, Group("group", 2, "member", None))
    writer.commit(written(2), {("in", 0): 1}, MEMBER)
    assert values(broker) == {p: [bytes(written(2)[p].buffer[61:])] for p in range(3)}


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "v1"])
def test_somebody_else_took_the_partitions_while_the_outcome_was_unknown(v2: bool) -> None:
    """The commit was lost, the broker aborted it for its age, and another member has committed something else."""
    broker = BrokerDouble(v2)
    writer, cluster = opened(broker)
    writer.commit(written(1), {("in", 0): 1}, MEMBER)

    def fate(request: Any) -> str | int:
        if type(request).name != "EndTxnRequest" or broker.committed["in", 0] == 9:
            return "ok"
        cluster.now += 20
        broker.expire()
        broker.committed["in", 0] = 9
        return "lost"

    cluster.fate = fate
    with pytest.raises(StaleGenerationError):
        writer.commit(written(2), {("in", 0): 2}, MEMBER)
    assert values(broker) == {p: [bytes(written(1)[p].buffer[61:])] for p in range(3)}


@pytest.mark.parametrize(
    ("code", "error"),
    [(29, AccessError), (53, AccessError), (10, BatchRefusedError), (87, BatchRefusedError), (42, InvariantError)],
)
def test_a_refusal_for_good(code: int, error: type[Exception]) -> None:
    broker = BrokerDouble(True)
    writer, cluster = opened(broker, lambda request: code if type(request).name == "ProduceRequest" else "ok")
    with pytest.raises(error):
        writer.commit(written(1), {("in", 0): 1}, MEMBER)
    assert "EndTxn" in cluster.requests
    assert not any(values(broker).values())


def test_a_fenced_writer_says_so_and_stays_closed() -> None:
    broker = BrokerDouble(True)
    writer, cluster = opened(broker)
    broker.epoch += 2
    with pytest.raises(FencedError):
        writer.commit(written(1), {("in", 0): 1}, MEMBER)
    assert writer.counters.fenced == 1
    cluster.requests.clear()
    with pytest.raises(InvariantError):
        writer.commit(written(1), {("in", 0): 1}, MEMBER)
    assert cluster.requests == []


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "v1"])
@pytest.mark.parametrize("how", ["lost", "no reply"])
def test_a_doubt_is_shown_while_it_lasts(v2: bool, how: str) -> None:
    """From the commit whose reply is lost until its outcome is known, and through a give-up until a new start."""
    broker, ends, is_away = BrokerDouble(v2, MEMBER), 0, False
    seen: list[float | None] = []

    def fate(request: Any) -> str:
        nonlocal ends
        seen.append(writer.counters.doubt_since)
        ends += type(request).name == "EndTxnRequest"
        return how if is_away or (type(request).name == "EndTxnRequest" and ends == 1) else "ok"

    writer, cluster = opened(broker, fate)
    writer.commit(written(1), {("in", 0): 1}, MEMBER)
    assert (seen[0], writer.counters.doubts, writer.counters.doubt_since) == (None, 1, None)
    assert any(since is not None for since in seen)

    ends, is_away = 0, False
    real = cluster.fate
    cluster.fate = lambda request: how if ends else real(request)
    with pytest.raises(RetryError):
        writer.commit(written(2), {("in", 0): 2}, MEMBER)
    assert writer.counters.doubt_since is not None
    cluster.fate = lambda _: "ok"
    again = Writer(cast(Cluster, cluster), writer.settings, writer.counters)
    again.open()
    assert (again.counters.doubts, again.counters.doubt_since, again.counters.committed) == (2, None, 1)


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "v1"])
def test_a_zombie_that_slept_through_everything_takes_nothing_from_its_successor(v2: bool) -> None:
    broker = BrokerDouble(v2, MEMBER)
    zombie, cluster = opened(broker)
    old = broker.group = Group("group", 2, "member", None)

    def fate(request: Any) -> str | int:
        if type(request).name == "TxnOffsetCommitRequest" and broker.group is old:
            cluster.now += 60
            broker.expire()
            broker.group = MEMBER
            successor.open()
        return "ok"

    successor, _ = opened(broker)
    zombie.open()
    cluster.fate = fate
    with pytest.raises(StaleGenerationError):
        zombie.commit(written(1), {("in", 0): 1}, old)
    successor.commit(written(2), {("in", 0): 1}, MEMBER)
    assert values(broker) == {p: [bytes(written(2)[p].buffer[61:])] for p in range(3)}


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "v1"])
def test_a_zombie_that_is_let_in_again_takes_the_place_of_its_old_epoch(v2: bool) -> None:
    """The transaction expired and so did the membership. Its epoch is good for nothing, by nobody else's doing."""
    broker = BrokerDouble(v2, MEMBER)
    zombie, cluster = opened(broker)
    old = broker.group = Group("group", 2, "member", None)

    def fate(request: Any) -> str | int:
        if type(request).name == "EndTxnRequest" and broker.group is old:
            cluster.now += 60
            broker.expire()
            broker.group = MEMBER
        return "ok"

    cluster.fate = fate
    with pytest.raises(StaleGenerationError):
        zombie.commit(written(1), {("in", 0): 1}, old)
    with pytest.raises(StaleGenerationError):
        zombie.commit(written(1), {("in", 0): 1}, old)
    zombie.commit(written(2), {("in", 0): 1}, MEMBER)
    assert values(broker) == {p: [bytes(written(2)[p].buffer[61:])] for p in range(3)}
    assert zombie.counters.fenced == 0


def test_a_late_request_for_a_new_epoch_fences_ourselves_and_loses_nothing() -> None:
    """v1: the broker fences the open transaction whatever epoch InitProducerId names. A restart, nothing visible."""
    broker = BrokerDouble(False)
    writer, cluster = opened(broker)
    delayed: list[Any] = []

    def fate(request: Any) -> str | int:
        name = type(request).name.removesuffix("Request")
        if name == "AddPartitionsToTxn" and not delayed:
            return "lost"
        if name == "InitProducerId":
            delayed.append(request)
        if name == "TxnOffsetCommit":
            broker.handle(delayed[0])
        return "ok"

    cluster.fate = fate
    with pytest.raises(FencedError):
        writer.commit(written(1), {("in", 0): 1}, MEMBER)
    assert not any(values(broker).values())
    assert not broker.committed


def test_no_outcome_in_time_is_an_error_and_open_settles_it() -> None:
    broker = BrokerDouble(True)
    writer, cluster = opened(broker, lambda request: "lost" if type(request).name == "EndTxnRequest" else "ok")
    with pytest.raises(RetryError, match="no outcome of COMMIT in 3"):
        writer.commit(written(1), {("in", 0): 1}, MEMBER, timeout_ms=3000)
    cluster.fate = lambda _: "ok"
    writer.open()
    assert not broker.open
    assert broker.committed == {}


@pytest.mark.parametrize("fate", [3, "lost", "not sent"])  # 3: unknown topic or partition
@pytest.mark.parametrize("v2", [False, True])
def test_a_missing_topic_is_named_wherever_time_runs_out(v2: bool, fate: str | int) -> None:
    writing = "ProduceRequest" if v2 else "AddPartitionsToTxnRequest"
    writer, cluster = opened(BrokerDouble(v2), lambda request: fate if type(request).name == writing else "lost")
    cluster.absent = {"out"}
    with pytest.raises(InputMissingError, match="output topic 'out' is not there"):
        writer.commit(written(1), {("in", 0): 1}, MEMBER, timeout_ms=3000)


def test_offsets_are_required() -> None:
    writer, _ = opened(BrokerDouble(True))
    with pytest.raises(InvariantError, match="without source offsets"):
        writer.commit(written(1), {}, MEMBER)
