"""Topics and offsets: what is wrong with them, in words that can be pasted into a shell."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streamlstm.errors import InputMissingError, RetryError
from streamlstm.transport.offsets import EARLIEST, LATEST, committed_offsets, list_offsets
from streamlstm.transport.topics import (
    SNAPSHOT_CONFIGS,
    TopicFacts,
    check_snapshot_topic,
    check_topics,
    describe_topics,
    find_problems,
    find_snapshot_problems,
    log_ranges,
)
from tests.transport.live import batch, connected, fresh, make_topic, no_member, produce, transact, writing

SERVERS = "one:9092,two:9092"


def facts(partitions: int, limit: int | None = None) -> TopicFacts:
    return TopicFacts(partitions, {} if limit is None else {"max.message.bytes": str(limit)})


def test_all_is_well() -> None:
    found = {"in": facts(4), "out": facts(4, 1_000_000), "dead": facts(8)}
    assert find_problems(found, "in", ["out", "dead"], 900_000, SERVERS) == []


def test_every_problem_at_once_with_its_command() -> None:
    found = {"in": facts(4), "out": facts(3, 1000), "dead": None}
    problems = find_problems(found, "in", ["out", "dead", "dead"], 900_000, SERVERS)
    assert len(problems) == 3
    few, small, missing = problems
    assert few.endswith("kafka-topics.sh --bootstrap-server one:9092,two:9092 --alter --topic out --partitions 4")
    assert "has max.message.bytes=1000; expected at least 900000, output.max_batch_bytes" in small
    assert small.endswith("--add-config max.message.bytes=900000")
    assert "--create --topic dead --partitions 4" in missing


def test_without_an_input_nothing_else_is_said() -> None:
    (problem,) = find_problems({"in": None, "out": None}, "in", ["out"], 0, SERVERS)
    assert problem.startswith("input topic 'in' is not there; make it: kafka-topics.sh")


@pytest.mark.kafka
def test_missing_topics_are_made_when_asked(kafka: str) -> None:
    source, out, dead = make_topic(kafka, 3), fresh("out"), fresh("dead")
    with connected(kafka) as cluster:
        with pytest.raises(InputMissingError, match=f"topic '{out}' is not there") as refused:
            check_topics(cluster, source, (out, dead))
        assert f"topic '{dead}' is not there" in str(refused.value)
        assert describe_topics(cluster, [out], cluster.deadline())[out] is None
        check_topics(cluster, source, (out, dead), max_batch_bytes=900_000, create=True)
        found = describe_topics(cluster, [source, out, dead], cluster.deadline())
        assert [each.partitions for each in found.values() if each] == [3, 3, 3]
        check_topics(cluster, source, (out, dead))
        with pytest.raises(InputMissingError, match=r"has max.message.bytes=\d+; expected at least 2000000"):
            check_topics(cluster, source, (out, dead), max_batch_bytes=2_000_000)
        with pytest.raises(InputMissingError, match="input topic"):
            check_topics(cluster, fresh("none"), (out, dead), create=True)


@pytest.mark.kafka
def test_times_in_the_future_are_taken_by_topics_that_we_made(kafka: str) -> None:
    source, out = make_topic(kafka, 1), fresh("out")
    future = batch(out, 0, [b"future"])
    future.buffer[27:43] = (4_000_000_000_000).to_bytes(8, "big") * 2
    with connected(kafka) as cluster:
        check_topics(cluster, source, (out,), create=True)
    with writing(kafka, fresh("tx")) as writer:
        writer.commit([future], {(source, 0): 1}, no_member(fresh("group")))


@pytest.mark.kafka
def test_offsets(kafka: str) -> None:
    topic, group = make_topic(kafka, 2), fresh("group")
    produce(kafka, topic, 0, [b"a"] * 5)
    transact(kafka, topic, 1, [b"b"] * 3, commit=True)
    both = [(topic, 0), (topic, 1)]
    with connected(kafka) as cluster:
        assert list_offsets(cluster, both, EARLIEST, cluster.deadline()) == {(topic, 0): 0, (topic, 1): 0}
        ends = list_offsets(cluster, both, LATEST, cluster.deadline())
        assert ends == {(topic, 0): 5, (topic, 1): 4}
        assert committed_offsets(cluster, group, both, cluster.deadline()) == {(topic, 0): None, (topic, 1): None}
        assert committed_offsets(cluster, group, [], cluster.deadline()) == {}
        with pytest.raises(InputMissingError, match="is not there"):
            list_offsets(cluster, [(fresh("none"), 0)], LATEST, cluster.deadline(500))


@pytest.mark.kafka
def test_the_end_is_the_last_stable_offset(kafka: str) -> None:
    """An open transaction holds it back, and the group's offsets in it are not answered before it ends."""
    topic, group = make_topic(kafka, 1), fresh("group")
    produce(kafka, topic, 0, [b"before"])
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": fresh("tx")})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(20)
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": group})
    producer.send_offsets_to_transaction([TopicPartition(topic, 0, 1)], consumer.consumer_group_metadata(), 20)
    with connected(kafka) as cluster:
        assert list_offsets(cluster, [(topic, 0)], LATEST, cluster.deadline()) == {(topic, 0): 1}
        with pytest.raises(RetryError, match="UnstableOffsetCommit"):
            committed_offsets(cluster, group, [(topic, 0)], cluster.deadline(300))
        producer.commit_transaction(20)
        assert committed_offsets(cluster, group, [(topic, 0)], cluster.deadline()) == {(topic, 0): 1}
        assert list_offsets(cluster, [(topic, 0)], LATEST, cluster.deadline()) == {(topic, 0): 3}
    consumer.close()


@pytest.mark.parametrize("topic", ["out", "dead"])
def test_times_that_the_input_takes_are_taken_by_what_is_written(topic: str) -> None:
    """Else one event from the future, or from long ago, would be refused with its whole batch, again and again."""
    hour, forever = "3600000", str((1 << 63) - 1)
    found = {"in": TopicFacts(1, {"cleanup.policy": "delete"}), "out": TopicFacts(1), "dead": TopicFacts(1)}
    assert find_problems(found, "in", ("out", "dead"), 0, "b:1") == []
    for key, limit in (("message.timestamp.after.max.ms", hour), ("message.timestamp.before.max.ms", hour)):
        (problem,) = find_problems(found | {topic: TopicFacts(1, {key: limit})}, "in", ("out", "dead"), 0, "b:1")
        assert problem.startswith(f"topic '{topic}' has {key}={hour}")
        assert problem.endswith(f"--alter --topic {topic} --add-config {key}={forever}")
    after = {"message.timestamp.after.max.ms": hour}
    same = {name: TopicFacts(1, after) for name in found}
    assert find_problems(same, "in", ("out", "dead"), 0, "b:1") == []
    assert find_problems(same | {"in": TopicFacts(1)}, "in", ("out", "dead"), 0, "b:1") == []  # which we may not see


COMPACTED = TopicFacts(4, {"cleanup.policy": "compact", "max.message.bytes": "1048588"})
DELETED = {"cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1"}


def snapshot_problems(source: TopicFacts | None, snapshots: TopicFacts | None, chunk: int = 524_288) -> list[str]:
    return find_snapshot_problems({"in": source, "snap": snapshots}, "in", "snap", 60_000, chunk, SERVERS)


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_compacted_topics_take_no_record_without_a_key(policy: str) -> None:
    found = {"in": TopicFacts(1), "out": TopicFacts(1, {"cleanup.policy": policy}), "dead": TopicFacts(1)}
    assert find_problems(found, "in", ("out", "dead"), 0, "b:1", keyless=["dead"]) == []
    (problem,) = find_problems(found, "in", ("out", "dead"), 0, "b:1", keyless=["out", "dead"])
    assert problem.startswith(f"topic 'out' has cleanup.policy={policy}; expected delete alone")
    assert problem.endswith("--alter --topic out --add-config cleanup.policy=delete")


@pytest.mark.parametrize(
    ("source", "snapshots"),
    [
        (TopicFacts(4, DELETED), COMPACTED),
        (TopicFacts(3, DELETED), COMPACTED),
        (TopicFacts(4), TopicFacts(4)),  # a cluster that shows us no settings
        (TopicFacts(4, DELETED | {"retention.ms": "-1"}), COMPACTED),
        (TopicFacts(4, DELETED | {"retention.ms": "240000"}), COMPACTED),
        (
            TopicFacts(4, {"cleanup.policy": "compact", "retention.ms": "1", "min.compaction.lag.ms": "240000"}),
            COMPACTED,
        ),
    ],
)
def test_snapshots_that_can_be_kept_and_replayed(source: TopicFacts, snapshots: TopicFacts) -> None:
    assert snapshot_problems(source, snapshots) == []


def test_every_problem_of_the_snapshots_with_its_command() -> None:
    source = TopicFacts(4, {"cleanup.policy": "compact,delete", "retention.ms": "239999", "min.compaction.lag.ms": "0"})
    snapshots = TopicFacts(3, {"cleanup.policy": "compact,delete", "max.message.bytes": "524288"})
    kept, lag, few, ages, small = snapshot_problems(source, snapshots)
    mend = "kafka-configs.sh --bootstrap-server one:9092,two:9092 --alter --topic"
    assert kept.startswith("topic 'in' has retention.ms=239999; expected at least 240000, 4 times snapshot.interval_ms")
    assert kept.endswith(f"mend it: {mend} in --add-config retention.ms=240000")
    assert lag.startswith("topic 'in' has min.compaction.lag.ms=0; expected at least 240000")
    assert lag.endswith(f"mend it: {mend} in --add-config min.compaction.lag.ms=240000")
    assert few.startswith("snapshot topic 'snap' has 3 partitions, the input 'in' has 4; mend it: kafka-topics.sh")
    assert few.endswith("--alter --topic snap --partitions 4")
    assert ages.startswith("topic 'snap' has cleanup.policy=compact,delete; expected compact alone")
    assert ages.endswith(f"{mend} snap --add-config cleanup.policy=compact")
    assert small.startswith("topic 'snap' has max.message.bytes=524288; expected at least 524544")
    (missing,) = snapshot_problems(TopicFacts(4), None)
    assert (
        "kafka-topics.sh --bootstrap-server one:9092,two:9092 --create --topic snap --partitions 4 --config " in missing
    )
    assert all(f"--config {key}={value}" in missing for key, value in SNAPSHOT_CONFIGS.items())
    assert "max.message.bytes" not in missing
    assert "--config max.message.bytes=2000256" in snapshot_problems(TopicFacts(4), None, 2_000_000)[0]
    (alone,) = snapshot_problems(None, None)
    assert alone.startswith("input topic 'in' is not there")


@pytest.mark.kafka
def test_snapshots_on_the_broker(kafka: str) -> None:
    """Refused when missing, made when asked, refused again when somebody changes it."""
    source, snapshots = make_topic(kafka, 3, {"retention.ms": "600000", "retention.bytes": "5000000"}), fresh("snap")
    wanted = {"interval_ms": 150_000, "max_chunk_bytes": 2_000_000}
    with connected(kafka) as cluster:
        with pytest.raises(InputMissingError, match=f"snapshot topic '{snapshots}' is not there"):
            check_snapshot_topic(cluster, source, snapshots, **wanted)
        (note,) = check_snapshot_topic(cluster, source, snapshots, **wanted, create=True)
        assert note.startswith(f"input topic '{source}' has retention.bytes=5000000")
        found = describe_topics(cluster, [snapshots], cluster.deadline())[snapshots]
        assert found is not None
        assert (found.partitions, found.configs["cleanup.policy"]) == (3, "compact")
        assert found.configs["max.message.bytes"] == "2000256"
        with pytest.raises(InputMissingError, match=r"has retention.ms=600000; expected at least 600004"):
            check_snapshot_topic(cluster, source, snapshots, interval_ms=150_001, max_chunk_bytes=1)
        with pytest.raises(InputMissingError, match=r"has max.message.bytes=2000256; expected at least 2000257"):
            check_snapshot_topic(cluster, source, snapshots, interval_ms=1, max_chunk_bytes=2_000_001)
        plain = make_topic(kafka, 2)
        with pytest.raises(InputMissingError) as refused:
            check_snapshot_topic(cluster, source, plain, interval_ms=1, max_chunk_bytes=1)
        few, ages = str(refused.value).splitlines()
        assert "has 2 partitions" in few
        assert "has cleanup.policy=delete; expected compact alone" in ages
        with pytest.raises(InputMissingError, match="input topic"):
            check_snapshot_topic(cluster, fresh("none"), snapshots, interval_ms=1, max_chunk_bytes=1, create=True)


@pytest.mark.kafka
def test_ranges_of_logs(kafka: str) -> None:
    topic = make_topic(kafka, 3)
    produce(kafka, topic, 0, [b"a"] * 5)
    transact(kafka, topic, 2, [b"b"] * 3, commit=True)
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.delete_records([TopicPartition(topic, 0, 2)]).values():
        future.result(20)
    with connected(kafka) as cluster:
        assert log_ranges(cluster, topic, [0, 2]) == {0: (2, 5), 2: (0, 4)}
        assert log_ranges(cluster, topic, []) == {}
