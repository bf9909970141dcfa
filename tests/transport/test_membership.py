"""What kafka-python's consumer does to a member of a group, and ours must not: each seen with the stock client."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from local_kafka import LocalKafka

from streamlstm.errors import FencedError, RetryError, StaleGenerationError
from streamlstm.transport.offsets import committed_offsets
from streamlstm.transport.source import Source
from tests.transport.fault_proxy import Api, Fault, FaultProxy, Harm
from tests.transport.group_members import MIB, gather, group_of, poll, reading
from tests.transport.live import (
    batch,
    connected,
    eventually,
    fresh,
    make_topic,
    no_member,
    produce,
    read_all,
    writing,
)

pytestmark = pytest.mark.kafka

PATIENCE = 60.0


def test_every_member_finds_new_partitions_although_its_polls_are_short(kafka: str, broker: LocalKafka) -> None:
    """A join that begins with a metadata change while `poll()` times out: the stock client never finishes it. One that
    ends between two polls it begins anew, and so does everybody else, thousands of times.
    """
    topic, group, through = make_topic(kafka, 1), fresh("group"), f"127.0.0.1:{broker.proxy_port}"
    admin = AdminClient({"bootstrap.servers": kafka})
    with (
        FaultProxy(broker.proxy_port, broker.proxied_port) as proxy,
        reading(through, topic, group, connection={"metadata_max_age_ms": 200}) as first,
        reading(through, topic, group, connection={"metadata_max_age_ms": 200}) as second,
    ):
        members = (first, second)

        def settled(partitions: int) -> bool:
            for member in members:
                poll(member, 3, MIB)
            owned = [member.assignment() for member in members]
            whole = owned[0] | owned[1] == {(topic, p) for p in range(partitions)}
            return whole and not owned[0] & owned[1] and all(member.is_stable for member in members)

        for partitions in (1, 4, 7):
            if partitions > 1:
                admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(20)
            eventually(lambda: settled(partitions), PATIENCE)  # noqa: B023 - called at once
        assert min(len(member.assignment()) for member in members) == 3
        assert proxy.seen.count(Api.JOIN_GROUP) < 100


def test_a_group_that_never_answers_a_join_is_given_up(kafka: str, broker: LocalKafka) -> None:
    """The stock client stays in it for ever, with polls that return as if there were nothing to read."""
    topic, through = make_topic(kafka, 1), f"127.0.0.1:{broker.proxy_port}"
    with FaultProxy(broker.proxy_port, broker.proxied_port) as proxy:
        proxy.faults = [Fault(Api.JOIN_GROUP, Harm.SWALLOW, times=1000)]
        with (
            reading(through, topic, fresh("group"), rejoin_after_ms=500) as source,
            pytest.raises(RetryError, match="could not be joined in"),
        ):
            gather(source, lambda _: False)
        assert Api.JOIN_GROUP in proxy.seen


Event = tuple[str, str, int]


def watch(member: Source, name: str, events: list[Event]) -> None:
    """One poll; what the member gains and gives up goes into a list that all members share, in the order of events."""
    fetched = poll(member, 20, MIB)
    for what, partitions in (("lost", fetched.lost), ("gave", fetched.revoked), ("got", fetched.assigned)):
        events += [(name, what, partition) for _, partition in sorted(partitions)]


@contextmanager
def watched(member: Source, name: str, events: list[Event]) -> Iterator[None]:
    """Meanwhile the member is polled on a thread of its own."""
    over = threading.Event()
    thread = threading.Thread(target=lambda: [watch(member, name, events) for _ in iter(over.is_set, True)])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def owners(events: list[Event], owned: dict[int, str]) -> dict[int, str]:
    """Who has what at the end; fails where a partition was given to one member while another still had it."""
    found = dict(owned)
    for name, what, partition in events:
        if what == "got":
            assert partition not in found, f"{name} got partition {partition} of {found[partition]}: {events}"
            found[partition] = name
        elif found.get(partition) == name:
            del found[partition]
    return found


def test_a_member_that_was_thrown_out_owns_and_claims_nothing(kafka: str, broker: LocalKafka) -> None:
    """The stock client, when it learns it from a join: goes on reading what another member has by now, is told that it
    was revoked (and so may commit it), and claims it, so that it is taken from its new owner.
    """
    topic, group = make_topic(kafka, 4), fresh("group")
    events: list[Event] = []
    with (
        FaultProxy(broker.proxy_port, broker.proxied_port) as proxy,
        reading(f"127.0.0.1:{broker.proxy_port}", topic, group, session_timeout_ms=1500) as away,
    ):
        eventually(lambda: watch(away, "away", events) or len(events) == 4, PATIENCE)
        proxy.faults = [Fault(Api.JOIN_GROUP, Harm.SWALLOW, times=10_000)]
        with reading(kafka, topic, group) as stays, watched(stays, "stays", events):
            eventually(lambda: watch(away, "away", events) or len(events) == 8, PATIENCE)
            assert {each[:2] for each in events[4:]} == {("stays", "got")}  # the silent member's session is over
            proxy.faults = []
            proxy.cut_all()

            def shared() -> bool:
                watch(away, "away", events)
                owned = owners(events[8:], dict.fromkeys(range(4), "stays"))
                return sorted(owned.values()) == ["away", "away", "stays", "stays"]

            eventually(shared, PATIENCE)
    assert [each for each in events if each[0] == "away"][4:8] == [
        ("away", "lost", partition) for partition in range(4)
    ]
    assert ("away", "gave") not in {each[:2] for each in events}


@pytest.mark.parametrize("harm", [Harm.SWALLOW_REPLY, Harm.CUT_AFTER, Harm.LATE], ids=lambda harm: harm.name.lower())
def test_committed_offsets_after_a_question_without_an_answer(kafka: str, broker: LocalKafka, harm: Harm) -> None:
    """The stock client answers the next question with the old reply."""
    topic, group = make_topic(kafka, 1), fresh("group")
    where = (topic, 0)
    with (
        FaultProxy(broker.proxy_port, broker.proxied_port) as proxy,
        writing(kafka, fresh("tx")) as writer,
        connected(f"127.0.0.1:{broker.proxy_port}", request_timeout_ms=500) as cluster,
    ):
        writer.commit([], {where: 50}, no_member(group))
        assert committed_offsets(cluster, group, [where], cluster.deadline(20_000)) == {where: 50}
        proxy.faults = [Fault(Api.OFFSET_FETCH, harm, times=1000, late_by=0.2)]
        with pytest.raises(RetryError):
            committed_offsets(cluster, group, [where], cluster.deadline(600))
        assert proxy.struck
        proxy.faults = []
        writer.commit([], {where: 60}, no_member(group))
        assert committed_offsets(cluster, group, [where], cluster.deadline(20_000)) == {where: 60}


def test_a_static_member_whose_name_was_taken_commits_nothing(kafka: str) -> None:
    """The stock client tells it nothing: stable, no error, no heartbeats."""
    topic, group = make_topic(kafka, 1), fresh("group")
    produce(kafka, topic, 0, [b"event"])
    with writing(kafka, fresh("tx")) as writer, reading(kafka, topic, group, group_instance_id="one") as zombie:
        gather(zombie, lambda all_: all_.positions)
        believed = group_of(zombie)  # until a heartbeat of its own is answered
        with reading(kafka, topic, group, group_instance_id="one") as owner:
            gather(owner, lambda all_: all_.positions)
            with pytest.raises((FencedError, StaleGenerationError)):
                writer.commit([batch(topic, 0, [b"zombie"])], {(topic, 0): 1}, believed)
            with pytest.raises(FencedError, match="another process is 'one'"):
                gather(zombie, lambda _: False)
    with connected(kafka) as cluster:
        assert committed_offsets(cluster, group, [(topic, 0)], cluster.deadline(20_000)) == {(topic, 0): None}
    assert read_all(kafka, topic)[0] == [b"event"]
