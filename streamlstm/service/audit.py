"""`streamlstm audit`: every event of a range against its answers, read from the three topics as committed records.

Nothing is written and no group is joined. Partitions are audited one after the other: memory is two bits for each
offset of one of them, and what a fetch brings. Of each, the input is read first, then the forecasts, then the dead
letters: as far as was fixed before (audit_range.py).
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from streamlstm.config import Config
from streamlstm.errors import BadDataError, InputMissingError, OffsetGoneError, RetryError
from streamlstm.events.batch import EventBatch
from streamlstm.events.sources import Answered, ForecastReader, LetterReader
from streamlstm.service.account import Account, Answers, Kind, Result
from streamlstm.service.audit_range import AuditOptions, Range, plan
from streamlstm.service.read_range import Progress, read_range
from streamlstm.service.rows import append_fetched
from streamlstm.service.wiring import connection_settings
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.fetched import FetchedBatch, PoisonBatch
from streamlstm.transport.offsets import committed_offsets

CLOCK_SKEW_MS = 3_600_000
"""By so much the brokers' clocks may be ahead of ours when they drop old dead letters."""

_ATTEMPTS = 10


@dataclass(slots=True)
class Report:
    """The results by partition, how many forecasts name each model, and what else one has to know."""

    group: str
    input: str
    output: str
    dead_letters: str
    asked: bool
    partitions: dict[int, Result] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def count(self, kind: Kind) -> int:
        return sum(result.counts[kind] for result in self.partitions.values())

    @property
    def faults(self) -> int:
        return sum(result.faults for result in self.partitions.values())

    @property
    def exit_code(self) -> int:
        """0 clean; 65 something is wrong; 66 nothing is, but of the range that was asked for, or of all there is,
        retention has dropped the answers.
        """
        unchecked = sum(result.unchecked for result in self.partitions.values())
        events = sum(result.events + result.unreadable for result in self.partitions.values())
        if self.faults:
            return BadDataError.exit_code
        return InputMissingError.exit_code if unchecked and (self.asked or unchecked == events) else 0


@contextmanager
def opened(config: Config, options: AuditOptions) -> Iterator["Audit"]:
    """An audit whose ranges have been fixed. Raises what `plan` raises, and ConfigError."""
    cluster = Cluster.connect(connection_settings(config), time.monotonic)
    try:
        yield Audit(cluster, config, options, int(time.time() * 1000))
    finally:
        cluster.close()


class Audit:
    """One pass over the topics. `total` is how many offsets there are to read."""

    def __init__(self, cluster: Cluster, config: Config, options: AuditOptions, now_ms: int) -> None:
        topics = (config.input.topic, config.output.topic, config.dead_letter.topic)
        planned = plan(cluster, config, options)
        self.total = sum(each.size for each in planned.ranges.values())
        self.report = Report(config.kafka.group_id, *topics, asked=options.start.given or options.stop.given)
        if unseen := [topic for topic, configs in zip(topics, planned.configs, strict=True) if not configs]:
            self.report.notes.append(
                f"we may not see the configuration of {', '.join(unseen)} (DescribeConfigs): what compaction has "
                f"dropped counts as missing, and less of what is old is checked"
            )
        self._config = config
        self._cluster = cluster
        self._ranges = planned.ranges
        self._compacted = [_compacted(each) for each in planned.configs]
        self._letters_kept_from = kept_from(planned.configs[2], now_ms)
        self._batch = EventBatch(0, np.zeros(0, np.uint8), 1024)

    def run(self, progress: Progress) -> Report:
        """Read everything; `progress` is told how many offsets have been read since the last time.

        Raises RetryError when a log doesn't come to the end that it should have, AccessError.
        """
        for partition, given in self._ranges.items():
            account, young = self._read_input(partition, given, progress)
            forecasts = account.answers(self.report.output, lossy=self._compacted[1])
            letters = account.answers(self.report.dead_letters, lossy=self._compacted[2])
            source = (self.report.input, partition)
            readers = ForecastReader(source), LetterReader(source)
            self._read_answers(forecasts, readers[0], partition, given, given.forecasts, progress)
            self._read_answers(letters, readers[1], partition, given, given.dead_letters, progress)
            late_start = self._config.input.start == "latest"
            result = account.close(forecasts, letters, young=young, late_start=late_start)
            self.report.partitions[partition] = result
            self.report.models += readers[0].models
            self._note(partition, given, result)
        if len(self.report.models) > 1:
            named = ", ".join(f"{model or 'none'} ({count:,})" for model, count in self.report.models.most_common())
            self.report.notes.append(f"forecasts name {len(self.report.models)} models: {named}")
        return self.report

    def _note(self, partition: int, given: Range, result: Result) -> None:
        notes, here = self.report.notes, f"partition {partition}"
        if given.committed is None:
            notes.append(f"{here}: the group has committed no offset")
        elif given.committed > given.log_end and given.end == given.log_end:
            notes.append(
                f"{here}: the group has committed offset {given.committed}, but the input ends at {given.log_end}: "
                f"it has lost records, or was made anew"
            )
        if result.unchecked:
            notes.append(
                f"{here}: {result.unchecked:,} events below offset {result.checked_from} have no answer that is still "
                f"there; retention or compaction may have dropped it, or the group began later"
            )
        if result.others:
            notes.append(
                f"{here}: {result.others:,} records of the answers' topics answer nothing of {self.report.input}"
            )

    # -------------------------------------------------------------------------------------------------------- the input

    def _read_input(self, partition: int, given: Range, progress: Progress) -> tuple[Account, int | None]:
        """What the input holds, and the first event that is too young for its dead letter to have been dropped."""
        for _ in range(_ATTEMPTS):
            try:
                return self._read_events(partition, given, progress)
            except OffsetGoneError as gone:
                given.first = min(gone.first, given.end)
        raise RetryError(f"{self.report.input}-{partition}: retention drops records faster than they can be read")

    def _read_events(self, partition: int, given: Range, progress: Progress) -> tuple[Account, int | None]:
        account = Account(given.first, given.end, compacted=self._compacted[0])
        kept_from, young = self._letters_kept_from, given.first
        for unreadable in self._read(self.report.input, partition, given.first, given.end, progress):
            offsets, times = self._batch.offset[: self._batch.n], self._batch.timestamp[: self._batch.n]
            account.add_events(offsets)
            for first, last in unreadable:
                account.add_unreadable(first, last)
            if kept_from is not None and (unreadable or (len(times) and times.min() < kept_from)):
                old = offsets[times < kept_from]
                young = 1 + max([*old[-1:].tolist(), *(last for _, last in unreadable), young - 1])
        return account, None if kept_from is None else young

    # ------------------------------------------------------------------------------------------------------ the answers

    def _read_answers(
        self,
        answers: Answers,
        reader: ForecastReader | LetterReader,
        partition: int,
        given: Range,
        log: tuple[int, int],
        progress: Progress,
    ) -> None:
        start, stop = log
        if start > 0:
            answers.skip()
        while True:
            try:
                for unreadable in self._read(answers.topic, partition, start, stop, progress):
                    for first, _ in unreadable:
                        answers.add_unreadable(first)
                    answered = reader.read(self._batch)
                    committed = self._committed(partition, given, answered)
                    answers.add(self._batch.offset[: self._batch.n], answered, committed)
            except OffsetGoneError as gone:
                start = gone.first
                answers.skip()
            else:
                return

    def _committed(self, partition: int, given: Range, answered: Answered) -> int:
        """What the group has committed: asked anew when there are answers to later events than it had, by then."""
        here = (self.report.input, partition)
        latest = max([int(answered.offset.max(initial=-1)), *(last for _, last in answered.ranges.values())])
        if latest >= (given.committed or 0):
            deadline = self._cluster.deadline(self._cluster.settings.connect_timeout_ms)
            given.committed = committed_offsets(self._cluster, self.report.group, [here], deadline)[here]
        return given.committed or 0

    # ---------------------------------------------------------------------------------------------------------- reading

    def _read(
        self, topic: str, partition: int, start: int, stop: int, progress: Progress
    ) -> Iterator[list[tuple[int, int]]]:
        """Fill the batch with the records of offsets [start, stop), part by part; yields, for each part, the offsets of
        the record batches that can't be read, ends included. Records behind `stop` may come with the last part.
        """
        for found, read in read_range(self._cluster, self._config, topic, partition, start, stop):
            yield self._fill(found)
            progress(read)

    def _fill(self, found: list[FetchedBatch | PoisonBatch]) -> list[tuple[int, int]]:
        self._batch.clear()
        unreadable = []
        for each in found:
            if isinstance(each, PoisonBatch):
                unreadable.append((each.base_offset, each.last_offset))
                continue
            refused = append_fetched(self._batch, each, each.min_offset)
            unreadable += [(first, last) for _, first, last, _ in refused]
        return unreadable


def _compacted(configs: Mapping[str, str]) -> bool:
    return "compact" in configs.get("cleanup.policy", "")


def kept_from(configs: Mapping[str, str], now_ms: int) -> int | None:
    """The timestamp, epoch milliseconds, from which on a topic has kept every record; None where there is no telling:
    where it isn't time alone that drops records, or we may not see the configuration.
    """
    if configs.get("cleanup.policy") != "delete" or configs.get("retention.bytes") != "-1":
        return None
    retention_ms = int(configs.get("retention.ms", "-1"))
    return None if retention_ms < 0 else now_ms + CLOCK_SKEW_MS - retention_ms
