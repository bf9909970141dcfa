"""Brokers, events and replicas that are watched by a Prometheus: what the faults of faults.py are done to."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from confluent_kafka import Producer

from deploy.kafka.local_kafka import LocalKafka, die_with_parent
from tests.daemon_process import create_topics, free_port
from tests.monitoring.prometheus import Prometheus

ROOT = Path(__file__).resolve().parents[2]
STREAMS = 40
FOR_EVER = 1 << 62
SETTINGS: dict[str, object] = {
    "kafka.session_timeout_ms": 6_000, "kafka.heartbeat_interval_ms": 300, "commit.request_timeout_ms": 2_000,
    "commit.transaction_timeout_ms": 4_000,
    "snapshot.interval_ms": 10_000, "engine.threads": 1, "state.max_streams": 1_000, "metrics.host": "127.0.0.1",
    "log.format": "logfmt",
}  # fmt: skip

Value = Callable[[random.Random, int, int], object]
"""The value of a stream's n-th event, by chance, stream and n. Bytes stand for the whole event."""


def plausible(chance: random.Random, stream: int, n: int) -> object:
    """A level that wanders slowly below much noise, so that there is something to be learned."""
    return round(50 + stream + 5 * ((n % 97) / 97) + chance.gauss(0, 2), 3)


class Feed(threading.Thread):
    """`rate` events per second, stream after stream, into all partitions of a topic. `streams` of them live at a time,
    each for `life` events.
    """

    def __init__(self, bootstrap: str, topic: str, rate: float, value: Value, streams: int, life: int) -> None:
        super().__init__(daemon=True, name=f"feed of {topic}")
        self.rate = rate
        self._topic = topic
        self._value = value
        self._streams = streams
        self._life = life
        self._chance = random.Random(topic)
        self._enough = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap, "linger.ms": 5, "message.timeout.ms": 0, "log_level": 0,
                "queue.buffering.max.messages": 2_000_000, "reconnect.backoff.max.ms": 500,
            }
        )  # fmt: skip

    def run(self) -> None:
        sent, due, last = 0, 0.0, time.monotonic()
        while not self._enough.is_set():
            now = time.monotonic()
            due, last = due + (now - last) * self.rate, now
            while sent < due:
                stream, n = sent % self._streams, sent // self._streams
                value = self._value(self._chance, stream, n)
                if not isinstance(value, bytes):
                    value = b'{"ts":%d,"value":%.6g}' % (time.time_ns() // 1_000_000, value)
                self._producer.produce(self._topic, value, b"stream-%d-%d" % (stream, n // self._life))
                sent += 1
            self._producer.poll(0)
            self._enough.wait(0.02)

    def stop(self) -> None:
        self._enough.set()
        self.join()
        self._producer.purge()


class Replica:
    """A daemon in the processes of its life; its port stays the same."""

    def __init__(self, fleet: "Fleet", name: str, settings: Mapping[str, object]) -> None:
        self.fleet = fleet
        self.port = free_port()
        self.environment: dict[str, str] = {}
        self._log = fleet.folder / f"{fleet.job}-{name}.log"
        self._settings = {
            **SETTINGS, "kafka.bootstrap_servers": [fleet.bootstrap], "kafka.group_id": fleet.job,
            "commit.transactional_id": f"{fleet.job}-{name}", "model.path": str(fleet.model),
            "metrics.port": self.port, "input.topic": fleet.topic("events"), "output.topic": fleet.topic("forecasts"),
            "dead_letter.topic": fleet.topic("dead"), "snapshot.topic": fleet.topic("snapshots"), **settings,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Replica":
        given = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self._settings.items()}
        arguments = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*die_with_parent(), sys.executable, "-m", "streamlstm", "run", *arguments],
                stdout=log, stderr=log, cwd=self.fleet.folder, env={**os.environ, **self.environment},
            )  # fmt: skip
        self.fleet.prometheus.watch(self.port, self.fleet.job)
        return self

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def wait_ready(self, seconds: float = 600.0) -> "Replica":
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.alive, f"it has ended; see {self._log}"
            with suppress(OSError):
                if "ok" in self.page("/readyz"):
                    return self
            time.sleep(0.1)
        raise AssertionError(f"not ready after {seconds:.0f} s; see {self._log}")

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            assert self._process is not None
            self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and wait; killed when that takes too long."""
        self.send(number)
        if self._process is not None:
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Fleet:
    """One job: topics of its own, and replicas of one group."""

    def __init__(
        self, prometheus: Prometheus, broker: LocalKafka, folder: Path, model: Path, name: str, partitions: int = 2
    ) -> None:
        self.prometheus = prometheus
        self.broker = broker
        self.bootstrap = broker.bootstrap
        self.folder = folder
        self.model = model
        self.job = f"streamlstm-{name}"
        self.replicas: list[Replica] = []
        self._feeds: list[Feed] = []
        create_topics(broker.bootstrap, [self.topic(kind) for kind in ("events", "forecasts", "dead")], partitions)
        create_topics(broker.bootstrap, [self.topic("snapshots")], partitions, **{"cleanup.policy": "compact"})

    def topic(self, kind: str) -> str:
        return f"{self.job}-{kind}"

    def feed(self, rate: float = 200.0, value: Value = plausible, streams: int = STREAMS, life: int = FOR_EVER) -> Feed:
        feed = Feed(self.broker.bootstrap, self.topic("events"), rate, value, streams, life)
        self._feeds.append(feed)
        feed.start()
        return feed

    def replica(self, name: str = "a", **settings: object) -> Replica:
        """Not started yet."""
        named = {key.replace("__", "."): value for key, value in settings.items()}
        self.replicas.append(Replica(self, name, named))
        return self.replicas[-1]

    @contextmanager
    def running(self) -> Iterator["Fleet"]:
        """Ends all that was started, and Prometheus hears no more of it."""
        try:
            yield self
        finally:
            for feed in self._feeds:
                feed.stop()
            for replica in self.replicas:
                self.prometheus.forget(replica.port)
                replica.send(signal.SIGCONT)
                replica.end(signal.SIGKILL)
