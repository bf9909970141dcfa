"""The source against a real broker."""

import threading
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from local_kafka import LocalKafka

from streamlstm.errors import ConfigError, FencedError, StaleGenerationError
from streamlstm.transport.fetched import FetchedBatch, FetchedRun, PoisonBatch
from streamlstm.transport.offsets import committed_offsets
from streamlstm.transport.settings import SourceSettings
from streamlstm.transport.source import Fetched, Source
from tests.transport.fault_proxy import Api, Fault, FaultProxy, Harm
from tests.transport.group_members import MIB, gather, group_of, poll, reading, records, text
from tests.transport.live import (
    batch,
    connected,
    eventually,
    fresh,
    make_topic,
    produce,
    read_all,
    transact,
    writing,
)

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_batches_of_every_codec(kafka: str, codec: str) -> None:
    topic = make_topic(kafka, 2)
    for partition in range(2):
        values = [b"value-%d-%d" % (partition, i) for i in range(500)]
        produce(kafka, topic, partition, values, **{"compression.type": codec})
    with reading(kafka, topic, fresh("group")) as source:
        whole = gather(source, lambda all_: records(all_) == 1000)
        assert whole.assigned == {(topic, 0): 0, (topic, 1): 0}
        assert whole.positions == {(topic, 0): 500, (topic, 1): 500}
        assert source.assignment() == {(topic, 0), (topic, 1)}
        eventually(lambda: poll(source, 20, MIB) is not None and source.is_stable)
    for partition in range(2):
        for i in range(500):
            assert b"value-%d-%d" % (partition, i) in text(whole)


def test_aborted_transactions_are_skipped_and_their_offsets_counted(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    transact(kafka, topic, 0, [b"keep-1", b"keep-2"], commit=True)
    transact(kafka, topic, 0, [b"drop-1", b"drop-2"], commit=False)
    produce(kafka, topic, 0, [b"keep-3"])
    transact(kafka, topic, 0, [b"drop-3"], commit=False)
    with reading(kafka, topic, fresh("group")) as source:
        whole = gather(source, lambda all_: all_.positions.get((topic, 0)) == 9)
    assert records(whole) == 3
    assert b"drop" not in text(whole)


def test_the_end_is_the_last_stable_offset(kafka: str) -> None:
    """Records of a transaction that is still open aren't to be read: they are no lag."""
    topic = make_topic(kafka, 1)
    produce(kafka, topic, 0, [b"a", b"b"])
    writer = Producer({"bootstrap.servers": kafka, "transactional.id": fresh("open")})
    writer.init_transactions()
    writer.begin_transaction()
    writer.produce(topic, b"c", partition=0)
    writer.flush()
    with reading(kafka, topic, fresh("group")) as source:
        gather(source, lambda all_: all_.positions.get((topic, 0)) == 2)
        assert source.ends() == {(topic, 0): 2}
        writer.commit_transaction()
        gather(source, lambda all_: all_.positions.get((topic, 0)) == 4)
        eventually(lambda: poll(source, 20, MIB) is not None and source.ends() == {(topic, 0): 4})


def test_where_a_group_begins(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    began = int(time.time() * 1000)
    produce(kafka, topic, 0, [b"a", b"b"])
    time.sleep(0.05)
    middle = int(time.time() * 1000)
    produce(kafka, topic, 0, [b"c"])
    for settings, offset in (
        ({"start": "earliest"}, 0),
        ({"start": "latest"}, 3),
        ({"start": "timestamp", "start_timestamp_ms": began}, 0),
        ({"start": "timestamp", "start_timestamp_ms": middle}, 2),
        ({"start": "timestamp", "start_timestamp_ms": began + 10**9}, 3),
    ):
        with reading(kafka, topic, fresh("group"), **settings) as source:
            assert gather(source, lambda all_: all_.assigned).assigned == {(topic, 0): offset}


def test_a_group_goes_on_in_the_middle_of_a_batch(kafka: str) -> None:
    topic, group = make_topic(kafka, 1), fresh("group")
    with writing(kafka, fresh("tx")) as writer:
        with reading(kafka, topic, group) as source:
            gather(source, lambda all_: all_.assigned)
            writer.commit([batch(topic, 0, [b"v%d" % i for i in range(10)])], {(topic, 0): 4}, source.group())
        with reading(kafka, topic, group) as source:
            whole = gather(source, lambda all_: all_.positions.get((topic, 0)) == 11)
    assert whole.assigned == {(topic, 0): 4}
    (only,) = [each for each in whole.batches if isinstance(each, FetchedBatch)]
    assert (only.base_offset, only.min_offset, only.last_offset) == (0, 4, 9)


def test_a_poll_is_bounded_in_bytes_and_fair(kafka: str) -> None:
    topic = make_topic(kafka, 3)
    for partition in range(3):
        produce(kafka, topic, partition, [bytes(50_000)] * 20, **{"batch.num.messages": 1})
    with reading(kafka, topic, fresh("group"), max_partition_fetch_bytes=200_000) as source:
        polled, seen = 0, []
        while polled < 60:
            fetched = poll(source, 1000, 120_000)
            batches = [each for each in fetched.batches if isinstance(each, FetchedBatch)]
            runs = [each for each in fetched.batches if isinstance(each, FetchedRun)]
            batches += [each for run in runs for each in run.batches()]
            assert sum(len(each.records) for each in batches) < 120_000 + 200_000
            polled += len(batches)
            seen += [each.partition for each in batches]
    assert set(seen[:20]) == {0, 1, 2}


def test_a_source_on_hold_brings_nothing_and_loses_nothing(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    with reading(kafka, topic, fresh("group")) as source:
        gather(source, lambda all_: all_.assigned)
        source.hold(True)
        produce(kafka, topic, 0, [b"held"])
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert not poll(source, 50, MIB).batches
        source.hold(False)
        assert b"held" in text(gather(source, lambda all_: records(all_) == 1))


def test_a_corrupt_batch_is_stepped_past(kafka: str, broker: LocalKafka) -> None:
    topic = make_topic(kafka, 1)
    for n in range(3):
        produce(kafka, topic, 0, [b"batch%d-record%d" % (n, i) for i in range(5)])
    with FaultProxy(broker.proxy_port, broker.proxied_port) as proxy:
        proxy.mangle = lambda frame: frame.replace(b"batch1-record3", b"batch1-recorD3")
        with reading(f"127.0.0.1:{broker.proxy_port}", topic, fresh("group")) as source:
            whole = gather(source, lambda all_: all_.positions.get((topic, 0)) == 15)
    found = [(type(each).__name__, each.base_offset, each.last_offset) for each in whole.batches]
    assert found == [("FetchedBatch", 0, 4), ("PoisonBatch", 5, 9), ("FetchedBatch", 10, 14)]
    assert isinstance(whole.batches[1], PoisonBatch)
    assert whole.batches[1].reason == "corrupt_batch"


def test_a_batch_corrupt_on_disk(own_broker: LocalKafka) -> None:
    topic = make_topic(own_broker.bootstrap, 1)
    for n in range(3):
        produce(own_broker.bootstrap, topic, 0, [b"batch%d-record%d" % (n, i) for i in range(5)])
    own_broker.stop()
    (segment,) = own_broker.folder.glob(f"data/{topic}-0/*.log")
    log = bytearray(segment.read_bytes())
    log[log.index(b"batch1-record3")] ^= 1
    segment.write_bytes(log)
    own_broker.start()
    with reading(own_broker.bootstrap, topic, fresh("group")) as source:
        whole = gather(source, lambda all_: all_.positions.get((topic, 0)) == 15)
    found = [(type(each).__name__, each.base_offset, each.last_offset) for each in whole.batches]
    assert found == [("FetchedBatch", 0, 4), ("PoisonBatch", 5, 9), ("FetchedBatch", 10, 14)]


def test_a_gap_is_told_and_seek_goes_on(kafka: str) -> None:
    topic, group = make_topic(kafka, 2), fresh("group")
    produce(kafka, topic, 0, [b"a"] * 10)
    produce(kafka, topic, 1, [b"b"] * 10)
    with writing(kafka, fresh("tx")) as writer, reading(kafka, topic, group) as source:
        gather(source, lambda all_: all_.assigned)
        writer.commit([], {(topic, 0): 3}, source.group())
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_records([TopicPartition(topic, 0, 7)]).values():
        future.result(10)
    with reading(kafka, topic, group) as source:
        whole = gather(source, lambda all_: all_.gaps and records(all_) == 10)
        (gap,) = whole.gaps
        assert (gap.partition, gap.wanted, gap.first, gap.end) == (0, 3, 7, 10)
        source.seek((topic, 0), gap.first)
        rest = gather(source, lambda all_: all_.positions.get((topic, 0)) == 10)
    assert records(rest) == 3


def test_the_partitions_of_a_second_member(kafka: str) -> None:
    """Revoked partitions can still be committed before the next poll; the newcomer begins right there."""
    topic, group = make_topic(kafka, 4), fresh("group")
    for partition in range(4):
        produce(kafka, topic, partition, [b"x"] * 5)
    with writing(kafka, fresh("tx")) as writer, reading(kafka, topic, group) as first:
        whole = gather(first, lambda all_: records(all_) == 20)
        assert set(whole.assigned) == {(topic, p) for p in range(4)}
        with reading(kafka, topic, group) as second:
            taken: dict[str, Fetched] = {}
            joining = threading.Thread(
                target=lambda: taken.update(second=gather(second, lambda all_: len(all_.assigned) == 2))
            )
            joining.start()
            change = gather(first, lambda all_: all_.revoked)
            assert len(change.revoked) == 2
            writer.commit([], dict.fromkeys(change.revoked, 5), first.group())
            eventually(lambda: poll(first, 50, MIB) is not None and not joining.is_alive())
            assert taken["second"].assigned == dict.fromkeys(change.revoked, 5)
            assert first.assignment() | second.assignment() == {(topic, p) for p in range(4)}
            assert not first.assignment() & second.assignment()
        back = gather(first, lambda all_: len(all_.assigned) == 2)
        assert back.assigned == dict.fromkeys(change.revoked, 5)
        assert not back.lost


def test_partitions_are_read_and_committed_while_the_group_waits_for_a_member(kafka: str) -> None:
    """A newcomer joins while a member doesn't poll: the stock client reads nothing until that one has come too."""
    topic, group = make_topic(kafka, 4), fresh("group")
    with (
        writing(kafka, fresh("tx")) as writer,
        reading(kafka, topic, group) as busy,
        reading(kafka, topic, group) as idle,
    ):
        both = (busy, idle)

        def settled() -> bool:
            for member in both:
                poll(member, 20, MIB)
            return all(member.is_stable and len(member.assignment()) == 2 for member in both)

        eventually(settled)
        before, owned = group_of(busy), busy.assignment()
        with reading(kafka, topic, group) as newcomer:
            over = threading.Event()
            joining = threading.Thread(target=lambda: [poll(newcomer, 50, MIB) for _ in iter(over.is_set, True)])
            joining.start()
            eventually(lambda: poll(busy, 20, MIB) is not None and not busy.is_stable)
            for round_ in range(1, 4):
                for _, partition in sorted(owned):
                    produce(kafka, topic, partition, [b"x"])
                fetched = gather(busy, lambda all_: records(all_) == 2)
                assert fetched.positions == dict.fromkeys(owned, round_)
                assert not busy.is_stable
                assert busy.group() == before
                writer.commit([], fetched.positions, before)
            eventually(lambda: [poll(each, 20, MIB) for each in both] and newcomer.assignment())
            over.set()
            joining.join()
        with pytest.raises(StaleGenerationError):
            writer.commit([], dict.fromkeys(owned, 0), before)
    with connected(kafka) as cluster:
        assert committed_offsets(cluster, group, sorted(owned), cluster.deadline(20_000)) == dict.fromkeys(owned, 3)


def test_an_old_generation_is_refused_after_a_rebalance(kafka: str) -> None:
    topic, group = make_topic(kafka, 2), fresh("group")
    with writing(kafka, fresh("tx")) as writer, reading(kafka, topic, group) as first:
        gather(first, lambda all_: all_.assigned)
        old = group_of(first)
        with reading(kafka, topic, group) as second:
            over = threading.Event()
            joining = threading.Thread(target=lambda: [poll(second, 50, MIB) for _ in iter(over.is_set, True)])
            joining.start()
            gather(first, lambda all_: all_.revoked)
            with pytest.raises(StaleGenerationError):
                writer.commit([batch(topic, 0, [b"zombie"])], {(topic, 0): 1}, old)
            writer.commit([batch(topic, 0, [b"alive"])], {(topic, 0): 1}, group_of(first))
            over.set()
            joining.join()
    assert read_all(kafka, topic)[0] == [b"alive"]


def test_new_partitions_of_the_topic_are_found(kafka: str) -> None:
    """A join that begins with a metadata change while polls are short: stock kafka-python never finishes it."""
    topic = make_topic(kafka, 1)
    with connected(kafka, metadata_max_age_ms=300) as cluster:
        source = Source(cluster, SourceSettings((topic,), fresh("group"), session_timeout_ms=6000))
        try:
            gather(source, lambda all_: all_.assigned)
            admin = AdminClient({"bootstrap.servers": kafka})
            admin.create_partitions([NewPartitions(topic, 3)])[topic].result(10)
            deadline = time.monotonic() + 60
            while len(source.assignment()) < 3:
                assert time.monotonic() < deadline
                poll(source, 5, MIB)
        finally:
            source.close()


def test_a_static_member_restarts_without_a_rebalance(kafka: str) -> None:
    topic, group = make_topic(kafka, 2), fresh("group")
    generations = []
    for _ in range(2):
        with reading(kafka, topic, group, group_instance_id="one") as source:
            gather(source, lambda all_: len(all_.assigned) == 2)
            generations.append(source.group().generation_id)
            assert source.group().instance_id == "one"
    assert generations[0] == generations[1]


def test_a_static_member_whose_name_was_taken_hears_of_it(kafka: str) -> None:
    topic, group = make_topic(kafka, 2), fresh("group")
    with reading(kafka, topic, group, group_instance_id="one") as zombie:
        gather(zombie, lambda all_: all_.assigned)
        with reading(kafka, topic, group, group_instance_id="one") as owner:
            gather(owner, lambda all_: all_.assigned)
            with pytest.raises(FencedError, match="another process is 'one'"):
                gather(zombie, lambda _: False)


def test_partitions_are_lost_when_the_session_ends(kafka: str, broker: LocalKafka) -> None:
    """The member comes back, claims nothing of what it lost, and is given it anew."""
    topic, through = make_topic(kafka, 2), f"127.0.0.1:{broker.proxy_port}"
    produce(kafka, topic, 0, [b"x"] * 3)
    with (
        FaultProxy(broker.proxy_port, broker.proxied_port) as proxy,
        reading(through, topic, fresh("group"), session_timeout_ms=1500) as source,
    ):
        gather(source, lambda all_: len(all_.assigned) == 2 and records(all_) == 3)
        proxy.faults = [Fault(Api.HEARTBEAT, Harm.SWALLOW, times=1000)]
        eventually(lambda: poll(source, 20, MIB) is not None and source.heartbeat_age() > 2.0)
        proxy.faults = []
        proxy.cut_all()
        whole = gather(source, lambda all_: all_.lost and len(all_.assigned) == 2)
    assert whole.lost == {(topic, 0), (topic, 1)}
    assert not whole.revoked
    assert whole.assigned == {(topic, 0): 0, (topic, 1): 0}


def test_a_group_that_assigns_in_another_way(kafka: str) -> None:
    topic, group = make_topic(kafka, 1), fresh("group")
    other = Consumer({"bootstrap.servers": kafka, "group.id": group, "partition.assignment.strategy": "range"})
    other.subscribe([topic])
    eventually(lambda: other.consume(1, 0.1) == [] and other.assignment())
    with (
        reading(kafka, topic, group) as source,
        pytest.raises(ConfigError, match=r"kafka\.group_id.*InconsistentGroup"),
    ):
        gather(source, lambda _: False)
    other.close()


def test_a_session_timeout_that_the_broker_refuses(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    refused = pytest.raises(ConfigError, match=r"kafka\.session_timeout_ms")
    with reading(kafka, topic, fresh("group"), session_timeout_ms=10**7) as source, refused:
        gather(source, lambda _: False)


def test_polls_return_in_time_while_the_broker_is_away(own_broker: LocalKafka) -> None:
    topic = make_topic(own_broker.bootstrap, 1)
    produce(own_broker.bootstrap, topic, 0, [b"before"])
    slowest = 0.0

    def poll_for(seconds: float) -> None:
        nonlocal slowest
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            poll(source, 100, MIB)
            slowest = max(slowest, time.monotonic() - began)

    with reading(own_broker.bootstrap, topic, fresh("group"), session_timeout_ms=60_000) as source:
        gather(source, lambda all_: records(all_) == 1)
        own_broker.kill()
        poll_for(3)
        own_broker.start()
        produce(own_broker.bootstrap, topic, 0, [b"after"])
        assert records(gather(source, lambda all_: records(all_) == 1)) == 1
    assert slowest < 1.0


def test_connections_cut_again_and_again(kafka: str, broker: LocalKafka) -> None:
    topic, through = make_topic(kafka, 2), f"127.0.0.1:{broker.proxy_port}"
    with FaultProxy(broker.proxy_port, broker.proxied_port) as proxy, reading(through, topic, fresh("group")) as source:
        gather(source, lambda all_: len(all_.assigned) == 2)
        seen: list[tuple[int, int, int]] = []
        for turn in range(10):
            produce(kafka, topic, turn % 2, [b"%d" % turn])
            proxy.cut_all()
            part = gather(source, lambda all_: records(all_) == 1)
            seen += [(each.partition, each.base_offset, each.last_offset) for each in part.batches]
    assert seen == [(turn % 2, turn // 2, turn // 2) for turn in range(10)]
