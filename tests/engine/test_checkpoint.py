"""Chunks written and read: covers, splits, bad records, warm starts, bounds. That nothing shows of a crash is judged in
test_checkpoint_exact.py.
"""

from collections.abc import Iterable

import numpy as np
import pytest

from streamlstm.engine.checkpoint import Checkpoint, Records, Restored
from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.errors import ConfigError, InvariantError
from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status
from streamlstm.state.leaves import DEGRADED_MS
from streamlstm.state.snapshot import ROOT, Leaf, decode_chunk, encode_chunk
from tests.engine.expected import SCALINGS, make_model
from tests.engine.snapshot_topic import (
    GROUP,
    KEY_BYTES,
    MODEL,
    TOPIC,
    Event,
    SnapshotTopic,
    chunk_limit,
    is_cover,
    keys_of,
    make_batch,
)

TIME = 1_730_000_000_000
MODEL_FILE = make_model(SCALINGS["running"])


class Life:
    """One partition, one member after the other."""

    def __init__(self, per_chunk: int = 4, interval: float = 60.0, **settings: object) -> None:
        options = ForecasterSettings(**({"max_streams": 200, "max_key_bytes": KEY_BYTES} | settings))  # type: ignore[arg-type]
        self.forecaster = Forecaster(MODEL_FILE, options)
        self.index = self.forecaster.partition_index(TOPIC, 0)
        self.topic = SnapshotTopic()
        self.offset, self.now = 100, 0.0
        self.interval, self.limit = interval, chunk_limit(self.forecaster, per_chunk)
        self.start()

    def start(self, **changes: object) -> None:
        """Another process: nothing in memory."""
        self.forecaster.release(TOPIC, 0)
        bounded = self.forecaster.settings.max_streams_per_partition is not None
        given = {
            "group": GROUP, "topic": TOPIC, "model_hash": MODEL, "max_chunk_bytes": self.limit,
            "interval_seconds": self.interval, "bounded": bounded,
        }  # fmt: skip
        self.checkpoint = Checkpoint(self.forecaster, **(given | changes))  # type: ignore[arg-type]

    def events(self, keys: Iterable[int], reason: Reason = Reason.OK) -> list[Event]:
        made = []
        for key in keys:
            made.append(Event(self.offset, b"s%d" % key, TIME + self.offset, float(key), reason))
            self.offset += 1
        return made

    def see(self, keys: Iterable[int], reason: Reason = Reason.OK) -> np.ndarray:
        """Answer events; returns their statuses."""
        return self.forecaster.forecast(make_batch([(0, self.events(keys, reason))], 2)).status.copy()

    def commit(self, seconds: float = 0.0) -> Records:
        """A transaction; returns its snapshot records."""
        self.now += seconds
        records = self.checkpoint.take(0, self.offset, 3, self.now)
        self.topic.records += records
        self.topic.committed = self.offset
        return records

    def restart(self, first: int = 100, end: int | None = None, **changes: object) -> Restored:
        self.start(**changes)
        for key, value in reversed(self.topic.records):
            self.checkpoint.load(0, key, value)
        return self.checkpoint.finish(0, self.topic.committed, first, self.offset if end is None else end, self.now)

    def warm(self, first: int = 100) -> Restored:
        assert self.topic.committed is not None
        return self.checkpoint.warm(0, self.topic.committed, first, self.now)

    def kinds(self, **given: object) -> list[str]:
        return [problem.kind for problem in self.restart(**given).problems]  # type: ignore[arg-type]

    def break_newest(self, leaf: Leaf | None = None) -> None:
        """Flip a bit of the newest record that has a value, of a leaf or of any."""
        for place in range(len(self.topic.records) - 1, -1, -1):
            key, value = self.topic.records[place]
            if value is not None and leaf in (None, Leaf.of_key(key)):
                self.topic.records[place] = key, value[:40] + bytes([value[40] ^ 4]) + value[41:]
                return
        raise AssertionError("nothing to break")

    def names(self) -> set[bytes]:
        slots = self.forecaster.slots.slots_of(self.index).tolist()
        return {self.forecaster.slots.key_of(slot)[1] for slot in slots}


def lived(n: int = 30, **given: object) -> Life:
    """With n streams, all written as of one offset."""
    life = Life(**given)  # type: ignore[arg-type]
    life.checkpoint.begin(0, 0.0)
    life.see(range(n))
    life.commit()
    return life


def test_a_leaf_that_is_too_large_goes_with_its_children_in_one_take() -> None:
    life = Life()
    life.checkpoint.begin(0, 0.0)
    assert life.commit() == [(b"chunk:", life.topic.live()[b"chunk:"])]
    assert decode_chunk(life.topic.live()[b"chunk:"]).header.streams == 0
    life.see(range(30))
    records = life.commit(61)
    assert records[0] == (b"chunk:", None)
    assert all(value is not None and len(value) <= life.limit for _, value in records[1:])
    chunks = life.topic.chunks()
    assert is_cover([*chunks])
    assert sorted(key for chunk in chunks.values() for key in keys_of(chunk)) == sorted(b"s%d" % k for k in range(30))
    assert life.checkpoint.splits == len(chunks) - 1
    assert life.checkpoint.chunks == 1 + len(chunks)
    assert life.checkpoint.chunk_bytes == sum(len(value) for value in life.topic.live().values()) + len(
        life.topic.records[0][1] or b""
    )


def test_a_header_says_what_the_state_is_of() -> None:
    life = lived(3)
    header = life.topic.chunks()[ROOT].header
    assert (header.group, header.topic, header.partition, header.model) == (GROUP, TOPIC, 0, MODEL)
    assert (header.offset, header.leader_epoch, header.watermark) == (103, 3, TIME + 102)
    assert (header.streams, header.degraded, header.row_bytes) == (3, False, life.forecaster.layout.row_bytes)


def test_many_new_streams_are_cut_up_before_their_turn() -> None:
    life = lived(0, per_chunk=10)
    assert life.commit(1.0) == []
    life.see(range(10))
    assert life.commit(1.0) == []
    life.see(range(100))
    assert len(life.commit(0.1)) > 8
    assert life.checkpoint.due(0, life.now) is False


def test_due_says_what_take_does() -> None:
    life = lived(30)
    for _ in range(100):
        life.see(range(0, 30, 7))
        life.now += 1.7
        expected = life.checkpoint.due(0, life.now, life.offset)
        assert bool(life.commit()) == expected
        assert not life.checkpoint.due(0, life.now, life.offset)


def test_an_idle_partition_is_brought_to_its_end_and_then_left() -> None:
    life = lived(30)
    life.see(range(5))
    written: set[bytes] = set()
    for _ in range(100):
        written |= {key for key, _ in life.commit(1.0)}
    assert life.checkpoint.oldest_tag(0) == life.offset
    assert len(written) == len(life.topic.chunks())
    assert not life.checkpoint.due(0, life.now + 1000, life.offset)
    assert life.commit(1000) == []


def test_a_restart_has_the_streams_and_their_watermark() -> None:
    life = lived(30)
    before = life.names()
    restored = life.restart()
    assert restored == Restored(130, 130, 30, [], 0)
    assert life.names() == before
    assert life.forecaster.watermark(life.index) == TIME + 129
    assert life.checkpoint.oldest_tag(0) == 130


def test_the_watermark_is_that_of_the_oldest_chunk_until_the_replay_has_come_past() -> None:
    life = lived(30, interval=8.0)
    late = life.events([1, 2, 3])
    life.forecaster.forecast(make_batch([(0, late)], 2))
    life.commit(3.0)
    life.commit(6.0)
    restored = life.restart()
    tags = {chunk.header.offset for chunk in life.topic.chunks().values()}
    assert tags == {130, 133}
    assert restored.replay_from == 130
    assert life.forecaster.watermark(life.index) == TIME + 129
    life.checkpoint.replay(make_batch([(0, late)], 2))
    assert life.forecaster.watermark(life.index) == TIME + 132


def test_a_partition_without_a_past_begins() -> None:
    life = Life()
    assert life.restart() == Restored(100, 100, 0, [], 0)
    assert [key for key, _ in life.commit()] == [b"chunk:"]


def test_records_that_are_no_chunks_are_passed_over() -> None:
    life = lived(3)
    life.topic.records += [(b"something", b"else"), (b"chunk:x", b"y")]
    assert life.kinds() == []


def test_an_older_version_stands_in_for_a_damaged_one() -> None:
    life = lived(3)
    life.see([0, 1, 2])
    life.commit(100)
    life.break_newest()
    assert life.restart() == Restored(103, 106, 3, [], 1)


def test_where_partitions_are_bounded_an_older_version_is_not_exact() -> None:
    life = lived(3, max_streams_per_partition=50)
    life.see([0, 1, 2])
    life.commit(100)
    life.break_newest()
    assert life.kinds() == ["corrupt"]


@pytest.mark.parametrize(("bound", "expected"), [(None, []), (50, ["corrupt"])])
def test_records_that_cannot_be_read_matter_where_partitions_are_bounded(
    bound: int | None, expected: list[str]
) -> None:
    life = lived(30, max_streams_per_partition=bound)
    life.start()
    life.checkpoint.unreadable(0, "offsets 7 to 8: CRC")
    for key, value in reversed(life.topic.records):
        life.checkpoint.load(0, key, value)
    restored = life.checkpoint.finish(0, life.offset, 100, life.offset, life.now)
    assert [problem.kind for problem in restored.problems] == expected
    if expected:
        assert "offsets 7 to 8: CRC" in restored.problems[0].message
        assert life.warm().streams == 30


def test_a_damaged_leaf_is_a_problem_and_begins_anew_degraded() -> None:
    life = lived(30)
    leaf = sorted(life.topic.chunks())[2]
    lost = set(keys_of(life.topic.chunks()[leaf]))
    everything = life.names()
    life.break_newest(leaf)
    restored = life.restart()
    assert [problem.kind for problem in restored.problems] == ["corrupt"]
    assert "CRC-32C" in restored.problems[0].message
    warm = life.warm()
    assert (warm.replay_from, warm.live_from, warm.streams) == (130, 130, 30 - len(lost))
    assert life.names() == everything - lost
    status = life.see(range(30))
    for k in range(30):
        assert status[k] == (Status.DEGRADED if b"s%d" % k in lost else Status.WARMUP)
    life.commit()
    assert is_cover([*life.topic.chunks()])
    degraded = {found for found, chunk in life.topic.chunks().items() if chunk.header.degraded}
    assert degraded == {leaf}
    assert life.kinds() == []
    assert life.forecaster.degraded_until is not None
    life.checkpoint.release(0)
    assert life.forecaster.degraded_until is None


def test_children_of_a_degraded_leaf_are_degraded() -> None:
    life = lived(2)
    life.break_newest()
    life.restart()
    life.warm()
    life.see(range(40))
    life.commit()
    chunks = life.topic.chunks()
    assert len(chunks) > 4
    assert all(chunk.header.degraded for chunk in chunks.values())


def test_a_loss_is_over_some_day() -> None:
    """Else every new stream would be called degraded for ever."""
    life = lived(3)
    life.break_newest()
    life.restart()
    life.warm()
    assert life.see([0, 1])[:2].tolist() == [Status.DEGRADED] * 2
    life.commit()
    (chunk,) = life.topic.chunks().values()
    assert chunk.header.degraded_until == TIME + life.offset - 1 + DEGRADED_MS
    life.restart()
    assert life.see([10])[:1].tolist() == [Status.DEGRADED]
    life.offset += DEGRADED_MS  # a millisecond each
    assert life.see([20, 10])[:2].tolist() == [Status.WARMUP] * 2
    life.commit(100.0)
    assert not any(chunk.header.degraded for chunk in life.topic.chunks().values())
    assert life.forecaster.degraded_until is None
    assert life.restart().problems == []


def test_a_missing_leaf_is_filled() -> None:
    life = lived(30)
    gone = sorted(life.topic.chunks())[1]
    life.topic.records = [record for record in life.topic.records if record[0] != gone.key]
    assert life.kinds() == ["missing"]
    life.warm()
    life.see(range(5))
    assert gone.key in [key for key, _ in life.commit()]
    assert is_cover([*life.topic.chunks()])
    assert life.kinds() == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"group": "others"}, "foreign"), ({"topic": "others"}, "foreign"), ({"model_hash": "sha256:ff"}, "model")],
)
def test_chunks_of_others_are_no_state_of_ours(change: dict, kind: str) -> None:
    life = lived(30)
    assert life.kinds(**change) == [kind]
    warm = life.warm()
    assert (warm.replay_from, warm.live_from, warm.streams) == (130, 130, 0)
    assert life.forecaster.n_streams == 0
    life.see([1])
    records = life.commit()
    assert [value for _, value in records[:-1]] == [None] * (len(records) - 1)
    assert records[-1][0] == b"chunk:"
    assert [*life.topic.chunks()] == [ROOT]


def test_rows_of_another_layout_are_not_taken() -> None:
    life = lived(3)
    chunk = life.topic.chunks()[ROOT]
    for change in ({"abi": 1}, {"row_bytes": chunk.header.row_bytes // 2}):
        header = type(chunk.header)(**{**{f: getattr(chunk.header, f) for f in chunk.header.__slots__}, **change})
        value = encode_chunk(header, chunk.key_len, chunk.keys, np.ascontiguousarray(chunk.rows[:, : header.row_bytes]))
        life.topic.records = [(b"chunk:", value)]
        assert life.kinds() == ["abi"]


def test_a_chunk_under_another_key_is_not_taken() -> None:
    life = lived(30)
    one, other = sorted(life.topic.chunks())[:2]
    life.topic.records += [(one.key, life.topic.live()[other.key])]
    life.topic.compact(len(life.topic.records), True)
    restored = life.restart()
    assert [problem.kind for problem in restored.problems] == ["corrupt"]
    assert "streams of another leaf" in restored.problems[0].message


def test_a_stream_that_is_there_twice_is_not_taken() -> None:
    life = lived(1)
    chunk = life.topic.chunks()[ROOT]
    header = type(chunk.header)(**{**{f: getattr(chunk.header, f) for f in chunk.header.__slots__}, "streams": 2})
    twice = [np.concatenate([part, part]) for part in (chunk.key_len, chunk.keys, chunk.rows)]
    life.topic.records = [(b"chunk:", encode_chunk(header, *twice))]
    restored = life.restart()
    assert "a stream is there twice" in restored.problems[0].message


def test_what_was_written_later_is_right_where_leaves_overlap() -> None:
    """Never so in a sound topic; still every stream is there once."""
    life = lived(3)
    root = life.topic.records[-1]
    life.see(range(30))
    life.commit(100)
    small = life.topic.chunks()
    life.topic.records = [root, *[record for record in life.topic.records if record[0] != b"chunk:"]]
    assert life.kinds() == []
    assert len(life.names()) == 30
    life.topic.records.append(root)
    assert life.restart().streams == 3
    assert len(small) > 1


def test_an_offset_moved_back_or_gone_is_seen() -> None:
    life = lived(30)
    life.topic.committed = 110
    assert life.kinds() == ["ahead"]
    assert life.warm().live_from == 110
    assert life.forecaster.n_streams == 0
    life.topic.committed = None
    assert life.kinds() == ["ahead"]


def test_a_log_that_was_cut_is_seen() -> None:
    life = lived(30)
    assert life.kinds(end=120) == ["truncated"]
    assert life.warm().live_from == 120
    assert life.forecaster.n_streams == 0


def test_a_gap_leaves_what_is_exact() -> None:
    life = lived(30, interval=8.0)
    life.see(range(30))
    life.commit(3.0)
    life.commit(6.0)
    chunks = life.topic.chunks()
    new = {leaf for leaf, chunk in chunks.items() if chunk.header.offset == 160}
    assert 0 < len(new) < len(chunks)
    restored = life.restart(first=140)
    assert [problem.kind for problem in restored.problems] == ["gap"]
    warm = life.warm(first=140)
    assert (warm.replay_from, warm.live_from) == (140, 160)
    assert life.names() == {key for leaf in new for key in keys_of(chunks[leaf])}
    assert life.kinds(first=130) == []


def test_too_many_streams_are_refused_with_numbers() -> None:
    life = lived(30)
    small = Life(max_streams=20)
    small.topic, small.offset = life.topic, life.offset
    with pytest.raises(
        ConfigError, match=r"restoring events-0: state\.max_streams is 20: \d+ more streams are needed, \d+ are free"
    ):
        small.restart()


def test_a_chunk_must_hold_one_stream() -> None:
    life = Life()
    with pytest.raises(ConfigError, match=r"snapshot\.max_chunk_bytes is 300: one stream needs up to \d+"):
        life.start(max_chunk_bytes=300)


def test_a_state_older_than_its_tag_is_a_bug() -> None:
    life = lived(30)
    life.offset -= 5
    with pytest.raises(InvariantError, match="of offset 130 taken as of offset 125"):
        life.commit(1000)


def test_released_in_the_middle_of_loading() -> None:
    life = lived(30)
    life.start()
    for key, value in life.topic.records[-3:]:
        life.checkpoint.load(0, key, value)
    life.checkpoint.release(0)
    assert life.forecaster.release(TOPIC, 0) > 0
    assert life.restart().problems == []


def test_at_its_bound_a_partition_is_written_whole() -> None:
    life = lived(30, max_streams_per_partition=35, interval=64.0)
    life.see(range(33))
    assert life.commit(1.0) == []
    life.see(range(40))
    leaves = life.topic.chunks()
    assert len(life.commit(0.1)) >= len(leaves)  # the bound was hit
    life.see([38])
    assert life.commit(0.1) == []  # tied: from here the bound is met again
    assert life.restart().replay_from == 203
    life.see([3])
    assert len(life.commit(80.0)) >= len(leaves)  # a round in which it was not
    life.see([3])
    assert 0 < len(life.commit(80.0)) < len(leaves)


def test_a_replay_from_several_offsets_is_let_over_the_bound() -> None:
    """Streams that were gone when others came are there beside them."""
    life = Life(max_streams_per_partition=30, interval=8.0)
    most = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        life.topic, life.offset, life.now = SnapshotTopic(), 100, 0.0
        life.restart()
        life.see(range(30))
        life.commit()
        held, turnover = [*range(30)], []
        for new in range(100, 120):
            gone = held.pop(rng.integers(len(held)))
            held.append(new)
            turnover += [*life.events([gone], Reason.TOMBSTONE), *life.events([new])]
        life.forecaster.forecast(make_batch([(0, turnover)], 2))
        before = life.names()
        assert before == {b"s%d" % stream for stream in held}
        life.commit(9.0)
        assert life.restart().problems == []
        for event in turnover:
            life.checkpoint.replay(make_batch([(0, [event])], 2))
            most = max(most, life.forecaster.n_streams)
        assert life.names() == before
        life.see([77])
        assert b"s77" not in life.names()
    assert most > 30


def test_before_the_log_drops_what_a_restart_would_replay_the_leaves_are_written() -> None:
    """However long a round takes. A log that has lost nothing yet says nothing."""
    life = lived(60, interval=1e6)
    written_at = life.offset
    leaves = len(life.topic.chunks())
    assert leaves > 16
    life.checkpoint.log_begins(0, 100)
    life.see([7] * 300)
    assert life.commit(1.0) == []
    life.checkpoint.log_begins(0, 101)  # from here on the log is known to be cut; its older half ends at 280
    assert life.checkpoint.due(0, life.now, life.offset)
    batches = []
    while records := life.commit():
        batches.append(len(records))
    assert sum(batches) == leaves
    assert max(batches) <= 8, "a transaction doesn't hold the whole state"
    tags = {chunk.header.offset for chunk in life.topic.chunks().values()}
    assert tags == {life.offset}
    assert written_at not in tags
    life.see([7] * 100)
    assert life.commit(1.0) == [], "the leaves are of the newer half"
    life.checkpoint.log_begins(0, 457)
    assert len(life.commit(1.0)) == 8


def test_a_short_log_at_its_bound_is_written_whole() -> None:
    life = lived(8, per_chunk=2, interval=1e6, max_streams_per_partition=8)
    life.see(range(100, 110))
    leaves = len(life.commit(1.0))
    life.checkpoint.log_begins(0, 100)
    life.see([1] * 300)
    life.checkpoint.log_begins(0, 250)
    assert len(life.commit(1.0)) == leaves > 1
