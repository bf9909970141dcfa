"""From a real Kafka to a real Kafka: CPU per event against the peer loop, and latency at a low rate.

    .venv/bin/python benchmarks/end_to_end.py [--events 1000000] [--streams 100000] [--hidden 50] [--runs 3]
                                              [--peers torch,onnxruntime] [--json FILE]

Preloads the events (JSON, about 60 bytes) into 8 partitions of a real Apache Kafka, then lets the daemon and the peers
(benchmarks/peer_loop.py; those whose runtime is installed) consume them in turn, transactions on, and compares user +
system CPU of each whole process from ready to the last commit. Broker and client share the machine.
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "deploy" / "kafka"))

from local_kafka import LocalKafka  # noqa: E402

PARTITIONS = 8
SETTLE_SECONDS = 12.0
FIRST_TS = 1_730_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")


def create_topics(bootstrap: str, names: list[str], **config: str) -> None:
    topics = [NewTopic(name, PARTITIONS, 1, config=config) for name in names]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(topics).values():
        future.result(30)


def preload(bootstrap: str, topic: str, events: int, streams: int) -> float:
    """Uniformly random keys, each on its own partition; returns the mean size of a value in bytes."""
    rng, size = random.Random(0), 0
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000})
    for i in range(events):
        stream = rng.randrange(streams)
        value = b'{"stream":"host-%06d","ts":%d,"value":%.4f}' % (stream, FIRST_TS + i, rng.gauss(0.0, 1.0))
        size += len(value)
        producer.produce(topic, value, b"host-%06d" % stream, stream % PARTITIONS, timestamp=FIRST_TS + i)
        if i % 10_000 == 0:
            producer.poll(0)
    producer.flush()
    return size / events


def make_model(path: Path, hidden: int) -> None:
    """A random LSTM: speed doesn't depend on what it forecasts."""
    rng = np.random.default_rng(0)
    tensors = {
        "lstm.weight_ih_l0": rng.normal(0, 0.1, (4 * hidden, 1)),
        "lstm.weight_hh_l0": rng.normal(0, 0.1, (4 * hidden, hidden)),
        "lstm.bias_ih_l0": rng.normal(0, 0.1, 4 * hidden), "lstm.bias_hh_l0": np.zeros(4 * hidden),
        "fc.weight": rng.normal(0, 0.1, (1, hidden)), "fc.bias": np.zeros(1),
    }  # fmt: skip
    from safetensors.numpy import save_file  # noqa: PLC0415

    source = path.with_suffix(".torch.safetensors")
    save_file({name: value.astype(np.float32) for name, value in tensors.items()}, source)
    subprocess.run([*STREAMLSTM, "import", source, "-o", path, "--carry"], check=True, stdout=subprocess.DEVNULL)


STREAMLSTM = [sys.executable, "-m", "streamlstm"]


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


def topics_of(bootstrap: str) -> str:
    """Makes the topics of one daemon, and returns what tells their names from others."""
    unique = uuid.uuid4().hex[:8]
    create_topics(bootstrap, [f"forecasts-{unique}", f"dead-{unique}"])
    create_topics(bootstrap, [f"snapshots-{unique}"], **{"cleanup.policy": "compact"})
    return unique


def start_daemon(bootstrap: str, folder: Path, topic: str, unique: str, *settings: str) -> Daemon:
    """A real `streamlstm run` over those topics, in a group of that name."""
    from local_kafka import free_ports  # noqa: PLC0415

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


def run_daemon(bootstrap: str, folder: Path, topic: str, events: int, streams: int, threads: int) -> dict[str, float]:
    settings = (f"state.max_streams={streams}", f"engine.threads={threads}")
    with daemon(bootstrap, folder, topic, *settings) as running:
        start_cpu, start = running.cpu_seconds(), time.perf_counter()
        started_at = running.metric("streamlstm_forecasts_total")
        wait_committed(bootstrap, running, topic, events)
        seconds, cpu = time.perf_counter() - start, running.cpu_seconds() - start_cpu
        running.wait("streamlstm_forecasts_total", events)
        done = events - started_at
        return {
            "us_per_event": cpu / done * 1e6,
            "events_per_s": done / seconds,
            "resident_mb": running.resident_mb(),
        }


def run_peer(bootstrap: str, topic: str, events: int, streams: int, hidden: int, runtime: str) -> dict[str, float]:
    output = f"peer-{uuid.uuid4().hex[:8]}"
    create_topics(bootstrap, [output])
    arguments = ["--bootstrap", bootstrap, "--input", topic, "--output", output, "--events", str(events)]
    arguments += ["--streams", str(streams), "--hidden", str(hidden), "--runtime", runtime]
    line = subprocess.run(
        [sys.executable, HERE / "peer_loop.py", *arguments], check=True, capture_output=True, text=True
    ).stdout
    seen = json.loads(line.splitlines()[-1])
    return {
        "us_per_event": seen["cpu_s"] / seen["events"] * 1e6,
        "events_per_s": seen["events"] / seen["wall_s"],
    }


def latency(bootstrap: str, folder: Path, rate: int, seconds: float) -> dict[str, float]:
    """ms from the broker's append of an event (LogAppendTime) to its forecast in a read_committed reader's hands.

    The first SETTLE_SECONDS don't count: the groups form, and the JVM of the broker compiles what it runs.
    """
    topic = f"paced-{uuid.uuid4().hex[:8]}"
    create_topics(bootstrap, [topic], **{"message.timestamp.type": "LogAppendTime"})
    with daemon(bootstrap, folder, topic, "commit.interval_ms=10", "input.start=earliest") as running:
        output = _output_of(running)
        feeder = threading.Thread(target=_feed, args=(bootstrap, topic, rate, seconds))
        feeder.start()
        arrived = _read_forecasts(bootstrap, output, int(rate * seconds))
        feeder.join()
    appended = _append_times(bootstrap, topic)
    settled = min(appended.values()) + SETTLE_SECONDS * 1e3
    waits = sorted(arrived[key] - at for key, at in appended.items() if at >= settled)
    return {
        "p50_ms": waits[len(waits) // 2], "p99_ms": waits[int(len(waits) * 0.99)], "max_ms": waits[-1],
        "events": float(len(waits)),
    }  # fmt: skip


def _output_of(running: Daemon) -> str:
    settings = running.process.args[running.process.args.index("run") :]  # type: ignore[union-attr, index]
    return next(str(s).removeprefix("output.topic=") for s in settings if str(s).startswith("output.topic="))


def _feed(bootstrap: str, topic: str, rate: int, seconds: float) -> None:
    producer, rng = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0}), random.Random(1)
    start = time.perf_counter()
    for i in range(int(rate * seconds)):
        delay = start + i / rate - time.perf_counter()
        if delay > 0:
            time.sleep(delay)
        value = b'{"ts":%d,"value":%.4f}' % (FIRST_TS + i, rng.gauss(0.0, 1.0))
        producer.produce(topic, value, b"host-%06d" % rng.randrange(1000), i % PARTITIONS)
        producer.poll(0)
    producer.flush()


def _reader(bootstrap: str, topic: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "isolation.level": "read_committed",
            "enable.auto.commit": False, "fetch.wait.max.ms": 100,
        }
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    return consumer


def _read_forecasts(bootstrap: str, topic: str, count: int) -> dict[tuple[int, int], float]:
    consumer, arrived = _reader(bootstrap, topic), {}
    deadline = time.monotonic() + 120
    while len(arrived) < count and time.monotonic() < deadline:
        messages = consumer.consume(1000, 0.005)
        now = time.time() * 1e3
        for m in messages:
            source = json.loads(m.value())["src"]
            arrived[source["partition"], source["offset"]] = now
    consumer.close()
    if len(arrived) < count:
        raise SystemExit(f"only {len(arrived)} of {count} forecasts arrived")
    return arrived


def _append_times(bootstrap: str, topic: str) -> dict[tuple[int, int], float]:
    consumer, times = _reader(bootstrap, topic), {}
    while messages := consumer.consume(10_000, 1.0):
        times.update({(m.partition(), m.offset()): float(m.timestamp()[1]) for m in messages})
    consumer.close()
    return times


def median_of(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def report(results: dict[str, dict[str, float]], waits: dict[str, float]) -> str:
    ours = results["streamlstm"]["us_per_event"]
    lines = ["| | us CPU per event | events/s | ratio |", "|---|---|---|---|"]
    for name, row in results.items():
        ratio = row["us_per_event"] / ours
        lines.append(f"| {name} | {row['us_per_event']:.2f} | {row['events_per_s']:,.0f} | {ratio:.1f} |")
    if waits:
        lines.append("")
        lines.append(
            f"append to readable at a low rate: median {waits['p50_ms']:.1f} ms, p99 {waits['p99_ms']:.1f} ms, "
            f"longest {waits['max_ms']:.1f} ms over {waits['events']:.0f} events"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", default="torch,onnxruntime")
    parser.add_argument("--rate", type=int, default=1000, help="events/s of the latency run; 0 leaves it out")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    peers = [peer for peer in args.peers.split(",") if peer and importlib.util.find_spec(peer)]
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        folder, bootstrap = Path(name), kafka.bootstrap
        make_model(folder / "model.safetensors", args.hidden)
        create_topics(bootstrap, ["events"])
        size = preload(bootstrap, "events", args.events, args.streams)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, broker on the same machine; "
              f"{args.events:,} events of {size:.0f} bytes, {args.streams:,} streams, H={args.hidden}")  # fmt: skip
        rows: dict[str, list[dict[str, float]]] = {}
        for _ in range(args.runs):
            ours = run_daemon(bootstrap, folder, "events", args.events, args.streams, args.threads)
            rows.setdefault("streamlstm", []).append(ours)
            for peer in peers:
                theirs = run_peer(bootstrap, "events", args.events, args.streams, args.hidden, peer)
                rows.setdefault(f"peer loop, {peer}", []).append(theirs)
        results = {name: median_of(found) for name, found in rows.items()}
        waits = latency(bootstrap, folder, args.rate, args.seconds) if args.rate else {}
    print(report(results, waits))
    if args.json:
        args.json.write_text(json.dumps({"results": results, "runs": rows, "latency": waits}, indent=1))


if __name__ == "__main__":
    main()
