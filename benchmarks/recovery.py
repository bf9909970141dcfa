"""What snapshots cost while all is well, and how long a restart takes after kill -9.

    .venv/bin/python benchmarks/recovery.py [--streams 1000000] [--rate 50000] [--partitions 4] [--interval 60]
                                            [--seconds 130]

Every stream is seen once; then events come at `rate` for `seconds`, once with snapshots and once without, and the CPU
of the daemon is compared. Then, still under load, the daemon with snapshots is killed and started again: the time is
from the start of the process until every partition is live, and until there is no lag. The member is a static one: for
another the group would first wait for the session time-out. One broker on this machine.
"""

import argparse
import random
import signal
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer
from figures import Figure, write
from local_daemon import FIRST_TS, Daemon, LocalKafka, create_topics, make_model, start_daemon, topics_of


class Feeder(threading.Thread):
    """Produces events of random streams at a steady rate until `ended`; the first go to one new stream each."""

    def __init__(self, bootstrap: str, topic: str, streams: int, partitions: int) -> None:
        super().__init__(daemon=True)
        config = {"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"}
        self.producer = Producer(config | {"queue.buffering.max.messages": 2_000_000})
        self.topic, self.streams, self.partitions, self.sent = topic, streams, partitions, 0
        self.rate = 0
        self.ended = threading.Event()
        self._rng = random.Random(0)

    def send(self, count: int) -> None:
        for i in range(self.sent, self.sent + count):
            stream = i if i < self.streams else self._rng.randrange(self.streams)
            value = b'{"ts":%d,"value":%d.25}' % (FIRST_TS + i, i % 100)
            while True:
                try:
                    self.producer.produce(self.topic, value, b"host-%07d" % stream, stream % self.partitions)
                    break
                except BufferError:
                    self.producer.poll(0.05)
        self.sent += count
        self.producer.poll(0)

    def run(self) -> None:
        due = time.monotonic()
        while not self.ended.is_set():
            self.send(self.rate // 100)
            due += 0.01
            time.sleep(max(0.0, due - time.monotonic()))
        self.producer.flush()


@dataclass
class Cost:
    cpu_us_per_event: float
    cpu_share: float
    snapshot_mb_per_second: float


def steady(running: Daemon, feeder: Feeder, seconds: float) -> Cost:
    """CPU and snapshot bytes of the daemon over `seconds` of steady load."""
    began, cpu = time.monotonic(), running.cpu_seconds()
    events, written = running.metric("streamlstm_events_total"), running.metric("streamlstm_snapshot_bytes_total")
    time.sleep(seconds)
    passed = time.monotonic() - began
    cpu, events = running.cpu_seconds() - cpu, running.metric("streamlstm_events_total") - events
    written = running.metric("streamlstm_snapshot_bytes_total") - written
    return Cost(cpu / max(events, 1) * 1e6, cpu / passed, written / passed / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--interval", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=130.0)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        folder = Path(name)
        make_model(folder / "model.safetensors", args.hidden)
        create_topics(kafka.bootstrap, ["events"], args.partitions)
        feeder = Feeder(kafka.bootstrap, "events", args.streams, args.partitions)
        feeder.send(args.streams)
        feeder.producer.flush()
        feeder.rate = args.rate
        settings = (
            f"state.max_streams={args.streams}", f"snapshot.interval_ms={args.interval * 1000}",
            "kafka.group_instance_id=bench",
        )  # fmt: skip
        costs = {}
        feeder.start()
        for label, enabled in (("off", "false"), ("on", "true")):
            topics = topics_of(kafka.bootstrap, args.partitions)
            running = start_daemon(kafka.bootstrap, folder, "events", topics, *settings, f"snapshot.enabled={enabled}")
            running.wait_ready()
            running.wait("streamlstm_streams", args.streams)
            settle(running, args.rate)
            costs[label] = steady(running, feeder, args.seconds)
            print(f"snapshots {label}: {costs[label]}", flush=True)
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        began = time.monotonic()
        running = start_daemon(kafka.bootstrap, folder, "events", topics, *settings)
        while not (is_ready(running) and running.metric("streamlstm_restored_streams_total") >= args.streams):
            time.sleep(0.1)
        live = time.monotonic() - began
        restored = running.metric("streamlstm_restored_streams_total")
        replayed = running.metric("streamlstm_replayed_events_total")
        settle(running, args.rate)
        caught_up = time.monotonic() - began
        feeder.ended.set()
        feeder.join()
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(60)
    report(args, costs, live, caught_up, restored, replayed)


def is_ready(running: Daemon) -> bool:
    """Every partition is live."""
    if running.process.poll() is not None:
        raise SystemExit(f"the daemon ended with {running.process.returncode}")
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{running.port}/readyz", timeout=5).close()
    except OSError:
        return False
    return True


def settle(running: Daemon, rate: int) -> None:
    """Until there is no backlog: the lag is under what comes in two seconds, for the ends it knows are a second old."""
    while running.metric("streamlstm_lag_records") > 2 * rate:
        time.sleep(0.2)


def report(
    args: argparse.Namespace, costs: dict[str, Cost], live: float, caught_up: float, restored: float, replayed: float
) -> None:
    on, off = costs["on"], costs["off"]
    extra = on.cpu_share - off.cpu_share
    print(f"\n{args.streams:,} streams, H={args.hidden}, {args.partitions} partitions, {args.rate:,} events/s, "
          f"round of {args.interval} s")  # fmt: skip
    print("| | snapshots off | on |\n|---|---|---|")
    print(f"| CPU per event, us | {off.cpu_us_per_event:.2f} | {on.cpu_us_per_event:.2f} |")
    print(f"| share of one core | {off.cpu_share:.1%} | {on.cpu_share:.1%} |")
    print(f"| snapshots, MB/s | 0 | {on.snapshot_mb_per_second:.1f} |")
    print(f"\nsnapshots cost {extra:.1%} of one core, whatever the rate of events")
    print(f"kill -9, start: all live after {live:.1f} s ({restored:,.0f} streams, {replayed:,.0f} events replayed)")
    print(f"no lag after {caught_up:.1f} s")
    write(
        args.json,
        [
            Figure("CPU per event, snapshots on", on.cpu_us_per_event, "us", at=args.rate),
            Figure("CPU per event, snapshots off", off.cpu_us_per_event, "us", at=args.rate),
            Figure("snapshots", on.snapshot_mb_per_second, "MB/s", "neither", at=args.rate),
            Figure("kill -9 to all live", live, "s", at=args.rate),
            Figure("kill -9 to no lag", caught_up, "s", at=args.rate),
        ],
    )


if __name__ == "__main__":
    main()
