"""A history straight from the input topic: what the daemon would read and decode, without a group, nothing written.

Where each partition begins and ends is fixed before anything is read: the end is the high watermark at most, so a
topic that grows meanwhile changes nothing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import InputMissingError, OffsetGoneError, UsageError
from streamlstm.events.batch import EventBatch
from streamlstm.history.collector import PASSED_OVER, Collector, Rules
from streamlstm.history.history import History
from streamlstm.history.report import Kind
from streamlstm.service.audit_range import Bound
from streamlstm.service.read_range import Progress, read_range
from streamlstm.service.rows import append_fetched
from streamlstm.service.wiring import connection_settings, event_decoder, lets_missing, max_ahead_ms
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.fetched import FetchedBatch, PoisonBatch
from streamlstm.transport.offsets import Partition, list_offsets
from streamlstm.transport.topics import describe_topics, log_ranges


@dataclass(frozen=True, slots=True)
class TopicRange:
    """What was asked for: from `start` on, up to but without `stop`; of offsets, the `last` so many of each partition.
    `partitions` () is all of them. A time is that of the records, as Kafka keeps it: every record at or after `start`
    and before `stop` is taken, wherever it lies. So a `stop` of time saves no reading: records of old times may come
    late, and the end of a transaction, by whose time Kafka would find the place as well, has the broker's.
    """

    start: Bound = field(default_factory=Bound)
    stop: Bound = field(default_factory=Bound)
    last: int | None = None
    partitions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise UsageError(f"last events: expected one at least, found {self.last}")
        if self.last is not None and self.stop.time_ms is not None:
            raise UsageError("last events: expected no end by time beside it")


def rules_of(config: Config, order: Literal["time", "arrival"] = "time") -> Rules:
    """What a history takes: what the daemon takes; but rows with missing inputs in order of arrival only, where the
    engine fills them. In that order it also keeps the offsets.
    """
    return Rules(
        max_key_bytes=config.state.max_key_bytes,
        max_ahead_ms=max_ahead_ms(config),
        order=order,
        keep_missing=order == "arrival" and lets_missing(config),
        keep_offsets=order == "arrival",
    )


@contextmanager
def opened(config: Config, inputs: tuple[str, ...], asked: TopicRange, rules: Rules) -> Iterator["TopicHistory"]:
    """A history of `inputs` whose ranges have been fixed; `rules_of` gives those of the daemon.

    Raises InputMissingError (no such topic), UsageError (no such partition), OffsetGoneError (an offset that was asked
    for isn't in the log any more), ConfigError, RetryError, AccessError.
    """
    cluster = Cluster.connect(connection_settings(config), time.monotonic)
    try:
        yield TopicHistory(cluster, config, inputs, asked, rules)
    finally:
        cluster.close()


class TopicHistory:
    """One pass over the topic. `total` is how many offsets there are to read."""

    def __init__(
        self, cluster: Cluster, config: Config, inputs: tuple[str, ...], asked: TopicRange, rules: Rules
    ) -> None:
        self._cluster = cluster
        self._config = config
        self._inputs = inputs
        self._rules = rules
        self._topic = config.input.topic
        self._asked = asked
        self._ranges = _ranges(cluster, self._topic, asked)
        self.total = sum(stop - start for start, stop in self._ranges.values())

    def read(self, progress: Progress = lambda read: None) -> History:
        """Read everything. Raises OffsetGoneError when retention drops what is still to be read, BadDataError when
        there is nothing to learn from, RetryError, AccessError.
        """
        collector = Collector(self._inputs, self._rules)
        decoder = event_decoder(self._config, self._inputs, lets_missing=self._rules.keep_missing)
        batch = EventBatch(len(self._inputs), np.zeros(0, np.uint8), 1024)
        for partition, (start, stop) in self._ranges.items():
            collector.begin_source(self._topic, str(partition))
            for found, read in read_range(self._cluster, self._config, self._topic, partition, start, stop):
                self._fill(batch, found, stop, collector)
                decoder.decode(batch, 0, batch.n)
                collector.add(batch, partition)
                progress(read)
        return collector.finish()

    def _fill(
        self, batch: EventBatch, found: list[FetchedBatch | PoisonBatch], stop: int, collector: Collector
    ) -> None:
        """Make rows of the records before `stop`; batches that can't be read are counted."""
        batch.clear()
        for each in found:
            if isinstance(each, PoisonBatch):
                refused = [(each.base_offset, Kind(each.reason), each.message)]
            else:
                unreadable = append_fetched(batch, each, each.min_offset)
                refused = [(first, Kind(found.reason.label), found.problem) for _, first, _, found in unreadable]
            for offset, kind, message in refused:
                if offset < stop:
                    collector.report.add(kind, 1, f"{each.partition}:{offset}", found=message)
        batch.truncate(int(np.searchsorted(batch.offset[: batch.n], stop)))
        begin_ms, end_ms = self._asked.start.time_ms, self._asked.stop.time_ms
        times, reason = batch.timestamp[: batch.n], batch.reason[: batch.n]
        if begin_ms is not None:
            reason[times < begin_ms] = PASSED_OVER
        if end_ms is not None:
            reason[times >= end_ms] = PASSED_OVER


def _ranges(cluster: Cluster, topic: str, asked: TopicRange) -> dict[int, tuple[int, int]]:
    """The offsets [start, stop) to read of each partition."""
    deadline = cluster.deadline(cluster.settings.connect_timeout_ms)
    facts = describe_topics(cluster, (topic,), deadline)[topic]
    if facts is None:
        raise InputMissingError(f"topic {topic} is not there")
    for partition in (*asked.partitions, *asked.start.offsets, *asked.stop.offsets):
        if partition >= facts.partitions:
            raise UsageError(f"partition {partition}: topic {topic} has 0 to {facts.partitions - 1}")
    here = [(topic, partition) for partition in sorted(set(asked.partitions)) or range(facts.partitions)]
    logs = log_ranges(cluster, topic, [each[1] for each in here], with_open=True)
    starts = _offsets(asked.start, here)
    if asked.start.time_ms is not None:
        starts = list_offsets(cluster, here, asked.start.time_ms, deadline)
    stops = _offsets(asked.stop, here)
    ranges = {}
    for each in here:
        first, end = logs[each[1]]
        start, stop = starts.get(each, first), min(stops.get(each, end), end)
        if not first <= start <= end:
            raise OffsetGoneError(
                f"{topic}-{each[1]}: expected offset {start}, as asked for; found that the log holds [{first}, {end})",
                first,
                end,
            )
        if asked.last is not None:
            start = max(start, stop - asked.last)
        ranges[each[1]] = (min(start, stop), stop)
    return ranges


def _offsets(bound: Bound, here: list[Partition]) -> dict[Partition, int]:
    return {each: bound.offsets[each[1]] for each in here if each[1] in bound.offsets}
