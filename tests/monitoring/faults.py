"""A fault for each alert: done to real replicas and brokers, and undone at the end."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

import streamlstm
from deploy.kafka.local_kafka import LocalKafka
from streamlstm.kernels.compile import cache_folder
from tests.monitoring.fleet import Fleet, Replica, plausible
from tests.monitoring.prometheus import Prometheus
from tests.transport.fault_proxy import Api, Fault, FaultProxy, Harm

ALWAYS = 1_000_000_000
OLDER = "0.0.0"
SHORT = 20


def _nothing() -> None:
    """Nothing to be done again."""


@dataclass(slots=True)
class Stage:
    prometheus: Prometheus
    broker: LocalKafka
    proxy: FaultProxy
    folder: Path
    models: dict[str, Path]

    def fleet(self, name: str, model: str = "good", partitions: int = 2) -> Fleet:
        return Fleet(self.prometheus, self.broker, self.folder, self.models[model], name, partitions)

    @property
    def proxied(self) -> list[str]:
        return [f"127.0.0.1:{self.broker.proxy_port}"]

    @contextmanager
    def harm(self, api: Api, harm: Harm) -> Iterator[None]:
        """Every request of that type comes to harm between the replicas that go through the proxy and the broker."""
        self.proxy.faults.append(Fault(api, harm, times=ALWAYS))
        try:
            yield
        finally:
            self.proxy.faults.clear()
            self.proxy.cut_all()


@dataclass(slots=True)
class Struck:
    """A fault that has been done: `alerts` must fire for `job` within `seconds`. `again` is done until they do."""

    fault: str
    job: str
    alerts: tuple[str, ...]
    seconds: float = 600.0
    again: Callable[[], None] = _nothing
    at: float = field(default_factory=time.monotonic)


Script = Callable[[Stage], AbstractContextManager[Struck]]


@contextmanager
def dead_letters(stage: Stage) -> Iterator[Struck]:
    def value(chance: random.Random, stream: int, n: int) -> object:
        return b"garbage" if chance.random() < 0.05 else plausible(chance, stream, n)

    with stage.fleet("bad-input").running() as fleet:
        fleet.replica().start().wait_ready()
        fleet.feed(value=value)
        yield Struck("every twentieth record is garbage", fleet.job, ("StreamlstmDeadLetters",))


@contextmanager
def full(stage: Stage) -> Iterator[Struck]:
    with stage.fleet("full").running() as fleet:
        fleet.replica(state__max_streams=42).start().wait_ready()
        fleet.feed(streams=40)
        yield Struck("40 streams where 42 have room", fleet.job, ("StreamlstmNearCapacity",))


@contextmanager
def older_build(stage: Stage) -> Iterator[Struck]:
    """A copy of the package that calls itself older, in a process of its own. Its kernels are the same: it may load
    those of the cache, which are found by the version.
    """
    package, copy = Path(streamlstm.__file__).parent, stage.folder / "older"
    shutil.copytree(package, copy / "streamlstm", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "streamlstm" / "__init__.py").write_text(f'"""An older streamlstm."""\n\n__version__ = "{OLDER}"\n')
    cache, cached = copy / "cache" / "streamlstm", cache_folder()
    cache.mkdir(parents=True)
    if cached is not None:
        (cache / cached.name.replace(streamlstm.__version__, OLDER, 1)).symlink_to(cached)
    with stage.fleet("skewed").running() as fleet:
        old = fleet.replica("old")
        old.environment = {"PYTHONPATH": str(copy), "STREAMLSTM_CACHE_DIR": str(copy / "cache")}
        fleet.replica("new").start().wait_ready()
        old.start().wait_ready()
        yield Struck(f"a replica of version {OLDER} beside one of {streamlstm.__version__}", fleet.job,
                     ("StreamlstmBuildSkew",))  # fmt: skip


@contextmanager
def fenced(stage: Stage) -> Iterator[Struck]:
    """Each is started again when it has been fenced, as its supervisor would."""
    with stage.fleet("twins").running() as fleet:
        both = [fleet.replica(name, commit__transactional_id="one-for-both") for name in ("a", "b")]
        both[0].start().wait_ready()
        fleet.feed()
        both[1].start()

        def supervise() -> None:
            for replica in both:
                if not replica.alive:
                    replica.start()

        yield Struck("two replicas with one transactional id", fleet.job,
                     ("StreamlstmFenced", "StreamlstmRestarting"), again=supervise)  # fmt: skip


@contextmanager
def misled(stage: Stage) -> Iterator[Struck]:
    with stage.fleet("misled", "bad").running() as fleet:
        fleet.replica().start().wait_ready()
        fleet.feed()
        yield Struck("a model that was never trained, without a guard", fleet.job, ("StreamlstmSkillBelowNaive",))


@contextmanager
def drifting(stage: Stage) -> Iterator[Struck]:
    """In the long run intervals hold what they promise whatever the values are: so no stream gets that far."""

    def value(chance: random.Random, stream: int, n: int) -> object:
        return 50 + chance.gauss(0, 1) * 1.5 ** (n % SHORT)

    with stage.fleet("drifting").running() as fleet:
        fleet.replica(state__max_streams=20_000).start().wait_ready()
        fleet.feed(rate=100, value=value, life=SHORT)
        yield Struck(f"streams of {SHORT} events whose noise grows by half with each", fleet.job,
                     ("StreamlstmCoverageDrift",))  # fmt: skip


@contextmanager
def undersized(stage: Stage) -> Iterator[Struck]:
    """More events than the model can be computed for."""
    with stage.fleet("undersized", "heavy").running() as fleet:
        fleet.replica(fetch__max_bytes=65_536, fetch__max_partition_bytes=16_384).start().wait_ready()
        fleet.feed(rate=2_000)
        alerts = ("StreamlstmLagGrowing", "StreamlstmFreshnessBurnFast", "StreamlstmFreshnessBurnSlow")
        yield Struck("more events than a heavy model can forecast", fleet.job, alerts)


@contextmanager
def unanswered_commit(stage: Stage) -> Iterator[Struck]:
    with stage.fleet("doubtful").running() as fleet:
        fleet.replica(kafka__bootstrap_servers=stage.proxied).start().wait_ready()
        fleet.feed()
        _wait_for(fleet, "streamlstm_transactions_total", 20)
        with stage.harm(Api.END_TXN, Harm.SWALLOW_REPLY):
            yield Struck("replies to EndTxn are swallowed", fleet.job, ("StreamlstmTransactionOutcomeUnknown",))


@contextmanager
def hung_writes(stage: Stage) -> Iterator[Struck]:
    """Nothing can be written, so that no chunk is renewed; then the log loses all before the oldest one."""
    with stage.fleet("hung").running() as fleet:
        replica = fleet.replica(kafka__bootstrap_servers=stage.proxied).start().wait_ready()
        fleet.feed()
        _wait_for(fleet, "streamlstm_snapshot_chunks_total", 4)
        with stage.harm(Api.PRODUCE, Harm.SWALLOW):
            struck = Struck("Produce requests are swallowed, and the log is cut at the oldest chunk", fleet.job,
                            ("StreamlstmNoProgress", "StreamlstmSnapshotTooOld"))  # fmt: skip
            _wait_until(lambda: _total(fleet, "streamlstm_waiting_seconds") > 3, "commits that wait")
            _delete_records(stage, fleet, _oldest_tags(replica))
            yield struck


@contextmanager
def blocked_restore(stage: Stage) -> Iterator[Struck]:
    with stage.fleet("restoring").running() as fleet:
        first = fleet.replica().start().wait_ready()
        fleet.feed()
        _wait_for(fleet, "streamlstm_snapshot_chunks_total", 4)
        first.end()
        with stage.harm(Api.FETCH, Harm.SWALLOW_REPLY):
            fleet.prometheus.forget(first.port)
            fleet.replica("b", kafka__bootstrap_servers=stage.proxied).start()
            _wait_for(fleet, "streamlstm_restoring_partitions", 1)
            yield Struck("replies to Fetch are swallowed as a replica starts", fleet.job, ("StreamlstmRestoreStalled",))


@contextmanager
def gone_log(stage: Stage) -> Iterator[Struck]:
    with stage.fleet("stopped").running() as fleet:
        replica = fleet.replica().start().wait_ready()
        feed = fleet.feed()
        _wait_for(fleet, "streamlstm_snapshot_chunks_total", 4)
        replica.end()
        time.sleep(2)
        feed.stop()
        _delete_records(stage, fleet, dict.fromkeys(range(2), -1))
        replica.start()
        yield Struck("the log loses records that weren't read while no replica runs", fleet.job,
                     ("StreamlstmPartitionsStopped",))  # fmt: skip


@contextmanager
def killed(stage: Stage) -> Iterator[Struck]:
    with stage.fleet("killed").running() as fleet:
        replica = fleet.replica().start().wait_ready()
        fleet.feed()
        _wait_for(fleet, "streamlstm_transactions_total", 20)
        replica.end(signal.SIGKILL)
        yield Struck("kill -9, and nobody starts it again", fleet.job, ("StreamlstmDown",))


@contextmanager
def brokers_away(stage: Stage) -> Iterator[Struck]:
    with stage.fleet("cut-off").running() as fleet:
        fleet.replica().start().wait_ready()
        fleet.feed()
        _wait_for(fleet, "streamlstm_transactions_total", 20)
        stage.broker.kill()
        try:
            yield Struck("kill -9 of the broker", fleet.job, ("StreamlstmDisconnected",))
        finally:
            stage.broker.start()


@contextmanager
def nobody(stage: Stage) -> Iterator[Struck]:
    """After everything else: no replica is left."""
    yield Struck("no replica at all", "", ("StreamlstmAbsent",))


SIDE_BY_SIDE: tuple[tuple[Script, ...], ...] = (
    (dead_letters, full, older_build, fenced),
    (misled, drifting),
    (undersized,),
    (unanswered_commit,),
    (hung_writes,),
    (blocked_restore,),
    (gone_log, killed),
    (brokers_away,),
    (nobody,),
)
"""Those of a group are done together. All of those that go through the proxy are alone in theirs."""


@contextmanager
def together(stage: Stage, scripts: tuple[Script, ...]) -> Iterator[list[Struck]]:
    with ExitStack() as stack:
        yield [stack.enter_context(script(stage)) for script in scripts]


def _total(fleet: Fleet, metric: str) -> float:
    return sum(float(each["value"][1]) for each in fleet.prometheus.query(f'{metric}{{job="{fleet.job}"}}'))


def _wait_for(fleet: Fleet, metric: str, least: float) -> None:
    _wait_until(lambda: _total(fleet, metric) >= least, f"{metric} >= {least} of {fleet.job}")


def _wait_until(reached: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.3)


def _by_partition(replica: Replica, metric: str) -> dict[int, int]:
    found = {}
    for line in replica.page("/metrics").splitlines():
        if line.startswith(f"{metric}{{"):
            labels, value = line.rsplit(" ", 1)
            found[int(labels.split('partition="')[1].split('"')[0])] = int(float(value))
    return found


def _oldest_tags(replica: Replica) -> dict[int, int]:
    """By partition, from where a restart would replay."""
    ends, lag, replay = (
        _by_partition(replica, f"streamlstm_{name}") for name in ("input_end_offset", "lag_records", "replay_records")
    )
    return {partition: ends[partition] - lag[partition] - replay[partition] for partition in replay}


def _delete_records(stage: Stage, fleet: Fleet, before: dict[int, int]) -> None:
    """As retention does; -1 is all there is."""
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap})
    wanted = [TopicPartition(fleet.topic("events"), partition, offset) for partition, offset in before.items()]
    for future in admin.delete_records(wanted).values():
        future.result(30)
