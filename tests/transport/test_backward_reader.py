"""A log read newest first: every record once, in bounded memory, however batches, gaps and windows lie."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.errors import RetryError
from streamlstm.transport import backward_reader
from streamlstm.transport.backward_reader import BackwardReader
from streamlstm.transport.cluster import NotSent
from streamlstm.transport.fetched import PoisonBatch
from streamlstm.transport.settings import ConnectionSettings
from tests.transport.batches import at, encode, marker
from tests.transport.live import connected, make_topic, produce, transact


class Log:
    """A cluster with one partition. A batch: its first offset and the values of its records; "" for a damaged one."""

    def __init__(self, batches: list[tuple[int, list[bytes]]], end: int) -> None:
        self.settings = ConnectionSettings(("double:9092",))
        self.now, self.asked = 0.0, 0
        self.silent = False
        self._end = end
        self._batches = [(base + len(values), _stored(base, values)) for base, values in batches]

    def clock(self) -> float:
        return self.now

    def deadline(self) -> float:
        return self.now + 5

    def watch(self, topics: list[str], deadline: float) -> None:
        pass

    def leader(self, topic: str, partition: int) -> int:
        return 1

    def is_missing(self, topic: str) -> bool:
        return False

    def partitions(self, topic: str) -> int:
        return 1

    def refresh(self, deadline: float) -> bool:
        return True

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def send(self, node: int, request: Any, deadline: float) -> Any:
        self.now += 0.001
        if self.silent:
            return NotSent("no way")
        self.asked += 1
        (row,) = request.topics[0].partitions
        found = b""
        for end, batch in self._batches:
            if end <= row.fetch_offset:
                continue
            if found and len(found) + len(batch) > row.partition_max_bytes:
                break
            found += batch
        if not found and row.fetch_offset < self._end:  # what is left is the mark of a transaction
            found = bytes(marker(self._end - 1, 7))
        answer = SimpleNamespace(
            error_code=0, records=found, last_stable_offset=self._end, log_start_offset=0, aborted_transactions=None
        )
        return SimpleNamespace(error_code=0, responses=[SimpleNamespace(partitions=[answer])])


def _stored(base: int, values: list[bytes]) -> bytes:
    batch = bytearray(at(encode(values), base))
    if b"damaged" in values:
        batch[-3] ^= 1
    return bytes(batch)


def read_all(reader: BackwardReader) -> list[Any]:
    found = []
    while reader.position > reader.first:
        before = reader.position
        found += reader.read(1.0)
        assert reader.position < before
    return [each if isinstance(each, PoisonBatch) else (each[0], bytes(each[3] or b"")) for each in found]


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[tuple[int, list[bytes]]], int]:
    """Batches of several records, with gaps between them, as compaction and transactions leave them; and the end."""
    batches, offset = [], 0
    for _ in range(draw(st.integers(0, 30))):
        offset += draw(st.sampled_from([0, 0, 0, 1, 2, 50]))
        values = [
            b"%d." % (offset + i) + bytes(draw(st.sampled_from([0, 10, 300]))) for i in range(draw(st.integers(1, 4)))
        ]
        batches.append((offset, values))
        offset += len(values)
    return batches, offset + draw(st.integers(0, 3))


@settings(max_examples=300, deadline=None)
@given(logs(), st.integers(0, 40), st.sampled_from([1, 100, 1000, 10_000]))
def test_every_record_once_newest_first(
    log: tuple[list[tuple[int, list[bytes]]], int], first: int, window: int
) -> None:
    batches, end = log
    first = min(first, end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backward_reader, "WINDOW_BYTES", window)
        patch.setattr(backward_reader, "MOST_BYTES", 2 * window)
        patch.setattr(backward_reader, "_FETCH_BYTES", window)
        found = read_all(BackwardReader(Log(batches, end), "t", 0, first, end))  # type: ignore[arg-type]
    expected = [(base + i, value) for base, values in batches for i, value in enumerate(values) if base + i >= first]
    assert found == expected[::-1]


def test_what_cannot_be_read_stands_where_it_is() -> None:
    log = Log([(0, [b"a", b"b"]), (2, [b"damaged", b"c"]), (4, [b"d"])], 5)
    last, poison, *rest = read_all(BackwardReader(log, "t", 0, 0, 5))  # type: ignore[arg-type]
    assert (last, rest) == ((4, b"d"), [(1, b"b"), (0, b"a")])
    assert (poison.base_offset, poison.last_offset) == (2, 3)


def test_a_window_that_is_too_large_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward_reader, "WINDOW_BYTES", 1000)
    monkeypatch.setattr(backward_reader, "MOST_BYTES", 2000)
    log = Log([(n, [b"%03d" % n + bytes(700)]) for n in range(20)], 20)
    reader = BackwardReader(log, "t", 0, 0, 20)  # type: ignore[arg-type]
    while reader.position:
        assert sum(len(each[3]) for each in reader.read(1.0)) <= 2000  # type: ignore[index, arg-type]


def test_a_long_log_of_little_is_read_in_few_windows() -> None:
    log = Log([(10 * n, [b"x"]) for n in range(2000)], 20_000)
    assert len(read_all(BackwardReader(log, "t", 0, 0, 20_000))) == 2000  # type: ignore[arg-type]
    assert log.asked < 20


def test_it_goes_on_where_the_brokers_were_lost() -> None:
    log = Log([(n, [b"%d" % n]) for n in range(9)], 9)
    reader = BackwardReader(log, "t", 0, 0, 9)  # type: ignore[arg-type]
    found = reader.read(1.0)
    log.silent = True
    with pytest.raises(RetryError):
        reader.read(0.1)
    log.silent = False
    found += reader.read(1.0)
    assert [bytes(each[3]) for each in found] == [b"%d" % n for n in range(8, -1, -1)]  # type: ignore[index, arg-type]


@pytest.mark.kafka
def test_committed_records_of_a_broker(kafka: str) -> None:
    """Over control records and what was aborted, to the first."""
    topic = make_topic(kafka, 1)
    produce(kafka, topic, 0, [b"a%d" % n for n in range(30)])
    transact(kafka, topic, 0, [b"drop"] * 5, commit=False)
    transact(kafka, topic, 0, [b"b%d" % n for n in range(3)], commit=True)
    with connected(kafka) as cluster:
        found = read_all(BackwardReader(cluster, topic, 0, 0, 40))
        assert found == [(38 - n, b"b%d" % (2 - n)) for n in range(3)] + [
            (29 - n, b"a%d" % (29 - n)) for n in range(30)
        ]
        assert read_all(BackwardReader(cluster, topic, 0, 28, 37)) == [(36, b"b0"), (29, b"a29"), (28, b"a28")]
