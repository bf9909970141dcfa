"""One round of the daemon: what a fetch brought becomes forecasts and dead letters, ready for a transaction."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from streamlstm import __version__
from streamlstm.config import Config
from streamlstm.engine.checkpoint import TYPICAL_KEY, Checkpoint, Records
from streamlstm.engine.forecaster import Forecaster
from streamlstm.errors import InvariantError
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.dead_letter import DeadLetterEncoder, PoisonReference
from streamlstm.events.encode import EncodedBatch, ForecastEncoder
from streamlstm.events.forecast import ForecastBatch
from streamlstm.fault_points import reach
from streamlstm.kernels import tally
from streamlstm.service.counters import Counters, Stage
from streamlstm.service.pending import Part, Pending, TopicPartition
from streamlstm.service.rows import append_fetched
from streamlstm.service.wiring import event_decoder, lets_missing
from streamlstm.transport.fetched import PoisonBatch
from streamlstm.transport.record_batches import RECORD_FRAME_BYTES, encode_batch
from streamlstm.transport.source import Fetched

log = logging.getLogger(__name__)

ENOUGH_EVENTS = 32_768
ENOUGH_BYTES = 8 << 20  # of keys and values as they were read: large events wait for nothing
NO_ROWS = np.empty(0, np.int64)
NO_SCORES = np.empty(0)


class Pipeline:
    """Decodes and forecasts what fetches bring, and encodes it all for a transaction. It neither waits nor knows of
    brokers; one thread calls it.

    Events are answered as they come, but encoded as late as their transaction begins, or when there are enough of them
    for a good batch: a Produce request takes one record batch per partition, so many small ones would need as many
    requests.

    `positions`: per partition that it holds the state of, the offset below which every event is part of that state.
    `unsettled`: those of which chunks were taken that aren't known to be in the log.
    """

    def __init__(
        self, config: Config, forecaster: Forecaster, checkpoint: Checkpoint | None, counters: Counters
    ) -> None:
        model, output = forecaster.model, config.output
        self.forecaster = forecaster
        self.checkpoint = checkpoint
        self.counters = counters
        self.topics = (output.topic, config.dead_letter.topic, config.snapshot.topic)
        self._most_chunk_bytes = config.snapshot.max_chunk_bytes
        self.decoder = event_decoder(config, model.inputs, lets_missing=lets_missing(config))
        self.forecasts = ForecastEncoder(
            model.model_hash[:12], model.horizons, output.max_batch_bytes, output.compression, level=model.level
        )
        self.dead_letters = DeadLetterEncoder(__version__, output.max_batch_bytes, output.compression)
        self.batch, self._replayed = self._empty(), self._empty()
        self.positions: dict[TopicPartition, int] = {}
        self.unsettled: set[TopicPartition] = set()
        self._replay_until: dict[TopicPartition, int] = {}
        self._leader_epochs: dict[TopicPartition, int] = {}
        self._answers: ForecastBatch | None = None
        self._new_streams = 0
        self._poison: dict[TopicPartition, list[tuple[int, PoisonReference]]] = {}

    @property
    def replaying(self) -> dict[TopicPartition, int]:
        """The events that each partition has still to replay before it is live."""
        return {source: until - self.positions.get(source, until) for source, until in self._replay_until.items()}

    @property
    def unwritten_bytes(self) -> int:
        """What the streams that came since the last chunks will take in the next ones, more or less."""
        return self._new_streams * (self.forecaster.backend.row_bytes + TYPICAL_KEY) if self.checkpoint else 0

    def begin(self, source: TopicPartition, position: int, committed: int) -> None:
        """The state of a partition is there, for events from `position` on; those below `committed` have been answered
        by somebody before: they only advance the state.
        """
        self.positions[source] = position
        if position < committed:
            self._replay_until[source] = committed
        self._show_tag(source)

    def forget(self, source: TopicPartition) -> int:
        """Give up a partition's state; returns how many streams it had."""
        self.positions.pop(source, None)
        self.unsettled.discard(source)
        self._replay_until.pop(source, None)
        self._leader_epochs.pop(source, None)
        self.counters.snapshot_tags.pop(source, None)
        self.counters.snapshot_written_at.pop(source, None)
        if self.checkpoint is not None:
            self.checkpoint.release(source[1])
        return self.forecaster.release(*source)

    def drop_unanswered(self) -> None:
        """Forget events that no transaction holds yet; they will be read again."""
        self.batch.clear()
        self._poison.clear()

    def give_back(self) -> bool:
        """Let go of the buffers that a backlog or a replay has made large; False while something waits in them."""
        if self.batch.n or self._poison:
            return False
        self.batch, self._replayed, self._answers = self._empty(), self._empty(), None
        self.forecaster.give_back()
        return True

    def _empty(self) -> EventBatch:
        return EventBatch(inputs=len(self.forecaster.model.inputs), payload=np.zeros(0, np.uint8), capacity=1024)

    def add(self, fetched: Fetched, pending: Pending, now: float) -> None:
        """Bring `pending` up to the positions of `fetched`. Every record of it that wasn't answered before gets a
        forecast or a dead letter.
        """
        if self._replay_until:
            self.encode(pending)  # the forecaster's answers are good until its next batch
            self._replay(fetched)
        batch = self.batch
        start = batch.n
        with self._timed(Stage.DECODE):
            self._append_all(fetched)
            self.decoder.decode(batch, start, batch.n)
        before = self.forecaster.n_streams
        with self._timed(Stage.STEP):
            self._answers = self.forecaster.forecast(batch, start)
        self._new_streams += max(0, self.forecaster.n_streams - before)
        self._move(fetched.positions, pending)
        if pending.since is None and (batch.n > start or self._poison):
            pending.since = now
        reach("answered")
        if batch.n >= ENOUGH_EVENTS or batch.payload_used >= ENOUGH_BYTES:
            self.encode(pending)

    def _move(self, positions: dict[TopicPartition, int], pending: Pending) -> None:
        """Take note of the new positions; a partition that is still being replayed has nothing to commit."""
        for source, position in positions.items():
            self.positions[source] = position
            until = self._replay_until.get(source)
            if until is not None and position >= until:
                del self._replay_until[source]
                log.info("live", extra={"topic": source[0], "partition": source[1], "offset": until})
                reach("live")
            if until is None or position > until:
                pending.part(source).offset = position

    def _replay(self, fetched: Fetched) -> None:
        """Advance the state by events that have been answered before."""
        batch = self._replayed
        for item in fetched.batches:
            until = self._replay_until.get((item.topic, item.partition), 0)
            if item.base_offset < until and not isinstance(item, PoisonBatch):
                start = batch.n
                append_fetched(batch, item, item.min_offset)
                batch.truncate(start + int(np.searchsorted(batch.offset[start : batch.n], until)))
        if batch.n == 0 or self.checkpoint is None:
            return
        reach("replaying")
        self.decoder.decode(batch, 0, batch.n)
        self.checkpoint.replay(batch)
        self.counters.replayed_events += int((batch.reason[: batch.n] != Reason.REPLAYED).sum())
        batch.clear()

    def encode(self, pending: Pending) -> None:
        """Turn every answered event that `pending` covers into record batches. Call it before committing `pending`."""
        batch, answers = self.batch, self._answers
        if answers is None or not (batch.n or self._poison):
            return
        with self._timed(Stage.ENCODE):
            rows = batch.rows_by_source()
            for source in dict.fromkeys((*rows, *self._poison)):
                self._encode(source, rows.get(source, NO_ROWS), answers, pending.part(source))
        batch.clear()
        self._poison.clear()
        reach("encoded")

    def watch_retention(self, log_starts: dict[TopicPartition, int]) -> None:
        """Chunks as of offsets that the log is about to drop are written before their turn."""
        if self.checkpoint is not None:
            for source in log_starts.keys() & self.positions.keys() - self._replay_until.keys():
                self.checkpoint.log_begins(source[1], log_starts[source])

    def add_quiet(self, owned: frozenset[TopicPartition], pending: Pending, now: float) -> None:
        """Give those of the `owned` partitions a part in the next transaction that have no new events, but chunks as of
        older ones: the log may drop the events that those need long before there are new ones. So too those of which
        nothing was ever committed: whoever reads them next has to begin where this replica did.
        """
        for source in owned & self.positions.keys() - self._replay_until.keys() - pending.parts.keys():
            is_due = self.checkpoint is not None and self.checkpoint.due(source[1], now, self.positions[source])
            if is_due or source not in self.counters.committed:
                pending.part(source).offset = self.positions[source]

    def add_snapshots(self, pending: Pending, now: float, timestamp: int) -> None:
        """Add the chunks whose turn it is to a transaction that is complete otherwise.

        `now` is monotonic, in seconds; `timestamp`, epoch milliseconds, is what compaction goes by.
        """
        if self.checkpoint is None:
            return
        topic = self.topics[2]
        with self._timed(Stage.SNAPSHOT):
            for source, part in pending.parts.items():
                epoch = self._leader_epochs.get(source, -1)
                taken = self.checkpoint.take(source[1], part.offset, epoch, now)
                for records in _together(taken, self._most_chunk_bytes):
                    part.produce_records(topic, source[1], encode_batch(records, timestamp), len(records))
                    reach("snapshot_taken")
                if taken:
                    self.unsettled.add(source)
        self._new_streams = 0
        self.counters.snapshot_chunks = self.checkpoint.chunks
        self.counters.snapshot_bytes = self.checkpoint.chunk_bytes

    def committed(self, pending: Pending) -> None:
        """All of it is in the log."""
        for source in self.unsettled & pending.parts.keys():
            self._show_tag(source)
        self.unsettled -= pending.parts.keys()

    def _show_tag(self, source: TopicPartition) -> None:
        if self.checkpoint is None or (tag := self.checkpoint.oldest_tag(source[1])) is None:
            return
        self.counters.snapshot_tags[source] = tag
        self.counters.snapshot_written_at[source] = self.checkpoint.oldest_written_at(source[1])

    def _append_all(self, fetched: Fetched) -> None:
        """Make the fetched record batches rows; what can't be read is noted with the row before which it stood."""
        for item in fetched.batches:
            source = item.topic, item.partition
            answered_before = self._replay_until.get(source, 0)
            if item.last_offset < answered_before:
                continue
            if isinstance(item, PoisonBatch):
                self._poison.setdefault(source, []).append((self.batch.n, _unreadable(item)))
                continue
            self._leader_epochs[source] = item.leader_epoch
            for row, first, last, found in append_fetched(self.batch, item, max(item.min_offset, answered_before)):
                reference = PoisonReference(*source, first, last, found.reason, found.problem)
                self._poison.setdefault(source, []).append((row, reference))

    def _encode(self, source: TopicPartition, rows: NDArray[np.int64], answers: ForecastBatch, part: Part) -> None:
        """Forecasts first: a row whose forecast is too large for a record batch becomes a dead letter by that. Dead
        letters are in the order of what they stand for.
        """
        batch, partition = self.batch, source[1]
        encoded = self.forecasts.encode(batch, answers, source, rows) if len(rows) else []
        part.produce_all(self.topics[0], partition, encoded)
        sums = np.zeros(tally.SUMS, np.int64)
        score = NO_SCORES if answers.anomaly_score is None else answers.anomaly_score
        tally.tally(
            rows, batch.reason, answers.status, batch.key_len, batch.value_len, score, part.by_status, part.by_reason,
            sums,
        )  # fmt: skip
        letters, unwritten = [], rows[batch.reason[rows] != Reason.OK] if sums[tally.REFUSED] else NO_ROWS
        for row, reference in self._poison.get(source, ()):
            before, unwritten = np.split(unwritten, [np.searchsorted(unwritten, row)])
            letters += self._dead_letters_of(before, source, part)
            part.produce_all(self.topics[1], partition, self.dead_letters.encode_poison(reference))
            part.by_reason[reference.reason] += 1
        letters += self._dead_letters_of(unwritten, source, part)
        _check_accounts(source, len(rows), encoded, letters)
        part.events += len(rows)
        part.event_bytes += int(sums[tally.BYTES])
        part.anomalies += int(sums[tally.ANOMALOUS])
        part.timestamps.append(batch.timestamp[rows])

    def _dead_letters_of(self, rows: NDArray[np.int64], source: TopicPartition, part: Part) -> list[EncodedBatch]:
        letters = self.dead_letters.encode(self.batch, rows, source) if len(rows) else []
        part.produce_all(self.topics[1], source[1], letters)
        return letters

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.counters.stages[stage].observe(time.perf_counter() - start)


def _together(records: Records, max_bytes: int) -> Iterator[Records]:
    """Records in order, so many at a time that a batch of them has `max_bytes`, one at least. For the batches of a
    partition go out one after the other, each when the one before has been answered.
    """
    batch: Records = []
    size = 0
    for key, value in records:
        more = len(key) + len(value or b"") + RECORD_FRAME_BYTES
        if batch and size + more > max_bytes:
            yield batch
            batch, size = [], 0
        batch.append((key, value))
        size += more
    if batch:
        yield batch


def _unreadable(item: PoisonBatch) -> PoisonReference:
    reason = Reason[item.reason.upper()]
    return PoisonReference(item.topic, item.partition, item.base_offset, item.last_offset, reason, item.message)


def _check_accounts(
    source: TopicPartition, events: int, forecasts: list[EncodedBatch], letters: list[EncodedBatch]
) -> None:
    """Raises InvariantError unless forecasts and dead letters add up to the events."""
    answered = sum(batch.count for batch in (*forecasts, *letters))
    if answered != events:
        raise InvariantError(f"{source[0]}-{source[1]}: expected an answer to {events} events, found {answered}")
