"""A history against one made of dictionaries and lists, on any rows, in any format, cut into any files."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.errors import BadDataError
from streamlstm.events.times import EARLIEST_MS, LATEST_MS
from streamlstm.history.collector import Rules
from streamlstm.history.history import History
from streamlstm.history.report import Kind
from tests.history.reading import read, rows

LIMIT = 1e150


@dataclass(frozen=True)
class Row:
    stream: str
    time: int
    value: float | None

    @property
    def problem(self) -> Kind | None:
        """The first reason of the daemon against it."""
        if not self.stream:
            return Kind.NO_KEY
        if not EARLIEST_MS <= self.time <= LATEST_MS:
            return Kind.BAD_TIME
        if self.value is None:
            return Kind.NULL_VALUE
        if not math.isfinite(self.value):
            return Kind.NOT_FINITE
        return Kind.OUT_OF_RANGE if abs(self.value) > LIMIT else None


@dataclass
class Oracle:
    streams: dict[str, list[tuple[int, float]]]
    findings: Counter[Kind]


def expected(given_rows: Sequence[Row], order: str) -> Oracle:
    oracle = Oracle({}, Counter())
    for row in given_rows:
        if row.problem is not None:
            oracle.findings[row.problem] += 1
        else:
            assert row.value is not None
            oracle.streams.setdefault(row.stream, []).append((row.time, row.value))
    for stream, arrived in oracle.streams.items():
        latest = -math.inf
        for time, _ in arrived:
            oracle.findings[Kind.LATE] += time < latest
            latest = max(latest, time)
        events = sorted(arrived, key=lambda event: event[0]) if order == "time" else arrived
        for (time, value), (next_time, next_value) in itertools.pairwise(events):
            oracle.findings[Kind.DUPLICATE] += time == next_time
            oracle.findings[Kind.CONFLICT] += time == next_time and value != next_value
        oracle.streams[stream] = list(dict(events).items()) if order == "time" else events
        survey(oracle, oracle.streams[stream])
    oracle.findings += Counter()  # without zeros
    return oracle


def interval(times: Sequence[int]) -> int:
    steps = sorted(b - a for a, b in itertools.pairwise(times) if b > a)
    if not steps:
        return 0
    counts = Counter(steps)
    most = max(counts.values())
    return (
        min(step for step in counts if counts[step] == most)
        if 10 * most >= len(steps)
        else steps[(len(steps) - 1) // 2]
    )


def survey(oracle: Oracle, events: Sequence[tuple[int, float]]) -> None:
    times = [time for time, _ in events]
    usual = interval(times)
    for a, b in itertools.pairwise(times):
        if b > a:
            oracle.findings[Kind.OFF_INTERVAL] += 10 * abs(b - a - usual) > usual
            oracle.findings[Kind.GAP] += 2 * (b - a) > 3 * usual
    short = len(events) < Rules().short_rows
    oracle.findings[Kind.SHORT] += short
    oracle.findings[Kind.CONSTANT] += not short and len({value for _, value in events}) == 1


def check(history: History, oracle: Oracle) -> None:
    assert rows(history) == oracle.streams
    assert list(map(history.name, range(len(history.streams)))) == list(oracle.streams)  # in order of appearance
    assert {kind: each.count for kind, each in history.report.findings.items()} == dict(oracle.findings)
    for s, events in enumerate(oracle.streams.values()):
        assert history.interval[s] == interval([time for time, _ in events])
    assert history.partition.tolist() == [0] * len(oracle.streams)


# ---------------------------------------------------------------------------------------------------------- the formats


def as_csv(path: Path, some: Sequence[Row]) -> None:
    cells = [(row.stream, str(row.time), "" if row.value is None else repr(row.value)) for row in some]
    text = "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in cells)
    path.with_suffix(".csv").write_text("stream,ts,value\n" + text, newline="")


def as_lines(path: Path, some: Sequence[Row]) -> None:
    """A value that is NaN or infinite as the tokens that JSON doesn't have."""
    path.with_suffix(".jsonl").write_text(
        "".join(json.dumps({"stream": row.stream, "ts": row.time, "value": row.value}) + "\n" for row in some)
    )


def as_parquet(path: Path, some: Sequence[Row]) -> None:
    columns = {
        "stream": pa.array([row.stream for row in some], pa.string()),
        "ts": pa.array([row.time for row in some], pa.int64()),
        "value": pa.array([row.value for row in some], pa.float64()),
    }
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"))


WRITERS = [as_csv, as_lines, as_parquet]

usual_rows = st.builds(
    Row,
    st.sampled_from(["a", "b", "pump-7", "ö", 'q"uote', "long" * 10]),
    st.integers(-3, 40).map(lambda step: 1_730_000_000_000 + 60_000 * step),
    st.integers(0, 3).map(float),
)
any_rows = st.builds(
    Row,
    st.sampled_from(["a", "b", "c d", ""]),
    st.sampled_from([EARLIEST_MS - 1, EARLIEST_MS, -1, 0, LATEST_MS, LATEST_MS + 1]) | st.integers(-(10**15), 10**15),
    st.none() | st.floats(width=64) | st.sampled_from([LIMIT, -LIMIT, 1.1 * LIMIT, 1e300, 5e-324]),
)
histories = st.lists(usual_rows | any_rows, min_size=1, max_size=60) | st.lists(usual_rows, min_size=30, max_size=120)


@settings(max_examples=150)
@given(st.data())
def test_equals_the_oracle(data: st.DataObject) -> None:
    given_rows = data.draw(histories)
    order = data.draw(st.sampled_from(["time", "arrival"]))
    cut = data.draw(st.integers(0, len(given_rows)))
    files = [part for part in (given_rows[:cut], given_rows[cut:]) if part]
    oracle = expected(given_rows, order)
    with TemporaryDirectory() as folder:
        for i, part in enumerate(files):
            data.draw(st.sampled_from(WRITERS))(Path(folder) / f"part-{i}", part)
        if sum(map(len, oracle.streams.values())) < 2:
            with pytest.raises(BadDataError, match="expected two rows at least"):
                read(folder, rules=Rules(order=order))
            return
        check(read(folder, rules=Rules(order=order)), oracle)


@pytest.mark.parametrize("write", WRITERS)
def test_many_streams(write: object, tmp_path: Path) -> None:
    """More streams than the first table has room for, and more rows than one batch."""
    rng = np.random.default_rng(3)
    numbers = rng.integers(0, 9_000, 150_000).tolist()
    given_rows = [
        Row(f"s{n}", 1_730_000_000_000 + 1000 * int(rng.integers(0, 50)), float(i)) for i, n in enumerate(numbers)
    ]
    write(tmp_path / "all", given_rows)  # type: ignore[operator]
    check(read(tmp_path), expected(given_rows, "time"))
