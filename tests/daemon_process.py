"""A real `streamlstm run` beside a test, with topics of its own, and an independent reader of what it wrote.

The reader is librdkafka (confluent-kafka), read_committed: nothing of streamlstm judges streamlstm.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.kafka.local_kafka import free_ports
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, default_inputs, no_scaling, save
from streamlstm.model.parameters import Layer, Parameters

PREFIX = "__streamlstm.errors."


def random_parameters(inputs: int = 1, hidden: int = 8, outputs: int = 1, layers: int = 1, seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    sizes = [inputs] + [hidden] * layers
    stack = tuple(
        Layer(weights(4 * hidden, sizes[k]), weights(4 * hidden, hidden), weights(4 * hidden)) for k in range(layers)
    )
    return Parameters(stack, weights(outputs, hidden), weights(outputs))


def write_model(path: Path) -> Path:
    """A carried model of one input and 50 units at `path`."""
    parameters = random_parameters(hidden=50)
    model = Model(
        parameters=parameters, window=0, inputs=default_inputs(1), target=0, predicts="value", horizons=(1,),
        scaling=no_scaling(1), interval_ms=None, origin={}, golden=make_golden(parameters),
    )  # fmt: skip
    save(model, path)
    return path


def create_topics(bootstrap: str, names: list[str], partitions: int, **config: str) -> None:
    if not names:
        return
    topics = [NewTopic(name, partitions, 1, config=config) for name in names]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(topics).values():
        future.result(30)


def read_all(bootstrap: str, topic: str, partitions: int, **security: str) -> list[Message]:
    """Every committed record of a topic, partition by partition, in offset order. `security` is librdkafka's, with
    underscores for its dots.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "isolation.level": "read_committed",
            "enable.auto.commit": False, "enable.partition.eof": True,
            **{name.replace("_", "."): value for name, value in security.items()},
        }
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    found: dict[int, list[Message]] = {p: [] for p in range(partitions)}
    ended: set[int] = set()
    deadline = time.monotonic() + 120
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"{topic}: no end of {partitions} partitions after 120 s"
        for message in consumer.consume(50_000, 0.2):
            if message.error() is None:
                found[message.partition()].append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()
    return [message for p in range(partitions) for message in found[p]]


def source_of_forecast(message: Message) -> tuple[int, int]:
    source = json.loads(message.value())["src"]
    return source["partition"], source["offset"]


def source_of_dead_letter(message: Message) -> tuple[int, int]:
    headers = dict(message.headers())
    return int(headers[PREFIX + "partition"]), int(headers[PREFIX + "offset"])


def reason_of(message: Message) -> str:
    reason: bytes = dict(message.headers())[PREFIX + "reason"]
    return reason.decode()


@dataclass(frozen=True)
class Footprint:
    """Of a process: resident bytes, open files, threads."""

    resident: int
    files: int
    threads: int

    @staticmethod
    def of(pid: int) -> "Footprint":
        process = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Footprint(
            int(status["VmRSS"].split()[0]) * 1024, len(list((process / "fd").iterdir())), int(status["Threads"])
        )


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@dataclass
class Daemon:
    process: subprocess.Popen[bytes]
    port: int
    input: str
    output: str
    dead_letters: str
    snapshots: str
    group: str

    @property
    def topics(self) -> dict[str, object]:
        """The settings by which another daemon takes over where this one has stopped."""
        return {
            "output.topic": self.output, "dead_letter.topic": self.dead_letters, "snapshot.topic": self.snapshots,
        }  # fmt: skip

    def page(self, path: str) -> str:
        content: bytes = urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5).read()
        return content.decode()

    def metric(self, name: str) -> float:
        """Sum over all labels."""
        lines = [line for line in self.page("/metrics").splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def wait_for(self, name: str, least: float, seconds: float = 120.0) -> None:
        self._wait(lambda: self.metric(name) >= least, f"{name} >= {least}", seconds)

    def wait_ready(self, seconds: float = 180.0) -> None:
        self._wait(lambda: "ok" in self.page("/readyz"), "ready", seconds)

    def _wait(self, reached: object, what: str, seconds: float) -> None:
        assert callable(reached)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode} before {what}"
            try:
                if reached():
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"the daemon did not get to {what} within {seconds} s")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def free_port() -> int:
    (port,) = free_ports(1)
    return port


@contextmanager
def daemon(
    bootstrap: str, model: Path, topic: str, partitions: int, settings: Mapping[str, object] | None = None
) -> Iterator[Daemon]:
    """Runs until the block ends; topics to be written that `settings` doesn't name are created for it."""
    unique, port, given = uuid.uuid4().hex[:8], free_port(), dict(settings or {})
    output = str(given.setdefault("output.topic", f"forecasts-{unique}"))
    letters = str(given.setdefault("dead_letter.topic", f"dead-{unique}"))
    snapshots = str(given.setdefault("snapshot.topic", f"snapshots-{unique}"))
    create_topics(bootstrap, [topic for topic in (output, letters) if topic.endswith(unique)], partitions)
    if snapshots.endswith(unique):
        create_topics(bootstrap, [snapshots], partitions, **{"cleanup.policy": "compact"})
    values: dict[str, object] = {
        "kafka.bootstrap_servers": [bootstrap], "kafka.group_id": f"test-{unique}", "input.topic": topic,
        "model.path": str(model), "metrics.host": "127.0.0.1", "metrics.port": port, "log.level": "info", **given,
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "streamlstm", "run", *given_by(values)])
    try:
        yield Daemon(process, port, topic, output, letters, snapshots, str(values["kafka.group_id"]))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def given_by(settings: Mapping[str, object]) -> list[str]:
    """The arguments of a command for these settings."""
    return [part for key, value in settings.items() for part in ("--set", f"{key}={_text(value)}")]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
