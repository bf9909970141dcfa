"""A history straight from a topic of a real broker."""

import threading
from collections.abc import Sequence

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from local_kafka import LocalKafka

from streamlstm.config import Config
from streamlstm.config.sources import load
from streamlstm.errors import BadDataError, InputMissingError, OffsetGoneError, RetryError, UsageError
from streamlstm.history.history import History
from streamlstm.history.report import Kind
from streamlstm.service.audit_range import Bound
from streamlstm.service.history_topic import TopicRange, opened, rules_of
from streamlstm.transport.offsets import LATEST, high_watermarks, list_offsets
from tests.history.reading import rows
from tests.transport.live import connected, eventually, fresh, make_topic

BEGIN = 1_730_000_000_000
MINUTE = 60_000
ALL = TopicRange()

Record = tuple[bytes | None, bytes | None, int]
"""Key, value, and the record's timestamp."""


def config_of(kafka: str, topic: str, *overrides: str) -> Config:
    given = (f'kafka.bootstrap_servers=["{kafka}"]', f"input.topic={topic}", "commit.transaction_timeout_ms=3000")
    return load(None, {}, (*given, "commit.request_timeout_ms=2500", *overrides))


def read(config: Config, asked: TopicRange = ALL, order: str = "time") -> tuple[History, list[int], int]:
    """The history, what progress was told, and what it was to come to."""
    told: list[int] = []
    with opened(config, ("value",), asked, rules_of(config, order)) as topic:  # type: ignore[arg-type]
        return topic.read(told.append), told, topic.total


def produce(kafka: str, topic: str, partition: int, records: Sequence[Record], *, commit: bool | None = None) -> None:
    """Plain records; or in a transaction, committed or aborted."""
    transactional = {} if commit is None else {"transactional.id": fresh("tx")}
    producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 5, **transactional})
    if commit is not None:
        producer.init_transactions(20)
        producer.begin_transaction()
    for key, value, timestamp in records:
        producer.produce(topic, value, key, partition, timestamp=timestamp)
    assert producer.flush(20) == 0
    if commit is not None:
        producer.commit_transaction(20) if commit else producer.abort_transaction(20)
        with connected(kafka) as cluster:  # its end is written behind the answer
            here = [(topic, partition)]
            eventually(
                lambda: (
                    list_offsets(cluster, here, LATEST, cluster.deadline())
                    == high_watermarks(cluster, here, cluster.deadline())
                )
            )


def event(i: int, key: bytes = b"a") -> Record:
    return key, b'{"ts":%d,"value":%d}' % (BEGIN + MINUTE * i, i), BEGIN + MINUTE * i


@pytest.fixture(scope="module")
def topic(kafka: str) -> str:
    """Partition 0: 40 events of a, then bad ones, some in transactions; partition 1: 40 of b and one more of a."""
    name = make_topic(kafka, 2)
    produce(kafka, name, 0, [event(i) for i in range(20)])
    produce(kafka, name, 0, [event(i) for i in range(500, 510)], commit=False)
    produce(kafka, name, 0, [event(i) for i in range(20, 40)], commit=True)
    now = BEGIN + MINUTE * 40
    bad = [b"garbage", b'{"value":null}', b'{"value":1e300}', b'{"ts":%d,"value":1}' % (now + 2 * 86_400_000), None]
    produce(kafka, name, 0, [(b"a", value, now) for value in bad])
    produce(
        kafka, name, 0, [(b"a", b'{"value":40}', now), (None, b'{"value":1}', now), (b"x" * 65, b'{"value":1}', now)]
    )
    produce(kafka, name, 1, [event(i, b"b") for i in range(40)] + [event(0)])
    return name


@pytest.mark.kafka
class TestReading:
    def test_what_the_daemon_would_read(self, kafka: str, topic: str) -> None:
        history, told, total = read(config_of(kafka, topic))
        assert (history.streams, history.partition.tolist()) == ([b"a", b"b", b"a"], [0, 1, 1])
        assert history.start.tolist() == [0, 41, 81, 82]
        assert history.x[:41, 0].tolist() == list(range(41))
        assert history.time[:41].tolist() == [BEGIN + MINUTE * i for i in range(41)]
        report = history.report
        reasons = (
            Kind.NOT_JSON, Kind.NULL_VALUE, Kind.OUT_OF_RANGE, Kind.TOO_FAR_AHEAD, Kind.TOMBSTONE, Kind.NO_KEY,
            Kind.KEY_TOO_LONG,
        )  # fmt: skip
        assert {kind: each.count for kind, each in report.findings.items()} == dict.fromkeys((*reasons, Kind.SHORT), 1)
        assert report.findings[Kind.NOT_JSON].place == "0:52"  # behind the events and two ends of transactions
        assert report.findings[Kind.NOT_JSON].found == "garbage"
        assert (report.rows_read, report.rows, report.sources) == (89, 82, [topic])
        assert sum(told) == total == 60 + 41

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            (
                TopicRange(Bound(BEGIN + MINUTE * 10), Bound(BEGIN + MINUTE * 13)),
                {"a": [10, 11, 12], "b": [10, 11, 12]},
            ),
            (TopicRange(Bound(offsets={0: 3}), Bound(offsets={0: 5}), partitions=(0,)), {"a": [3, 4]}),
            (TopicRange(stop=Bound(offsets={1: 40}), last=2, partitions=(1,)), {"b": [38, 39]}),
            (TopicRange(Bound(offsets={0: 29}), Bound(offsets={0: 33}), partitions=(0,)), {"a": [20, 21]}),
        ],
    )
    def test_ranges(self, kafka: str, topic: str, asked: TopicRange, expected: dict[str, list[int]]) -> None:
        history, told, total = read(config_of(kafka, topic), asked)
        found = {name: [int(value) for _, value in events] for name, events in rows(history).items()}  # type: ignore[call-overload]
        assert found == expected
        assert sum(told) == total

    def test_an_empty_range(self, kafka: str, topic: str) -> None:
        with pytest.raises(
            BadDataError, match=f"{topic}: expected two rows at least, .* found 0 good ones among 0 rows"
        ):
            read(config_of(kafka, topic), TopicRange(Bound(BEGIN + MINUTE * 900)))

    def test_missing_values_as_configured(self, kafka: str, topic: str) -> None:
        config = config_of(kafka, topic, "events.missing=hold")
        history, _, _ = read(config, TopicRange(partitions=(0,)), "arrival")
        assert (history.rows, Kind.NULL_VALUE in history.report.findings) == (42, False)
        assert Kind.NULL_VALUE in read(config)[0].report.findings

    def test_what_comes_later_changes_nothing(self, kafka: str) -> None:
        name = make_topic(kafka, 1)
        produce(kafka, name, 0, [event(i) for i in range(5)])
        config = config_of(kafka, name)
        with opened(config, ("value",), ALL, rules_of(config)) as later:
            produce(kafka, name, 0, [event(i) for i in range(5, 9)])
            assert later.read().rows == 5


@pytest.mark.kafka
class TestRefusals:
    def test_no_such_topic(self, kafka: str) -> None:
        with pytest.raises(InputMissingError, match="topic nowhere-to-be-seen is not there"):
            read(config_of(kafka, "nowhere-to-be-seen"))

    def test_no_such_partition(self, kafka: str, topic: str) -> None:
        for asked in (TopicRange(partitions=(2,)), TopicRange(Bound(offsets={7: 0}))):
            with pytest.raises(UsageError, match=f"partition .: topic {topic} has 0 to 1"):
                read(config_of(kafka, topic), asked)
        with pytest.raises(UsageError, match="expected one at least, found 0"):
            TopicRange(last=0)
        with pytest.raises(UsageError, match="expected no end by time beside it"):
            TopicRange(stop=Bound(BEGIN), last=5)

    def test_offsets_that_are_gone(self, kafka: str) -> None:
        name = make_topic(kafka, 1)
        produce(kafka, name, 0, [event(i) for i in range(9)])
        admin = AdminClient({"bootstrap.servers": kafka})
        (done,) = admin.delete_records([TopicPartition(name, 0, 4)]).values()
        done.result(20)
        with pytest.raises(OffsetGoneError, match=rf"{name}-0: expected offset 2, .* the log holds \[4, 9\)") as gone:
            read(config_of(kafka, name), TopicRange(Bound(offsets={0: 2})))
        assert (gone.value.first, gone.value.end) == (4, 9)
        assert read(config_of(kafka, name))[0].rows == 5
        with pytest.raises(OffsetGoneError, match="expected offset 10"):
            read(config_of(kafka, name), TopicRange(Bound(offsets={0: 10})))

    def test_an_open_transaction(self, kafka: str) -> None:
        """It is waited for, within reason: what it holds was written before the reading began."""
        name = make_topic(kafka, 1)
        produce(kafka, name, 0, [event(i) for i in range(3)])
        producer = Producer({"bootstrap.servers": kafka, "transactional.id": fresh("tx")})
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(name, event(3)[1], b"a", 0, timestamp=BEGIN)
        producer.flush(20)
        with pytest.raises(RetryError, match="an open transaction has been holding up readers at 3"):
            read(config_of(kafka, name))
        commit = threading.Timer(0.5, producer.commit_transaction, (20,))
        commit.start()
        assert read(config_of(kafka, name))[0].rows == 4
        commit.join()


@pytest.mark.kafka
def test_batches_that_cannot_be_read(broker: LocalKafka) -> None:
    """A bit flipped on the broker's disk: the batch is passed over and counted."""
    kafka = broker.bootstrap
    name = make_topic(kafka, 1)
    mark = fresh("flip").encode()
    produce(kafka, name, 0, [event(i) for i in range(5)])
    produce(kafka, name, 0, [(b"a", mark, BEGIN)] * 3)
    produce(kafka, name, 0, [event(i) for i in range(5, 9)])
    for segment in (broker.folder / "data" / f"{name}-0").glob("*.log"):
        content = bytearray(segment.read_bytes())
        content[content.index(mark) + 2] ^= 0x08
        segment.write_bytes(content)
    history, told, total = read(config_of(kafka, name))
    finding = history.report.findings[Kind.CORRUPT_BATCH]
    assert (history.rows, finding.count, finding.place) == (9, 1, "0:5")
    assert "CRC-32C" in finding.found
    assert sum(told) == total == 12
    assert history.x[:, 0].tolist() == list(range(9))
