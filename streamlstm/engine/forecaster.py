"""The state machine: a batch of events in, a batch of forecasts out.

A stream's forecasts are a pure function of the model, the settings below and its partition's records in order: not of
the batching, the threads or the clock. Rows that carry a reason pass through untouched and advance nothing.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True)
class ForecasterSettings:
    """What besides the model decides the bytes.

    `interval_ms` is the streams' known time step, 0 when it is taken from the stream itself. A forecast made before a
    stream has seen `warmup_events` events has status `warmup`; -1 means the model's window, or 8 for a carried state.
    """

    max_streams: int
    max_key_bytes: int = 64
    interval_ms: int = 0
    warmup_events: int = -1
    threads: int = 1


def row_layout(model: Model) -> Layout:
    """The arena row that `model` needs: state or ring, then the header of kernels/observe.py."""
    p = model.parameters
    moments = 2 * p.inputs if model.scaling.kind is ScalingKind.RUNNING else 0
    return Layout(inputs=p.inputs, hidden=p.hidden, outputs=p.outputs, window=model.window, moments=moments)


class _Columns:
    """What the engine finds out about each row of a batch. Grown by doubling, its contents kept."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.capacity = 0
        self.slot = np.empty(0, np.int64)
        self.n_seen = np.empty(0, np.int64)
        self.gap = np.empty(0, np.int64)
        self.status = np.empty(0, np.uint8)
        self.x = np.zeros((0, inputs), np.float32)
        self.y = np.zeros((0, outputs), np.float32)
        self.y_base = np.empty(0, np.float64)
        self.y_scale = np.empty(0, np.float64)
        self.yhat = np.zeros((0, outputs), np.float64)

    def reserve(self, rows: int) -> None:
        if rows <= self.capacity:
            return
        capacity = max(rows, 2 * self.capacity, 1024)
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                grown = np.zeros((capacity, *column.shape[1:]), column.dtype)
                grown[: self.capacity] = column
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
        self.warmup = settings.warmup_events if settings.warmup_events >= 0 else (model.window or CARRY_WARMUP)
        self._limit = _input_limit(model, self.backend)
        self._rows = self.backend.arena.view(np.int64)
        self._moments = self.backend.arena.view(np.float64)
        self._header_at = self.layout.header_offset // 8
        self._offset = np.asarray(model.scaling.offset, np.float64)
        self._scale = np.asarray(model.scaling.scale, np.float64)
        self._partitions: dict[tuple[str, int], int] = {}
        self._watermarks: list[int | None] = []
        self.degraded_slots: Callable[[int, NDArray[np.int64]], NDArray[np.bool_]] | None = None
        """Of a partition's index and slots: which of them lost their state. None: no stream did."""
        self._columns = _Columns(model.parameters.inputs, model.parameters.outputs)

    @property
    def n_streams(self) -> int:
        return int(self.slots.n_streams)

    def forecast(self, batch: EventBatch, start: int = 0) -> ForecastBatch:
        """Advance every stream by its events among rows [start, n) of `batch`, in order.

        Returns the forecasts of all rows: those before `start` must have been forecast by earlier calls on the same
        batch. Sets `batch.reason` on rows that are refused here (out of range, capacity, key). The returned columns
        are overwritten by the next batch, and may be replaced by the next call.
        """
        c, rows, n = self._columns, slice(start, batch.n), batch.n - start
        c.reserve(batch.n)
        reason = batch.reason[rows]
        self._refuse_out_of_range(batch, c, rows)
        for run in batch.runs:
            if run.stop > start:
                self._assign_slots(batch, run, start, c.slot)
        slot = c.slot[rows]
        interval = self.settings.interval_ms or self.model.interval_ms or 0
        observe.observe(
            n, slot, batch.event_time[rows], interval, self._rows, self._header_at, c.n_seen[rows], c.gap[rows]
        )
        if self.model.scaling.kind is ScalingKind.RUNNING:
            self._scale_running(batch, c, rows)
        self.backend.step(slot, c.x[rows], c.y[rows], n)
        observe.unscale(n, reason, c.y[rows], c.y_base[rows], c.y_scale[rows], c.yhat[rows])
        c.status[rows] = np.where(c.n_seen[rows] < self.warmup, np.uint8(Status.WARMUP), np.uint8(Status.OK))
        exact_single = self.model.scaling.kind is ScalingKind.NONE and self.model.predicts == "value"
        return ForecastBatch(yhat=c.yhat, single=exact_single, status=c.status, n_seen=c.n_seen, gap_ms=c.gap)

    def partition_index(self, topic: str, partition: int) -> int:
        """The number by which the slot table knows a partition."""
        index = self._partitions.setdefault((topic, partition), len(self._partitions))
        if index == len(self._watermarks):
            self._watermarks.append(None)
        return index

    def watermark(self, index: int) -> int | None:
        """The largest event time of the partition's well-formed events so far, epoch ms."""
        return self._watermarks[index]

    def set_watermark(self, index: int, value: int | None) -> None:
        """Go on from a restored state. Call it after the partition's streams have been installed."""
        self._watermarks[index] = value

    def release(self, topic: str, partition: int) -> int:
        """Forget the streams of a partition that this member no longer owns; returns how many there were."""
        index = self._partitions.get((topic, partition))
        if index is None:
            return 0
        freed = self.slots.release(index)
        self.backend.clear(freed)
        return len(freed)

    def _assign_slots(self, batch: EventBatch, run: Run, start: int, slot: NDArray[np.int64]) -> None:
        partition = self.partition_index(run.topic, run.partition)
        first = max(run.start, start)
        self.slots.assign(
            batch.payload, partition, first, run.stop, batch.stream_at, batch.stream_len, batch.reason, slot
        )

    def _refuse_out_of_range(self, batch: EventBatch, c: _Columns, rows: slice) -> None:
        """Scale with fixed moments where the model has them; refuse what could overflow the step."""
        n, x, reason = rows.stop - rows.start, batch.x[rows], batch.reason[rows]
        if self.model.scaling.kind is ScalingKind.RUNNING:
            observe.check_running_range(n, x, reason)
            return
        observe.normalise(
            n, x, self._offset, self._scale, self._limit, self.model.target, self.model.predicts == "change", reason,
            c.x[rows], c.y_base[rows], c.y_scale[rows],
        )  # fmt: skip

    def _scale_running(self, batch: EventBatch, c: _Columns, rows: slice) -> None:
        observe.scale_running(
            rows.stop - rows.start, c.slot[rows], c.n_seen[rows], batch.x[rows], self._moments,
            self.layout.moments_at, self.model.scaling.window, self.model.target,
            self.model.predicts == "change", c.x[rows], c.y_base[rows], c.y_scale[rows],
        )  # fmt: skip


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
