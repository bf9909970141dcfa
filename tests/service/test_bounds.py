"""What a daemon needs stays bounded: with ten times the streams it can hold, and with brokers away, frozen or slow."""

import json
import os
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Producer
from daemon_process import (
    Daemon,
    Footprint,
    create_topics,
    daemon,
    frozen,
    read_all,
    reason_of,
    source_of_forecast,
    write_model,
)
from local_kafka import LocalKafka

from streamlstm.cli.main import outcome

pytestmark = pytest.mark.kafka

PARTITIONS = 4
CAP = 50_000
BASE_TIME = 1_730_000_000_000
MIB = 1 << 20
FLAT = 1.02


def produce(producer: Producer, topic: str, events: range, streams: int) -> None:
    for n in events:
        value = b'{"ts":%d,"value":%d.25}' % (BASE_TIME + n, n % 97)
        while True:
            try:
                producer.produce(topic, value, b"s%d" % (n % streams), n % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(120) == 0


def producer_of(kafka: str) -> Producer:
    return Producer(
        {"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4"}
    )


def audit(kafka: str, group: str, running: Daemon) -> int:
    values = {
        "kafka.bootstrap_servers": json.dumps([kafka]), "kafka.group_id": group, "input.topic": running.input,
        "output.topic": running.output, "dead_letter.topic": running.dead_letters,
    }  # fmt: skip
    return outcome(["audit", *(part for name in values for part in ("--set", f"{name}={values[name]}"))])


# ----------------------------------------------------------------------------------------------------- too many streams


@pytest.mark.parametrize("on_full", ["refuse", "evict"])
def test_ten_times_the_streams(kafka: str, tmp_path: Path, on_full: str) -> None:
    topic = f"crowd-{on_full}-{time.time_ns()}"
    create_topics(kafka, [topic], PARTITIONS)
    settings = {
        "kafka.group_id": topic, "state.max_streams": CAP, "state.max_streams_per_partition": CAP // PARTITIONS,
        "state.on_full": on_full, "commit.max_bytes": MIB, "fetch.max_bytes": MIB, "fetch.max_partition_bytes": MIB,
    }  # fmt: skip
    producer, model = producer_of(kafka), write_model(tmp_path / "model.safetensors")
    with daemon(kafka, model, topic, PARTITIONS, settings) as running:
        seen = []
        for k in range(10):
            produce(producer, topic, range(k * CAP, (k + 1) * CAP), 10 * CAP)
            running.wait_for("streamlstm_events_total", (k + 1) * CAP)
            seen.append(Footprint.of(running.process.pid).resident)
        assert 0.99 * CAP <= running.metric("streamlstm_streams") <= CAP
        assert running.stop() == 0
    # The bound is reached with the first tenth; what follows from it, dead letters or all snapshots at once, then.
    assert max(seen) <= FLAT * max(seen[:5]), [round(each / MIB, 1) for each in seen]
    refused = read_all(kafka, running.dead_letters, PARTITIONS)
    assert Counter(map(reason_of, refused)) == ({"capacity": 9 * CAP} if on_full == "refuse" else {})
    assert audit(kafka, topic, running) == 0


# --------------------------------------------------------------------------------------------------- brokers in trouble


@dataclass
class Watch:
    """What a daemon answers and needs, looked at all the time."""

    running: Daemon
    live: Counter[int] = field(default_factory=Counter)
    ready: Counter[int] = field(default_factory=Counter)
    seen: list[Footprint] = field(default_factory=list)

    def look(self) -> None:
        self.live[self._code("/livez")] += 1
        self.ready[self._code("/readyz")] += 1
        self.seen.append(Footprint.of(self.running.process.pid))

    def _code(self, path: str) -> int:
        try:
            self.running.page(path)
        except urllib.error.HTTPError as answer:
            return answer.code
        return 200

    def during(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.2)


class Feeder(threading.Thread):
    """Writes at a steady pace, waiting for the brokers as long as it takes; `finish` says how many events there are."""

    def __init__(self, kafka: str, topic: str, first: int) -> None:
        super().__init__(daemon=True)
        patient = {"message.timeout.ms": 0, "queue.buffering.max.messages": 20_000, "enable.idempotence": True}
        self.producer = Producer({"bootstrap.servers": kafka, "linger.ms": 5, "log_level": 0, **patient})
        self.topic = topic
        self.count = first
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            for _ in range(20):
                n = self.count
                value = b'{"ts":%d,"value":%d.5}' % (BASE_TIME + n, n % 97)
                try:
                    self.producer.produce(self.topic, value, b"s%d" % (n % 1000), n % PARTITIONS)
                except BufferError:
                    break
                self.count += 1
            self.producer.poll(0.02)
        assert self.producer.flush(120) == 0

    def finish(self) -> int:
        self.enough.set()
        self.join(150)
        assert not self.is_alive()
        return self.count


def gone(broker: LocalKafka, watch: Watch, seconds: float) -> None:
    broker.kill()
    watch.during(seconds)
    broker.start()


def hanging(broker: LocalKafka, watch: Watch, seconds: float) -> None:
    with frozen(int((broker.folder / "pid").read_text())):
        watch.during(seconds)


AWAY_SECONDS = float(os.environ.get("AWAY_SECONDS", "25"))
TIMEOUTS: dict[str, object] = {
    "commit.request_timeout_ms": 500, "commit.transaction_timeout_ms": 1_000, "kafka.session_timeout_ms": 6_000,
    "fetch.max_wait_ms": 200, "metrics.stalled_after_ms": 5_000,
} if AWAY_SECONDS < 200 else {}  # fmt: skip
"""All of them, those that follow from them included, run out in less than AWAY_SECONDS."""

BURST = 60_000


@pytest.mark.parametrize("trouble", [gone, hanging])
def test_brokers_away(
    own_broker: LocalKafka, tmp_path: Path, trouble: Callable[[LocalKafka, Watch, float], None]
) -> None:
    """For longer than every time-out: the process stays, live and not ready, and then answers what has waited."""
    kafka, topic, model = own_broker.bootstrap, "events", write_model(tmp_path / "model.safetensors")
    create_topics(kafka, [topic], PARTITIONS)
    settings: dict[str, object] = {
        "kafka.group_id": topic, "state.max_streams": 2_000, "snapshot.interval_ms": 2_000, "commit.interval_ms": 20,
        **TIMEOUTS,
    }  # fmt: skip
    with daemon(kafka, model, topic, PARTITIONS, settings) as running:
        produce(producer_of(kafka), topic, range(BURST), 1_000)
        running.wait_for("streamlstm_events_total", BURST)
        assert running.stop() == 0
    produce(producer_of(kafka), topic, range(BURST, 2 * BURST), 1_000)
    with daemon(kafka, model, topic, PARTITIONS, {**settings, **running.topics}) as running:
        running.wait_for("streamlstm_events_total", BURST)  # after a restore and a burst it has all that it needs
        feeder, watch = Feeder(kafka, topic, 2 * BURST), Watch(running)
        feeder.start()
        watch.during(3)
        before = watch.seen[-1]
        assert (set(watch.live), set(watch.ready)) == ({200}, {200})
        trouble(own_broker, watch, AWAY_SECONDS)
        assert watch.ready[503] > watch.ready[200]
        away = [each.resident for each in watch.seen]  # catching up takes a burst's worth more
        settled = max(away[: len(away) // 2])
        began, count = time.monotonic(), feeder.finish()
        answered(running, kafka, count)
        took = time.monotonic() - began
        watch.during(2)
        after, most = Footprint.of(running.process.pid), max(each.resident for each in watch.seen)
        print(f"away {AWAY_SECONDS:.0f} s, all answered {took:.1f} s after; {before}, {after}, at most {most}")
        assert set(watch.live) == {200}
        assert watch.ready.total() == watch.live.total()
        assert running.stop() == 0
    assert max(away) <= FLAT * settled
    assert most <= 1.05 * before.resident
    assert after.files <= before.files + 2
    assert after.threads <= before.threads + 1


def answered(running: Daemon, kafka: str, count: int) -> None:
    """Wait until the output has `count` records: each event's one forecast."""
    deadline, found = time.monotonic() + 120, Counter[tuple[int, int]]()
    while found.total() < count:
        assert time.monotonic() < deadline
        assert running.process.poll() is None
        found = Counter(map(source_of_forecast, read_all(kafka, running.output, PARTITIONS)))
    assert found == Counter((n % PARTITIONS, n // PARTITIONS) for n in range(count))


def test_slow_brokers(own_broker: LocalKafka, tmp_path: Path) -> None:
    """They stand still most of the time while there is much to answer: what waits is bounded."""
    kafka, topic, model = own_broker.bootstrap, "events", write_model(tmp_path / "model.safetensors")
    create_topics(kafka, [topic], PARTITIONS)
    events, most, round_bytes = 300_000, 4 * MIB, MIB // 4
    settings = {
        "kafka.group_id": topic, "state.max_streams": 2_000, "commit.max_bytes": most, "fetch.max_bytes": round_bytes,
        "fetch.max_partition_bytes": round_bytes,
    }  # fmt: skip
    produce(producer_of(kafka), topic, range(events), 1_000)
    pid, largest = int((own_broker.folder / "pid").read_text()), 0.0
    with daemon(kafka, model, topic, PARTITIONS, settings) as running:
        running.wait_for("streamlstm_events_total", 1)
        before = written(running)
        while before[0] < events:
            with frozen(pid):
                time.sleep(0.4)
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                now = written(running)
                if now[1] - before[1] == 1:
                    largest = max(largest, now[2] - before[2])
                before = now
        answered(running, kafka, events)
        assert running.stop() == 0
    print(f"largest transaction {largest / MIB:.1f} MiB")
    # A round is answered whole, and events are encoded 32,768 at a time: together about 10 MiB of forecasts here.
    assert most / 4 < largest <= most + 10 * MIB


def written(running: Daemon) -> tuple[float, float, float]:
    """Events, transactions and bytes of output that are committed."""
    names = ("streamlstm_events_total", "streamlstm_transactions_total", "streamlstm_produced_bytes_total")
    events, transactions, size = (running.metric(name) for name in names)
    return events, transactions, size
