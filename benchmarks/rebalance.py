"""How long partitions pause when a member joins, and when one restarts as planned, with many streams and under load.

    .venv/bin/python benchmarks/rebalance.py [--streams 1000000] [--rate 20000] [--interval 60]

Two static members have every stream; a third joins; then the second restarts (SIGTERM, start). The pause of a partition
is the longest time in which a reader of committed records gets no forecast of it. One broker on this machine, which the
members share too.
"""

import argparse
import re
import signal
import tempfile
import threading
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

from confluent_kafka import OFFSET_END, Consumer, TopicPartition
from figures import Figure, write
from local_daemon import PARTITIONS, Daemon, LocalKafka, create_topics, make_model, start_daemon, topics_of
from recovery import Feeder, is_ready

OWNED = re.compile(r'^streamlstm_lag_records\{[^}]*partition="([0-9]+)"', re.MULTILINE)


class Reader(threading.Thread):
    """Notes when forecasts of each partition come, from now on."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap, "group.id": "reader", "isolation.level": "read_committed",
                "enable.auto.commit": False, "fetch.wait.max.ms": 20,
            }
        )  # fmt: skip
        self._consumer.assign([TopicPartition(topic, partition, OFFSET_END) for partition in range(PARTITIONS)])
        self._came: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            messages = self._consumer.consume(10_000, 0.02)
            now = time.monotonic()
            for partition in {message.partition() for message in messages if message.error() is None}:
                self._came[partition].append(now)
        self._consumer.close()

    def pauses(self, since: float) -> list[float]:
        """By partition, in seconds."""
        now = time.monotonic()
        return [
            max(after - before for before, after in pairwise([since, *(at for at in came if at > since), now]))
            for came in self._came
        ]


class Group:
    """Static members over the same topics."""

    def __init__(self, bootstrap: str, folder: Path, streams: int, interval: int) -> None:
        self.unique = topics_of(bootstrap)
        self.members: dict[str, Daemon] = {}
        self._bootstrap, self._folder = bootstrap, folder
        self._settings = (f"state.max_streams={streams}", f"snapshot.interval_ms={interval * 1000}")

    def start(self, name: str) -> None:
        self.members[name] = start_daemon(
            self._bootstrap, self._folder, "events", self.unique, *self._settings, f"kafka.group_instance_id={name}",
            f"commit.transactional_id={name}-{self.unique}",
        )  # fmt: skip

    def stop(self, name: str) -> None:
        process = self.members[name].process
        process.send_signal(signal.SIGTERM)
        if process.wait(60) != 0:
            raise SystemExit(f"member {name} ended with {process.returncode}")

    def settle(self, rate: int) -> None:
        """Until every partition is somebody's and live, evenly, and nothing waits."""
        while True:
            if not all(is_ready(member) for member in self.members.values()):
                time.sleep(0.1)
                continue
            owned = [len(each) for each in self.owned().values()]
            lag = sum(member.metric("streamlstm_lag_records") for member in self.members.values())
            if sum(owned) == PARTITIONS and max(owned) - min(owned) <= 1 and lag <= 2 * rate:
                return
            time.sleep(0.2)

    def owned(self) -> dict[str, set[int]]:
        return {name: _owned_by(member) for name, member in self.members.items()}

    def rebalances(self) -> dict[str, float]:
        return {name: member.metric("streamlstm_rebalances_total") for name, member in self.members.items()}


def _owned_by(member: Daemon) -> set[int]:
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{member.port}/metrics", timeout=5).read().decode()
    except OSError:
        return set()
    return set(map(int, OWNED.findall(page)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--interval", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        make_model(Path(name) / "model.safetensors", args.hidden)
        create_topics(kafka.bootstrap, ["events"])
        feeder = Feeder(kafka.bootstrap, "events", args.streams, PARTITIONS)
        feeder.send(args.streams)
        feeder.producer.flush()
        feeder.rate = args.rate
        group = Group(kafka.bootstrap, Path(name), args.streams, args.interval)
        for member in ("one", "two"):
            group.start(member)
        group.settle(args.rate)
        feeder.start()
        reader = Reader(kafka.bootstrap, f"forecasts-{group.unique}")
        reader.start()
        time.sleep(args.interval / 2)
        print(f"{args.streams:,} streams, {PARTITIONS} partitions, H={args.hidden}, {args.rate:,} events/s\n")
        found = [*join(group, reader, args.rate), *restart(group, reader, args.rate)]
        feeder.ended.set()
        feeder.join()
        reader.ended.set()
        reader.join()
        for member in group.members:
            group.stop(member)
    write(args.json, found)


def join(group: Group, reader: Reader, rate: int) -> list[Figure]:
    before, began = group.owned(), time.monotonic()
    group.start("three")
    group.settle(rate)
    time.sleep(1)
    pauses, after = reader.pauses(began), group.owned()
    stayed = {partition for name, owned in before.items() for partition in owned & after[name]}
    print(f"a third member joins: partitions that stay pause {_seconds(pauses, stayed)} s, "
          f"those that move {_seconds(pauses, set(range(PARTITIONS)) - stayed)} s")  # fmt: skip
    return [
        _longest("a member joins: longest pause of those that stay", pauses, stayed),
        _longest("a member joins: longest pause of those that move", pauses, set(range(PARTITIONS)) - stayed),
    ]


def restart(group: Group, reader: Reader, rate: int) -> list[Figure]:
    before, rebalances, began = group.owned(), group.rebalances(), time.monotonic()
    group.stop("two")
    group.start("two")
    group.settle(rate)
    time.sleep(1)
    pauses, after = reader.pauses(began), group.rebalances()
    others = sum(after[name] - rebalances[name] for name in ("one", "three"))
    print(f"planned restart of the second: its partitions pause {_seconds(pauses, before['two'])} s, the others "
          f"{_seconds(pauses, before['one'] | before['three'])} s; {others:.0f} rebalances on the others")  # fmt: skip
    return [
        _longest("planned restart: longest pause of its own", pauses, before["two"]),
        _longest("planned restart: longest pause of the others", pauses, before["one"] | before["three"]),
    ]


def _longest(of: str, pauses: list[float], partitions: set[int]) -> Figure:
    return Figure(of, max((pauses[partition] for partition in partitions), default=0.0), "s")


def _seconds(pauses: list[float], partitions: set[int]) -> str:
    found = sorted(pauses[partition] for partition in partitions)
    return f"{found[0]:.1f} to {found[-1]:.1f}" if found else "-"


if __name__ == "__main__":
    main()
