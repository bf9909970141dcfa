"""Batches of decoded events to one History: the growing columns, and the cleaning of them.

What the daemon refuses is dropped, by the daemon's reasons. Then, stream by stream, rows are sorted by time, those of
one time as they came, and of rows with the same time the last one stays. All of it follows from the rows and their
order alone.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import BadDataError
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.times import EARLIEST_USUAL_MS
from streamlstm.history.history import History
from streamlstm.history.report import Kind, Report, counted, duration_text, time_text
from streamlstm.kernels.grouping import group_rows, sort_groups, survey
from streamlstm.kernels.observe import RUNNING_LIMIT
from streamlstm.state.slots import SlotTable

Element = TypeVar("Element", bound=np.generic)

_FIRST_STREAMS = 1024
PASSED_OVER = Reason.REPLAYED
"""The reason of rows outside the range that was asked for: they are no rows of the history."""

_KINDS = {reason: Kind(reason.label) for reason in Reason if reason.name in Kind.__members__}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a history takes.

    `limit`: the largest |x|. `max_key_bytes`: the longest stream id. `max_ahead_ms`: how far an event's time may be
    past its record's timestamp; None: any. `begin_ms`, `end_ms`: events from that time on, and before that one, are all
    that there are; None: no bound. `max_rows`: more of them are an error, so that memory stays bounded: a row
    takes 20 bytes, and 8 for each input, and twice that at the end.

    `order`: "time" sorts each stream and keeps the last of rows with one time; "arrival" leaves late and duplicate rows
    in, where they came, which is what the daemon steps through by default. `keep_missing` lets null inputs through as
    NaN (events.missing other than dead_letter). `keep_offsets`, in order of arrival: the history tells each row's, and
    those of the records that reset a stream.
    Streams of fewer than `short_rows` rows are kept, and counted.
    """

    limit: float = RUNNING_LIMIT
    max_key_bytes: int = 64
    max_ahead_ms: int | None = None
    begin_ms: int | None = None
    end_ms: int | None = None
    max_rows: int = 100_000_000
    order: Literal["time", "arrival"] = "time"
    keep_missing: bool = False
    keep_offsets: bool = False
    short_rows: int = 32


class Collector:
    """Takes batches with `add`, once each; then gives the History with `finish`, once."""

    def __init__(self, inputs: tuple[str, ...], rules: Rules) -> None:
        self.inputs = inputs
        self.rules = rules
        self.report = Report()
        self._table = SlotTable(_FIRST_STREAMS, rules.max_key_bytes)
        self._stream: list[NDArray[np.int32]] = []
        self._time: list[NDArray[np.int64]] = []
        self._place: list[NDArray[np.int64]] = []
        self._x: list[NDArray[np.float64]] = []
        self._resets = [np.empty((0, 2), np.int64)]
        self._kept = 0
        self._lost: list[NDArray[np.int64]] = []  # for each row that isn't kept: how many were, before it
        self._outside = 0  # rows that were passed over
        self._sources: list[tuple[int, str, int]] = []  # of each: its first row, what names it in a place, _outside

    # ----------------------------------------------------------------------------------------------------------- adding

    def begin_source(self, name: str, place: str | None = None) -> None:
        """What is added from now on comes from `name`, and its rows are at `place`:offset (default: the name)."""
        if name not in self.report.sources:
            self.report.sources.append(name)
        self._sources.append((self._kept, name if place is None else place, self._outside))

    def add(self, batch: EventBatch, partition: int = 0) -> None:
        """Take the decoded rows of `batch`, all of one partition; their columns are copied, their reasons changed."""
        n = batch.n
        self._refuse(batch)
        slot = self._slots(batch, partition)
        if self.rules.keep_offsets:
            self._resets.append(self._find_resets(batch, partition))
        self._count_refused(batch)
        good = np.flatnonzero(batch.reason[:n] == Reason.OK)
        lost = np.flatnonzero((batch.reason[:n] != Reason.OK) & (batch.reason[:n] != PASSED_OVER))
        if len(lost):
            self._lost.append(self._kept + np.searchsorted(good, lost))
        outside = int((batch.reason[:n] == PASSED_OVER).sum())
        self._outside += outside
        self.report.rows_read += n - outside
        self._kept += len(good)
        if self._kept > self.rules.max_rows:
            raise BadDataError(
                f"{self.report.sources[-1]}: the history has more than {self.rules.max_rows:,} rows; expected at most "
                f"so many, for memory's sake: take fewer files, or a shorter range"
            )
        if len(good):
            self._stream.append(slot[good].astype(np.int32))
            self._time.append(batch.event_time[good])
            self._place.append(batch.offset[good])
            self._x.append(batch.x[good])

    def _refuse(self, batch: EventBatch) -> None:
        rows = slice(0, batch.n)
        reason = batch.reason[rows]
        beyond = (np.abs(batch.x[rows]) > self.rules.limit).any(axis=1) & (reason == Reason.OK)
        reason[beyond] = Reason.OUT_OF_RANGE
        if self.rules.max_ahead_ms is not None:
            timestamp = batch.timestamp[rows]
            ahead = (timestamp >= 0) & (batch.event_time[rows] - timestamp > self.rules.max_ahead_ms)
            reason[ahead & (reason == Reason.OK)] = Reason.TOO_FAR_AHEAD
        time, is_good = batch.event_time[rows], reason == Reason.OK
        if self.rules.begin_ms is not None:
            reason[is_good & (time < self.rules.begin_ms)] = PASSED_OVER
        if self.rules.end_ms is not None:
            reason[is_good & (time >= self.rules.end_ms)] = PASSED_OVER

    def _slots(self, batch: EventBatch, partition: int) -> NDArray[np.int64]:
        """The stream of each row, int64 [n], numbered as they first appear; -1 for rows with a reason."""
        slot = np.empty(batch.n, np.int64)
        done = 0
        while True:
            done = self._table.assign(
                batch.payload, partition, done, batch.n, batch.stream_at, batch.stream_len, batch.reason, slot,
                full_stops=True,
            )  # fmt: skip
            if done == batch.n:
                return slot
            self._grow()

    def _find_resets(self, batch: EventBatch, partition: int) -> NDArray[np.int64]:
        """Streams and offsets, int64 [R, 2], of the rows that reset a stream which is known."""
        n = batch.n
        is_reset = (batch.reason[:n] == Reason.TOMBSTONE) & (batch.stream_len[:n] > 0)
        slot, reason = np.full(n, -1), np.where(is_reset, Reason.OK, Reason.TOMBSTONE).astype(np.uint8)
        if is_reset.any():
            at, size = batch.stream_at, batch.stream_len
            self._table.assign(batch.payload, partition, 0, n, at, size, reason, slot, cap=0)
        return np.column_stack((slot, batch.offset[:n]))[slot >= 0]

    def _grow(self) -> None:
        """The same streams under the same numbers, in a table of four times the size."""
        grown = SlotTable(4 * self._table.max_streams, self.rules.max_key_bytes)
        for partition, keys in groupby(map(self._table.key_of, range(self._table.n_streams)), lambda each: each[0]):
            ids = [key for _, key in keys]
            lengths = np.fromiter(map(len, ids), np.int64, len(ids))
            grown.install(partition, lengths, np.frombuffer(b"".join(ids), np.uint8))
        self._table = grown

    def _count_refused(self, batch: EventBatch) -> None:
        reasons, first, counts = np.unique(batch.reason[: batch.n], return_index=True, return_counts=True)
        for reason, row, count in zip(reasons.tolist(), first.tolist(), counts.tolist(), strict=True):
            if reason not in (Reason.OK, PASSED_OVER):
                found = _found(batch, row)
                self.report.add(_KINDS[Reason(reason)], count, f"{self._sources[-1][1]}:{batch.offset[row]}", "", found)

    # -------------------------------------------------------------------------------------------------------- finishing

    def finish(self) -> History:
        """Raises BadDataError when fewer than two rows are left: there is nothing to learn from."""
        if self._kept < 2:
            raise BadDataError(self._refusal(self._kept))
        keys = [self._table.key_of(slot) for slot in range(self._table.n_streams)]
        start, order = np.empty(len(keys) + 1, np.int64), np.empty(self._kept, np.int64)
        time = _joined(self._time)
        self._sort(_joined(self._stream), time, start, order, [key for _, key in keys])
        time = time[order]
        place = _joined(self._place)
        x = _joined(self._x)[order]
        start, time, x = self._drop_duplicates(start, order, time, x, place, keys)
        if len(time) < 2:
            raise BadDataError(self._refusal(len(time)))
        arrival = self._numbers(order) if self.rules.order == "arrival" else np.empty(0, np.int64)
        offset = place[order] if self.rules.keep_offsets else np.empty(0, np.int64)
        del order, place
        self._note_unused()
        history = History(
            self.inputs, [key for _, key in keys], np.array([partition for partition, _ in keys], np.int32), start,
            time, x, np.empty(len(keys), np.int64), self.report, arrival, offset, np.concatenate(self._resets),
        )  # fmt: skip
        self._survey(history)
        return history

    def _sort(
        self,
        stream: NDArray[np.int32],
        time: NDArray[np.int64],
        start: NDArray[np.int64],
        order: NDArray[np.int64],
        keys: list[bytes],
    ) -> None:
        group_rows(stream, start, order)
        late, first = sort_groups(start, time, order, self.rules.order == "time")
        if late:
            place = _joined(self._place, keep=True)
            self.report.add(
                Kind.LATE, late, self._place_of(first, place), keys[stream[first]].decode(), time_text(int(time[first]))
            )
            if self.rules.order == "time":
                self.report.note("late rows were sorted in; the daemon takes events as they come (events.out_of_order)")

    def _drop_duplicates(
        self,
        start: NDArray[np.int64],
        order: NDArray[np.int64],
        time: NDArray[np.int64],
        x: NDArray[np.float64],
        place: NDArray[np.int64],
        keys: list[tuple[int, bytes]],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Count the rows whose successor has the same time and stream, and keep the successor only."""
        repeated = np.zeros(len(time), np.bool_)
        repeated[:-1] = time[1:] == time[:-1]
        repeated[start[1:] - 1] = False  # the last row of each stream
        if not repeated.any():
            return start, time, x
        rows = np.flatnonzero(repeated)
        differ = rows[(x[rows] != x[rows + 1]).any(axis=1)]
        for kind, found in ((Kind.DUPLICATE, rows), (Kind.CONFLICT, differ)):
            if len(found):
                later = int(order[found + 1].argmin())
                stream = int(np.searchsorted(start, found[later], side="right")) - 1
                where = self._place_of(int(order[found[later] + 1]), place)
                when = time_text(int(time[found[later]]))
                self.report.add(kind, len(found), where, keys[stream][1].decode(), when)
        if self.rules.order == "arrival":
            return start, time, x
        self.report.note("of rows with one time the last was kept; the daemon takes each by default (events.duplicate)")
        before = np.zeros(len(repeated) + 1, np.int64)
        np.cumsum(repeated, out=before[1:])
        return start - before[start], time[~repeated], x[~repeated]

    def _numbers(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of rows by their place among those kept: their place among all."""
        lost = np.concatenate(self._lost) if self._lost else np.empty(0, np.int64)
        return order + np.searchsorted(lost, order, side="right")

    def _survey(self, history: History) -> None:
        report, streams = self.report, len(history.streams)
        off, gaps, longest = (np.empty(streams, np.int64) for _ in range(3))
        constant = np.empty(streams, np.uint8)
        survey(history.start, history.time, history.x, history.interval, off, gaps, longest, constant)
        lengths = np.diff(history.start)
        report.rows, report.streams = history.rows, streams
        report.first_ms, report.last_ms = int(history.time.min()), int(history.time.max())
        intervals, counts = np.unique(history.interval[history.interval > 0], return_counts=True)
        if len(intervals):
            report.interval_ms, report.interval_streams = int(intervals[counts.argmax()]), int(counts.max())
        if report.last_ms < EARLIEST_USUAL_MS:
            report.note("all times lie before March 1973: is input.time_unit the unit of the numbers?")
        if gaps.any():
            worst = int(longest.argmax())
            self._add_gap(history, worst, int(gaps.sum()), int(longest[worst]))
        short = lengths < self.rules.short_rows
        for kind, per_stream in (
            (Kind.OFF_INTERVAL, off),
            (Kind.CONSTANT, (constant > 0) & ~short),
            (Kind.SHORT, short),
        ):
            if per_stream.any():
                first = int(np.flatnonzero(per_stream)[0])
                report.add(kind, int(per_stream.sum()), "", history.name(first), counted(int(lengths[first]), "row"))

    def _add_gap(self, history: History, stream: int, count: int, longest: int) -> None:
        times = history.time[history.rows_of(stream)]
        begins = int(times[np.diff(times).argmax()])
        found = f"{duration_text(longest)} after {time_text(begins)}"
        self.report.add(Kind.GAP, count, "", history.name(stream), found)

    def _note_unused(self) -> None:
        """Say which of several sources gave no row at all."""
        for (first, place, before), (end, _, after) in pairwise([*self._sources, (self._kept, "", self._outside)]):
            if first == end and place in self.report.sources:
                outside = f": {_outside(after - before)}" if after > before else ""
                self.report.note(f"{place}: none of its rows could be used{outside}")

    def _place_of(self, row: int, place: NDArray[np.int64]) -> str:
        source = bisect_right(self._sources, row, key=lambda each: each[0]) - 1
        return f"{self._sources[source][1]}:{place[row]}"

    def _refusal(self, left: int) -> str:
        report = self.report
        where = ", ".join(report.sources[:3]) or "history"
        read = counted(report.rows_read, "row")
        text = f"{where}: expected two rows at least, of different times; found {left} good ones among {read}"
        if self._outside:
            text += f", and {_outside(self._outside)}"
        worst = max(report.findings.values(), key=lambda each: each.count, default=None)
        return text if worst is None else f"{text}: {report.sentence(worst)}"


def _outside(count: int) -> str:
    return f"{counted(count, 'row')} outside the range that was asked for"


def _found(batch: EventBatch, row: int) -> str:
    """What stands in the source of a refused row, as far as it's known."""
    if batch.reason[row] == Reason.OUT_OF_RANGE:
        return ", ".join(f"{number:.6g}" for number in batch.x[row])
    at, size = int(batch.value_at[row]), int(batch.value_len[row])
    return batch.payload[at : at + min(size, 200)].tobytes().decode("utf-8", "replace") if at >= 0 else ""


def _joined(chunks: list[NDArray[Element]], *, keep: bool = False) -> NDArray[Element]:
    """The chunks as one array; they are given up, so that memory holds one column twice at most, unless kept."""
    joined = np.concatenate(chunks)
    chunks.clear()
    if keep:
        chunks.append(joined)
    return joined
