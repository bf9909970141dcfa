"""A cluster of three brokers, each of which goes away without notice while somebody depends on it."""

import threading
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient
from local_kafka import LocalKafka

from streamlstm.transport.cluster import Cluster, CoordinatorKind
from streamlstm.transport.fetched import FetchedBatch
from streamlstm.transport.log_reader import LogReader, records
from streamlstm.transport.offsets import committed_offsets
from tests.transport.live import batch, connected, eventually, fresh, make_topic, no_member, read_all, writing

pytestmark = pytest.mark.kafka

BROKERS = (1, 2, 3)
PATIENCE = 60.0  # seconds for the cluster to notice, elect and recover, on a loaded machine
SETTINGS = {"request_timeout_ms": 2000, "transaction_timeout_ms": 10_000, "commit_timeout_ms": 120_000}


@pytest.fixture
def three(three_brokers: LocalKafka) -> Iterator[LocalKafka]:
    """The cluster, whole again afterwards."""
    yield three_brokers
    for number in BROKERS:
        three_brokers.revive(number)


def await_replicas(bootstrap: str, *topics: str) -> None:
    """Until every partition has all its replicas again."""
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def whole() -> bool:
        found = admin.list_topics(timeout=20).topics
        names = (*topics, "__consumer_offsets", "__transaction_state")
        return all(
            len(part.isrs) == len(BROKERS)
            for name in names
            if name in found
            for part in found[name].partitions.values()
        )

    eventually(whole, PATIENCE)


def test_a_leader_is_killed_and_writer_and_reader_go_on(three: LocalKafka) -> None:
    topic = make_topic(three.bootstrap, 1)
    with (
        connected(three.bootstrap, request_timeout_ms=2000) as cluster,
        writing(three.bootstrap, fresh("tx"), **SETTINGS) as writer,
    ):
        reader = LogReader(cluster, topic, 0, 0)
        seen: list[bytes | None] = []
        for turn in range(4):
            writer.commit([batch(topic, 0, [b"%d" % turn])], {(topic, 0): turn + 1}, no_member(fresh("group")))
            while reader.position < 2 * turn + 2:  # a record and the end of its transaction
                found = reader.read(PATIENCE)
                seen += [value for each in found if isinstance(each, FetchedBatch) for *_, value, _ in records(each)]
            if turn == 1:
                three.kill(cluster.leader(topic, 0))
    assert seen == [b"0", b"1", b"2", b"3"]
    assert read_all(three.bootstrap, topic) == {0: seen}


def test_everyone_that_a_transaction_needs_is_killed_in_turn(three: LocalKafka) -> None:
    """Leader, group coordinator, transaction coordinator: what a reader sees is there once, in order."""
    topic, group, identity = make_topic(three.bootstrap, 3), fresh("group"), fresh("tx")
    done: list[int] = []
    over = threading.Event()

    def write() -> None:
        with writing(three.bootstrap, identity, **SETTINGS) as writer:
            while not over.is_set():
                turn = len(done)
                batches = [batch(topic, p, [b"%d.%d" % (turn, i) for i in range(3)]) for p in range(3)]
                writer.commit(batches, {(topic, p): turn + 1 for p in range(3)}, no_member(group))
                done.append(turn)

    def progress(turns: int) -> None:
        target = len(done) + turns
        eventually(lambda: len(done) >= target or not worker.is_alive(), PATIENCE)
        assert worker.is_alive()

    worker = threading.Thread(target=write)
    worker.start()
    try:
        progress(20)
        for role in ("leader", "group", "transaction"):
            with connected(three.bootstrap) as cluster:
                victim = whoever(cluster, role, topic, group, identity)
            three.kill(victim)
            progress(20)
            three.start(victim)
            await_replicas(three.bootstrap, topic)
            progress(20)
    finally:
        over.set()
        worker.join(PATIENCE)
    expected = [b"%d.%d" % (turn, i) for turn in done for i in range(3)]
    assert read_all(three.bootstrap, topic) == dict.fromkeys(range(3), expected)
    with connected(three.bootstrap) as cluster:
        found = committed_offsets(cluster, group, [(topic, p) for p in range(3)], cluster.deadline(20_000))
    assert set(found.values()) == {len(done)}


def whoever(cluster: Cluster, role: str, topic: str, group: str, identity: str) -> int:
    """The number of the broker that has the role."""
    deadline = cluster.deadline(20_000)
    cluster.watch([topic], deadline)
    questions = {
        "leader": lambda: cluster.leader(topic, 0),
        "group": lambda: cluster.coordinator(CoordinatorKind.GROUP, group, deadline),
        "transaction": lambda: cluster.coordinator(CoordinatorKind.TRANSACTION, identity, deadline),
    }
    found = cluster.ask(questions[role], deadline, f"who is {role}")
    assert found in BROKERS
    return int(found)
