"""What kafka-python's consumer does to a member of a group, and ours must not: each seen with the stock client."""

import pytest
from local_kafka import LocalKafka

from streamlstm.errors import FencedError, RetryError, StaleGenerationError
from streamlstm.transport.offsets import committed_offsets
from tests.transport.fault_proxy import Api, Fault, FaultProxy, Harm
from tests.transport.group_members import gather, reading
from tests.transport.live import (
    batch,
    connected,
    fresh,
    make_topic,
    no_member,
    produce,
    read_all,
    writing,
)

pytestmark = pytest.mark.kafka

PATIENCE = 60.0


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
