"""A partition read outside any group: against a real broker, and against answers made up for the rare cases."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from local_kafka import LocalKafka

from streamlstm.errors import AccessError, InputMissingError, OffsetGoneError, RetryError
from streamlstm.transport.cluster import Lost, NotSent
from streamlstm.transport.fetched import FetchedBatch, PoisonBatch
from streamlstm.transport.log_reader import LogReader, records
from streamlstm.transport.record_batches import encode_batch
from streamlstm.transport.requests import ProduceBatch
from streamlstm.transport.settings import ConnectionSettings
from tests.transport.batches import at, encode
from tests.transport.fault_proxy import Api, Fault, FaultProxy, Harm
from tests.transport.live import (
    batch,
    connected,
    eventually,
    fresh,
    make_topic,
    no_member,
    produce,
    transact,
    writing,
)

ENOUGH = 60.0  # seconds; generous, for a loaded machine


def read_to_end(reader: LogReader, least: int = 0) -> list[tuple[int, bytes | None, bytes | None]]:
    """Offset, key and value of everything up to the last stable offset, which is waited for to be `least`."""
    found = []
    while reader.position < max(reader.last_stable, least) or reader.last_stable < 0:
        for each in reader.read(ENOUGH):
            assert isinstance(each, FetchedBatch)
            found += [(offset, key, value) for offset, _, key, value, _ in records(each)]
    return found


@pytest.mark.kafka
@pytest.mark.parametrize("max_bytes", [1, 4 << 20])
def test_committed_records_to_the_last_stable_offset(kafka: str, max_bytes: int) -> None:
    """An answer of one batch or of all of them: aborted records are skipped, and an open transaction is the end."""
    topic = make_topic(kafka, 2)
    produce(kafka, topic, 1, [b"a", b"b"])
    transact(kafka, topic, 1, [b"drop-%d" % i for i in range(5)], commit=False)
    transact(kafka, topic, 1, [b"c"], commit=True)
    transact(kafka, topic, 1, [b"drop"], commit=False)
    with connected(kafka) as cluster:
        reader = LogReader(cluster, topic, 1, 0, max_bytes=max_bytes)
        assert (reader.log_start, reader.last_stable) == (-1, -1)
        assert read_to_end(reader) == [(0, None, b"a"), (1, None, b"b"), (8, None, b"c")]
        assert (reader.position, reader.log_start, reader.last_stable) == (12, 0, 12)
        began = time.monotonic()
        assert reader.read(0.25) == []
        assert time.monotonic() - began >= 0.25
        producer = Producer({"bootstrap.servers": kafka, "transactional.id": fresh("tx")})
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(topic, b"open", partition=1)
        producer.flush(20)
        produce(kafka, topic, 1, [b"behind"])
        assert reader.read(0.25) == []
        assert (reader.position, reader.last_stable) == (12, 12)
        producer.commit_transaction(20)
        assert read_to_end(reader, 15) == [(12, None, b"open"), (13, None, b"behind")]


@pytest.mark.kafka
def test_what_is_written_wakes_a_waiting_reader(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    with connected(kafka) as cluster:
        reader = LogReader(cluster, topic, 0, 0)
        assert reader.read(0.1) == []
        writer = threading.Timer(0.3, produce, (kafka, topic, 0, [b"late"]))
        writer.start()
        (found,) = reader.read(ENOUGH)
        writer.join()
    assert isinstance(found, FetchedBatch)
    assert (found.base_offset, found.leader_epoch) == (0, 0)


@pytest.mark.kafka
def test_keys_and_tombstones_written_in_a_transaction(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    sent = [(b"chunk:", None), (b"chunk:0", bytes(300_000)), (b"chunk:1", b"x" * 300_000)]
    with writing(kafka, fresh("tx")) as writer:
        buffer = encode_batch(sent, 1_700_000_000_000)
        writer.commit([ProduceBatch(topic, 0, buffer, len(sent))], {(topic, 0): 1}, no_member(fresh("group")))
    with connected(kafka) as cluster:
        assert read_to_end(LogReader(cluster, topic, 0, 0)) == [(i, key, value) for i, (key, value) in enumerate(sent)]


@pytest.mark.kafka
def test_what_compaction_leaves(kafka: str) -> None:
    """The newest version of each key and holes in between; a reader that knows nothing of it comes to the end."""
    eager = {"min.cleanable.dirty.ratio": "0.001", "segment.bytes": "1048576", "delete.retention.ms": "0"}
    topic = make_topic(kafka, 1, {"cleanup.policy": "compact", **eager})
    newest: dict[bytes | None, bytes | None] = {}
    with writing(kafka, fresh("tx")) as writer, connected(kafka) as cluster:
        for turn in range(40):
            key, value = b"chunk:%d" % (turn % 3), b"%d" % turn * 60_000
            buffer = encode_batch([(key, value), (b"chunk:gone", None)], 1_700_000_000_000)
            writer.commit([ProduceBatch(topic, 0, buffer, 2)], {(topic, 0): 1}, no_member(fresh("group")))
            newest[key] = value

        def left() -> list[tuple[int, bytes | None, bytes | None]]:
            reader = LogReader(cluster, topic, 0, 0)
            found = read_to_end(reader)
            assert reader.position == reader.last_stable == 120
            assert {key: value for _, key, value in found if value is not None} == newest
            return found

        eventually(lambda: len(left()) < 60, ENOUGH)


@pytest.mark.kafka
def test_from_the_middle_of_a_batch(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    with writing(kafka, fresh("tx")) as writer:
        values = [b"%d" % i for i in range(10)]
        writer.commit([batch(topic, 0, values, "zstd")], {(topic, 0): 1}, no_member(fresh("group")))
    with connected(kafka) as cluster:
        assert read_to_end(LogReader(cluster, topic, 0, 7)) == [(i, None, b"%d" % i) for i in (7, 8, 9)]


@pytest.mark.kafka
def test_an_offset_that_is_not_in_the_log(kafka: str) -> None:
    topic = make_topic(kafka, 1)
    produce(kafka, topic, 0, [b"x"] * 10)
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_records([TopicPartition(topic, 0, 4)]).values():
        future.result(20)
    with connected(kafka) as cluster:
        for offset in (3, 11):
            with pytest.raises(OffsetGoneError, match=rf"offset {offset} of partition 0 .* holds \[4, 10\)") as gone:
                LogReader(cluster, topic, 0, offset).read(ENOUGH)
            assert (gone.value.first, gone.value.end) == (4, 10)
        reader = LogReader(cluster, topic, 0, 4)
        assert len(read_to_end(reader)) == 6
        assert reader.log_start == 4


@pytest.mark.kafka
def test_a_topic_and_a_partition_that_are_not_there(kafka: str) -> None:
    with connected(kafka) as cluster:
        with pytest.raises(InputMissingError, match="is not there"):
            LogReader(cluster, fresh("none"), 0, 0).read(0)
        with pytest.raises(InputMissingError, match="has 2 partitions, none of number 2"):
            LogReader(cluster, make_topic(kafka, 2), 2, 0).read(0.2)


@pytest.mark.kafka
def test_a_corrupt_batch_is_poison_and_reading_goes_on(kafka: str, broker: LocalKafka) -> None:
    topic = make_topic(kafka, 1)
    for n in range(3):
        produce(kafka, topic, 0, [b"batch%d-record%d" % (n, i) for i in range(5)])
    with FaultProxy(broker.proxy_port, broker.proxied_port) as proxy:
        proxy.mangle = lambda frame: frame.replace(b"batch1-record3", b"batch1-recorD3")
        with connected(f"127.0.0.1:{broker.proxy_port}") as cluster:
            reader = LogReader(cluster, topic, 0, 0)
            found = reader.read(ENOUGH)
            while reader.position < 15:
                found += reader.read(ENOUGH)
    spans = [(type(each).__name__, each.base_offset, each.last_offset) for each in found]
    assert spans == [("FetchedBatch", 0, 4), ("PoisonBatch", 5, 9), ("FetchedBatch", 10, 14)]
    assert isinstance(found[1], PoisonBatch)


@pytest.mark.kafka
@pytest.mark.parametrize("harm", [Harm.CUT_BEFORE, Harm.CUT_AFTER, Harm.SWALLOW, Harm.SWALLOW_REPLY])
def test_a_fetch_that_is_harmed_is_sent_again(kafka: str, broker: LocalKafka, harm: Harm) -> None:
    topic = make_topic(kafka, 1)
    for n in range(4):
        produce(kafka, topic, 0, [b"%d" % n])
    with FaultProxy(broker.proxy_port, broker.proxied_port) as proxy:
        proxy.faults = [Fault(Api.FETCH, harm, skip=skip) for skip in (0, 1)]
        with connected(f"127.0.0.1:{broker.proxy_port}", request_timeout_ms=500) as cluster:
            found = read_to_end(LogReader(cluster, topic, 0, 0, max_bytes=1))
        assert len(proxy.struck) == 2
    assert found == [(n, None, b"%d" % n) for n in range(4)]


@pytest.mark.kafka
def test_the_broker_away_for_a_while(own_broker: LocalKafka) -> None:
    topic = make_topic(own_broker.bootstrap, 1)
    produce(own_broker.bootstrap, topic, 0, [b"before"])
    with connected(own_broker.bootstrap, request_timeout_ms=1000) as cluster:
        reader = LogReader(cluster, topic, 0, 0)
        assert read_to_end(reader) == [(0, None, b"before")]
        own_broker.kill()
        with pytest.raises(RetryError, match="cannot be read at offset 1"):
            reader.read(0.5)
        found: list[object] = []
        reading = threading.Thread(target=lambda: found.extend(read_to_end(reader, 2)))
        reading.start()
        own_broker.start()
        produce(own_broker.bootstrap, topic, 0, [b"after"])
        reading.join(ENOUGH)
    assert found == [(1, None, b"after")]


class Scripted:
    """Takes a Cluster's place; each Fetch gets the next answer, and the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.settings = ConnectionSettings(("double:9092",))
        self.now = 0.0
        self.offsets: list[int] = []
        self.waits: list[int] = []
        self.refreshed = 0

    def clock(self) -> float:
        return self.now

    def deadline(self) -> float:
        return self.now + 5

    def watch(self, topics: list[str], deadline: float) -> None:
        pass

    def leader(self, topic: str, partition: int) -> int:
        return 1

    def is_missing(self, topic: str) -> bool:
        self.refreshed += 1
        return False

    def partitions(self, topic: str) -> int:
        return 8

    def refresh(self, deadline: float) -> bool:
        self.refreshed += 1
        return True

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def send(self, node: int, request: Any, deadline: float) -> Any:
        (row,) = request.topics[0].partitions
        self.offsets.append(row.fetch_offset)
        self.waits.append(request.max_wait_ms)
        self.now += request.max_wait_ms / 1000
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer() if callable(answer) else answer

    def send_all(self, requests: list[Any], deadline: float) -> list[Any]:
        """ListOffsets: the log holds [0, 100)."""
        answers = []
        for _, request in requests:
            (asked,) = request.topics[0].partitions
            row = SimpleNamespace(partition_index=0, error_code=0, offset=0 if asked.timestamp == -2 else 100)
            answers.append(SimpleNamespace(topics=[SimpleNamespace(name="t", partitions=[row])]))
        return answers


def answer(code: int = 0, buffer: bytes = b"", last_stable: int = 0, whole: int = 0) -> Any:
    row = SimpleNamespace(
        error_code=code, records=buffer, last_stable_offset=last_stable, log_start_offset=0, aborted_transactions=None
    )
    return SimpleNamespace(error_code=whole, responses=[SimpleNamespace(partitions=[row])])


THREE = bytes(at(encode([b"a", b"b", b"c"]), 0))
GOOD = answer(buffer=THREE, last_stable=3)


def scripted(*answers: Any) -> tuple[Scripted, LogReader]:
    cluster = Scripted(*answers)
    return cluster, LogReader(cluster, "t", 0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "trouble",
    [
        *(answer(code) for code in (-1, 3, 5, 6, 9, 56, 74, 75, 78)),
        answer(1),  # out of range, although the log holds the position: a leader that has just changed
        answer(whole=70),
        SimpleNamespace(error_code=0, responses=[]),
        NotSent("no way"),
        Lost("no answer"),
        answer(buffer=b"", last_stable=3),
    ],
)
def test_trouble_that_passes(trouble: Any) -> None:
    """Asked again with fresh metadata, and an error only when it lasts until the end of the time-out."""
    cluster, reader = scripted(trouble, trouble, trouble, GOOD)
    assert len(reader.read(60)) == 1
    assert (reader.position, reader.last_stable) == (3, 3)
    assert cluster.offsets == [0] * 4
    assert cluster.refreshed == 3
    lasting, reader = scripted(trouble)
    with pytest.raises(RetryError, match="partition 0 of topic 't' cannot be read at offset 0"):
        reader.read(2)
    assert 2 <= lasting.now < 3
    assert reader.position == 0


@pytest.mark.parametrize(
    ("code", "error"), [(29, AccessError), (2, RetryError), (87, RetryError), (100, RetryError), (9999, RetryError)]
)
def test_trouble_that_does_not_pass(code: int, error: type[Exception]) -> None:
    cluster, reader = scripted(answer(code))
    with pytest.raises(error):
        reader.read(60)
    assert len(cluster.offsets) == 1


def test_waits_are_short_whatever_the_timeout() -> None:
    """Others may be waiting behind a Fetch on the same connection."""
    cluster, reader = scripted(answer())
    assert reader.read(1.05) == []
    assert cluster.waits[:10] == [100] * 10
    assert max(cluster.waits) == 100
    assert cluster.refreshed == 0


def test_a_batch_cut_short_is_asked_for_again() -> None:
    whole = THREE + bytes(at(encode([b"d"]), 3))
    cluster, reader = scripted(
        answer(buffer=whole[:-1], last_stable=4), answer(buffer=whole[len(THREE) :], last_stable=4)
    )
    assert [each.last_offset for each in reader.read(5)] == [2]
    assert [each.last_offset for each in reader.read(5)] == [3]
    assert cluster.offsets == [0, 3]
