"""Three members of a group under load: one restarts as planned, and one more joins."""

import threading
import time
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from daemon_process import Daemon, create_topics, daemon, read_all, source_of_forecast, write_model

pytestmark = pytest.mark.kafka

PARTITIONS = 6
BASE_TIME = 1_730_000_000_000


class Feeder(threading.Thread):
    """An event of every partition every 10 ms or so; `count` of them each at the end."""

    def __init__(self, kafka: str, topic: str) -> None:
        super().__init__(daemon=True)
        self.producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 1})
        self.topic = topic
        self.count = 0
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(0.01):
            for partition in range(PARTITIONS):
                value = b'{"ts":%d,"value":%d.5}' % (BASE_TIME + self.count, self.count % 97)
                self.producer.produce(self.topic, value, b"s%d" % (self.count % 100), partition)
            self.count += 1
            self.producer.poll(0)
        assert self.producer.flush(60) == 0

    def finish(self) -> int:
        self.enough.set()
        self.join(90)
        return self.count


class Group:
    """Members by name, with the same topics."""

    def __init__(self, kafka: str, folder: Path, stack: ExitStack) -> None:
        self.kafka = kafka
        self.topic = f"members-{time.time_ns()}"
        self.model = write_model(folder / "model.safetensors")
        self.names: dict[str, object] = {}
        self.output = ""
        self._stack = stack
        create_topics(kafka, [self.topic], PARTITIONS)

    def member(self, name: str) -> Daemon:
        settings = {
            "kafka.group_id": self.topic, "kafka.group_instance_id": name, "state.max_streams": 2_000,
            "commit.interval_ms": 20, "snapshot.interval_ms": 5_000, "engine.threads": 1, **self.names,
        }  # fmt: skip
        running = self._stack.enter_context(daemon(self.kafka, self.model, self.topic, PARTITIONS, settings))
        self.names, self.output = running.topics, running.output
        running.wait_for("streamlstm_startup_seconds", 0.001)
        return running

    def settle(self, members: list[Daemon]) -> None:
        """Until every partition is somebody's and live."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            for member in members:
                member.wait_ready()
            owned = [member.metric("streamlstm_partitions") for member in members]
            if sum(owned) == PARTITIONS and max(owned) - min(owned) <= 1:
                return
            time.sleep(0.1)
        raise AssertionError("the partitions did not settle")


class Reader(threading.Thread):
    """Notes when forecasts of each partition come, as a reader of committed records sees them."""

    def __init__(self, kafka: str, output: str) -> None:
        super().__init__(daemon=True)
        self.consumer = Consumer(
            {
                "bootstrap.servers": kafka, "group.id": "reader", "isolation.level": "read_committed",
                "enable.auto.commit": False, "fetch.wait.max.ms": 20,
            }
        )  # fmt: skip
        self.consumer.assign([TopicPartition(output, partition, 0) for partition in range(PARTITIONS)])
        self.came: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            for message in self.consumer.consume(1_000, 0.02):
                if message.error() is None:
                    self.came[message.partition()].append(time.monotonic())
        self.consumer.close()

    def pauses(self, since: float) -> list[float]:
        """By partition, the longest time without a forecast since that moment."""
        now = time.monotonic()
        moments = [[since, *(at for at in each if at > since), now] for each in self.came]
        return [max(after - before for before, after in pairwise(each)) for each in moments]


def owner_of(members: dict[str, Daemon]) -> dict[str, set[int]]:
    """The partitions of each, by what it says of its lag."""
    found: dict[str, set[int]] = {}
    for name, member in members.items():
        lines = [line for line in member.page("/metrics").splitlines() if line.startswith("streamlstm_lag_records{")]
        found[name] = {int(line.split('partition="')[1].split('"')[0]) for line in lines}
    return found


def test_planned_restart_and_one_more_member(kafka: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        group = Group(kafka, tmp_path, stack)
        members = {name: group.member(name) for name in ("a", "b", "c")}
        feeder = Feeder(kafka, group.topic)
        feeder.start()
        reader = Reader(kafka, group.output)
        reader.start()
        group.settle([*members.values()])
        time.sleep(2)
        rebalances = {name: member.metric("streamlstm_rebalances_total") for name, member in members.items()}
        owned, began = owner_of(members), time.monotonic()
        assert members["b"].stop() == 0
        members["b"] = group.member("b")
        group.settle([*members.values()])
        time.sleep(1)
        pauses = reader.pauses(began)
        moved, kept = owned["b"], owned["a"] | owned["c"]
        print(f"restart: its partitions paused {[round(pauses[p], 2) for p in sorted(moved)]} s, "
              f"the others {[round(pauses[p], 2) for p in sorted(kept)]} s")  # fmt: skip
        for name in ("a", "c"):
            assert members[name].metric("streamlstm_rebalances_total") == rebalances[name]
        assert owner_of(members) == owned
        assert max(pauses[p] for p in moved) < 30
        assert max(pauses[p] for p in kept) < 10

        began = time.monotonic()
        members["d"] = group.member("d")
        group.settle([*members.values()])
        time.sleep(1)
        pauses, now = reader.pauses(began), owner_of(members)
        retained = {p for name in ("a", "b", "c") for p in now[name] & owned[name]}
        print(f"join: retained partitions paused {[round(pauses[p], 2) for p in sorted(retained)]} s, "
              f"moved ones {[round(pauses[p], 2) for p in range(PARTITIONS) if p not in retained]} s")  # fmt: skip
        assert len(retained) >= PARTITIONS - 2
        assert max(pauses[p] for p in retained) < 10
        count = feeder.finish()
        reader.enough.set()
        reader.join()
        deadline = time.monotonic() + 60
        found = Counter[tuple[int, int]]()
        while found.total() < PARTITIONS * count and time.monotonic() < deadline:
            found = Counter(map(source_of_forecast, read_all(kafka, group.output, PARTITIONS)))
        assert found == Counter((p, n) for p in range(PARTITIONS) for n in range(count))
        assert [member.stop() for member in members.values()] == [0] * 4
