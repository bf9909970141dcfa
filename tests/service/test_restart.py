"""Exactly once through kill -9, a second member that joins, and one that leaves, on a real broker."""

import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from daemon_process import Daemon, create_topics, daemon, read_all, source_of_forecast, write_model

PARTITIONS, STREAMS = 4, 500


class Feeder(threading.Thread):
    """Writes events at a steady pace until told to stop; `sent` counts them per (partition, offset)."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2})
        self.topic = topic
        self.sent: set[tuple[int, int]] = set()
        self.enough = threading.Event()

    def run(self) -> None:
        i = 0
        while not self.enough.is_set():
            for _ in range(50):
                value = b'{"ts":%d,"value":%d.5}' % (1_730_000_000_000 + i, i % 97)
                key = b"stream-%04d" % (i % STREAMS)
                self.producer.produce(self.topic, value, key, i % PARTITIONS, on_delivery=self._note)
                i += 1
            self.producer.poll(0.01)
        self.producer.flush()

    def _note(self, error: object, message: object) -> None:
        assert error is None, error
        self.sent.add((message.partition(), message.offset()))  # type: ignore[attr-defined]


def hold(kafka: str, output: str, sent: set[tuple[int, int]], topic: str, model: Path) -> None:
    """Each event of `sent` has one forecast, they are in order, and their bytes are those of an uninterrupted run."""
    forecasts = read_everything(kafka, output, len(sent))
    answered = [source_of_forecast(message) for message in forecasts]
    assert Counter(answered) == Counter(sent)
    with daemon(kafka, model, topic, PARTITIONS) as undisturbed:
        undisturbed.wait_for("streamlstm_events_total", len(sent))
        assert undisturbed.stop() == 0
    expected = read_everything(kafka, undisturbed.output, len(sent))
    different = [(a, b) for a, b in zip(map(written, forecasts), map(written, expected), strict=True) if a != b]
    assert not different, f"{len(different)} of {len(expected)} differ, the first: {different[:2]}"
    for partition in range(PARTITIONS):
        order = [offset for p, offset in answered if p == partition]
        assert order == sorted(order)


def read_everything(kafka: str, output: str, count: int) -> list[Message]:
    """The mark that ends a transaction comes to each partition by itself, after the commit was answered: only then do
    its readers see it.
    """
    deadline = time.monotonic() + 60
    while len(found := read_all(kafka, output, PARTITIONS)) < count and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def written(message: Message) -> tuple[object, ...]:
    """What a reader sees of a record, but for its own offset."""
    return message.partition(), message.timestamp(), message.key(), message.value()


def wait_until_answered(members: list[Daemon]) -> None:
    """Until every member is in its place and has committed all there is. The lag is looked at once a second."""
    deadline = time.monotonic() + 120
    quiet = 0
    while quiet < 3:
        assert time.monotonic() < deadline, "not everything was answered in time"
        for member in members:
            member.wait_ready()
        quiet = quiet + 1 if sum(member.metric("streamlstm_lag_records") for member in members) == 0 else 0
        time.sleep(0.7)


@pytest.mark.kafka
def test_kill_9_and_start_again(kafka: str, tmp_path: Path) -> None:
    topic = f"killed-{tmp_path.name}"
    create_topics(kafka, [topic], PARTITIONS)
    model = write_model(tmp_path / "model.safetensors")
    feeder = Feeder(kafka, topic)
    feeder.start()
    same = {
        "kafka.group_id": topic,
        "commit.interval_ms": 10,
        "commit.transactional_id": topic,
        "kafka.group_instance_id": "one",
    }
    names: dict[str, object] = {}
    for life in range(4):
        with daemon(kafka, model, topic, PARTITIONS, {**same, **names}) as running:
            names = running.topics
            running.wait_for("streamlstm_events_total", 2_000)
            if life < 3:
                running.process.send_signal(signal.SIGKILL)
                running.process.wait()
                continue
            feeder.enough.set()
            feeder.join()
            wait_until_answered([running])
            assert running.stop() == 0
    hold(kafka, str(names["output.topic"]), feeder.sent, topic, model)


@pytest.mark.kafka
def test_members_join_and_leave(kafka: str, tmp_path: Path) -> None:
    topic = f"moved-{tmp_path.name}"
    create_topics(kafka, [topic], PARTITIONS)
    model = write_model(tmp_path / "model.safetensors")
    feeder = Feeder(kafka, topic)
    feeder.start()
    with ExitStack() as stack:

        def member(name: str, **given: object) -> Daemon:
            settings = {"kafka.group_id": topic, "commit.transactional_id": f"{topic}-{name}", **given}
            running = stack.enter_context(daemon(kafka, model, topic, PARTITIONS, settings))
            running.wait_ready()
            running.wait_for("streamlstm_partitions", 1)
            running.wait_for("streamlstm_events_total", 500)
            return running

        first = member("a")
        second = member("b", **first.topics)
        assert first.metric("streamlstm_partitions") + second.metric("streamlstm_partitions") == PARTITIONS
        assert first.stop() == 0
        second.wait_for("streamlstm_partitions", PARTITIONS)
        third = member("c", **first.topics)
        feeder.enough.set()
        feeder.join()
        wait_until_answered([second, third])
        assert second.stop() == 0
        third.wait_for("streamlstm_partitions", PARTITIONS)
        assert third.stop() == 0
    hold(kafka, first.output, feeder.sent, topic, model)


@pytest.mark.kafka
def test_a_log_that_is_cut_by_its_size_has_what_a_restart_replays(kafka: str, tmp_path: Path) -> None:
    """Retention that a round of snapshots doesn't know of: the chunks are written before their turn."""
    model, topic = write_model(tmp_path / "model.safetensors"), f"cut-{time.time_ns()}"
    create_topics(kafka, [topic], PARTITIONS)
    producer, admin = (
        Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 2}),
        AdminClient({"bootstrap.servers": kafka}),
    )

    def produce(events: range) -> None:
        for i in events:
            value = b'{"ts":%d,"value":%d.5}' % (1_730_000_000_000 + i, i % 97)
            producer.produce(topic, value, b"stream-%d" % (i % STREAMS), i % PARTITIONS)
        assert producer.flush(60) == 0

    def cut_before(offset: int) -> None:
        for future in admin.delete_records([TopicPartition(topic, p, offset) for p in range(PARTITIONS)]).values():
            future.result(30)

    settings = {"kafka.group_id": topic, "kafka.group_instance_id": "a", "snapshot.interval_ms": 3_600_000}
    with daemon(kafka, model, topic, PARTITIONS, settings) as running:
        produce(range(40))
        running.wait_for("streamlstm_events_total", 40)
        produce(range(40, 4_000))
        running.wait_for("streamlstm_events_total", 4_000)
        before = running.metric("streamlstm_replay_records")
        assert before > 2_000, "no round has come to its end"
        cut_before(600)
        deadline = time.monotonic() + 60
        while running.metric("streamlstm_replay_records") > 0:
            assert time.monotonic() < deadline, "the log was cut, and the chunks are old"
            time.sleep(0.1)
        running.process.kill()
        running.process.wait()
    cut_before(1_000)
    with daemon(kafka, model, topic, PARTITIONS, {**settings, **running.topics}) as again:
        again.wait_ready()
        assert again.metric("streamlstm_streams") == STREAMS
        produce(range(4_000, 4_100))
        again.wait_for("streamlstm_events_total", 100)
        assert again.stop() == 0
