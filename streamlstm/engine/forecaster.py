"""The state machine: a batch of events in, a batch of forecasts out.

A stream's forecasts are a pure function of the model, the settings below and its partition's records in order: not of
the batching, the threads or the clock. Rows that carry a reason pass through untouched and advance nothing; a tombstone
resets its stream.

Rows are admitted in order (each gets its stream's slot) and advanced as late as possible, so that the step sees large
batches: all at once, unless one in between needs the rows before it done. That is so when room has to be made for a new
stream, when a tombstone resets a stream, or where kernels.observe says so.
"""

from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.admission import Admission
from streamlstm.engine.backend import BackendName
from streamlstm.engine.columns import Columns
from streamlstm.engine.prediction import AnomalySettings, Prediction, is_judged, row_layout
from streamlstm.errors import InvariantError
from streamlstm.events.batch import EventBatch, Reason, Run
from streamlstm.events.forecast import ForecastBatch, Status
from streamlstm.kernels import observe
from streamlstm.kernels.layout import StateDtype
from streamlstm.model.model_file import Model, ScalingKind
from streamlstm.state.slots import SlotTable

CARRY_WARMUP = 8
FILLS = {"dead_letter": observe.FILLS_NOT, "hold": observe.FILLS_LAST, "forecast": observe.FILLS_FORECAST}


@dataclass(frozen=True, slots=True)
class ForecasterSettings:
    """What besides the model decides the bytes, `threads` and `backend` apart. All times are event times, in ms.

    `state_dtype`: as what h and c of a stream lie in memory and in snapshots between its events.

    `interval_ms` is the streams' known time step, 0 when it is taken from the stream itself. A forecast made before a
    stream has seen `warmup_events` events has status `warmup`; -1 means the model's window, or 8 for a carried state.

    For a stream that is new while its partition holds `max_streams_per_partition`, or all partitions `max_streams`,
    `refuse` makes events dead letters (capacity), `evict` forgets the partition's least recent streams, one in 64, by
    latest event time and stable hash. As long as `max_streams` isn't reached, which streams get in follows from the
    partition's records alone; but from all of them together (see engine/checkpoint.py for what that asks of snapshots).

    A stream that lies more than `ttl_ms` behind its partition's watermark begins anew with its next event.
    An event more than `max_ahead_ms` after its record's timestamp is a dead letter (too_far_ahead).
    `duplicate` and `out_of_order` are about events at, and before, their stream's latest time. A forecast for one out
    of order has status `late`; one for a duplicate has no status of its own.
    After more than `gap_ms` the forecast has status `gap` and an unknown time step, and the stream goes on, or begins
    anew with this event (`after_gap`).
    A missing input (NaN) makes its event a dead letter, or becomes the stream's last input (`hold`); with `forecast`
    the target becomes the stream's last forecast of its first horizon. The status is `filled`, after a gap `gap`. What
    would begin a stream can't be filled: a dead letter (null_value). None means never.
    """

    max_streams: int
    max_key_bytes: int = 64
    interval_ms: int = 0
    warmup_events: int = -1
    threads: int = 1
    backend: BackendName = "cpu"
    state_dtype: StateDtype = "float32"
    max_streams_per_partition: int | None = None
    on_full: Literal["refuse", "evict"] = "refuse"
    ttl_ms: int | None = None
    duplicate: Literal["process", "dead_letter"] = "process"
    out_of_order: Literal["process", "dead_letter"] = "process"
    max_ahead_ms: int | None = None
    gap_ms: int | None = None
    after_gap: Literal["continue", "reset"] = "continue"
    missing: Literal["dead_letter", "hold", "forecast"] = "dead_letter"
    anomaly: AnomalySettings = field(default_factory=AnomalySettings)


def _rules(model: Model, settings: ForecasterSettings, warmup: int) -> NDArray[np.int64]:
    """The rules of kernels.observe."""
    rules = np.zeros(observe.RULES, np.int64)
    rules[observe.INTERVAL] = settings.interval_ms or model.interval_ms or 0
    rules[observe.WARMUP_EVENTS] = warmup
    rules[observe.GAP_MS] = observe.NEVER if settings.gap_ms is None else settings.gap_ms
    rules[observe.GAP_RESETS] = settings.after_gap == "reset"
    rules[observe.TTL_MS] = observe.NEVER if settings.ttl_ms is None else settings.ttl_ms
    rules[observe.REFUSES_DUPLICATE] = settings.duplicate == "dead_letter"
    rules[observe.REFUSES_OUT_OF_ORDER] = settings.out_of_order == "dead_letter"
    rules[observe.FILLS] = FILLS[settings.missing]
    rules[observe.TARGET] = model.target
    return rules


class Forecaster:
    """Owns the streams of this process: the key table and the arena. Not thread-safe; one thread calls it."""

    def __init__(self, model: Model, settings: ForecasterSettings, executor: Executor | None = None) -> None:
        """Raises ModelFileError when the kernels don't reproduce the model's golden vectors, ConfigError when the
        backend or the state_dtype can't be had.
        """
        self.model = model
        self.settings = settings
        self.prediction = Prediction(
            model, row_layout(model, settings.state_dtype), settings.max_streams, executor, settings.threads,
            settings.anomaly, settings.backend,
        )  # fmt: skip
        self.backend, self.layout = self.prediction.backend, self.prediction.layout
        self.slots = SlotTable(settings.max_streams, settings.max_key_bytes)
        self.admission = Admission(self.slots, self.backend, settings.max_streams_per_partition, settings.ttl_ms)
        self.warmup = settings.warmup_events if settings.warmup_events >= 0 else _warmup(model)
        self.degraded_until: Callable[[int, NDArray[np.int64]], NDArray[np.int64]] | None = None
        """Of a partition's index and slots: until which event time those that begin may have lost their state. None: no
        stream has.
        """
        self._rules = _rules(model, settings, self.warmup)
        self._rules[observe.MOST_EVENTS] = self.prediction.most_events
        self._lets_missing = settings.missing != "dead_letter"
        self._makes_room = self._lets_missing or settings.on_full == "evict" or settings.ttl_ms is not None
        self._may_begin_anew = settings.ttl_ms is not None or settings.after_gap == "reset"
        self._touched = np.zeros(settings.max_streams, np.uint8)
        self._columns = Columns(self.layout)

    @property
    def n_streams(self) -> int:
        return int(self.slots.n_streams)

    def forecast(self, batch: EventBatch, start: int = 0) -> ForecastBatch:
        """Advance every stream by its events among rows [start, n) of `batch`, in order.

        Returns the forecasts of all rows: those before `start` must have been forecast by earlier calls on the same
        batch. Sets `batch.reason` on rows that are refused here. The returned columns are overwritten by the next
        batch, and may be replaced by the next call.
        """
        if batch.inputs != len(self.model.inputs):
            raise InvariantError(f"batch: expected {len(self.model.inputs)} inputs, found {batch.inputs}")
        c = self._columns
        c.reserve(batch.n)
        if self._lets_missing:
            c.filled[start : batch.n] = batch.x[start : batch.n]
        done = start
        for run in batch.runs:
            if run.stop > start:
                done = self._admit_run(batch, run, max(run.start, start), done)
        self._advance(batch, done, batch.n)
        for run in batch.runs:
            if run.stop > start:
                self.admission.note(self.partition_index(run.topic, run.partition), run.stop - max(run.start, start))
        return ForecastBatch(
            yhat=c.yhat, single=is_single(self.model), status=c.status, n_seen=c.n_seen, gap_ms=c.gap,
            **({"lower": c.lower, "upper": c.upper, "anomaly_score": c.score} if self.model.level else {}),
        )  # fmt: skip

    def replay(self, batch: EventBatch) -> None:
        """Advance the streams by events that were answered before: what became of those forecasts was counted then."""
        totals = self.prediction.totals.copy()
        self.forecast(batch)
        self.prediction.totals[...] = totals

    def give_back(self) -> None:
        """Let go of what large batches have made large. The columns of the last forecast aren't good any more."""
        self._columns = Columns(self.layout)

    def partition_index(self, topic: str, partition: int) -> int:
        """The number by which the slot table knows a partition."""
        return self.admission.index(topic, partition)

    def partition_of(self, index: int) -> int:
        """The partition that the slot table knows by this number."""
        return self.admission.partition_of(index)

    def watermark(self, index: int) -> int | None:
        """The largest event time of the partition's well-formed events so far, epoch ms: read, in range, not too far
        ahead, whatever became of them.
        """
        watermark = self.admission.partitions[index].watermark
        return None if watermark == observe.NO_TIME else watermark

    def set_watermark(self, index: int, value: int | None) -> None:
        """Go on from a restored state. Call it after the partition's streams have been installed."""
        self.admission.set_watermark(index, observe.NO_TIME if value is None else value)

    def release(self, topic: str, partition: int) -> int:
        """Forget the streams of a partition that this member no longer owns; returns how many there were."""
        return self.admission.release(topic, partition)

    def make_room(self, count: int, among: Collection[int]) -> bool:
        """Have free slots for `count` streams that are restored, at the cost of the partitions `among`, by index:
        `on_full` says which streams may go. Returns whether there are so many.
        """
        return self.admission.make_room(count, among, evict=self.settings.on_full == "evict")

    def _admit_run(self, batch: EventBatch, run: Run, start: int, done: int) -> int:
        """Give slots to the rows [start, run.stop) of one partition. Rows before `done` have been advanced, and those
        before the row returned.
        """
        index = self.partition_index(run.topic, run.partition)
        self._screen(batch, index, start, run.stop)
        reason, named = batch.reason[start : run.stop], batch.stream_len[start : run.stop]
        resets = (start + np.flatnonzero((reason == Reason.TOMBSTONE) & (named > 0))).tolist()
        for stop in (*resets, run.stop):
            done = self._admit(batch, index, start, stop, done)
            if stop < run.stop:
                done = self._reset(batch, index, stop, done)
            start = stop + 1
        if self._lets_missing:
            refused = np.flatnonzero(reason == Reason.CAPACITY)  # a stream can't begin with a missing input anyhow
            reason[refused[np.isnan(batch.x[run.stop - len(reason) + refused]).any(axis=1)]] = Reason.NULL_VALUE
        return done

    def _screen(self, batch: EventBatch, index: int, start: int, stop: int) -> None:
        c, partition, rows = self._columns, self.admission.partitions[index], slice(start, stop)
        own = self.prediction
        max_ahead = observe.NEVER if self.settings.max_ahead_ms is None else self.settings.max_ahead_ms
        partition.watermark = observe.screen(
            stop - start, batch.event_time[rows], batch.timestamp[rows], batch.stream_len[rows], batch.x[rows],
            own.offset, own.scale, own.limit, self._lets_missing, self.settings.max_key_bytes, max_ahead,
            partition.watermark, batch.reason[rows], c.watermark[rows],
        )  # fmt: skip
        c.owner[rows] = index

    def _admit(self, batch: EventBatch, index: int, start: int, stop: int, done: int) -> int:
        """Give slots to rows without a reason; make room for new streams where the settings say so."""
        slot, admission = self._columns.slot, self.admission
        while (start := self._assign(batch, index, start, stop, admission.cap, self._makes_room)) < stop:
            self._advance(batch, done, start)
            done = start
            watermark = int(self._columns.watermark[start])
            if not admission.is_full(index) or admission.expire_any(index, watermark):
                continue
            refused_until = start + 1
            if self.settings.on_full == "refuse":
                refused_until = self._full_until(index, start, stop)
            elif not np.isnan(batch.x[start]).any():
                if admission.evict(index):
                    continue
                refused_until = stop
            if refused_until == start + 1:
                batch.reason[start], slot[start] = Reason.CAPACITY, -1
            else:
                self._assign(batch, index, start, refused_until, admission.cap, False)
            start = refused_until
        return done

    def _full_until(self, index: int, start: int, stop: int) -> int:
        """The first row after `start`, which found no room, at which a stream of the partition may have expired."""
        if self.settings.ttl_ms is None:
            return stop
        last_full = min(int(self.admission.oldest[index]), observe.NEVER - self.settings.ttl_ms) + self.settings.ttl_ms
        ahead = np.searchsorted(self._columns.watermark[start:stop], last_full, side="right")
        return max(start + 1, start + int(ahead))

    def _assign(self, batch: EventBatch, index: int, start: int, stop: int, cap: int, full_stops: bool) -> int:
        return self.slots.assign(
            batch.payload, index, start, stop, batch.stream_at, batch.stream_len, batch.reason, self._columns.slot,
            cap=cap, full_stops=full_stops,
        )  # fmt: skip

    def _reset(self, batch: EventBatch, index: int, row: int, done: int) -> int:
        """Forget the stream that the tombstone at `row` names, if there is one."""
        slot = self._columns.slot
        batch.reason[row] = Reason.OK
        is_known = self._assign(batch, index, row, row + 1, 0, True) > row and slot[row] >= 0
        found = slot[row : row + 1].copy()
        batch.reason[row], slot[row] = Reason.TOMBSTONE, -1
        if not is_known:
            return done
        if (slot[done:row] == found[0]).any():
            self._advance(batch, done, row)
            done = row
        self.admission.forget(found)
        return done

    def _advance(self, batch: EventBatch, start: int, stop: int) -> None:
        """Let the streams see rows [start, stop), which have their slots; later rows have none yet."""
        c, own, hollow = self._columns, self.prediction, []
        x = c.filled if self._lets_missing else batch.x
        while start < stop:
            rows = slice(start, stop)
            done = start + observe.observe(
                stop - start, self._rules, batch.event_time[rows], c.watermark[rows], c.owner[rows], own.offset,
                own.scale, own.limit, own.rows, self.layout.header_at, self.layout.yhat_at, self.layout.x_at,
                self.admission.oldest, self._touched, c.hollow, c.slot[rows], x[rows], batch.reason[rows],
                c.n_seen[rows], c.gap[rows], c.status[rows],
            )  # fmt: skip
            if c.hollow[0]:
                hollow.append(c.hollow[1 : 1 + c.hollow[0]].copy())
            if self._may_begin_anew:
                slot = c.slot[start:done]
                self.backend.begin(slot[(slot >= 0) & (c.n_seen[start:done] == 1)])
            own.advance(c, batch.x, x, start, done)
            if self.degraded_until is not None:
                self._mark_degraded(self.degraded_until, start, done)
            start = done
        if hollow:
            self.admission.forget_hollow(np.concatenate(hollow))

    def _mark_degraded(
        self, degraded_until: Callable[[int, NDArray[np.int64]], NDArray[np.int64]], start: int, stop: int
    ) -> None:
        c = self._columns
        early = start + np.flatnonzero((c.slot[start:stop] >= 0) & (c.status[start:stop] == Status.WARMUP))
        for index in np.unique(c.owner[early]).tolist():
            rows = early[c.owner[early] == index]
            c.status[rows[c.watermark[rows] <= degraded_until(index, c.slot[rows])]] = Status.DEGRADED


def is_single(model: Model) -> bool:
    """Whether every forecast is a float32 exactly."""
    return model.scaling.kind is ScalingKind.NONE and model.predicts == "value" and not is_judged(model)


def _warmup(model: Model) -> int:
    """Events that a stream has to have seen before its forecasts are what they will be."""
    if model.features is not None:
        return max(model.features.lags) + 1
    return model.window or CARRY_WARMUP


def refused(batch: EventBatch) -> NDArray[np.int64]:
    """Rows of `batch` that get a dead letter instead of a forecast."""
    return np.flatnonzero(batch.reason[: batch.n] != Reason.OK)
