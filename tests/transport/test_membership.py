"""What kafka-python's consumer does to a member of a group, and ours must not: each seen with the stock client."""

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from local_kafka import LocalKafka

from streamlstm.errors import FencedError, RetryError, StaleGenerationError
from streamlstm.transport.offsets import committed_offsets
from tests.transport.fault_proxy import Api, Fault, FaultProxy, Harm
from tests.transport.group_members import MIB, gather, poll, reading
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


def test_every_member_finds_new_partitions_although_its_polls_are_short(kafka: str) -> None:
    """A join that begins with a metadata change while `poll()` times out: the stock client never finishes it."""
    topic, group = make_topic(kafka, 1), fresh("group")
    admin = AdminClient({"bootstrap.servers": kafka})
    with (
        reading(kafka, topic, group, connection={"metadata_max_age_ms": 200}) as first,
        reading(kafka, topic, group, connection={"metadata_max_age_ms": 200}) as second,
    ):
        members = (first, second)

        def settled(partitions: int) -> bool:
            for member in members:
                poll(member, 3, MIB)
            owned = [member.assignment() for member in members]
            whole = owned[0] | owned[1] == {(topic, p) for p in range(partitions)}
            return whole and not owned[0] & owned[1] and all(member.group().stable for member in members)

        for partitions in (1, 4, 7):
            if partitions > 1:
                admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(20)
            eventually(lambda: settled(partitions), PATIENCE)  # noqa: B023 - called at once
        assert min(len(member.assignment()) for member in members) == 3


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
        with reading(kafka, topic, group, group_instance_id="one") as owner:
            gather(owner, lambda all_: all_.positions)
            assert zombie.group().stable  # or so it believes
            with pytest.raises((FencedError, StaleGenerationError)):
                writer.commit([batch(topic, 0, [b"zombie"])], {(topic, 0): 1}, zombie.group())
            with pytest.raises(FencedError, match="another process is 'one'"):
                gather(zombie, lambda _: False)
    with connected(kafka) as cluster:
        assert committed_offsets(cluster, group, [(topic, 0)], cluster.deadline(20_000)) == {(topic, 0): None}
    assert read_all(kafka, topic)[0] == [b"event"]
