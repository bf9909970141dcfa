"""What becomes of a commit under way when the group takes partitions away, and gives them back before it has ended.

The source and the writer are doubles that do what the test says; everything between them is the daemon's own.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from streamlstm.config import Config
from streamlstm.engine.forecaster import Forecaster
from streamlstm.errors import ConfigError, StaleGenerationError
from streamlstm.model.model_file import load
from streamlstm.service import loop
from streamlstm.service.committer import Committer
from streamlstm.service.counters import Counters
from streamlstm.service.health import Phase, Progress
from streamlstm.service.loop import CALM_SECONDS, STANDBY_SECONDS, Loop
from streamlstm.service.ownership import Ownership
from streamlstm.service.pipeline import Pipeline
from streamlstm.service.restore import ChunkRecord, EndOfSnapshots, Read
from streamlstm.service.shutdown import Shutdown
from streamlstm.service.wiring import checkpoint_of, forecaster_settings
from streamlstm.state.recovery import Problem
from streamlstm.transport.fetched import FetchedBatch, PartitionBytes
from streamlstm.transport.group import Group
from streamlstm.transport.log_reader import records
from streamlstm.transport.requests import Partition, ProduceBatch
from streamlstm.transport.source import Fetched
from streamlstm.transport.transaction import Committed, WriterCounters
from tests.daemon_process import write_model
from tests.transport.batches import at, encode

ONE, TWO = ("events", 1), ("events", 2)
TIME = 1_730_000_000_000
FIRST = 40


class Brokers:
    """Source, writer and executor at once. `log` has what the group committed, transaction by transaction."""

    def __init__(self) -> None:
        self.counters = WriterCounters()
        self.next = Fetched()
        self.generation = 1
        self.is_stable = True
        self.is_held = False
        self.rebalances = self.poll_errors = 0
        self.asked_again: list[Partition] = []
        self.coming: frozenset[Partition] = frozenset()
        self.sought: dict[Partition, int] = {}
        self.asked: list[tuple[dict[Partition, int], list[ProduceBatch], Group]] = []
        self.log: list[tuple[dict[Partition, int], list[ProduceBatch]]] = []
        self._outcome: Future[Committed] = Future()

    @property
    def committed(self) -> list[dict[Partition, int]]:
        return [offsets for offsets, _ in self.log]

    def log_of(self, topic: str, partition: int) -> list[bytearray]:
        return [
            each.buffer
            for _, all_of in self.log
            for each in all_of
            if (each.topic, each.partition) == (topic, partition)
        ]

    # the source
    def poll(self, timeout_ms: int, max_bytes: int) -> Fetched:
        given, self.next = self.next, Fetched()
        return given

    member_id = "me"

    def group(self) -> Group:
        return Group("group", self.generation, "me", None)

    def seek(self, partition: Partition, offset: int) -> None:
        self.sought[partition] = offset

    def ask_again(self, partition: Partition) -> None:
        self.asked_again.append(partition)

    def hold(self, is_held: bool) -> None:
        self.is_held = is_held

    def ends(self) -> dict[Partition, int]:
        return {}

    def starts(self) -> dict[Partition, int]:
        return {}

    def expected(self) -> frozenset[Partition]:
        return self.coming

    def heartbeat_age(self) -> float:
        return 0.0

    # the writer, and the thread that it runs on
    def commit(self, batches: Sequence[ProduceBatch], offsets: Mapping[Partition, int], group: Group) -> Committed:
        raise AssertionError

    def submit(self, _: object, batches: list[ProduceBatch], offsets: dict[Partition, int], group: Group) -> object:
        self._outcome = Future()
        self.asked.append((offsets, batches, group))
        return self._outcome

    def say(self, outcome: Exception | None = None) -> None:
        """How the transaction under way has ended."""
        if outcome is not None:
            self._outcome.set_exception(outcome)
        else:
            self.log.append(self.asked[-1][:2])
            self._outcome.set_result(Committed(0.01, 1))


class Snapshots:
    """A restorer, from what was committed."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._left: dict[int, list[Read]] = {}
        self.slow: set[int] = set()

    def begin(self, partition: int) -> None:
        found: list[Read] = [
            ChunkRecord(key or b"", value)
            for batch in self._brokers.log_of("snapshots", partition)
            for stored in PartitionBytes("snapshots", partition, 0, bytes(batch), [], 1 << 20)
            if isinstance(stored, FetchedBatch)
            for _, _, key, value, _ in records(stored)
        ]
        self._left[partition] = [*reversed(found), EndOfSnapshots(0, 1_000)]

    def enough(self, partition: int) -> None:
        self._left[partition] = self._left[partition][-1:]

    def cancel(self, partition: int) -> None:
        self._left.pop(partition, None)

    def take(self, partition: int, timeout: float) -> Read | None:
        return None if partition in self.slow else self._left[partition].pop(0)


class Daemon:
    """The loop, between doubles. `begin`: it owns partitions 1 and 2, and has committed that they begin at `FIRST`."""

    def __init__(self, folder: Path, **given: dict[str, object]) -> None:
        config = Config.model_validate(
            {
                "kafka": {"group_id": "group"}, "input": {"topic": "events", "stream_source": "field"},
                "output": {"topic": "forecasts"}, "dead_letter": {"topic": "dead"}, "snapshot": {"topic": "snapshots"},
                "model": {"path": str(write_model(folder / "model.safetensors"))}, "commit": {"interval_ms": 1},
                "state": {"max_streams": 100}, **given,
            }
        )  # fmt: skip
        self.brokers, self.progress, self.now = Brokers(), Progress(0.0), 0.0
        forecaster = Forecaster(load(Path(config.model.path)), forecaster_settings(config, 1))
        self.pipeline = Pipeline(config, forecaster, checkpoint_of(config, forecaster), Counters())
        self.snapshots = Snapshots(self.brokers)
        restorer = self.snapshots if config.snapshot.enabled else None
        self.ownership = Ownership(config, self.pipeline, restorer, self.progress, lambda: self.now)  # type: ignore[arg-type]
        committer = Committer(self.brokers, self.brokers, self.pipeline.counters, lambda: 0.0)  # type: ignore[arg-type]
        committer.started_at = -1e9
        self.loop = Loop(
            config, self.pipeline, self.brokers, committer, self.ownership, self.progress, Shutdown()  # type: ignore[arg-type]
        )  # fmt: skip

    def begin(self) -> "Daemon":
        self.turn(Fetched(assigned={ONE: FIRST, TWO: FIRST}, fresh={ONE, TWO}))
        self.brokers.say()
        return self

    def turn(self, fetched: Fetched | None = None) -> None:
        self.brokers.next = fetched or Fetched()
        self.loop.committer.started_at = -1e9  # it is time for a commit
        self.loop.turn()

    def read(self, partition: Partition, first: int, count: int, stream: str = "a") -> Fetched:
        """What a fetch of so many events of one stream brings."""
        start, name = TIME + first, stream.encode()
        values = [b'{"ts":%d,"value":1.5,"stream":"%s"}' % (start + k, name) for k in range(count)]
        content = bytes(at(encode(values, timestamp=TIME), first))
        batches = list(PartitionBytes(*partition, first, content, [], 1 << 20))
        return Fetched(batches=batches, positions={partition: first + count})


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path).begin()


def test_what_is_committed_is_one_transaction_after_the_other(daemon: Daemon) -> None:
    daemon.turn(daemon.read(ONE, FIRST, 3))
    daemon.turn(daemon.read(TWO, FIRST, 2))
    daemon.brokers.say()
    daemon.turn()
    daemon.brokers.say()
    daemon.turn()
    assert daemon.brokers.committed[1:] == [{ONE: FIRST + 3}, {TWO: FIRST + 2}]
    assert daemon.pipeline.counters.events == 5


def crowded(folder: Path) -> Daemon:
    """It has read an event of each of 200 new streams, while the commit of another was under way."""
    daemon = Daemon(folder, commit={"interval_ms": 10, "max_bytes": 65_536}, state={"max_streams": 1_000}).begin()
    daemon.turn(daemon.read(ONE, FIRST, 1))
    fetches = [daemon.read(ONE, FIRST + k, 1, f"stream-{k}") for k in range(1, 201)]
    batches = [batch for fetched in fetches for batch in fetched.batches]
    daemon.brokers.next = Fetched(batches=batches, positions={ONE: FIRST + 201})
    daemon.loop.turn()
    return daemon


def test_a_transaction_is_full_of_streams_that_it_has_to_store(tmp_path: Path) -> None:
    daemon = crowded(tmp_path)
    assert not daemon.brokers.is_held
    daemon.loop.turn()
    assert daemon.brokers.is_held
    assert daemon.loop.pending.produced_bytes < 65_536
    daemon.brokers.say()
    daemon.loop.committer.started_at = 1e18  # it isn't time for a commit
    daemon.loop.turn()
    daemon.brokers.say()
    daemon.loop.turn()
    assert daemon.brokers.committed[1:] == [{ONE: FIRST + 1}, {ONE: FIRST + 201}]
    assert not daemon.brokers.is_held


def test_streams_that_are_lost_hold_nobody_up(tmp_path: Path) -> None:
    daemon = crowded(tmp_path)
    daemon.brokers.next = Fetched(lost={ONE, TWO})
    daemon.loop.turn()
    assert daemon.brokers.is_held
    daemon.loop.turn()
    assert not daemon.brokers.is_held


def test_a_stale_commit_of_a_partition_that_stays_is_repeated_with_what_follows(daemon: Daemon) -> None:
    daemon.turn(daemon.read(ONE, FIRST, 3))
    daemon.turn(daemon.read(ONE, FIRST + 3, 1))
    daemon.brokers.say(StaleGenerationError("moved on"))
    daemon.turn()
    daemon.brokers.say()
    daemon.turn()
    assert daemon.brokers.committed[1:] == [{ONE: FIRST + 4}]
    assert daemon.pipeline.counters.events == 4


def test_a_rebalance_that_waits_for_others_holds_nothing_up(daemon: Daemon) -> None:
    """Until the broker has counted everybody it takes commits by the generation before; then none, so none is tried."""
    daemon.brokers.is_stable = False
    daemon.turn(daemon.read(ONE, FIRST, 3))
    daemon.brokers.say()
    daemon.turn(daemon.read(ONE, FIRST + 3, 1))
    daemon.brokers.say(StaleGenerationError("moved on"))
    daemon.turn(daemon.read(ONE, FIRST + 4, 1))
    daemon.turn()
    assert len(daemon.brokers.asked) == 3, "tried again by a generation that was refused"
    daemon.brokers.generation, daemon.brokers.is_stable = 2, True
    daemon.turn()
    daemon.brokers.say()
    daemon.turn()
    assert daemon.brokers.committed[1:] == [{ONE: FIRST + 3}, {ONE: FIRST + 5}]
    assert daemon.pipeline.counters.events == 5


@pytest.mark.parametrize("committed", [FIRST + 1, FIRST + 2, FIRST + 3])
@pytest.mark.parametrize("outcome_is_known", [True, False], ids=["known", "under way"])
def test_what_was_lost_in_flight_is_not_committed_when_the_partition_comes_back(
    daemon: Daemon, committed: int, outcome_is_known: bool
) -> None:
    """Its new owner may have answered some of it: what comes back is the partition at its committed offset."""
    daemon.turn(daemon.read(ONE, FIRST, 1))
    daemon.brokers.say()
    daemon.turn(daemon.read(ONE, FIRST + 1, 2))
    daemon.turn(daemon.read(TWO, FIRST, 2))
    stale = StaleGenerationError("moved on")
    if outcome_is_known:
        daemon.brokers.say(stale)
    daemon.turn(Fetched(lost={ONE, TWO}, assigned={ONE: committed}))
    if not outcome_is_known:
        daemon.turn()
        daemon.brokers.say(stale)
    daemon.turn()
    replayed_from = daemon.brokers.sought[ONE]
    daemon.turn(daemon.read(ONE, replayed_from, FIRST + 5 - replayed_from))
    daemon.brokers.say()
    daemon.turn()
    assert daemon.brokers.committed[1:] == [{ONE: FIRST + 1}, {ONE: FIRST + 5}]
    answered = [batch.count for batch in daemon.brokers.asked[-1][1] if batch.topic == "forecasts"]
    assert sum(answered) == FIRST + 5 - committed
    assert daemon.pipeline.counters.events == 1 + FIRST + 5 - committed
    assert daemon.pipeline.counters.committed == {ONE: FIRST + 5}


def test_a_chunk_that_was_lost_in_flight_is_known_to_be_missing(daemon: Daemon) -> None:
    """The state in memory is that of the committed offset, but not what it knows of the snapshots."""
    checkpoint, counters = daemon.pipeline.checkpoint, daemon.pipeline.counters
    assert checkpoint is not None
    daemon.turn(daemon.read(ONE, FIRST, 1))
    daemon.brokers.say()
    daemon.turn()
    daemon.turn(Fetched(lost={ONE}, assigned={ONE: FIRST + 1}))
    assert counters.restored_streams == 0, "it was here"
    in_log = checkpoint.oldest_tag(1)
    checkpoint.release(1)
    checkpoint.begin(1, -1e9)  # all chunks are due
    daemon.loop.pipeline.add_quiet(frozenset({ONE}), daemon.loop.pending, 0.0)
    daemon.turn()
    assert (checkpoint.oldest_tag(1), daemon.brokers.asked[-1][0]) == (FIRST + 1, {ONE: FIRST + 1})
    daemon.turn(Fetched(lost={ONE}, assigned={ONE: FIRST + 1}))
    assert (checkpoint.oldest_tag(1), daemon.brokers.sought[ONE]) == (in_log, in_log)


def test_a_partition_that_has_stopped_is_looked_at_again(daemon: Daemon) -> None:
    """A broker whose coordinator has lost its memory tells old offsets until it is mended."""
    daemon.turn(daemon.read(ONE, FIRST, 3))
    daemon.brokers.say()
    daemon.turn()
    daemon.turn(Fetched(lost={ONE}, assigned={ONE: FIRST - 10}))
    assert "its offset was moved back" in daemon.progress.stopped[ONE]
    daemon.now = 40.0
    daemon.loop._look_at_ends_at = 0.0
    daemon.turn()
    assert daemon.brokers.asked_again == [ONE]
    daemon.turn(Fetched(assigned={ONE: FIRST - 10}))
    assert ONE in daemon.progress.stopped
    daemon.turn(Fetched(assigned={ONE: FIRST + 3}))
    assert not daemon.progress.stopped
    daemon.turn(daemon.read(ONE, daemon.brokers.sought[ONE], FIRST + 4 - daemon.brokers.sought[ONE]))
    daemon.brokers.say()
    daemon.turn()
    assert daemon.brokers.committed[-1] == {ONE: FIRST + 4}
    assert daemon.pipeline.counters.events == 4


def test_a_restore_that_takes_long_is_not_begun_again(daemon: Daemon) -> None:
    """It would never end: each look at a stopped partition, every 30 s, would cut it off."""
    daemon.turn(daemon.read(ONE, FIRST, 3))
    daemon.brokers.say()
    daemon.turn()
    daemon.turn(Fetched(lost={ONE}, assigned={ONE: FIRST - 10}))
    assert ONE in daemon.progress.stopped
    daemon.snapshots.slow = {1}
    daemon.turn(Fetched(assigned={ONE: FIRST + 3}))
    for now in (40.0, 80.0):
        daemon.now, daemon.loop._look_at_ends_at = now, 0.0
        daemon.turn()
    assert daemon.brokers.asked_again == []
    daemon.snapshots.slow = set()
    daemon.turn()
    assert not daemon.progress.stopped


def test_large_events_do_not_pile_up_while_a_commit_takes_long(daemon: Daemon) -> None:
    """Only what has been encoded counts for the back-pressure."""
    daemon.turn(daemon.read(ONE, FIRST, 1))
    for k in range(40):
        daemon.turn(daemon.read(ONE, FIRST + 1 + k, 1, "x" * 900_000))
        assert daemon.pipeline.batch.payload_used < 10 << 20
    assert daemon.loop.pending.parts[ONE].events >= 32


def test_where_nothing_was_committed_yet_the_beginning_is(tmp_path: Path) -> None:
    """Without snapshots too: with input.start = "latest" the next owner would begin behind what comes meanwhile."""
    daemon = Daemon(tmp_path, snapshot={"enabled": False}).begin()
    daemon.turn()
    assert daemon.brokers.committed == [{ONE: FIRST, TWO: FIRST}]
    for _ in range(3):
        daemon.loop._look_at_ends_at = 0.0
        daemon.turn()
    assert len(daemon.brokers.asked) == 1


def test_a_partition_whose_offset_is_not_known_yet_is_on_its_way(daemon: Daemon) -> None:
    daemon.turn()
    assert (daemon.progress.phase, daemon.progress.partitions, daemon.progress.restoring) == (Phase.RUNNING, 2, 0)
    daemon.brokers.coming = frozenset({("events", 3)})
    daemon.turn()
    assert (daemon.progress.phase, daemon.progress.partitions, daemon.progress.restoring) == (Phase.RESTORING, 3, 1)


def test_an_empty_first_assignment_is_not_yet_that_of_a_standby(tmp_path: Path) -> None:
    """Others have to give up first what is ours."""
    daemon = Daemon(tmp_path)
    daemon.turn()
    assert daemon.progress.phase is Phase.JOINING
    daemon.turn(Fetched(assigned={ONE: FIRST}, fresh={ONE}))
    daemon.turn()
    assert daemon.progress.phase is Phase.RUNNING
    standby = Daemon(tmp_path)
    standby.turn()
    assert standby.loop._stable_since is not None
    standby.loop._stable_since -= STANDBY_SECONDS
    standby.turn()
    assert standby.progress.phase is Phase.RUNNING


@pytest.mark.parametrize("kinds", [("model",), ("gap",), ("abi", "gap"), ("corrupt", "model"), ("dtype",)])
@pytest.mark.parametrize("on_gap", ["fail", "warm"])
@pytest.mark.parametrize("on_model_change", ["fail", "warm"])
def test_each_problem_of_a_restore_asks_for_its_own_setting(
    tmp_path: Path, kinds: tuple[str, ...], on_gap: str, on_model_change: str
) -> None:
    daemon = Daemon(tmp_path, snapshot={"topic": "snapshots", "on_gap": on_gap, "on_model_change": on_model_change})
    problems = [Problem(kind, 1, f"this is {kind}") for kind in kinds]
    if on_model_change == "fail" and {"model", "abi", "dtype"} & {*kinds}:
        with pytest.raises(ConfigError, match=r'snapshot.on_model_change = "warm"'):
            daemon.ownership._goes_on_warm(ONE, problems)
        return
    is_stopped = on_gap == "fail" and bool({"gap", "corrupt"} & {*kinds})
    assert daemon.ownership._goes_on_warm(ONE, problems) is not is_stopped
    assert (ONE in daemon.progress.stopped) is is_stopped


def crowd(daemon: Daemon, partition: Partition, first: int, names: str) -> Fetched:
    """One event of each of these streams."""
    values = [b'{"ts":%d,"value":1.5,"stream":"%c"}' % (TIME + first + k, ord(name)) for k, name in enumerate(names)]
    content = bytes(at(encode(values, timestamp=TIME), first))
    batches = list(PartitionBytes(*partition, first, content, [], 1 << 20))
    return Fetched(batches=batches, positions={partition: first + len(names)})


class TestFullTable:
    """`state.max_streams` is reached, and partitions are restored."""

    @staticmethod
    def full(folder: Path, policy: str) -> Daemon:
        """Two streams in each of two partitions, in the snapshots too, and another daemon's turn."""
        state = {"max_streams": 4, "on_full": policy}
        before = Daemon(folder, state=state, snapshot={"topic": "snapshots", "interval_ms": 1000}).begin()
        for partition in (ONE, TWO):
            before.turn(crowd(before, partition, FIRST, "ab"))
            before.brokers.say()
        before.turn()
        checkpoint = before.pipeline.checkpoint
        assert checkpoint is not None
        for partition in (1, 2):
            checkpoint.release(partition)
            checkpoint.begin(partition, -1e9)
        before.loop.pipeline.add_quiet(frozenset({ONE, TWO}), before.loop.pending, 0.0)
        before.turn()
        before.brokers.say()
        after = Daemon(folder, state=state, snapshot={"topic": "snapshots", "interval_ms": 1000})
        after.brokers.log = before.brokers.log
        return after

    def test_new_streams_do_not_take_the_room_of_those_being_restored(self, tmp_path: Path) -> None:
        daemon = self.full(tmp_path, "refuse")
        daemon.snapshots.slow = {2}
        daemon.turn(Fetched(assigned={ONE: FIRST + 2, TWO: FIRST + 2}))
        daemon.turn()
        assert daemon.brokers.sought == {}
        daemon.snapshots.slow = set()
        daemon.turn()
        assert daemon.brokers.sought == {ONE: FIRST + 2, TWO: FIRST + 2}
        assert (daemon.pipeline.forecaster.n_streams, daemon.progress.stopped) == (4, {})

    def test_a_partition_that_goes_while_it_waits_for_others(self, tmp_path: Path) -> None:
        daemon = self.full(tmp_path, "refuse")
        daemon.snapshots.slow = {2}
        daemon.turn(Fetched(assigned={ONE: FIRST + 2, TWO: FIRST + 2}))
        assert daemon.ownership.unfinished == 2
        daemon.turn(Fetched(lost={ONE}))
        assert (daemon.ownership.unfinished, daemon.pipeline.forecaster.n_streams) == (1, 0)
        daemon.snapshots.slow = set()
        daemon.turn()
        assert (daemon.brokers.sought, daemon.ownership.restoring) == ({TWO: FIRST + 2}, False)

    def test_a_partition_without_room_stops_and_the_others_go_on(self, tmp_path: Path) -> None:
        daemon = self.full(tmp_path, "refuse")
        daemon.turn(Fetched(assigned={ONE: FIRST + 2}))
        daemon.turn(crowd(daemon, ONE, FIRST + 2, "cd"))
        daemon.turn(Fetched(assigned={TWO: FIRST + 2}))
        assert "state.max_streams is 4: 2 more streams are needed, 0 are free" in daemon.progress.stopped[TWO]
        assert not daemon.ownership.restoring
        daemon.turn(crowd(daemon, ONE, FIRST + 4, "a"))
        assert daemon.pipeline.positions == {ONE: FIRST + 5}

    def test_where_streams_are_evicted_they_make_room(self, tmp_path: Path) -> None:
        daemon = self.full(tmp_path, "evict")
        daemon.turn(Fetched(assigned={ONE: FIRST + 2}))
        daemon.turn(crowd(daemon, ONE, FIRST + 2, "cd"))
        daemon.turn(Fetched(assigned={TWO: FIRST + 2}))
        assert (daemon.pipeline.forecaster.n_streams, daemon.progress.stopped) == (4, {})
        slots = daemon.pipeline.forecaster.slots
        assert {slots.key_of(slot)[1] for slot in slots.slots_of(daemon.pipeline.forecaster.partition_index(*ONE))} == {
            b"c", b"d"
        }  # fmt: skip


def test_what_a_backlog_has_made_large_is_given_back(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resident memory would creep up with each rebalance and broker fault, to the largest backlog ever seen."""
    trimmed: list[bool] = []
    monkeypatch.setattr(loop, "give_back_freed_memory", lambda: trimmed.append(True))
    for k in range(3):
        daemon.turn(daemon.read(ONE, FIRST + 3000 * k, 3000))
        daemon.brokers.say()
    assert daemon.pipeline.batch.capacity >= 3000
    assert (daemon.loop._behind_at, trimmed) != (None, [])
    daemon.loop._behind_at = -CALM_SECONDS
    daemon.turn()
    assert (daemon.pipeline.batch.capacity, daemon.loop._behind_at, trimmed) == (1024, None, [True])
    daemon.turn(daemon.read(ONE, FIRST + 9000, 3))
    daemon.brokers.say()
    daemon.turn()
    assert daemon.brokers.committed[-1] == {ONE: FIRST + 9003}
    assert daemon.pipeline.counters.events == 9003
