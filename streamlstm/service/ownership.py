"""Which partitions this replica owns, and the way of each from its assignment to its first forecast.

    assigned ──> restoring ──> (replaying) ──> live
        │            └──> stopped: its state can't be had exactly, and nothing is done without being asked; assigned
        │                 again after a while, for somebody may have mended what was wrong
        └── the state is in memory still, exact for the committed offset, and so is what was written of it: live at once

A partition that went away keeps its state until the group is stable again: in a rebalance it often comes straight back.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from streamlstm.config import Config
from streamlstm.engine.checkpoint import Checkpoint
from streamlstm.errors import ConfigError
from streamlstm.fault_points import reach
from streamlstm.service.counters import Counters
from streamlstm.service.health import Progress
from streamlstm.service.pending import TopicPartition
from streamlstm.service.pipeline import Pipeline
from streamlstm.service.restore import ChunkRecord, EndOfSnapshots, Restorer, Unreadable
from streamlstm.state.recovery import OTHER_MODEL, Problem
from streamlstm.state.slots import NoRoomError
from streamlstm.transport.source import Fetched, Gap, Source

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 30.0
UNEVEN = 1.2


@dataclass(frozen=True, slots=True)
class _Restoring:
    """`committed` is where the partition goes live; `fresh`: the group has committed nothing of it yet."""

    committed: int
    fresh: bool
    since: float


class Ownership:
    """One thread calls it, the loop's. `source` changes when the brokers were lost and found again."""

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        restorer: Restorer | None,
        progress: Progress,
        clock: Callable[[], float],
    ) -> None:
        self._snapshot = config.snapshot
        self._pipeline = pipeline
        self._restorer = restorer
        self._progress = progress
        self._counters: Counters = pipeline.counters
        self._clock = clock
        self._owned: set[TopicPartition] = set()
        self._restoring: dict[TopicPartition, _Restoring] = {}
        self._restored: dict[TopicPartition, tuple[int, int]] = {}
        self._stopped_at: dict[TopicPartition, float] = {}

    @property
    def owned(self) -> frozenset[TopicPartition]:
        return frozenset(self._owned)

    @property
    def restoring(self) -> bool:
        """Whether there are snapshots to be taken in, or partitions that wait for those of others."""
        return bool(self._restoring or self._restored)

    @property
    def unfinished(self) -> int:
        """Partitions that are on their way to be live."""
        return len(self._restoring) + len(self._restored) + len(self._pipeline.replaying)

    def leave(self, partitions: set[TopicPartition]) -> None:
        """These have gone; their state stays for the time being."""
        for source in partitions & self._owned:
            topic, partition = source
            if self._restoring.pop(source, None) and self._restorer is not None:
                self._restorer.cancel(partition)
                self._pipeline.forget(source)
            if self._restored.pop(source, None):
                self._pipeline.forget(source)
            self._resume(source)
            self._counters.committed.pop(source, None)
            log.info("partition gone", extra={"topic": topic, "partition": partition})
        self._owned -= partitions

    def forget_left(self, expected: frozenset[TopicPartition]) -> None:
        """Free the state of partitions that are somebody else's: the group has settled without giving them back.
        `expected` are those that are just coming.
        """
        for source in self._pipeline.positions.keys() - self._owned - expected:
            streams = self._pipeline.forget(source)
            log.info("state released", extra={"topic": source[0], "partition": source[1], "streams": streams})

    def enter(self, fetched: Fetched, source: Source) -> None:
        """Bring the state of newly assigned partitions here; some can be read at once."""
        for where, committed in fetched.assigned.items():
            topic, partition = where
            fresh = where in fetched.fresh
            self._owned.add(where)
            if not fresh:
                self._counters.committed[where] = committed
            log.info("partition assigned", extra={"topic": topic, "partition": partition, "offset": committed})
            is_here = self._pipeline.positions.get(where) == committed and where not in self._pipeline.unsettled
            if is_here and not fresh:
                log.info("state is here", extra={"topic": topic, "partition": partition, "offset": committed})
                self._go_live(where, committed, committed, source)
            else:
                self._bring(where, committed, fresh, source)

    def look_again(self, source: Source) -> None:
        """Have partitions that stopped a while ago assigned again: brokers that lost their memory get it back."""
        for where, at in self._stopped_at.items():
            if self._clock() - at >= LOOK_AGAIN_SECONDS and where not in self._restoring:
                self._stopped_at[where] = self._clock()
                source.ask_again(where)

    def meet(self, gap: Gap, source: Source) -> None:
        """The partition can't be read on: records are gone before they were read. What was read is committed."""
        where = gap.topic, gap.partition
        if where not in self._owned:
            return
        why = (
            "retention has dropped what comes first" if gap.wanted < gap.first else "the topic was made anew or cut off"
        )
        told = f"offset {gap.wanted} is to be read, and the log holds {gap.first} to {gap.end}: {why}"
        if self._snapshot.on_gap == "fail":
            self._stop(where, told)
            return
        log.warning("events are gone", extra={"topic": gap.topic, "partition": gap.partition, "why": told})
        fresh = where not in self._counters.committed
        if fresh or self._restorer is None:
            live_from = min(max(gap.wanted, gap.first), gap.end)
        else:
            live_from = gap.wanted + self._pipeline.replaying.get(where, 0)
        self._bring(where, live_from, fresh, source)

    def _bring(self, where: TopicPartition, committed: int, fresh: bool, source: Source) -> None:
        """Restore the state of a partition from its snapshots; without snapshots it begins anew."""
        self._pipeline.forget(where)
        self._restored.pop(where, None)
        if self._restorer is None:
            self._go_live(where, committed, committed, source)
            return
        self._restoring[where] = _Restoring(committed, fresh, self._clock())
        self._restorer.begin(where[1])
        reach("restoring")

    def restore(self, source: Source, seconds: float) -> None:
        """Take in what has been read of the snapshots, for about `seconds`."""
        self._take_in(self._clock() + seconds)
        if not self._restoring or self._have_room():
            for where, (replay_from, live_from) in self._restored.items():
                self._go_live(where, replay_from, live_from, source)
            self._restored.clear()

    def _take_in(self, until: float) -> None:
        """What has been read by then; where no other partition is to be served, what comes meanwhile too."""
        is_idle = not self._owned - self._restoring.keys() - self._restored.keys()
        for where in list(self._restoring):
            while where in self._restoring and self._take_one(where, until - self._clock() if is_idle else 0.0):
                if self._clock() >= until:
                    return

    def _have_room(self) -> bool:
        """Whether those being restored will find room although others are live: new streams could have taken theirs.
        How many they have isn't known before they are read; keys are spread evenly, so it's about as many as others.
        """
        forecaster, known = self._pipeline.forecaster, self._owned - self._restoring.keys()
        held = sum(forecaster.slots.streams_of(forecaster.partition_index(*where)) for where in known)
        left = forecaster.slots.max_streams - held
        return UNEVEN * held * len(self._restoring) <= left * len(known)

    def _take_one(self, where: TopicPartition, timeout: float) -> bool:
        """Take in one record of a partition's snapshots; False when none came within `timeout` seconds."""
        checkpoint, restorer = self._pipeline.checkpoint, self._restorer
        assert checkpoint is not None
        assert restorer is not None
        match restorer.take(where[1], timeout):
            case None:
                return False
            case ChunkRecord(key, value):
                self._load(where, checkpoint, key, value)
            case Unreadable(first, last, why):
                checkpoint.unreadable(where[1], why)
                log.error(
                    "snapshots are damaged; older ones take their place",
                    extra={"partition": where[1], "first": first, "last": last, "why": why},
                )
            case EndOfSnapshots(first, end):
                self._finish(where, self._restoring.pop(where), checkpoint, first, end)
        return True

    def _load(self, where: TopicPartition, checkpoint: Checkpoint, key: bytes, value: memoryview | None) -> None:
        """Raises ConfigError for what no partition can load."""
        assert self._restorer is not None
        try:
            checkpoint.load(where[1], key, value)
        except NoRoomError as error:  # the others can go on
            del self._restoring[where]
            self._restorer.cancel(where[1])
            self._pipeline.forget(where)
            self._stop(where, str(error))
            return
        self._counters.restored_chunks += 1
        reach("chunk_loaded")
        if checkpoint.is_whole(where[1]):
            self._restorer.enough(where[1])

    def _finish(
        self,
        where: TopicPartition,
        restoring: _Restoring,
        checkpoint: Checkpoint,
        first: int,
        end: int,
    ) -> None:
        partition, committed, now = where[1], restoring.committed, self._clock()
        restored = checkpoint.finish(partition, None if restoring.fresh else committed, first, end, now)
        reach("restored")
        replay_from, live_from = restored.replay_from, committed
        if restored.problems:
            if not self._goes_on_warm(where, restored.problems):
                return
            restored = checkpoint.warm(partition, committed, first, now)
            replay_from, live_from = restored.replay_from, restored.live_from
        elif restoring.fresh:
            replay_from = committed
        self._counters.restored_streams += restored.streams
        self._counters.restore_seconds = now - restoring.since
        log.info(
            "state restored",
            extra={
                "topic": where[0], "partition": partition, "streams": restored.streams, "replay_from": replay_from,
                "live_from": live_from, "seconds": round(now - restoring.since, 2),
            },
        )  # fmt: skip
        self._restored[where] = replay_from, live_from

    def _go_live(self, where: TopicPartition, position: int, committed: int, source: Source) -> None:
        self._resume(where)
        self._pipeline.begin(where, position, committed)
        source.seek(where, position)
        if position >= committed:
            reach("live")

    def _goes_on_warm(self, where: TopicPartition, problems: list[Problem]) -> bool:
        """Whether the settings say to begin anew what can't be restored, for each of its problems. Raises ConfigError
        for another model.
        """
        other_model = [problem.message for problem in problems if problem.kind in OTHER_MODEL]
        gaps = [problem.message for problem in problems if problem.kind not in OTHER_MODEL]
        if other_model and self._snapshot.on_model_change == "fail":
            told, advice = "; ".join(other_model), 'to begin the state anew, set snapshot.on_model_change = "warm"'
            raise ConfigError([f"partition {where[1]} of {where[0]!r}: of its snapshots, {told}; {advice}"])
        told = "; ".join(other_model + gaps)
        if gaps and self._snapshot.on_gap == "fail":
            self._pipeline.forget(where)
            self._stop(where, f'{told}; to go on without, set snapshot.on_gap = "warm"')
            return False
        log.warning("state begins anew", extra={"topic": where[0], "partition": where[1], "why": told})
        return True

    def _stop(self, where: TopicPartition, why: str) -> None:
        self._progress.stopped[where] = why
        self._stopped_at[where] = self._clock()
        log.error("partition stopped", extra={"topic": where[0], "partition": where[1], "why": why})

    def _resume(self, where: TopicPartition) -> None:
        self._progress.stopped.pop(where, None)
        self._stopped_at.pop(where, None)
