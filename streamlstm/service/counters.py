"""Plain numbers that the pipeline writes and `metrics.py` reads at a scrape.

One thread writes; a reader in another thread sees each number whole, and the numbers among themselves at most one batch
apart. Nothing here knows Prometheus, and nothing is counted per record: a batch adds its sums.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum

from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status

LATENCY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Stage(StrEnum):
    """The stations of a batch, in order."""

    POLL = "poll"
    DECODE = "decode"
    STEP = "step"
    ENCODE = "encode"
    SNAPSHOT = "snapshot"
    COMMIT = "commit"


class Outcome(StrEnum):
    """How a transaction ended. An unknown one is settled before it is counted."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    FENCED = "fenced"


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

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound, observations at or below it), the last bound infinite."""
        running, rows = 0, []
        for bound, count in zip((*self.bounds, float("inf")), tuple(self.counts), strict=True):
            running += count
            rows.append((bound, running))
        return rows


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What runs."""

    version: str
    python: str
    numba: str
    kafka_python: str
    cpu: str


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

    Times are epoch seconds (`*_at`). `committed` and `ends`: offsets by (topic, partition), what is committed and where
    the partition ends; the difference is the lag. `snapshot_tags`: the offset from which a restart would replay.
    `restore_seconds`: from assignment to state, of the partition restored last. `forecasts` is indexed by Status,
    `dead_letters` by Reason.
    """

    events: int = 0
    event_bytes: int = 0
    forecasts: list[int] = field(default_factory=lambda: [0] * len(Status))
    produced_bytes: int = 0
    dead_letters: list[int] = field(default_factory=lambda: [0] * len(Reason))
    transactions: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    request_retries: int = 0
    rebalances: int = 0
    stages: dict[Stage, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in Stage})
    commit_latency: Histogram = field(default_factory=Histogram)
    streams: int = 0
    streams_capacity: int = 0
    state_bytes: int = 0
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    last_commit_at: float = 0.0
    startup_seconds: float = 0.0
    snapshot_chunks: int = 0
    snapshot_bytes: int = 0
    snapshot_tags: dict[tuple[str, int], int] = field(default_factory=dict)
    restored_streams: int = 0
    replayed_events: int = 0
    restore_seconds: float = 0.0

    def replay_records(self) -> dict[tuple[str, int], int]:
        """Records that a restart would replay, per partition."""
        both = [(source, self.committed.get(source), tag) for source, tag in self.snapshot_tags.items()]
        return {source: max(0, committed - tag) for source, committed, tag in both if committed is not None}

    def lag(self) -> dict[tuple[str, int], int]:
        """Records between the committed offset and the end of each partition of which both are known."""
        both = [(source, end, self.committed.get(source)) for source, end in self.ends.items()]
        return {source: max(0, end - committed) for source, end, committed in both if committed is not None}
