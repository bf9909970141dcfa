"""A history through the production engine: what the daemon would have emitted, and what it forecast of what came.

A topic is fed as it stands, partition by partition, each as by a daemon of its own. Files are one partition, whose
streams are fed together in the order of time, so that the step sees batches of many of them; within a stream the events
keep the order in which they came. A stream's forecasts are those of the daemon: they depend on no other stream, but for
`state.ttl_ms` and where there is no room for all, which follow the order of all events of a partition.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.evaluation.pairs import Evidence
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.encode import ForecastEncoder
from streamlstm.events.forecast import ForecastBatch, Status
from streamlstm.history.history import History
from streamlstm.model.model_file import Model

IN_MEMORY_BYTES = 1 << 30
"""Columns of forecasts beyond that are kept in a temporary file."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """`refused`: events that the engine gave a dead letter, by reason; they are no part of the evidence."""

    evidence: Evidence
    events: int
    refused: Counter[str]


class Replay:
    """One pass of one model over a history."""

    def __init__(
        self,
        history: History,
        model: Model,
        settings: ForecasterSettings,
        executor: Executor,
        *,
        tail: NDArray[np.int64],
        topic: str,
        batch_size: int,
    ) -> None:
        """`tail` int64 [S]: the row of each stream from which on its events are scored."""
        streams = len(history.streams)
        self.history = history
        self.model = model
        self.tail = tail
        self.topic = topic
        self.batch_size = batch_size
        # a full table would look for room at every event; one that holds them all gives the same bytes
        settings = replace(settings, max_streams=min(settings.max_streams, streams), max_ahead_ms=None)
        self.forecaster = Forecaster(model, settings, executor)
        self.encoder = ForecastEncoder(model.model_hash[:12], model.horizons, level=model.level)
        self.batch = EventBatch(len(history.inputs), np.zeros(0, np.uint8), batch_size)
        self.key_len = np.fromiter(map(len, history.streams), np.int64, streams)
        self.key_at = np.cumsum(self.key_len) - self.key_len
        self.batch.append_payload(b"".join(history.streams))
        self.stream = np.append(streams_of_rows(history), history.resets[:, 0].astype(np.int32))
        self.first = np.maximum(history.start[:-1], tail - model.horizons[-1])
        kept = history.start[1:] - self.first
        self.place = np.cumsum(kept) - kept - self.first
        self.kept = int(kept.sum())
        self.accepted = np.zeros(history.rows, np.bool_)
        self.begins = np.zeros(self.kept, np.bool_)
        self.columns: dict[str, NDArray[np.float64]] = {}
        self.refused = Counter[str]()

    def run(self, output: BinaryIO | None, tell: Callable[[int], None]) -> Replayed:
        """Forecast every event; write the JSON lines to `output`; `tell` hears of the events done since the last."""
        order, offset = feed_order(self.history)
        for partition, part in self._parts(order):
            for begin in range(part.start, part.stop, self.batch_size):
                rows = order[begin : min(begin + self.batch_size, part.stop)]
                self._fill(rows, offset[begin : begin + len(rows)], partition)
                forecasts = self.forecaster.forecast(self.batch)
                good = np.flatnonzero(self.batch.reason[: len(rows)] == Reason.OK)
                if output is not None:
                    output.write(b"".join(value + b"\n" for value in self.encoder.values(self.batch, forecasts, good)))
                self._keep(rows, good, forecasts)
                tell(int((rows < self.history.rows).sum()))
            self.forecaster.release(self.topic, partition)
        return Replayed(self._evidence(), self.history.rows, self.refused)

    def _parts(self, order: NDArray[np.int64]) -> list[tuple[int, range]]:
        """Each partition, and which places of `order` are its."""
        partition = self.history.partition[self.stream[order]]
        ends = [0, *(np.flatnonzero(np.diff(partition)) + 1).tolist(), len(order)]
        return [(int(partition[first]), range(first, end)) for first, end in pairwise(ends)]

    def _fill(self, rows: NDArray[np.int64], offset: NDArray[np.int64], partition: int) -> None:
        """The events at `rows` of the history, of one partition, and its resets behind them: of a topic as the daemon
        has them, of files as `streamlstm forecast` has their lines.
        """
        batch, history, n = self.batch, self.history, len(rows)
        stream, is_reset = self.stream[rows], rows >= history.rows
        at = np.where(is_reset, 0, rows)
        batch.truncate(0)
        batch.offset[:n] = offset
        batch.timestamp[:n] = 0
        batch.key_at[:n], batch.key_len[:n] = -1, 0
        batch.value_at[:n], batch.value_len[:n] = -1, 0
        batch.headers_at[:n], batch.headers_len[:n] = 0, 0
        batch.stream_at[:n], batch.stream_len[:n] = self.key_at[stream], self.key_len[stream]
        batch.event_time[:n] = np.where(is_reset, 0, history.time[at])
        batch.x[:n] = np.where(is_reset[:, None], np.nan, history.x[at])
        batch.reason[:n] = np.where(is_reset, Reason.TOMBSTONE, Reason.OK)
        batch.extend_run(self.topic, partition, n)

    def _keep(self, rows: NDArray[np.int64], good: NDArray[np.int64], forecasts: ForecastBatch) -> None:
        if len(good) < len(rows):
            given = self.batch.reason[: len(rows)][rows < self.history.rows]
            reasons, counts = np.unique(given, return_counts=True)
            named = {
                Reason(reason).label: count for reason, count in zip(reasons.tolist(), counts.tolist(), strict=True)
            }
            self.refused.update({name: count for name, count in named.items() if name != Reason.OK.label})
        self.accepted[rows[good]] = True
        good = good[rows[good] >= self.first[self.stream[rows[good]]]]
        at = rows[good] + self.place[self.stream[rows[good]]]
        self.begins[at] = (forecasts.n_seen[good] == 1) | (forecasts.status[good] == Status.GAP)
        for name, values in _columns(forecasts):
            if name not in self.columns:
                self.columns[name] = _column((self.kept, *values.shape[1:]))
            self.columns[name][at] = values[good]

    def _evidence(self) -> Evidence:
        """What was kept, without the rows that the engine refused."""
        history, start, first, tail = self.history, self.history.start, self.first, self.tail
        time, begins, columns = history.time, self.begins, self.columns
        actual = history.x[:, self.model.target]  # NaN where it was missing: no forecast is held to what was filled in
        if not self.accepted.all():
            before = np.zeros(history.rows + 1, np.int64)
            np.cumsum(self.accepted, out=before[1:])
            stream = streams_of_rows(history)
            is_kept = self.accepted & (np.arange(history.rows) >= first[stream])
            at = np.flatnonzero(is_kept) + self.place[stream[is_kept]]
            start, first, tail = before[start], before[first], before[tail]
            time, actual, begins = time[self.accepted], actual[self.accepted], begins[at]
            columns = {name: column[at] for name, column in columns.items()}
        kept = start[1:] - first
        return Evidence(
            horizons=self.model.horizons,
            start=start,
            time=time,
            actual=actual,
            tail=tail,
            first=first,
            place=np.cumsum(kept) - kept - first,
            life=np.cumsum(begins),
            yhat=columns["yhat"],
            lower=columns.get("lower"),
            upper=columns.get("upper"),
            anomaly=columns.get("anomaly_score"),
            level=self.model.level,
        )


def streams_of_rows(history: History) -> NDArray[np.int32]:
    """The stream of each row, int32 [N]."""
    return np.repeat(np.arange(len(history.streams), dtype=np.int32), np.diff(history.start))


def feed_order(history: History) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows in the order in which they are fed, N + r for reset r, and the offset of each: int64 [N + R] both.

    Where the history knows offsets they say it, one partition after the other. Else it goes by time, rows of one time
    as they came, but no event of a stream before one that came before it; the offsets are then what the rows' numbers
    in the files would be in that order.
    """
    if len(history.offset):
        stream = np.append(streams_of_rows(history), history.resets[:, 0])
        offset = np.append(history.offset, history.resets[:, 1])
        order = np.lexsort((offset, history.partition[stream]))
        return order, offset[order]
    latest = history.time
    is_late = np.setdiff1d(np.flatnonzero(latest[1:] < latest[:-1]) + 1, history.start)
    late = np.unique(np.searchsorted(history.start, is_late, side="right") - 1)
    if len(late):
        latest = latest.copy()
        for stream in late.tolist():
            rows = history.rows_of(stream)
            np.maximum.accumulate(latest[rows], out=latest[rows])
    return np.lexsort((history.arrival, latest)), np.sort(history.arrival)


def _columns(forecasts: ForecastBatch) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Those that the model makes."""
    yield "yhat", forecasts.yhat
    for name in ("lower", "upper", "anomaly_score"):
        column: NDArray[np.float64] | None = getattr(forecasts, name)
        if column is not None:
            yield name, column


def _column(shape: tuple[int, ...]) -> NDArray[np.float64]:
    if 8 * np.prod(shape, dtype=np.int64) <= IN_MEMORY_BYTES:
        return np.empty(shape, np.float64)
    with tempfile.TemporaryFile() as file:
        mapped: np.memmap[Any, np.dtype[np.float64]] = np.memmap(file, np.float64, "w+", shape=shape)
        return mapped
