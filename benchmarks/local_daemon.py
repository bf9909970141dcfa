"""A real `streamlstm run` on topics of its own, for the benchmarks."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy" / "kafka"))

from local_kafka import LocalKafka, free_ports

__all__ = ["LocalKafka"]

PARTITIONS = 8
FIRST_TS = 1_730_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")
STREAMLSTM = [sys.executable, "-m", "streamlstm"]


def create_topics(bootstrap: str, names: list[str], partitions: int = PARTITIONS, **config: str) -> None:
    topics = [NewTopic(name, partitions, 1, config=config) for name in names]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(topics).values():
        future.result(30)


def make_model(path: Path, hidden: int, *, judged: bool = False) -> None:
    """A random LSTM: speed doesn't depend on what it forecasts. `judged`: with guard, intervals, anomaly scores."""
    rng = np.random.default_rng(0)
    tensors = {
        "lstm.weight_ih_l0": rng.normal(0, 0.1, (4 * hidden, 1)),
        "lstm.weight_hh_l0": rng.normal(0, 0.1, (4 * hidden, hidden)),
        "lstm.bias_ih_l0": rng.normal(0, 0.1, 4 * hidden), "lstm.bias_hh_l0": np.zeros(4 * hidden),
        "fc.weight": rng.normal(0, 0.1, (1, hidden)), "fc.bias": np.zeros(1),
    }  # fmt: skip
    source = path.with_suffix(".torch.safetensors")
    save_file({name: value.astype(np.float32) for name, value in tensors.items()}, source)
    judging = ["--level", "0.9", "--guard"] if judged else []
    command = [*STREAMLSTM, "import", source, "-o", path, "--carry", *judging]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@dataclass
class Daemon:
    process: subprocess.Popen[bytes]
    port: int
    group: str

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_mb(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    def metric(self, name: str) -> float:
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5).read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.split("[{ ]", line)[0] == name)

    def wait(self, name: str, least: float, seconds: float = 300.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"the daemon ended with {self.process.returncode}")
            if self.metric(name) >= least:
                return
            time.sleep(0.25)
        raise SystemExit(f"{name} did not reach {least} within {seconds} s")

    def wait_ready(self) -> None:
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"the daemon ended with {self.process.returncode}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close()
                return
            except OSError:
                time.sleep(0.02)


def topics_of(bootstrap: str, partitions: int = PARTITIONS) -> str:
    """Makes the topics of one daemon, and returns what tells their names from others."""
    unique = uuid.uuid4().hex[:8]
    create_topics(bootstrap, [f"forecasts-{unique}", f"dead-{unique}"], partitions)
    create_topics(bootstrap, [f"snapshots-{unique}"], partitions, **{"cleanup.policy": "compact"})
    return unique


def start_daemon(bootstrap: str, folder: Path, topic: str, unique: str, *settings: str) -> Daemon:
    """A real `streamlstm run` over those topics, in a group of that name."""
    (port,) = free_ports(1)
    common = [
        f'kafka.bootstrap_servers=["{bootstrap}"]', f"kafka.group_id=bench-{unique}", f"input.topic={topic}",
        f"output.topic=forecasts-{unique}", f"dead_letter.topic=dead-{unique}", f"snapshot.topic=snapshots-{unique}",
        f"model.path={folder / 'model.safetensors'}", f"commit.transactional_id=bench-{unique}",
        "metrics.host=127.0.0.1", f"metrics.port={port}", "log.level=warning",
    ]  # fmt: skip
    arguments = [part for setting in (*common, *settings) for part in ("--set", setting)]
    return Daemon(subprocess.Popen([*STREAMLSTM, "run", *arguments]), port, f"bench-{unique}")


@contextmanager
def daemon(bootstrap: str, folder: Path, topic: str, *settings: str) -> Iterator[Daemon]:
    """A ready daemon with topics of its own; SIGTERM at the end must give exit code 0."""
    running = start_daemon(bootstrap, folder, topic, topics_of(bootstrap), *settings)
    try:
        running.wait_ready()
        yield running
        running.process.send_signal(signal.SIGTERM)
        if running.process.wait(30) != 0:
            raise SystemExit(f"the daemon ended with {running.process.returncode}")
    finally:
        running.process.kill()


def wait_committed(bootstrap: str, running: Daemon, topic: str, events: int) -> None:
    """Until the group has committed them all. The broker is asked: a scrape would cost the daemon 6 ms of CPU."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    question = [ConsumerGroupTopicPartitions(running.group, partitions)]
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise SystemExit(f"the daemon ended with {running.process.returncode}")
        (answer,) = admin.list_consumer_group_offsets(question, require_stable=True).values()
        found = answer.result(30).topic_partitions
        if sum(max(0, each.offset) for each in found or ()) >= events:
            return
        time.sleep(0.1)
    raise SystemExit(f"{events} events were not committed within 300 s")
