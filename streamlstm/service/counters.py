"""Plain numbers that the pipeline writes and `metrics.py` reads at a scrape.

One thread writes; a reader in another thread sees each number whole, and the numbers among themselves at most one batch
apart. Nothing here knows Prometheus, and no Python runs per record: a batch adds its sums.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status
from streamlstm.kernels.tally import ages
from streamlstm.transport.transaction import WriterCounters

LATENCY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
AGE_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Of events by the time of their answer: from a commit interval to a night without the daemon."""
REBALANCE_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

TopicPartition = tuple[str, int]


class Stage(StrEnum):
    """The stations of a batch, in order."""

    POLL = "poll"
    DECODE = "decode"
    STEP = "step"
    ENCODE = "encode"
    SNAPSHOT = "snapshot"
    COMMIT = "commit"


class Histogram:
    """Counts of durations in fixed buckets; `bounds` are upper bounds in seconds, inclusive, rising."""

    __slots__ = ("bounds", "counts", "total_seconds")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    def observe_ages(self, timestamps: NDArray[np.int64], now_ms: int) -> int:
        """How long ago each timestamp was, epoch ms; negative ones are none. Returns the newest, 0 without one."""
        bounds = np.array([round(1000 * bound) for bound in self.bounds])
        counts = np.zeros(len(self.counts), np.int64)
        total_ms, newest = ages(timestamps, now_ms, bounds, counts)
        self.counts = [before + more for before, more in zip(self.counts, counts.tolist(), strict=True)]
        self.total_seconds += total_ms / 1000
        return int(newest)

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound, observations at or below it), the last bound infinite."""
        running, rows = 0, []
        for bound, count in zip((*self.bounds, float("inf")), tuple(self.counts), strict=True):
            running += count
            rows.append((bound, running))
        return rows


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What runs. `cpu` is LLVM's name of the CPU, `cpu_level` the level of x86-64 that the kernels are compiled for."""

    version: str
    python: str
    numba: str
    kafka_python: str
    cpu: str
    cpu_level: str


@dataclass(frozen=True, slots=True)
class ConfigInfo:
    """The settings that tell replicas apart, and those that alerts go by."""

    group: str
    transactional_id: str
    input: str
    output: str
    on_full: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model runs. `window` 0 means carried state; `hidden` and `horizons` are joined by commas."""

    model_hash: str
    window: int
    inputs: int
    hidden: str
    horizons: str


@dataclass(slots=True)
class Counters:
    """Everything counted since the start, and the gauges of now.

    By (topic, partition): `committed` and `ends` are offsets, what is committed and the last stable offset; the
    difference is the lag. `current_at`: epoch seconds, every event from before that moment is answered, as far as
    timestamps of records can be trusted; `known_since`: when the partition came. `log_starts`: the first offset in the
    log. `snapshot_tags`: the offset from which a restart would replay; `snapshot_written_at`: when the oldest chunk was
    written, monotonic. `replaying`: offsets left to replay.

    `last_commit_at` is epoch seconds. `restore_seconds`: from assignment to state, of the partition restored last.
    `forecasts` is indexed by Status, `dead_letters` by Reason. `writer` has the transactions.
    """

    events: int = 0
    event_bytes: int = 0
    forecasts: list[int] = field(default_factory=lambda: [0] * len(Status))
    produced_bytes: int = 0
    dead_letters: list[int] = field(default_factory=lambda: [0] * len(Reason))
    anomalies: int = 0
    writer: WriterCounters = field(default_factory=WriterCounters)
    fetch_errors: int = 0
    reconnects: int = 0
    rebalances: int = 0
    rebalance_duration: Histogram = field(default_factory=lambda: Histogram(REBALANCE_BOUNDS))
    stages: dict[Stage, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in Stage})
    commit_latency: Histogram = field(default_factory=Histogram)
    freshness: Histogram = field(default_factory=lambda: Histogram(AGE_BOUNDS))
    streams: int = 0
    streams_capacity: int = 0
    state_bytes: int = 0
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    current_at: dict[TopicPartition, float] = field(default_factory=dict)
    known_since: dict[TopicPartition, float] = field(default_factory=dict)
    log_starts: dict[TopicPartition, int] = field(default_factory=dict)
    last_commit_at: float = 0.0
    startup_seconds: float = 0.0
    snapshot_chunks: int = 0
    snapshot_bytes: int = 0
    snapshot_tags: dict[TopicPartition, int] = field(default_factory=dict)
    snapshot_written_at: dict[TopicPartition, float] = field(default_factory=dict)
    replaying: dict[TopicPartition, int] = field(default_factory=dict)
    restored_chunks: int = 0
    restored_streams: int = 0
    replayed_events: int = 0
    restore_seconds: float = 0.0

    def answered(self, source: TopicPartition, timestamps: Iterable[NDArray[np.int64]], now: float) -> None:
        """The answers to records with these timestamps (epoch milliseconds, negative for none) are committed."""
        newest = max((self.freshness.observe_ages(each, round(now * 1000)) for each in timestamps), default=0)
        if newest:
            self.current_at[source] = min(now, max(self.current_at.get(source, 0.0), newest / 1000))

    def look_at_ends(self, ends: dict[TopicPartition, int], now: float) -> None:
        """Take note of the last stable offsets."""
        self.ends = ends
        self.current_at |= {source: now for source, records in self.lag().items() if not records}
        self.current_at = {each: at for each, at in self.current_at.items() if each in ends}
        self.known_since = {each: self.known_since.get(each, now) for each in ends}

    def lag(self) -> dict[TopicPartition, int]:
        """Records between the committed offset and the end of each partition of which both are known."""
        both = [(source, end, self.committed.get(source)) for source, end in tuple(self.ends.items())]
        return {source: max(0, end - committed) for source, end, committed in both if committed is not None}

    def lag_seconds(self, now: float) -> dict[TopicPartition, float]:
        """How old the oldest unanswered record is at most: it came after the newest that is answered, and after the
        last moment at which none was waiting. Where neither is known it is older than what this says. 0 without lag.
        """
        found = {}
        for source, records in self.lag().items():
            at = self.current_at.get(source, self.known_since.get(source, now))
            found[source] = max(0.0, now - at) if records else 0.0
        return found

    def replay_records(self) -> dict[TopicPartition, int]:
        """Records that a restart would replay, per partition."""
        both = [(source, self.committed.get(source), tag) for source, tag in tuple(self.snapshot_tags.items())]
        return {source: max(0, committed - tag) for source, committed, tag in both if committed is not None}

    def replay_retention(self) -> dict[TopicPartition, float]:
        """What a restart would replay as a share of what the log still holds of it; at 1 retention is about to drop the
        first of it. 0 while the log still begins where it was made: nothing has been dropped yet.
        """
        found = {}
        for source, tag in tuple(self.snapshot_tags.items()):
            committed, start = self.committed.get(source), self.log_starts.get(source)
            if committed is not None and start is not None:
                found[source] = max(0, committed - tag) / max(1, committed - start) if start else 0.0
        return found

    def snapshot_age(self, now: float) -> dict[TopicPartition, float]:
        """Seconds since the oldest chunk was written, at most; 0 where it has all events. `now` is monotonic."""
        return {
            source: max(0.0, now - self.snapshot_written_at.get(source, now)) if records else 0.0
            for source, records in self.replay_records().items()
        }
