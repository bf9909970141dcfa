"""One round of the daemon: what a fetch brought becomes forecasts and dead letters, ready for a transaction."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamlstm import __version__
from streamlstm.config import Config
from streamlstm.engine.forecaster import Forecaster
from streamlstm.errors import InvariantError
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.dead_letter import DeadLetterEncoder, PoisonReference
from streamlstm.events.decode import JsonDecoder, MalformedBatch, RawDecoder, append_batch
from streamlstm.events.encode import EncodedBatch, ForecastEncoder
from streamlstm.events.forecast import ForecastBatch, Status
from streamlstm.service.counters import Counters, Stage
from streamlstm.service.wiring import field_paths
from streamlstm.transport.fetched import FetchedBatch, PoisonBatch
from streamlstm.transport.requests import ProduceBatch
from streamlstm.transport.source import Fetched

TopicPartition = tuple[str, int]

ENOUGH_EVENTS = 32_768


@dataclass(slots=True)
class Part:
    """One source partition's share of a transaction: everything up to, and not including, `offset`.

    The tallies are what the counters gain when it commits; `by_status` and `by_reason` are indexed by their enums.
    """

    offset: int = -1
    produce: list[ProduceBatch] = field(default_factory=list)
    produced_bytes: int = 0
    events: int = 0
    event_bytes: int = 0
    by_status: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Status), np.int64))
    by_reason: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Reason), np.int64))

    def produce_all(self, topic: str, partition: int, batches: list[EncodedBatch]) -> None:
        for encoded in batches:
            self.produce.append(ProduceBatch(topic, partition, encoded.buffer, encoded.count))
            self.produced_bytes += len(encoded.buffer)

    def extend(self, later: "Part") -> None:
        """Add what follows this part in the same partition."""
        self.offset = later.offset
        self.produce += later.produce
        self.produced_bytes += later.produced_bytes
        self.events += later.events
        self.event_bytes += later.event_bytes
        self.by_status += later.by_status
        self.by_reason += later.by_reason


@dataclass(slots=True)
class Pending:
    """The contents of the next transaction, kept until it is known committed.

    `since` is when its oldest event was read, monotonic seconds; None while it holds positions only.
    """

    parts: dict[TopicPartition, Part] = field(default_factory=dict)
    since: float | None = None

    def part(self, source: TopicPartition) -> Part:
        return self.parts.setdefault(source, Part())

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        return {source: part.offset for source, part in self.parts.items()}

    @property
    def produce(self) -> list[ProduceBatch]:
        return [batch for part in self.parts.values() for batch in part.produce]

    @property
    def produced_bytes(self) -> int:
        return sum(part.produced_bytes for part in self.parts.values())

    def follow(self, former: "Pending") -> None:
        """Put `former`, whose transaction came to nothing, in front of what has been read since."""
        self.since = former.since if former.since is not None else self.since
        later, self.parts = self.parts, former.parts
        for source, part in later.items():
            self.part(source).extend(part)

    def drop(self, sources: set[TopicPartition]) -> None:
        """Forget partitions that belong to somebody else now: their new owner reads those events again."""
        for source in sources:
            self.parts.pop(source, None)


class Pipeline:
    """Decodes and forecasts what fetches bring, and encodes it all for a transaction. It neither waits nor knows of
    brokers; one thread calls it.

    Events are answered as they come, but encoded as late as their transaction begins, or when there are enough of them
    for a good batch: a Produce request takes one record batch per partition, so many small ones would need as many
    requests.
    """

    def __init__(self, config: Config, forecaster: Forecaster, counters: Counters) -> None:
        model, output = forecaster.model, config.output
        self.forecaster = forecaster
        self.counters = counters
        self.topics = (output.topic, config.dead_letter.topic)
        paths = field_paths(config, model)
        self.decoder = RawDecoder(paths.time_unit) if config.input.format == "raw" else JsonDecoder(paths)
        self.forecasts = ForecastEncoder(
            model.model_hash[:12], model.horizons, output.max_batch_bytes, output.compression
        )
        self.dead_letters = DeadLetterEncoder(__version__, output.max_batch_bytes, output.compression)
        self.batch = EventBatch(inputs=len(model.inputs), payload=np.zeros(0, np.uint8), capacity=1024)
        self._answers: ForecastBatch | None = None

    def add(self, fetched: Fetched, pending: Pending, now: float) -> None:
        """Bring `pending` up to the positions of `fetched`. Every record of it gets a forecast or a dead letter."""
        batch = self.batch
        start = batch.n
        with self._timed(Stage.DECODE):
            poison = list(self._append_all(fetched))
            self.decoder.decode(batch, start, batch.n)
        with self._timed(Stage.STEP):
            self._answers = self.forecaster.forecast(batch, start)
        for reference in poison:
            self._encode_poison(reference, pending.part((reference.topic, reference.partition)))
        for source, position in fetched.positions.items():
            pending.part(source).offset = position
        if pending.since is None and (batch.n > start or poison):
            pending.since = now
        if batch.n >= ENOUGH_EVENTS:
            self.encode(pending)

    def encode(self, pending: Pending) -> None:
        """Turn every answered event that `pending` covers into record batches. Call it before committing `pending`."""
        batch, answers = self.batch, self._answers
        if answers is None or batch.n == 0:
            return
        with self._timed(Stage.ENCODE):
            for source, rows in batch.rows_by_source().items():
                self._encode(source, rows, answers, pending.part(source))
        batch.clear()

    def _append_all(self, fetched: Fetched) -> Iterator[PoisonReference]:
        """Make the fetched record batches rows; what can't be read comes back as references."""
        for item in fetched.batches:
            if isinstance(item, PoisonBatch):
                yield PoisonReference(
                    item.topic,
                    item.partition,
                    item.base_offset,
                    item.last_offset,
                    Reason[item.reason.upper()],
                    item.message,
                )
                continue
            appended = append_batch(
                self.batch, item.topic, item.partition, item.records, count=item.count, base_offset=item.base_offset,
                base_timestamp=item.base_timestamp, append_time=item.append_time, min_offset=item.min_offset,
            )  # fmt: skip
            if isinstance(appended, MalformedBatch):
                yield _malformed(item, appended)

    def _encode(self, source: TopicPartition, rows: NDArray[np.int64], answers: ForecastBatch, part: Part) -> None:
        """Forecasts first: a row whose forecast is too large for a record batch becomes a dead letter by that."""
        batch, partition = self.batch, source[1]
        encoded = self.forecasts.encode(batch, answers, source, rows)
        part.produce_all(self.topics[0], partition, encoded)
        reason = batch.reason[rows]
        refused = reason != Reason.OK
        letters = self.dead_letters.encode(batch, rows[refused], source) if refused.any() else []
        part.produce_all(self.topics[1], partition, letters)
        _check_accounts(source, len(rows), encoded, letters)
        part.events += len(rows)
        part.event_bytes += int(batch.value_len[rows].sum() + batch.key_len[rows].sum())
        part.by_status += np.bincount(answers.status[rows][~refused], minlength=len(Status))
        part.by_reason += np.bincount(reason[refused], minlength=len(Reason))

    def _encode_poison(self, reference: PoisonReference, part: Part) -> None:
        part.produce_all(self.topics[1], reference.partition, self.dead_letters.encode_poison(reference))
        part.by_reason[reference.reason] += 1

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.counters.stages[stage].observe(time.perf_counter() - start)


def _malformed(item: FetchedBatch, found: MalformedBatch) -> PoisonReference:
    return PoisonReference(
        item.topic,
        item.partition,
        max(item.base_offset, item.min_offset),
        item.last_offset,
        found.reason,
        found.problem,
    )


def _check_accounts(
    source: TopicPartition, events: int, forecasts: list[EncodedBatch], letters: list[EncodedBatch]
) -> None:
    """Raises InvariantError unless forecasts and dead letters add up to the events."""
    answered = sum(batch.count for batch in (*forecasts, *letters))
    if answered != events:
        raise InvariantError(f"{source[0]}-{source[1]}: expected an answer to {events} events, found {answered}")
