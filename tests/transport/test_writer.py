"""The writer against a real broker, in both transaction protocols."""

import threading
import time
from collections.abc import Iterator

import pytest
from local_kafka import LocalKafka

from streamlstm.errors import (
    BatchRefusedError,
    ConfigError,
    FencedError,
    InputMissingError,
    InvariantError,
    RetryError,
    StaleGenerationError,
)
from streamlstm.transport.group import Group
from streamlstm.transport.offsets import committed_offsets
from streamlstm.transport.outcomes import Protocol
from tests.transport.fault_proxy import Api, Fault, FaultProxy, Harm
from tests.transport.live import batch, connected, eventually, fresh, make_topic, no_member, read_all, writing

pytestmark = pytest.mark.kafka


@pytest.fixture(params=[Protocol.V2, Protocol.V1], ids=["v2", "v1"])
def running(request: pytest.FixtureRequest) -> LocalKafka:
    """A broker that makes the writer speak the protocol."""
    chosen: LocalKafka = request.getfixturevalue("broker" if request.param is Protocol.V2 else "broker_v1")
    return chosen


@pytest.fixture
def proxy(running: LocalKafka) -> Iterator[FaultProxy]:
    with FaultProxy(running.proxy_port, running.proxied_port) as between:
        yield between


def committed(running: LocalKafka, group: str, topic: str, partitions: int) -> list[int | None]:
    with connected(running.bootstrap) as cluster:
        found = committed_offsets(cluster, group, [(topic, p) for p in range(partitions)], cluster.deadline(20_000))
    return [found[topic, partition] for partition in range(partitions)]


def test_transactions_and_offsets(running: LocalKafka) -> None:
    topic, group = make_topic(running.bootstrap), fresh("group")
    with writing(running.bootstrap, fresh("tx")) as writer:
        assert writer.protocol is (Protocol.V1 if running.transaction_version == 1 else Protocol.V2)
        for turn in range(5):
            batches = [batch(topic, p, [b"%d.%d.%d" % (turn, p, i) for i in range(10)]) for p in range(4)]
            outcome = writer.commit(batches, {(topic, p): 10 * turn + 10 for p in range(4)}, no_member(group))
            assert outcome.attempts == 1
        assert (writer.counters.committed, writer.counters.aborted, writer.counters.batches) == (5, 0, 20)
    expected = {p: [b"%d.%d.%d" % (turn, p, i) for turn in range(5) for i in range(10)] for p in range(4)}
    assert read_all(running.bootstrap, topic) == expected
    assert committed(running, group, topic, 4) == [50] * 4


def test_several_batches_of_a_partition_keep_their_order(running: LocalKafka) -> None:
    topic = make_topic(running.bootstrap, 2)
    values = [[b"%d-%d" % (n, i) for i in range(3)] for n in range(7)]
    with writing(running.bootstrap, fresh("tx"), max_request_bytes=1) as writer:
        for turn in (1, 2):
            batches = [batch(topic, p, each, "lz4") for each in values for p in range(2)]
            writer.commit(batches, {(topic, 0): turn}, no_member(fresh("group")))
    flat = [value for each in values for value in each] * 2
    assert read_all(running.bootstrap, topic) == {0: flat, 1: flat}


def test_offsets_alone(running: LocalKafka) -> None:
    topic, group = make_topic(running.bootstrap, 1), fresh("group")
    with writing(running.bootstrap, fresh("tx")) as writer:
        writer.commit([], {(topic, 0): 12}, no_member(group))
        writer.commit([], {(topic, 0): 13}, no_member(group))
    assert committed(running, group, topic, 1) == [13]


def test_a_generation_that_is_over_commits_nothing(running: LocalKafka) -> None:
    topic, group = make_topic(running.bootstrap), fresh("group")
    with writing(running.bootstrap, fresh("tx")) as writer:
        with pytest.raises(StaleGenerationError, match="has moved on"):
            writer.commit([batch(topic, 0, [b"stale"])], {(topic, 0): 9}, Group(group, 7, "nobody", None))
        assert writer.counters.aborted == 1
        writer.commit([batch(topic, 0, [b"fresh"])], {(topic, 0): 5}, no_member(group))
    assert read_all(running.bootstrap, topic)[0] == [b"fresh"]
    assert committed(running, group, topic, 1) == [5]


def test_a_batch_over_the_topics_limit(running: LocalKafka) -> None:
    topic = make_topic(running.bootstrap, 2, {"max.message.bytes": "2000"})
    small, large = batch(topic, 0, [b"small"]), batch(topic, 1, [bytes(3000)])
    with writing(running.bootstrap, fresh("tx")) as writer:
        with pytest.raises(BatchRefusedError, match=r"Too ?Large") as refused:
            writer.commit([small, large], {(topic, 0): 1}, no_member(fresh("group")))
        assert (refused.value.index, refused.value.reason) == (1, "too_large")
        writer.commit([small], {(topic, 0): 1}, no_member(fresh("group")))
    assert read_all(running.bootstrap, topic) == {0: [b"small"], 1: []}


def test_a_time_that_the_broker_refuses(running: LocalKafka) -> None:
    topic = make_topic(running.bootstrap, 1, {"message.timestamp.after.max.ms": "1000"})
    future = batch(topic, 0, [b"future"])
    future.buffer[27:43] = (4_000_000_000_000).to_bytes(8, "big") * 2
    with writing(running.bootstrap, fresh("tx")) as writer:
        with pytest.raises(BatchRefusedError) as refused:
            writer.commit([future], {(topic, 0): 1}, no_member(fresh("group")))
        assert (refused.value.index, refused.value.reason, refused.value.records) == (0, "invalid_timestamp", (0,))


def test_a_zombie_is_fenced(running: LocalKafka) -> None:
    topic, identity = make_topic(running.bootstrap), fresh("tx")
    with writing(running.bootstrap, identity) as zombie, writing(running.bootstrap, identity) as owner:
        owner.commit([batch(topic, 0, [b"owner"])], {(topic, 0): 1}, no_member(fresh("group")))
        with pytest.raises(FencedError):
            zombie.commit([batch(topic, 0, [b"zombie"])], {(topic, 0): 2}, no_member(fresh("group")))
        assert zombie.counters.fenced == 1
        with pytest.raises(InvariantError):
            zombie.commit([batch(topic, 0, [b"zombie"])], {(topic, 0): 2}, no_member(fresh("group")))
        owner.commit([batch(topic, 0, [b"again"])], {(topic, 0): 2}, no_member(fresh("group")))
    assert read_all(running.bootstrap, topic)[0] == [b"owner", b"again"]


def test_opening_again_ends_what_a_dead_process_left_open(running: LocalKafka, proxy: FaultProxy) -> None:
    """The dead one got as far as its offsets; its partitions are free at once, not after the transaction time-out."""
    topic, group, identity = make_topic(running.bootstrap), fresh("group"), fresh("tx")
    with writing(running.bootstrap, identity) as first:
        first.commit([batch(topic, 0, [b"one"])], {(topic, 0): 1}, no_member(group))
    proxy.faults = [Fault(Api.END_TXN, Harm.SWALLOW, times=99)]
    through = f"127.0.0.1:{running.proxy_port}"
    with (
        writing(
            through, identity, request_timeout_ms=300, commit_timeout_ms=600, transaction_timeout_ms=60_000
        ) as dead,
        pytest.raises(RetryError, match=r"no outcome of (COMMIT|ABORT)"),
    ):
        dead.commit([batch(topic, 0, [b"half"])], {(topic, 0): 2}, no_member(group))
    proxy.faults = []
    began = time.monotonic()
    with writing(running.bootstrap, identity) as second:
        assert committed(running, group, topic, 1) == [1]
        second.commit([batch(topic, 0, [b"two"])], {(topic, 0): 2}, no_member(group))
    assert time.monotonic() - began < 10
    assert read_all(running.bootstrap, topic)[0] == [b"one", b"two"]


WRITES = [Api.PRODUCE, Api.TXN_OFFSET_COMMIT, Api.END_TXN]


@pytest.mark.parametrize("harm", list(Harm), ids=lambda harm: harm.name.lower())
@pytest.mark.parametrize("api", [*WRITES, Api.ADD_PARTITIONS, Api.ADD_OFFSETS], ids=lambda api: api.name.lower())
def test_each_request_harmed(running: LocalKafka, proxy: FaultProxy, api: Api, harm: Harm) -> None:
    """Whatever happens to a request: every transaction is there once, in order, and the offsets say so."""
    sent = api in WRITES or running.transaction_version == 1  # v2 announces neither partitions nor the group
    topic, group = make_topic(running.bootstrap, 2), fresh("group")
    proxy.faults = [Fault(api, harm, skip=1)]
    through = f"127.0.0.1:{running.proxy_port}"
    with writing(through, fresh("tx"), request_timeout_ms=400, commit_timeout_ms=30_000) as writer:
        for turn in range(4):
            batches = [batch(topic, p, [b"%d.%d" % (turn, i) for i in range(3)]) for p in range(2)]
            writer.commit(batches, {(topic, p): turn + 1 for p in range(2)}, no_member(group))
    assert len(proxy.struck) == (1 if sent else 0)
    time.sleep(0.6 if harm is Harm.LATE else 0)  # for what is late to arrive
    expected = [b"%d.%d" % (turn, i) for turn in range(4) for i in range(3)]
    assert read_all(running.bootstrap, topic) == {0: expected, 1: expected}
    assert committed(running, group, topic, 2) == [4, 4]


def test_connections_cut_at_random_moments(running: LocalKafka, proxy: FaultProxy) -> None:
    topic, group = make_topic(running.bootstrap, 2), fresh("group")
    through, over = f"127.0.0.1:{running.proxy_port}", threading.Event()

    def cut() -> None:
        while not over.wait(0.13):
            proxy.cut_all()

    cutter = threading.Thread(target=cut)
    with writing(through, fresh("tx"), request_timeout_ms=1000, commit_timeout_ms=30_000) as writer:
        cutter.start()
        try:
            for turn in range(60):
                batches = [batch(topic, p, [b"%d" % turn]) for p in range(2)]
                writer.commit(batches, {(topic, p): turn + 1 for p in range(2)}, no_member(group))
        finally:
            over.set()
            cutter.join()
    expected = [b"%d" % turn for turn in range(60)]
    assert read_all(running.bootstrap, topic) == {0: expected, 1: expected}


def test_a_transaction_that_the_broker_aborted_for_its_age(running: LocalKafka, proxy: FaultProxy) -> None:
    """Brokers away for longer than the transaction time-out: sent again in a new epoch, not taken for fenced."""
    topic, group = make_topic(running.bootstrap, 1), fresh("group")
    through = f"127.0.0.1:{running.proxy_port}"
    settings = {"request_timeout_ms": 300, "transaction_timeout_ms": 1000, "commit_timeout_ms": 60_000}
    with writing(through, fresh("tx"), **settings) as writer:
        writer.commit([batch(topic, 0, [b"one"])], {(topic, 0): 1}, no_member(group))
        proxy.faults = [Fault(Api.END_TXN, Harm.CUT_BEFORE, times=10_000)]
        lift = threading.Timer(5.0, proxy.faults.clear)
        lift.start()
        outcome = writer.commit([batch(topic, 0, [b"two"])], {(topic, 0): 2}, no_member(group))
        lift.join()
        assert outcome.attempts > 1
    assert read_all(running.bootstrap, topic)[0] == [b"one", b"two"]
    assert committed(running, group, topic, 1) == [2]


def test_a_topic_that_is_not_there(running: LocalKafka) -> None:
    topic = make_topic(running.bootstrap, 1)
    with writing(running.bootstrap, fresh("tx")) as writer, pytest.raises(InputMissingError, match="is not there"):
        writer.commit([batch(fresh("none"), 0, [b"x"])], {(topic, 0): 1}, no_member(fresh("group")), timeout_ms=1500)


def test_a_transaction_timeout_over_the_brokers_limit(running: LocalKafka) -> None:
    with (
        pytest.raises(ConfigError, match=r"commit\.transaction_timeout_ms: 2000000 is over"),
        writing(running.bootstrap, fresh("tx"), transaction_timeout_ms=2_000_000),
    ):
        pass


def test_v2_is_refused_where_the_cluster_has_not_got_it(broker_v1: LocalKafka) -> None:
    with (
        pytest.raises(ConfigError, match=r"v2 needs transaction\.version 2"),
        writing(broker_v1.bootstrap, fresh("tx"), protocol="v2"),
    ):
        pass


def test_v1_can_be_had_on_a_cluster_with_v2(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    with writing(kafka, fresh("tx"), protocol="v1") as writer:
        for turn in (1, 2, 3):
            writer.commit([batch(topic, 0, [b"%d" % turn])], {(topic, 0): turn}, no_member(fresh("group")))
    assert read_all(kafka, topic)[0] == [b"1", b"2", b"3"]


def test_a_broker_restarted_between_and_during_transactions(own_broker: LocalKafka) -> None:
    topic, group = make_topic(own_broker.bootstrap, 2), fresh("group")
    through = f"127.0.0.1:{own_broker.proxy_port}"
    done: list[int] = []

    def write() -> None:
        settings = {"request_timeout_ms": 1000, "commit_timeout_ms": 60_000, "transaction_timeout_ms": 3000}
        with writing(through, fresh("tx"), **settings) as writer:
            for turn in range(400):
                batches = [batch(topic, p, [b"%d" % turn]) for p in range(2)]
                writer.commit(batches, {(topic, p): turn + 1 for p in range(2)}, no_member(group))
                done.append(turn)

    with FaultProxy(own_broker.proxy_port, own_broker.proxied_port):
        worker = threading.Thread(target=write)
        worker.start()
        eventually(lambda: len(done) > 50)
        own_broker.kill()
        own_broker.start()
        eventually(lambda: len(done) > 150, 60)
        own_broker.stop()
        own_broker.start()
        worker.join(120)
    assert len(done) == 400
    expected = [b"%d" % turn for turn in range(400)]
    assert read_all(own_broker.bootstrap, topic) == {0: expected, 1: expected}
    assert committed(own_broker, group, topic, 2) == [400, 400]
