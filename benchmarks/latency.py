"""How long a forecast takes: from the broker's append of an event until a reader of committed records has its answer.

    .venv/bin/python benchmarks/latency.py [--rates 1000,10000,50000] [--interval 10] [--seconds 60] [--hidden 50]
                                           [--judged] [--json FILE]

Events of 1,000 streams at a steady rate; `commit.interval_ms` is `--interval`. An event's append is the broker's own
time (LogAppendTime, in whole ms); feeder, daemon, broker and reader share the machine. Beside it, where the time goes:
the mean of each stage of a batch, from the daemon's own metrics.
"""

import argparse
import json
import random
import re
import statistics
import tempfile
import time
import urllib.request
import uuid
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from figures import Figure, write
from local_daemon import FIRST_TS, PARTITIONS, Daemon, LocalKafka, create_topics, daemon, make_model

SETTLE_SECONDS = 35.0
STAGE = re.compile(r'^streamlstm_stage_duration_seconds_(sum|count){stage="(\w+)"} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Waits:
    """ms, over `events` of them; `stages`: the mean ms of each."""

    median: float
    p99: float
    longest: float
    events: int
    stages: dict[str, float]


def measure(bootstrap: str, folder: Path, rate: int, seconds: float, interval_ms: int = 10) -> Waits:
    """The first SETTLE_SECONDS don't count: the groups form, and the JVM of a broker that has just begun compiles what
    it runs, which takes thousands of transactions; meanwhile they take three times as long.
    """
    topic = f"paced-{uuid.uuid4().hex[:8]}"
    create_topics(bootstrap, [topic], **{"message.timestamp.type": "LogAppendTime"})
    with daemon(bootstrap, folder, topic, f"commit.interval_ms={interval_ms}") as running:
        feeder = get_context("spawn").Process(target=feed, args=(bootstrap, topic, rate, seconds))
        feeder.start()
        arrived = _read_forecasts(bootstrap, _output_of(running), int(rate * seconds))
        feeder.join()
        stages = _stages(running)
    appended = _append_times(bootstrap, topic)
    settled = min(appended.values()) + SETTLE_SECONDS * 1e3
    waits = sorted(arrived[key] - at for key, at in appended.items() if at >= settled)
    return Waits(statistics.median(waits), waits[int(len(waits) * 0.99)], waits[-1], len(waits), stages)


def _stages(running: Daemon) -> dict[str, float]:
    page = urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics", timeout=5).read().decode()
    found = {(stage, what): float(value) for what, stage, value in STAGE.findall(page)}
    return {stage: 1e3 * found[stage, "sum"] / n for (stage, what), n in found.items() if what == "count" and n}


def _output_of(running: Daemon) -> str:
    settings = running.process.args[running.process.args.index("run") :]  # type: ignore[union-attr, index]
    return next(str(s).removeprefix("output.topic=") for s in settings if str(s).startswith("output.topic="))


def feed(bootstrap: str, topic: str, rate: int, seconds: float) -> None:
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
        first = consumer.poll(0.1)
        now = time.time() * 1e3
        for m in [first, *consumer.consume(1000, 0.0)] if first is not None else []:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="1000,10000,50000", help="events per second (%(default)s)")
    parser.add_argument("--interval", type=int, default=10, help="commit.interval_ms (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--judged", action="store_true", help="a model with guard, intervals and scores")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        make_model(Path(name) / "model.safetensors", args.hidden, judged=args.judged)
        print("| events/s | median ms | 99 % | longest | mean ms by stage |\n|---|---|---|---|---|")
        for rate in map(int, args.rates.split(",")):
            waits = measure(kafka.bootstrap, Path(name), rate, args.seconds, args.interval)
            stages = ", ".join(f"{stage} {ms:.2f}" for stage, ms in waits.stages.items())
            print(f"| {rate:,} | {waits.median:.1f} | {waits.p99:.1f} | {waits.longest:.1f} | {stages} |", flush=True)
            found += [
                Figure("append to readable, median", waits.median, "ms", at=rate),
                Figure("append to readable, 99 %", waits.p99, "ms", at=rate),
                *(Figure(f"stage {stage}, mean", ms, "ms", "neither", rate) for stage, ms in waits.stages.items()),
            ]
    write(args.json, found)


if __name__ == "__main__":
    main()
