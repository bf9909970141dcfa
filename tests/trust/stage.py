"""Where the trust suite plays: a broker that can be killed, a proxy before it, topics, traffic, members, a follower.

Everything is done by one thread in turns: a fault is a generator that yields while it waits (`Script`), and `play` runs
several at once. Processes are started by that thread, or they would end with another one (they die with their parent).
"""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.kafka.local_kafka import LocalKafka, die_with_parent
from tests.daemon_process import free_port
from tests.transport.fault_proxy import FaultProxy
from tests.trust.follower import Fault, Follower
from tests.trust.judge import Topics
from tests.trust.member import VARIABLE
from tests.trust.reader import consumer, ends_of
from tests.trust.traffic import Traffic

Script = Generator[None, None, None]
Result = TypeVar("Result")

ROOT = Path(__file__).absolute().parents[2]
SESSION = 6.0
TRANSACTION = 4.0
EXPECTED_ENDINGS = {0, 75, -signal.SIGKILL}
"""A drain, a fault that a restart cures, and what we do ourselves. Everything else is a bug."""

_ASSIGNED = re.compile(r'^streamlstm_lag_records\{[^}]*partition="([0-9]+)"', re.MULTILINE)
_TURN = 0.02
_STUCK_AFTER = 90.0
_LINGERS_AFTER = 10.0
_SETTINGS: dict[str, object] = {
    "kafka.group_id": "trust", "kafka.session_timeout_ms": int(SESSION * 1000), "kafka.heartbeat_interval_ms": 300,
    "kafka.max_poll_interval_ms": 30_000, "commit.interval_ms": 50, "commit.request_timeout_ms": 2_000,
    "commit.transaction_timeout_ms": int(TRANSACTION * 1000), "input.topic": "events", "output.topic": "forecasts",
    "dead_letter.topic": "dead-letters", "snapshot.topic": "snapshots", "snapshot.interval_ms": 3_000,
    "snapshot.max_chunk_bytes": 16_384, "engine.threads": 1, "fetch.max_wait_ms": 100, "metrics.host": "127.0.0.1",
    "log.format": "logfmt",
}  # fmt: skip


class Member:
    """One replica, in the many processes of its life. A static one keeps its group instance id."""

    def __init__(self, stage: "Stage", name: str, *, static: bool = False, proxied: bool = False) -> None:
        self.stage = stage
        self.name = name
        self.static = static
        self.proxied = proxied
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self._port = 0
        self._asked_at = 0.0
        self._ready = False
        self.partitions: frozenset[int] = frozenset()
        self._said_at = 0.0

    def start(self, point: str = "", **settings: object) -> None:
        """`point` is a moment at which it strikes itself, as in tests/trust/member.py."""
        assert self.process is None or self.process.poll() is not None
        self._port, self._ready, self.partitions, self._said_at = free_port(), False, frozenset(), 0.0
        self.started_at = time.monotonic()
        own: dict[str, object] = {
            "kafka.bootstrap_servers": self.stage.bootstrap_of(self), "kafka.client_id": self.name,
            "commit.transactional_id": f"trust-{self.name}", "metrics.port": self._port,
            "model.path": self.stage.model,
        }  # fmt: skip
        if self.static:
            own["kafka.group_instance_id"] = self.name
        given = {**_SETTINGS, **self.stage.settings, **own, **settings}
        arguments = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        environment = {name: text for name, text in os.environ.items() if name != VARIABLE}
        if point:
            environment[VARIABLE] = point
        log = self.stage.log_of(self.name)
        log.write(f"--- start {time.strftime('%H:%M:%S')} {point}\n".encode())
        self.process = subprocess.Popen(
            [*die_with_parent(), sys.executable, "-m", "tests.trust.member", "run", *arguments],
            stdout=log, stderr=log, env=environment, cwd=ROOT,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def stopped(self) -> bool:
        """Frozen by SIGSTOP."""
        assert self.process is not None
        with suppress(OSError):
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        return False

    def _page(self, path: str) -> str:
        content: bytes = urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=1).read()
        return content.decode()

    def ready(self) -> bool:
        """By its own word, asked twice a second at most; `partitions` are those it has then."""
        now = time.monotonic()
        if now - self._asked_at > 0.5 and self.alive and not self.stopped:
            self._asked_at = now
            self._ready = False
            with suppress(OSError):
                self._ready = "ok" in self._page("/readyz")
                self.partitions = frozenset(map(int, _ASSIGNED.findall(self._page("/metrics"))))
            self._watch_the_end(now)
        return self._ready and self.alive

    def _watch_the_end(self, now: float) -> None:
        """A process that has said its exit code must be gone soon; one that isn't shows its threads."""
        last = self._last_words()
        if " exit_code=" not in last:
            return
        self._said_at = self._said_at or now
        if 0.0 < self._said_at < now - _LINGERS_AFTER:
            self.stage.complain(f"member {self.name} lingers {_LINGERS_AFTER:.0f} s after: {last[:200]}")
            self.signal(signal.SIGUSR1)

    def _last_words(self) -> str:
        """The last line of its log; of a bug's traceback the end."""
        log = self.stage.log_path(self.name)
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2_000))
            return b"".join(file.read().splitlines()[-1:]).decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Take note of how the process has ended; the exit code."""
        assert self.process is not None
        code = self.process.wait()
        self.stage.endings[code] += 1
        if code not in EXPECTED_ENDINGS:
            self.stage.complain(f"member {self.name} ended with {code}: {self._last_words()}")
        return code


class Stage:
    """Use as a context. `complaints`: what went wrong beside the account, such as members that hang. `over` asks
    scripts without an end of their own to come to it. `unreached`: faults for which there was no occasion in time.
    `broker_faults`: what the brokers did wrong by themselves; they were restarted then.
    `settings` are those of every member; of several brokers, only the first can have a proxy before it.
    """

    def __init__(
        self,
        folder: Path,
        model: Path,
        *,
        partitions: int,
        rate: float,
        streams: int,
        seed: int = 0,
        brokers: int = 1,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.model = model
        self.partitions = partitions
        self.brokers = brokers
        self.settings = dict(settings or {})
        self.over = False
        self.broker = LocalKafka(folder / "kafka", brokers=brokers)
        self.members: dict[str, Member] = {}
        self.faults: list[Fault] = []
        self.endings: Counter[int] = Counter()
        self.complaints: list[str] = []
        self.broker_faults: list[str] = []
        self._excused_until = 0.0
        self.joins = self.leaves = self.unreached = 0
        self._given = (rate, streams, seed)
        self._stack = ExitStack()
        self._logs: dict[str, BinaryIO] = {}

    def __enter__(self) -> "Stage":
        with ExitStack() as stack:
            stack.enter_context(self.broker)
            create_topics(self.broker.bootstrap, self.partitions, self.brokers)
            self.topics = Topics(self.broker.bootstrap, "events", "forecasts", "dead-letters", self.partitions)
            self.proxy = stack.enter_context(FaultProxy(self.broker.proxy_port, self.broker.proxied_port))
            self._threads = stack.enter_context(ThreadPoolExecutor(1))
            self.follower = Follower(self.topics)
            stack.callback(self.follower.close)
            stack.callback(self._clean_up)
            rate, streams, seed = self._given
            self.traffic = Traffic(self.broker.bootstrap, "events", self.partitions, streams, rate, seed)
            self.traffic.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _clean_up(self) -> None:
        for member in self.members.values():
            if member.alive:
                member.signal(signal.SIGKILL)
                assert member.process is not None
                member.process.wait()
        for log in self._logs.values():
            log.close()

    def member(self, name: str, **kind: bool) -> Member:
        """The member of that name, made when it is new."""
        if name not in self.members:
            self.members[name] = Member(self, name, **kind)
        return self.members[name]

    def bootstrap_of(self, member: Member) -> str:
        return f"127.0.0.1:{self.broker.proxy_port}" if member.proxied else self.broker.bootstrap

    def log_of(self, name: str) -> BinaryIO:
        if name not in self._logs:
            self._logs[name] = self.log_path(name).open("ab", buffering=0)
        return self._logs[name]

    def log_path(self, name: str) -> Path:
        return self.folder / f"member-{name}.log"

    def complain(self, what: str) -> None:
        self.complaints.append(f"{time.strftime('%H:%M:%S')} {what}")
        print(self.complaints[-1], flush=True)

    def late(self, what: str) -> Script:
        """Something didn't come in time. A complaint, unless the brokers are to blame: then they are restarted."""
        fault = yield from self.in_background(self.broker_fault)
        if not fault:
            if time.monotonic() > self._excused_until:
                self.complain(what)
            return
        self._excused_until = time.monotonic() + _STUCK_AFTER  # who waited for the same brokers comes late too
        self.broker_faults.append(f"{time.strftime('%H:%M:%S')} {what}: {fault}")
        print(self.broker_faults[-1], flush=True)
        for number in range(1, self.brokers + 1):
            yield from self.in_background(partial(self._restart, number))

    def _restart(self, number: int) -> None:
        with suppress(OSError):
            self.broker.kill(number)
        self.broker.start(number)

    def broker_fault(self) -> str:
        """What is wrong with the brokers themselves, as another client sees it; "" where nothing is.

        Kafka 4.1's group coordinator, killed and started again, now and then loads only a part of its log: then it
        tells offsets that were committed long ago, or refuses everything as "not the correct coordinator". Answers are
        committed together with the offsets, so offsets below them are the coordinator's error.
        """
        where = [TopicPartition("events", partition) for partition in self.everything]
        answered = {partition: self.follower.ledger.answered_below(partition) for partition in self.everything}
        # a consumer that joins nothing: librdkafka's admin client crashes when the coordinator moves meanwhile
        asking = consumer(self.broker.bootstrap, **{"group.id": "trust"})
        try:
            found = asking.committed(where, 30)
        except KafkaException as error:
            return f"the group's coordinator doesn't answer: {error}"
        finally:
            asking.close()
        old = [each for each in found if each.offset < answered[each.partition]]
        return "; ".join(
            f"partition {each.partition}: committed offset {each.offset}, but {answered[each.partition]} are answered"
            for each in old[:3]
        )

    def struck(self, kind: str, point: str, member: str, partitions: Iterable[int]) -> None:
        """Take note of a fault that has just been done, and of the partitions it affects."""
        fault = Fault(kind, point, member, time.time())
        self.faults.append(fault)
        self.follower.struck(fault, set(partitions))

    def in_background(self, work: Callable[[], Result]) -> Generator[None, None, Result]:
        """Run something that blocks, on the one other thread, which lives as long as the stage."""
        future = self._threads.submit(work)
        while not future.done():
            yield
        return future.result()

    def play(self, scripts: Iterable[Script], seconds: float = float("inf")) -> None:
        """Run the scripts side by side until all have ended, or the time is over."""
        running, until = list(scripts), time.monotonic() + seconds
        while running and time.monotonic() < until:
            for script in tuple(running):
                try:
                    next(script)
                except StopIteration:
                    running.remove(script)
            self.turn()

    def turn(self) -> None:
        self.follower.look()
        for member in self.members.values():
            member.ready()
        time.sleep(_TURN)

    def wait_until(self, reached: Callable[[], bool], seconds: float, what: str = "") -> Script:
        """Yield until it is so. `what` names what is complained of when it is not in time."""
        until = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > until:
                if what:
                    yield from self.late(f"not within {seconds:.0f} s: {what}")
                return
            yield

    def pause(self, seconds: float) -> Script:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            yield

    def wait_ready(self, member: Member) -> Script:
        """Until it is ready or has ended. One that isn't ready in time shows its threads and is killed."""
        until = time.monotonic() + _STUCK_AFTER
        while member.alive and not member.ready():
            if time.monotonic() > until:
                member.signal(signal.SIGUSR1)
                yield from self.late(f"member {member.name} is not ready after {_STUCK_AFTER:.0f} s")
                member.signal(signal.SIGKILL)
                return
            yield

    @property
    def everything(self) -> range:
        """All partitions."""
        return range(self.partitions)

    def end_members(self) -> Script:
        """SIGTERM to all: each has to drain, and to end with 0."""
        for member in self.members.values():
            if member.alive:
                member.signal(signal.SIGTERM)
        for member in self.members.values():
            if member.process is not None and member.process.returncode is None:
                yield from self.wait_until(lambda of=member: not of.alive, 60, f"{member.name} drained")
                if member.alive:
                    member.signal(signal.SIGKILL)
                if (code := member.ended()) != 0:
                    self.complain(f"member {member.name} ended with {code} at the end, where 0 is due")

    def drain(self, seconds: float = 180.0) -> bool:
        """No more events; until all of them are answered. The members must be running."""
        self.play([self.in_background(self.traffic.stop)])
        ends = ends_of(self.topics.bootstrap, "events", self.partitions)
        self.play([self.wait_until(lambda: self.follower.ledger.complete(ends), seconds, "every event answered")])
        return self.follower.ledger.complete(ends)


def create_topics(bootstrap: str, partitions: int, replicas: int) -> None:
    compacted = {
        "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "5000",
        "max.compaction.lag.ms": "10000",
    }  # fmt: skip
    topics = [NewTopic(name, partitions, replicas) for name in ("events", "forecasts", "dead-letters")]
    topics.append(NewTopic("snapshots", partitions, replicas, config=compacted))
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics(topics).values():
        future.result(30)
