"""What becomes of each record by the rules of ForecasterSettings: a dict of streams per partition, record by record."""

import math
from dataclasses import dataclass, field

import numpy as np

from streamlstm.engine.forecaster import ForecasterSettings
from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status
from streamlstm.model.model_file import Model
from streamlstm.state.slots import stable_hashes
from tests.engine.expected import Expected

LARGEST = 1e35  # well within any model's limit; the tests' values are either far below or far above


@dataclass(frozen=True)
class Record:
    """`x` None: a tombstone. `refused`: the decoder's reason."""

    partition: int
    key: bytes
    time: int
    timestamp: int
    x: tuple[float, ...] | None
    refused: Reason = Reason.OK


@dataclass(frozen=True)
class Answer:
    reason: Reason
    status: Status = Status.OK
    n_seen: int = 0
    gap: int = 0
    yhat: tuple[float, ...] = ()


@dataclass
class Stream:
    life: int  # no two streams have the same, nor the same stream before and after a reset
    n_seen: int = 0
    last_time: int = 0
    yhat: tuple[float, ...] = ()
    x: tuple[float, ...] = ()


@dataclass
class Partition:
    watermark: int | None = None
    streams: dict[bytes, Stream] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 - not an error of the model
    pass


class PolicyModel:
    """Streams that have expired are dropped at once."""

    def __init__(self, model: Model, settings: ForecasterSettings, warmup: int) -> None:
        self.model, self.settings, self.warmup = model, settings, warmup
        self.partitions: dict[int, Partition] = {}
        self.expected = Expected(model)
        self.lives = 0

    def answer(self, record: Record) -> Answer:
        partition = self.partitions.setdefault(record.partition, Partition())
        if record.refused not in (Reason.OK, Reason.REPLAYED):
            return Answer(record.refused)
        if record.x is None:
            partition.streams.pop(record.key, None)
            return Answer(Reason.TOMBSTONE)
        try:
            self.screen(partition, record, record.x)
            if record.refused is Reason.REPLAYED:
                raise Refused(Reason.REPLAYED)
            return self.event(partition, record, record.x)
        except Refused as refused:
            return Answer(Reason.REPLAYED if record.refused is Reason.REPLAYED else refused.args[0])

    def screen(self, partition: Partition, record: Record, x: tuple[float, ...]) -> None:
        given = self.settings
        fills = given.missing != "dead_letter"
        if not all(abs(value) <= LARGEST or (fills and math.isnan(value)) for value in x):
            raise Refused(Reason.OUT_OF_RANGE)
        if len(record.key) > given.max_key_bytes:
            raise Refused(Reason.KEY_TOO_LONG)
        ahead = record.time - record.timestamp
        if given.max_ahead_ms is not None and record.timestamp >= 0 and ahead > given.max_ahead_ms:
            raise Refused(Reason.TOO_FAR_AHEAD)
        if partition.watermark is None or record.time > partition.watermark:
            partition.watermark = record.time
        if given.ttl_ms is not None:
            dead = [k for k, s in partition.streams.items() if partition.watermark - s.last_time > given.ttl_ms]
            for key in dead:
                del partition.streams[key]

    def event(self, partition: Partition, record: Record, x: tuple[float, ...]) -> Answer:
        given = self.settings
        stream, status, gap = partition.streams.get(record.key), Status.OK, -1
        begins = stream is None
        if stream is not None:
            step = record.time - stream.last_time
            if step == 0 and given.duplicate == "dead_letter":
                raise Refused(Reason.DUPLICATE)
            if step < 0:
                status = Status.LATE
                if given.out_of_order == "dead_letter":
                    raise Refused(Reason.OUT_OF_ORDER)
            if given.gap_ms is not None and step > given.gap_ms:
                status = Status.GAP
                begins = given.after_gap == "reset"
            elif step > 0:
                gap = step
        if any(math.isnan(value) for value in x):
            if begins or stream is None:
                raise Refused(Reason.NULL_VALUE)
            held = list(stream.x)
            if given.missing == "forecast":
                held[self.model.target] = stream.yhat[0]
            x = tuple(h if math.isnan(value) else value for value, h in zip(x, held, strict=True))
            status = Status.GAP if status is Status.GAP else Status.FILLED
        if stream is None:
            self.make_room(partition)
        if stream is None or begins:
            self.lives += 1
            stream = partition.streams[record.key] = Stream(self.lives)
        stream.n_seen += 1
        stream.last_time = record.time if stream.n_seen == 1 else max(stream.last_time, record.time)
        stream.x = x
        stream.yhat = tuple(self.expected.event(stream.life, np.array(x)).tolist())
        if status is Status.OK and stream.n_seen < self.warmup:
            status = Status.WARMUP
        return Answer(Reason.OK, status, stream.n_seen, given.interval_ms or gap, stream.yhat)

    def make_room(self, partition: Partition) -> None:
        cap = self.settings.max_streams_per_partition
        if cap is None or len(partition.streams) < cap:
            return
        if self.settings.on_full == "refuse":
            raise Refused(Reason.CAPACITY)
        order = sorted((s.last_time, stable_hash(key), key) for key, s in partition.streams.items())
        for _, _, key in order[: max(1, cap // 64)]:
            del partition.streams[key]


def stable_hash(key: bytes) -> int:
    return int(stable_hashes(np.array([len(key)]), np.frombuffer(key, np.uint8))[0])
