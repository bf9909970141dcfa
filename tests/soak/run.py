"""Does memory stand still? Two members under load, and trouble every minute: `make soak MINUTES=30`.

A real broker, a real feeder, and of the two members one that all the trouble is made for: kill -9, a freeze beyond its
session, a planned restart; and a broker that hangs. The other one goes on meanwhile, takes partitions over and gives
them back. Its resident memory, threads and open files are looked at all the time.

Half an hour has the events of a calm day, 24 hours at 1,000/s. Ends with 0 when, after WARM_UP minutes, its memory
grows by less than MOST_MB_PER_HOUR (real ones; half an hour can't tell a slope from a step of some MB, hours can), it
has no more threads and files than before, and the audit of everything is clean. A backlog takes memory and gives it
back: so what counts is the least that is resident in each round of the five troubles, and of that Theil's slope (the
median of the slopes between all pairs). --samples keeps all that was seen.
"""

import argparse
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from kafka import KafkaConsumer, TopicPartition

from deploy.kafka.local_kafka import LocalKafka, free_ports
from streamlstm.cli.main import outcome
from tests.daemon_process import Footprint, create_topics, frozen, given_by, write_model

PARTITIONS = 8
ROUND = 5.0
WARM_UP = 2 * ROUND
STANDS_FOR_HOURS = 24.0
MOST_MB_PER_HOUR = 1.0
SAMPLE_SECONDS = 2.0
SESSION_MS = 10_000
Sample = tuple[float, Footprint]
"""Seconds, and what was seen then."""


class Member:
    """A static member, in a process that is started anew after each end."""

    def __init__(self, folder: Path, name: str, settings: dict[str, str]) -> None:
        self._folder, self._name = folder, name
        instance = {"kafka.group_instance_id": name, "commit.transactional_id": f"soak-{name}"}
        self._settings = {**settings, **instance, "metrics.port": str(free_ports(1)[0])}
        self.start()

    def start(self) -> None:
        with (self._folder / f"{self._name}.log").open("ab") as log:
            command = [sys.executable, "-m", "streamlstm", "run", *given_by(self._settings)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def log(self) -> str:
        return (self._folder / f"{self._name}.log").read_text()[-3000:]


def feed(bootstrap: str, topic: str, rate: float, streams: int, enough: Event) -> None:
    """Events at a steady pace; what the broker can't take now waits here."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4", "enable.idempotence": True,
            "message.timeout.ms": 0, "queue.buffering.max.messages": 5_000_000, "log_level": 0,
        }
    )  # fmt: skip
    chance, sent, began = random.Random(1), 0, time.monotonic()
    while not enough.is_set():
        for n in range(sent, int((time.monotonic() - began) * rate)):
            value = b'{"ts":%d,"value":%.3f}' % (1_730_000_000_000 + n, chance.random())
            stream = chance.randrange(streams)
            producer.produce(topic, value, b"stream-%d" % stream, stream % PARTITIONS)
            sent = n + 1
        producer.poll(0)
        time.sleep(0.01)
    producer.flush()


def troubles(victim: Member, broker: LocalKafka) -> Iterator[tuple[str, Callable[[], None]]]:
    def killed(seconds: float) -> None:
        victim.process.kill()
        victim.process.wait()
        time.sleep(seconds)
        victim.start()

    def freeze(pid: int, seconds: float) -> None:
        with frozen(pid):
            time.sleep(seconds)

    def fenced() -> None:
        freeze(victim.process.pid, 1.5 * SESSION_MS / 1000)
        time.sleep(10)
        if victim.process.poll() is not None:  # it has found out, and a service manager would start it anew
            victim.start()

    def restarted() -> None:
        code = victim.stop()
        if code:
            raise SystemExit(f"SIGTERM: exit {code}")
        victim.start()

    return itertools.cycle(
        [
            ("kill -9, back at once", lambda: killed(1)),
            ("kill -9, back after its session", lambda: killed(1.5 * SESSION_MS / 1000)),
            ("frozen beyond its session", fenced),
            ("planned restart", restarted),
            ("the broker hangs for 5 s", lambda: freeze(int((broker.folder / "pid").read_text()), 5)),
        ]
    )


def least_of_rounds(samples: list[Sample]) -> list[Sample]:
    """The sample of each whole round in which the least memory was resident."""
    rounds: dict[int, list[Sample]] = {}
    for sample in samples:
        rounds.setdefault(int(sample[0] // (60 * ROUND)), []).append(sample)
    whole = [each for each in rounds.values() if each[-1][0] - each[0][0] > 60 * (ROUND - 1)]
    return [min(each, key=lambda sample: sample[1].resident) for each in whole]


def slope(samples: list[Sample]) -> float:
    """MB per hour."""
    at, memory = np.array([(seconds, seen.resident / 1e6) for seconds, seen in samples]).T
    first, second = np.triu_indices(len(at), 1)
    return float(np.median((memory[second] - memory[first]) / (at[second] - at[first]))) * 3600


@dataclass
class Soak:
    """The watched member, and what was seen of it."""

    watched: Member
    began: float
    samples: list[Sample]

    def watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            code = self.watched.process.poll()
            if code is not None:
                raise SystemExit(f"the member that nothing was done to ended with {code}: {self.watched.log()}")
            self.samples.append((time.monotonic() - self.began, Footprint.of(self.watched.process.pid)))
            time.sleep(SAMPLE_SECONDS)

    def verdict(self, minutes: float) -> bool:
        settled = [each for each in self.samples if each[0] >= WARM_UP * 60]
        least, seen, half = least_of_rounds(settled), [each for _, each in settled], len(settled) // 2
        grows = slope(least)
        calm = grows * minutes / 60 / STANDS_FOR_HOURS
        threads_then, threads = (max(each.threads for each in part) for part in (seen[:half], seen[half:]))
        files_then, files = (max(each.files for each in part) for part in (seen[:half], seen[half:]))
        most = max(each.resident for each in seen) / 1e6
        rounds = ", ".join(f"{each.resident / 1e6:.1f}" for _, each in least)
        print(f"resident at the least in each round of {ROUND:.0f} minutes, after {WARM_UP:.0f} minutes: {rounds} MB, "
              f"{grows:+.2f} MB/h, {calm:+.2f} MB for each hour of a calm day; at the most {most:.1f} MB; "
              f"threads {threads_then}, then {threads}; files {files_then}, then {files}")  # fmt: skip
        return grows < MOST_MB_PER_HOUR and threads <= threads_then and files <= files_then


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="%(default)s")
    parser.add_argument("--rate", type=float, default=50_000.0, help="events per second (%(default)s)")
    parser.add_argument("--samples", type=Path, help="CSV of seconds, bytes resident, threads, files")
    parser.add_argument("--streams", type=int, default=100_000, help="%(default)s")
    given = parser.parse_args()
    if given.minutes < WARM_UP + 2 * ROUND:
        least = WARM_UP + 2 * ROUND
        parser.error(f"--minutes: expected {least:.0f} at the least: warm-up and two rounds; found {given.minutes:g}")
    with tempfile.TemporaryDirectory(prefix="soak-") as name, LocalKafka(Path(name) / "kafka", heap="1g") as broker:
        folder = Path(name)
        create_topics(broker.bootstrap, ["events", "forecasts", "dead-letters"], PARTITIONS)
        create_topics(broker.bootstrap, ["snapshots"], PARTITIONS, **{"cleanup.policy": "compact"})
        settings = {
            "kafka.bootstrap_servers": json.dumps([broker.bootstrap]), "kafka.group_id": "soak",
            "input.topic": "events",
            "output.topic": "forecasts", "dead_letter.topic": "dead-letters", "snapshot.topic": "snapshots",
            "model.path": str(write_model(folder / "model.safetensors")), "metrics.host": "127.0.0.1",
            "state.max_streams": str(given.streams), "kafka.session_timeout_ms": str(SESSION_MS),
            "commit.request_timeout_ms": "2000", "commit.transaction_timeout_ms": "5000",
            "output.compression": "lz4", "log.level": "warning",
        }  # fmt: skip
        return 0 if play(given, folder, broker, settings) else 1


def answer_what_is_left(bootstrap: str, group: str) -> int:
    """Wait for it, while there is progress; the number of events above the group's committed offsets at the end."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    partitions = [TopicPartition("events", partition) for partition in range(PARTITIONS)]
    ends, before = consumer.end_offsets(partitions), None
    while True:
        left = sum(end - (consumer.committed(each) or 0) for each, end in ends.items())
        if left in (0, before):
            consumer.close()
            return left
        before = left
        time.sleep(30)  # longer than the session of the member that has left, and a restore


def play(given: argparse.Namespace, folder: Path, broker: LocalKafka, settings: dict[str, str]) -> bool:
    watched, victim = Member(folder, "watched", settings), Member(folder, "victim", settings)
    spawn = get_context("spawn")
    enough = spawn.Event()
    feeder = spawn.Process(target=feed, args=(broker.bootstrap, "events", given.rate, given.streams, enough))
    feeder.start()
    soak = Soak(watched, time.monotonic(), [])
    try:
        _let_it_run(soak, given.minutes, troubles(victim, broker))
        still = soak.verdict(given.minutes)
        if given.samples:
            lines = [f"{at:.1f},{seen.resident},{seen.threads},{seen.files}" for at, seen in soak.samples]
            given.samples.write_text("\n".join(["seconds,resident,threads,files", *lines]) + "\n")
        enough.set()
        feeder.join()
        codes = [watched.stop(), victim.stop()]
        watched.start()
        left = answer_what_is_left(broker.bootstrap, settings["kafka.group_id"])
        codes.append(watched.stop())
    finally:
        for process in (watched.process, victim.process, feeder):
            process.kill()
    audited = outcome(["audit", *given_by(settings)])
    print(f"exit codes at SIGTERM {codes}; left unanswered {left}; audit: exit {audited}")
    return still and not any(codes) and left == 0 and audited == 0


def _let_it_run(soak: Soak, minutes: float, trouble: Iterator[tuple[str, Callable[[], None]]]) -> None:
    with ThreadPoolExecutor(1) as making:
        for minute, (what, make) in zip(range(int(minutes)), trouble, strict=False):
            soak.watch(15)
            done = making.submit(make)
            soak.watch(45)
            done.result()
            at, seen = soak.samples[-1]
            of_it = f"{seen.resident / 1e6:7.1f} MB  {seen.threads} threads  {seen.files} files"
            print(f"{at / 60:5.1f} min  {of_it}  {minute + 1}: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
