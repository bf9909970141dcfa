"""The state machine: a batch of events in, a batch of forecasts out.

A stream's forecasts are a pure function of the model, the settings below and its partition's records in order: not of
the batching, the threads or the clock. Rows that carry a reason pass through untouched and advance nothing; a tombstone
resets its stream.

Rows are admitted in order (each gets its stream's slot) and advanced as late as possible, so that the step sees large
batches: all at once, unless one in between needs the rows before it done. That is so when room has to be made for a new
stream, when a tombstone resets a stream, or where kernels.observe says so.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.admission import Admission
from streamlstm.engine.backend import CpuBackend
from streamlstm.errors import ModelFileError
from streamlstm.events.batch import EventBatch, Reason, Run
from streamlstm.events.forecast import ForecastBatch, Status
from streamlstm.kernels import observe
from streamlstm.kernels.layout import Layout
from streamlstm.model.golden import check_golden
from streamlstm.model.model_file import Model, ScalingKind
from streamlstm.state.slots import SlotTable

CARRY_WARMUP = 8
FILLS = {"dead_letter": observe.FILLS_NOT, "hold": observe.FILLS_LAST, "forecast": observe.FILLS_FORECAST}


@dataclass(frozen=True, slots=True)
class ForecasterSettings:
    """What besides the model decides the bytes. All times are event times, in ms.

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
    the target becomes the stream's last forecast of its first horizon. The status is `filled`. What would begin a
    stream can't be filled: a dead letter (null_value). None means never.
    """

    max_streams: int
    max_key_bytes: int = 64
    interval_ms: int = 0
    warmup_events: int = -1
    threads: int = 1
    max_streams_per_partition: int | None = None
    on_full: Literal["refuse", "evict"] = "refuse"
    ttl_ms: int | None = None
    duplicate: Literal["process", "dead_letter"] = "process"
    out_of_order: Literal["process", "dead_letter"] = "process"
    max_ahead_ms: int | None = None
    gap_ms: int | None = None
    after_gap: Literal["continue", "reset"] = "continue"
    missing: Literal["dead_letter", "hold", "forecast"] = "dead_letter"


def row_layout(model: Model) -> Layout:
    """The arena row that `model` needs: state or ring, then the header of kernels/layout.py."""
    p = model.parameters
    moments = 2 * p.inputs if model.scaling.kind is ScalingKind.RUNNING else 0
    return Layout(inputs=p.inputs, hidden=p.hidden, outputs=p.outputs, window=model.window, moments=moments)


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


class _Columns:
    """What the engine finds out about each row of a batch. Grown by doubling, its contents kept."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.capacity = 0
        self.slot = np.empty(0, np.int64)
        self.owner = np.empty(0, np.int64)
        self.watermark = np.empty(0, np.int64)
        self.n_seen = np.empty(0, np.int64)
        self.gap = np.empty(0, np.int64)
        self.status = np.empty(0, np.uint8)
        self.filled = np.zeros((0, inputs), np.float64)
        self.x = np.zeros((0, inputs), np.float32)
        self.y = np.zeros((0, outputs), np.float32)
        self.y_base = np.empty(0, np.float64)
        self.y_scale = np.empty(0, np.float64)
        self.yhat = np.zeros((0, outputs), np.float64)
        self.hollow = np.empty(1, np.int64)

    def reserve(self, rows: int) -> None:
        if rows <= self.capacity:
            return
        capacity = max(rows, 2 * self.capacity, 1024)
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                grown = np.zeros((capacity + (name == "hollow"), *column.shape[1:]), column.dtype)
                grown[: self.capacity] = column[: self.capacity]
                setattr(self, name, grown)
        self.capacity = capacity


class Forecaster:
    """Owns the streams of this process: the key table and the arena. Not thread-safe; one thread calls it."""

    def __init__(self, model: Model, settings: ForecasterSettings, executor: Executor | None = None) -> None:
        """Raises ModelFileError when the kernels don't reproduce the model's golden vectors."""
        self.model = model
        self.settings = settings
        self.layout = row_layout(model)
        _check_kernels(model, executor, settings.threads)
        self.backend = CpuBackend(model.parameters, self.layout, settings.max_streams, executor, settings.threads)
        self.slots = SlotTable(settings.max_streams, settings.max_key_bytes)
        self.admission = Admission(self.slots, self.backend, settings.max_streams_per_partition, settings.ttl_ms)
        self.warmup = settings.warmup_events if settings.warmup_events >= 0 else (model.window or CARRY_WARMUP)
        self.degraded_slots: Callable[[int, NDArray[np.int64]], NDArray[np.bool_]] | None = None
        """Of a partition's index and slots: which of them lost their state. None: no stream did."""
        self._rules = _rules(model, settings, self.warmup)
        self._lets_missing = settings.missing != "dead_letter"
        self._makes_room = self._lets_missing or settings.on_full == "evict" or settings.ttl_ms is not None
        self._running = model.scaling.kind is ScalingKind.RUNNING
        step_limit = _input_limit(model, self.backend)
        self._limit = observe.RUNNING_LIMIT if self._running else step_limit
        self._offset = np.asarray(model.scaling.offset, np.float64)
        self._scale = np.asarray(model.scaling.scale, np.float64)
        if self._running:  # of the limit; what reaches the step is scaled by the stream's own moments
            self._offset, self._scale = np.zeros_like(self._offset), np.ones_like(self._scale)
        self._rows = self.backend.arena.view(np.int64)
        self._moments = self.backend.arena.view(np.float64)
        self._touched = np.zeros(settings.max_streams // 8 + 1, np.uint8)
        self._columns = _Columns(model.parameters.inputs, model.parameters.outputs)

    @property
    def n_streams(self) -> int:
        return int(self.slots.n_streams)

    def forecast(self, batch: EventBatch, start: int = 0) -> ForecastBatch:
        """Advance every stream by its events among rows [start, n) of `batch`, in order.

        Returns the forecasts of all rows: those before `start` must have been forecast by earlier calls on the same
        batch. Sets `batch.reason` on rows that are refused here. The returned columns are overwritten by the next
        batch, and may be replaced by the next call.
        """
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
        exact_single = self.model.scaling.kind is ScalingKind.NONE and self.model.predicts == "value"
        return ForecastBatch(yhat=c.yhat, single=exact_single, status=c.status, n_seen=c.n_seen, gap_ms=c.gap)

    def partition_index(self, topic: str, partition: int) -> int:
        """The number by which the slot table knows a partition."""
        return self.admission.index(topic, partition)

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
        max_ahead = observe.NEVER if self.settings.max_ahead_ms is None else self.settings.max_ahead_ms
        partition.watermark = observe.screen(
            stop - start, batch.event_time[rows], batch.timestamp[rows], batch.stream_len[rows], batch.x[rows],
            self._offset, self._scale, self._limit, self._lets_missing, self.settings.max_key_bytes, max_ahead,
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
        c, hollow = self._columns, []
        x = c.filled if self._lets_missing else batch.x
        while start < stop:
            rows = slice(start, stop)
            done = start + observe.observe(
                stop - start, self._rules, batch.event_time[rows], c.watermark[rows], c.owner[rows], self._offset,
                self._scale, self._limit, self._rows, self.layout.header_at, self.layout.yhat_at, self.layout.x_at,
                self.admission.oldest, self._touched, c.hollow, c.slot[rows], x[rows], batch.reason[rows],
                c.n_seen[rows], c.gap[rows], c.status[rows],
            )  # fmt: skip
            if c.hollow[0]:
                hollow.append(c.hollow[1 : 1 + c.hollow[0]].copy())
            self._step(x, start, done)
            start = done
        if hollow:
            self.admission.forget_hollow(np.concatenate(hollow))

    def _step(self, x: NDArray[np.float64], start: int, stop: int) -> None:
        """Scale the inputs `x` of rows [start, stop), step their streams, scale back."""
        c, n, rows, model = self._columns, stop - start, slice(start, stop), self.model
        slot, change = c.slot[rows], model.predicts == "change"
        if self._running:
            observe.scale_running(
                n, slot, c.n_seen[rows], x[rows], self._moments, self.layout.moments_at, model.scaling.window,
                model.target, change, c.x[rows], c.y_base[rows], c.y_scale[rows],
            )  # fmt: skip
        else:
            observe.scale_fixed(
                n, slot, x[rows], self._offset, self._scale, model.target, change,
                c.x[rows], c.y_base[rows], c.y_scale[rows],
            )  # fmt: skip
        self.backend.step(slot, c.x[rows], c.y[rows], n)
        observe.unscale(
            n, slot, c.y[rows], c.y_base[rows], c.y_scale[rows], self._rows, self.layout.yhat_at, c.yhat[rows]
        )
        if self.degraded_slots is not None:
            self._mark_degraded(self.degraded_slots, start, stop)

    def _mark_degraded(
        self, degraded_slots: Callable[[int, NDArray[np.int64]], NDArray[np.bool_]], start: int, stop: int
    ) -> None:
        c = self._columns
        early = start + np.flatnonzero((c.slot[start:stop] >= 0) & (c.status[start:stop] == Status.WARMUP))
        for index in np.unique(c.owner[early]).tolist():
            rows = early[c.owner[early] == index]
            c.status[rows[degraded_slots(index, c.slot[rows])]] = Status.DEGRADED


def _input_limit(model: Model, backend: CpuBackend) -> float:
    """Largest scaled input that is let into the step; see kernels.layout.input_limit for the proof.

    Running scaling bounds |x'| by itself: with weight a >= 1/window for the current event, x - mean = (1 - a) d and
    var >= a (1 - a) d^2, so |x'| <= sqrt((1 - a) / a) < sqrt(window). The limit only has to be above that.
    """
    limit = float(backend.input_limit)
    needed = model.scaling.window**0.5
    if model.scaling.kind is ScalingKind.RUNNING and limit < needed:
        raise ModelFileError(
            "weights", "too large for running scaling", expected=f"safe inputs up to {needed:.3g}", found=f"{limit:.3g}"
        )
    return limit


def _check_kernels(model: Model, executor: Executor | None, threads: int) -> None:
    """Re-run the golden vectors through the very kernels that will serve."""

    def run(x: NDArray[np.float32]) -> NDArray[np.float64]:
        sequences, steps, _ = x.shape
        backend = CpuBackend(model.parameters, row_layout(model), sequences, executor, threads)
        slots = np.arange(sequences, dtype=np.int64)
        y = np.zeros((sequences, steps, model.parameters.outputs), np.float32)
        for t in range(steps):
            now = np.zeros((sequences, model.parameters.outputs), np.float32)
            backend.step(slots, np.ascontiguousarray(x[:, t]), now, sequences)
            y[:, t] = now
        return y.astype(np.float64)

    check_golden(model.golden, run)


def refused(batch: EventBatch) -> NDArray[np.int64]:
    """Rows of `batch` that get a dead letter instead of a forecast."""
    return np.flatnonzero(batch.reason[: batch.n] != Reason.OK)
