"""The state machine: a batch of events in, a batch of forecasts out.

A stream's forecasts are a pure function of the model, the settings below and its partition's records in order: not of
the batching, the threads or the clock. Rows that carry a reason pass through untouched and advance nothing.
"""

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.backend import CpuBackend
from streamlstm.errors import ModelFileError
from streamlstm.events.batch import EventBatch, Reason
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
    """Scratch of one batch, kept between batches and grown by doubling."""

    def __init__(self, inputs: int, outputs: int, capacity: int) -> None:
        self.capacity = capacity
        self.slot = np.empty(capacity, np.int64)
        self.n_seen = np.empty(capacity, np.int64)
        self.gap = np.empty(capacity, np.int64)
        self.x = np.zeros((capacity, inputs), np.float32)
        self.y = np.zeros((capacity, outputs), np.float32)
        self.y_base = np.empty(capacity, np.float64)
        self.y_scale = np.empty(capacity, np.float64)
        self.yhat = np.zeros((capacity, outputs), np.float64)
        self.status = np.empty(capacity, np.uint8)


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
        self._columns = _Columns(model.parameters.inputs, model.parameters.outputs, 1024)

    @property
    def n_streams(self) -> int:
        return int(self.slots.n_streams)

    def forecast(self, batch: EventBatch) -> ForecastBatch:
        """Advance every stream by its events of `batch`, in order, and return one forecast per row.

        Sets `batch.reason` on rows that are refused here (out of range, capacity, key). The returned columns are
        views that the next call overwrites.
        """
        n = batch.n
        c = self._columns_for(n)
        self._refuse_out_of_range(batch, c)
        for run in batch.runs:
            partition = self._partitions.setdefault((run.topic, run.partition), len(self._partitions))
            self.slots.assign(
                batch.payload, partition, run.start, run.stop, batch.stream_at, batch.stream_len, batch.reason, c.slot
            )
        interval = self.settings.interval_ms or self.model.interval_ms or 0
        observe.observe(n, c.slot, batch.event_time, interval, self._rows, self._header_at, c.n_seen, c.gap)
        if self.model.scaling.kind is ScalingKind.RUNNING:
            self._scale_running(batch, c)
        self.backend.step(c.slot, c.x, c.y, n)
        observe.unscale(n, batch.reason, c.y, c.y_base, c.y_scale, c.yhat)
        np.copyto(c.status[:n], np.where(c.n_seen[:n] < self.warmup, Status.WARMUP, Status.OK), casting="unsafe")
        exact_single = self.model.scaling.kind is ScalingKind.NONE and self.model.predicts == "value"
        return ForecastBatch(yhat=c.yhat, single=exact_single, status=c.status, n_seen=c.n_seen, gap_ms=c.gap)

    def release(self, topic: str, partition: int) -> int:
        """Forget the streams of a partition that this member no longer owns; returns how many there were."""
        index = self._partitions.get((topic, partition))
        if index is None:
            return 0
        freed = self.slots.release(index)
        self.backend.clear(freed)
        return len(freed)

    def _columns_for(self, n: int) -> _Columns:
        if n > self._columns.capacity:
            p = self.model.parameters
            self._columns = _Columns(p.inputs, p.outputs, max(n, 2 * self._columns.capacity))
        return self._columns

    def _refuse_out_of_range(self, batch: EventBatch, c: _Columns) -> None:
        """Scale with fixed moments where the model has them; refuse what could overflow the step."""
        if self.model.scaling.kind is ScalingKind.RUNNING:
            observe.check_running_range(batch.n, batch.x, batch.reason)
            return
        observe.normalise(
            batch.n, batch.x, self._offset, self._scale, self._limit, self.model.target,
            self.model.predicts == "change", batch.reason, c.x, c.y_base, c.y_scale,
        )  # fmt: skip

    def _scale_running(self, batch: EventBatch, c: _Columns) -> None:
        observe.scale_running(
            batch.n, c.slot, c.n_seen, batch.x, self._moments, self._header_at + observe.HEADER_WORDS,
            self.model.scaling.window, self.model.target, self.model.predicts == "change", c.x, c.y_base, c.y_scale,
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
