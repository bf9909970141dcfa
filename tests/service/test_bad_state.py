"""What a restart finds wrong with stored state: each case has one outcome, and nothing is silently wrong.

The cases that concern one partition share a topic and three lives of a daemon: a first one that makes the state; one
with on_gap = "fail" after every partition but the first was harmed in a way of its own; and one with "warm". What they
answer is held to the bytes of a daemon that nothing happened to.
"""

import json
import signal
import time
import urllib.error
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from daemon_process import Daemon, create_topics, daemon, read_all, source_of_forecast, write_model

from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import load, save
from streamlstm.state.snapshot import Header, Leaf, decode_chunk, encode_chunk

pytestmark = pytest.mark.kafka

STREAMS = 120
BASE_TIME = 1_730_000_000_000
QUICK = {
    "snapshot.interval_ms": 1_000, "snapshot.max_chunk_bytes": 16_384, "commit.interval_ms": 10,
    "state.max_streams": 4_000, "engine.threads": 1, "kafka.heartbeat_interval_ms": 100,
    "fetch.max_wait_ms": 100,
}  # fmt: skip


@dataclass
class Stage:
    """A topic of events and a group that answers them, in one life after another."""

    kafka: str
    topic: str
    model: Path
    partitions: int
    admin: AdminClient
    names: dict[str, object] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=Counter)
    chunks: list[dict[Leaf, bytes]] = field(default_factory=list)
    """By partition, the record of every leaf at the end of the first life."""

    @staticmethod
    def make(kafka: str, folder: Path, partitions: int) -> "Stage":
        model, admin = write_model(folder / "model.safetensors"), AdminClient({"bootstrap.servers": kafka})
        stage = Stage(kafka, f"state-{time.time_ns()}", model, partitions, admin)
        create_topics(kafka, [stage.topic], partitions)
        return stage

    def life(self, **settings: object) -> AbstractContextManager[Daemon]:
        given = {**QUICK, "kafka.group_id": self.topic, **self.names}
        given |= {name.replace("__", "."): value for name, value in settings.items()}
        return daemon(self.kafka, self.model, self.topic, self.partitions, given)

    def write(self, rounds: int = 1, streams: int = STREAMS, only: int | None = None) -> int:
        """Events of each stream in every partition, or in one; returns how many."""
        producer = Producer({"bootstrap.servers": self.kafka, "enable.idempotence": True, "linger.ms": 2})
        where = range(self.partitions) if only is None else [only]
        for partition in where:
            for _ in range(rounds * streams):
                n = self.ends[partition]
                value = b'{"ts":%d,"value":%d.5}' % (BASE_TIME + n, n * 7 % 31)
                producer.produce(self.topic, value, b"s%d" % (n % STREAMS), partition)
                self.ends[partition] += 1
        assert producer.flush(60) == 0
        return rounds * streams * len(where)

    def first_life(self) -> None:
        """Make state of which every partition has less in its snapshots than it has committed."""
        with self.life() as running:
            self.names = running.topics
            sent = self.write(rounds=3)
            running.wait_for("streamlstm_events_total", sent)
            while True:
                sent += self.write(streams=3)
                running.wait_for("streamlstm_events_total", sent)
                if len(behind(running)) == self.partitions and min(behind(running)) > 0:
                    break
            assert running.stop() == 0
        self._read_chunks()

    def _read_chunks(self) -> None:
        self.chunks = [{} for _ in range(self.partitions)]
        for message in read_all(self.kafka, str(self.names["snapshot.topic"]), self.partitions):
            leaf, found = Leaf.of_key(message.key()), self.chunks[message.partition()]
            assert leaf is not None
            found[leaf] = message.value()
        self.chunks = [{leaf: value for leaf, value in each.items() if value is not None} for each in self.chunks]

    def oldest_tag(self, partition: int) -> int:
        return min(decode_chunk(value).header.offset for value in self.chunks[partition].values())

    def store(self, partition: int, leaf: Leaf, value: bytes | None) -> None:
        producer = Producer({"bootstrap.servers": self.kafka, "enable.idempotence": True})
        producer.produce(str(self.names["snapshot.topic"]), value, leaf.key, partition)
        assert producer.flush(30) == 0

    def commit(self, offsets: dict[int, int]) -> None:
        positions = [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]
        request = [ConsumerGroupTopicPartitions(self.topic, positions)]
        self.admin.alter_consumer_group_offsets(request)[self.topic].result(30)

    def cut(self, partition: int, offset: int) -> None:
        """Drop the events below `offset`, as retention does."""
        (done,) = self.admin.delete_records([TopicPartition(self.topic, partition, offset)]).values()
        done.result(30)

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(30)
        while topic in self.admin.list_topics(timeout=10).topics:
            time.sleep(0.05)

    def forecasts(self, output: object = None) -> dict[int, list[Message]]:
        found: dict[int, list[Message]] = {partition: [] for partition in range(self.partitions)}
        for message in read_all(self.kafka, str(output or self.names["output.topic"]), self.partitions):
            found[message.partition()].append(message)
        return found


def behind(running: Daemon) -> list[float]:
    """By partition, how many events a restart would replay."""
    lines = [line for line in running.page("/metrics").splitlines() if line.startswith("streamlstm_replay_records{")]
    return [float(line.rsplit(" ", 1)[1]) for line in lines]


def ready(running: Daemon) -> tuple[int, str]:
    try:
        return 200, running.page("/readyz")
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()


def offsets_of(messages: list[Message]) -> Counter[int]:
    return Counter(source_of_forecast(message)[1] for message in messages)


def status_of(message: Message) -> str:
    return str(json.loads(message.value())["status"])


def seen_by_reader(message: Message) -> tuple[object, ...]:
    return message.timestamp(), message.key(), message.value()


def last_chunk(stage: Stage, partition: int) -> tuple[Leaf, bytes]:
    return list(stage.chunks[partition].items())[-1]


def flipped(value: bytes) -> bytes:
    """With one bit in the middle changed."""
    at = len(value) // 2
    return value[:at] + bytes([value[at] ^ 16]) + value[at + 1 :]


def with_header(value: bytes, **changes: Any) -> bytes:
    chunk = decode_chunk(value)
    header: Header = replace(chunk.header, **changes)
    return encode_chunk(header, chunk.key_len, chunk.keys, chunk.rows)


# ------------------------------------------------------------------------------------------------ one partition harmed


@dataclass
class Harmed:
    """What is known of a partition after it was harmed. `answered` events had their forecast before; `why` is what
    /readyz must say, "" where the state is exact. `again` are answered a second time, as was asked for, `lost` never.
    """

    answered: int
    why: str = ""
    again: range = range(0)
    lost: range = range(0)


def sound(stage: Stage, partition: int) -> Harmed:
    return Harmed(stage.ends[partition])


def flipped_with_an_older_version(stage: Stage, partition: int) -> Harmed:
    leaf, value = last_chunk(stage, partition)
    stage.store(partition, leaf, flipped(value))
    return Harmed(stage.ends[partition])


def flipped_without_an_older_version(stage: Stage, partition: int) -> Harmed:
    leaf, value = last_chunk(stage, partition)
    stage.store(partition, leaf, None)
    stage.store(partition, leaf, flipped(value))
    why = f"1 of {len(stage.chunks[partition])} chunks are damaged, and no older version is there ({leaf.key.decode()}"
    return Harmed(stage.ends[partition], why)


def of_another_group(stage: Stage, partition: int) -> Harmed:
    leaf, value = last_chunk(stage, partition)
    stage.store(partition, leaf, with_header(value, group="other"))
    return Harmed(stage.ends[partition], f"expected group {stage.topic}, {stage.topic}-{partition}; found group other")


def all_gone(stage: Stage, partition: int) -> Harmed:
    for leaf in stage.chunks[partition]:
        stage.store(partition, leaf, None)
    committed = stage.ends[partition]
    return Harmed(committed, f"there is no chunk, but the group has committed offset {committed}")


def one_gone(stage: Stage, partition: int) -> Harmed:
    leaf, _ = last_chunk(stage, partition)
    stage.store(partition, leaf, None)
    return Harmed(stage.ends[partition], f"no chunk covers {leaf.key.decode()}")


def replay_cut_off(stage: Stage, partition: int) -> Harmed:
    end, tag = stage.ends[partition], stage.oldest_tag(partition)
    assert tag < end
    stage.cut(partition, end)
    return Harmed(end, f"the events from offset {tag} on are needed, but the log holds {end} to ")


def unanswered_cut_off(stage: Stage, partition: int) -> Harmed:
    committed, tag = stage.ends[partition], stage.oldest_tag(partition)
    stage.write(only=partition)
    first = committed + 50
    stage.cut(partition, first)
    why = f"the events from offset {tag} on are needed, but the log holds {first} to "
    return Harmed(committed, why, lost=range(committed, first))


def moved_back(stage: Stage, partition: int) -> Harmed:
    end = stage.ends[partition]
    stage.commit({partition: end - 40})
    why = f"the group has committed {end - 40}: its offset was moved back"
    return Harmed(end, why, again=range(end - 40, end))


def offset_removed(stage: Stage, partition: int) -> Harmed:
    """It goes with the group: the others' offsets are put back."""
    where = [TopicPartition(stage.topic, p) for p in range(stage.partitions)]
    asked = stage.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(stage.topic, where)])
    others = {each.partition: each.offset for each in asked[stage.topic].result(30).topic_partitions}
    others.pop(partition)
    stage.admin.delete_consumer_groups([stage.topic])[stage.topic].result(30)
    stage.commit(others)
    end = stage.ends[partition]
    return Harmed(end, "but the group has no committed offset", again=range(end))


HARMS: tuple[Callable[[Stage, int], Harmed], ...] = (
    sound, flipped_with_an_older_version, flipped_without_an_older_version, of_another_group, all_gone, one_gone,
    replay_cut_off, unanswered_cut_off, moved_back, offset_removed,
)  # fmt: skip
CUT = (replay_cut_off, unanswered_cut_off)
"""The log is not whole any more, so nobody can say what the undisturbed answers are."""

PARTLY = (flipped_without_an_older_version, one_gone)
"""The other chunks are exact, and stay so."""


@dataclass
class Story:
    """Forecasts by partition: after the first life, after the one with "fail", after the one with "warm"."""

    harmed: list[Harmed]
    ready: tuple[int, str]
    ready_when_warm: tuple[int, str]
    before: dict[int, list[Message]]
    failing: dict[int, list[Message]]
    warm: dict[int, list[Message]]
    undisturbed: dict[int, list[Message]]
    ends: dict[int, int]


@pytest.fixture(scope="module")
def story(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Story:
    stage = Stage.make(kafka, tmp_path_factory.mktemp("story"), len(HARMS))
    stage.first_life()
    before = stage.forecasts()
    harmed = [harm(stage, partition) for partition, harm in enumerate(HARMS)]
    exact = [partition for partition, each in enumerate(harmed) if not each.why]
    with stage.life() as running:
        stage.write()
        running.wait_for("streamlstm_events_total", len(exact) * STREAMS)
        running.wait_for("streamlstm_stopped_partitions", len(HARMS) - len(exact))
        seen = ready(running)
        assert running.stop() == 0
    failing = stage.forecasts()
    with stage.life(snapshot__on_gap="warm") as running:
        stage.write()
        left = sum(len(each.again) + stage.ends[p] - each.answered - len(each.lost) for p, each in enumerate(harmed))
        running.wait_for("streamlstm_events_total", left - len(exact) * STREAMS)
        seen_when_warm = ready(running)
        assert running.stop() == 0
    warm = stage.forecasts()
    with daemon(kafka, stage.model, stage.topic, stage.partitions, QUICK) as undisturbed:
        missing = sum(each.answered for harm, each in zip(HARMS, harmed, strict=True) if harm in CUT)
        missing += sum(len(each.lost) for each in harmed)
        undisturbed.wait_for("streamlstm_events_total", sum(stage.ends.values()) - missing)
        assert undisturbed.stop() == 0
    return Story(
        harmed, seen, seen_when_warm, before, failing, warm, stage.forecasts(undisturbed.output), dict(stage.ends)
    )


def parametrised(*left_out: Callable[..., Harmed]) -> pytest.MarkDecorator:
    chosen = [(p, harm) for p, harm in enumerate(HARMS) if harm not in left_out]
    return pytest.mark.parametrize("partition", [p for p, _ in chosen], ids=[harm.__name__ for _, harm in chosen])


@parametrised()
def test_it_stops_and_says_why_or_is_exact(story: Story, partition: int) -> None:
    harmed = story.harmed[partition]
    code, text = story.ready
    assert code == 503
    assert (harmed.why or "everything") in text + "everything"
    answered = offsets_of(story.failing[partition])
    assert answered == Counter(range(harmed.answered if harmed.why else harmed.answered + STREAMS))
    assert (f"-{partition}: " in text) == bool(harmed.why)


@parametrised()
def test_warm_answers_the_rest_once(story: Story, partition: int) -> None:
    harmed = story.harmed[partition]
    assert story.ready_when_warm[0] == 200, story.ready_when_warm[1]
    wanted = Counter(range(story.ends[partition])) + Counter(harmed.again) - Counter(harmed.lost)
    assert offsets_of(story.warm[partition]) == wanted


@parametrised(*CUT)
def test_what_is_not_marked_degraded_has_the_undisturbed_bytes(story: Story, partition: int) -> None:
    harmed = story.harmed[partition]
    undisturbed = {source_of_forecast(each): seen_by_reader(each) for each in story.undisturbed[partition]}
    degraded = 0
    for message in story.warm[partition]:
        if status_of(message) == "degraded":
            degraded += 1
        elif not harmed.again:
            assert seen_by_reader(message) == undisturbed[source_of_forecast(message)]
    since = len(story.warm[partition]) - harmed.answered
    assert (degraded > 0) == bool(harmed.why)
    if HARMS[partition] in PARTLY:
        assert degraded < since / 2
    elif harmed.why and not harmed.again:
        assert degraded == since


@parametrised(sound, flipped_with_an_older_version)
def test_what_was_written_before_stands(story: Story, partition: int) -> None:
    before = [seen_by_reader(each) for each in story.before[partition]]
    assert [seen_by_reader(each) for each in story.warm[partition]][: len(before)] == before


# -------------------------------------------------------------------------------------------------- all of them harmed


@pytest.fixture
def stage(kafka: str, tmp_path: Path) -> Stage:
    """After its first life, with two partitions."""
    made = Stage.make(kafka, tmp_path, 2)
    made.first_life()
    return made


def refused(stage: Stage, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What a daemon ends with, and what it says."""
    capfd.readouterr()
    with stage.life() as running:
        code = running.process.wait(60)
    return code, capfd.readouterr().err


def other_model(stage: Stage) -> None:
    model = load(stage.model)
    stage.model = stage.model.with_name("other.safetensors")
    parameters = replace(model.parameters, head_bias=model.parameters.head_bias + 1)
    save(replace(model, parameters=parameters, golden=make_golden(parameters), model_hash=""), stage.model)


def refuses_the_snapshots(stage: Stage, capfd: pytest.CaptureFixture[str], why: str) -> None:
    code, told = refused(stage, capfd)
    assert code == 78
    assert why in told
    assert "snapshot.on_model_change" in told


def begins_anew_when_asked(stage: Stage) -> None:
    before = stage.forecasts()
    stage.write()
    with stage.life(snapshot__on_model_change="warm") as running:
        running.wait_for("streamlstm_events_total", 2 * STREAMS)
        assert ready(running)[0] == 200
        assert running.stop() == 0
    stage.write()
    with stage.life() as running:  # asking once is enough: the new state is in the snapshots
        running.wait_for("streamlstm_events_total", 2 * STREAMS)
        assert running.stop() == 0
    for partition, messages in stage.forecasts().items():
        assert offsets_of(messages) == Counter(range(stage.ends[partition]))
        statuses = Counter(status_of(each) for each in messages[len(before[partition]) :])
        assert statuses == {"degraded": 2 * STREAMS}


def test_another_model(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    right = stage.model
    other_model(stage)
    other = stage.model
    refuses_the_snapshots(stage, capfd, "are of another model")
    stage.model = right
    stage.write()
    with stage.life() as running:  # the refusal has changed nothing
        running.wait_for("streamlstm_events_total", 2 * STREAMS)
        assert running.metric("streamlstm_restored_streams_total") == 2 * STREAMS
        assert running.stop() == 0
    assert {status_of(each) for messages in stage.forecasts().values() for each in messages} == {"warmup"}
    stage.model = other
    begins_anew_when_asked(stage)


def test_another_layout(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    for partition, chunks in enumerate(stage.chunks):
        for leaf, value in chunks.items():
            stage.store(partition, leaf, with_header(value, abi=decode_chunk(value).header.abi + 1))
    refuses_the_snapshots(stage, capfd, "have rows of another version of streamlstm")
    begins_anew_when_asked(stage)


def test_another_state_dtype(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    with stage.life(engine__state_dtype="float16") as running:
        assert running.process.wait(60) == 78
    told = capfd.readouterr().err
    assert "hold the state by another engine.state_dtype" in told
    assert "expected float16, found float32" in told
    assert "snapshot.on_model_change" in told
    stage.write()
    with stage.life() as running:  # the refusal has changed nothing
        running.wait_for("streamlstm_events_total", 2 * STREAMS)
        assert running.stop() == 0
    assert {status_of(each) for messages in stage.forecasts().values() for each in messages} == {"warmup"}
    for on_model_change in ("warm", "fail"):
        stage.write()
        with stage.life(engine__state_dtype="float16", snapshot__on_model_change=on_model_change) as running:
            running.wait_for("streamlstm_events_total", 2 * STREAMS)
            assert ready(running)[0] == 200
            assert running.stop() == 0
    for partition, messages in stage.forecasts().items():
        assert offsets_of(messages) == Counter(range(stage.ends[partition]))
        assert {status_of(each) for each in messages[-2 * STREAMS :]} == {"degraded"}


def test_snapshot_topic_deleted_and_made_anew(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    snapshots = str(stage.names["snapshot.topic"])
    stage.delete(snapshots)
    stage.write()
    code, told = refused(stage, capfd)
    assert code == 66
    assert f"kafka-topics.sh --bootstrap-server {stage.kafka} --create --topic {snapshots}" in told
    create_topics(stage.kafka, [snapshots], 2, **{"cleanup.policy": "compact"})
    with stage.life() as running:
        running.wait_for("streamlstm_stopped_partitions", 2)
        code, text = ready(running)
        assert code == 503
        assert f"there is no chunk, but the group has committed offset {stage.ends[0] - STREAMS}" in text
        assert running.metric("streamlstm_events_total") == 0
        assert running.stop() == 0
    with stage.life(snapshot__on_gap="warm") as running:
        running.wait_for("streamlstm_events_total", 2 * STREAMS)
        assert ready(running)[0] == 200
        assert running.stop() == 0
    for partition, messages in stage.forecasts().items():
        assert offsets_of(messages) == Counter(range(stage.ends[partition]))
        assert {status_of(each) for each in messages[-STREAMS:]} == {"degraded"}


def make_input_anew(stage: Stage) -> None:
    """With fewer records. The broker forgets the group's offsets along with the topic."""
    stage.delete(stage.topic)
    create_topics(stage.kafka, [stage.topic], 2)
    stage.ends.clear()
    stage.write(streams=50)


def test_input_made_anew(stage: Stage) -> None:
    """First while it runs, then between two lives; at last it is told to go on."""
    with stage.life() as running:
        stage.write(streams=1)
        running.wait_for("streamlstm_events_total", 2)
        make_input_anew(stage)
        running.wait_for("streamlstm_stopped_partitions", 2)
        assert running.stop() == 0
    before = stage.forecasts()
    make_input_anew(stage)
    with stage.life() as running:
        running.wait_for("streamlstm_stopped_partitions", 2)
        code, text = ready(running)
        assert code == 503
        assert "but the group has no committed offset" in text
        assert running.stop() == 0
    with stage.life(snapshot__on_gap="warm") as running:
        running.wait_for("streamlstm_events_total", 2 * 50)
        assert ready(running)[0] == 200
        assert running.stop() == 0
    for partition, messages in stage.forecasts().items():
        since = messages[len(before[partition]) :]
        assert offsets_of(since) == Counter(range(50))
        assert {status_of(each) for each in since} == {"degraded"}


@pytest.mark.parametrize("policy", ["fail", "warm"])
def test_retention_overtakes_a_running_daemon(stage: Stage, policy: str) -> None:
    """Frozen while its next events are dropped."""
    with stage.life(snapshot__on_gap=policy) as running:
        stage.write(streams=1)
        running.wait_for("streamlstm_events_total", 2)
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)  # the fetch that it has waiting at the broker comes back empty
        stage.write()
        committed = stage.ends[0] - STREAMS
        stage.cut(0, committed + 20)
        running.process.send_signal(signal.SIGCONT)
        if policy == "fail":
            running.wait_for("streamlstm_stopped_partitions", 1)
            running.wait_for("streamlstm_events_total", 2 + STREAMS)
            code, text = ready(running)
            assert code == 503
            assert f"offset {committed} is to be read, and the log holds {committed + 20} to {stage.ends[0]}" in text
        else:
            running.wait_for("streamlstm_events_total", 2 + 2 * STREAMS - 20)
            running.wait_ready()
        assert running.stop() == 0
    found = stage.forecasts()
    assert offsets_of(found[1]) == Counter(range(stage.ends[1]))
    answered = {*range(committed), *(range(committed + 20, stage.ends[0]) if policy == "warm" else ())}
    assert offsets_of(found[0]) == Counter(answered)
    assert ("degraded" in map(status_of, found[0])) == (policy == "warm")
