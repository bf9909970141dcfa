"""The slot table against a dict."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlstm.errors import ConfigError, InvariantError
from streamlstm.events.batch import PADDING, Reason
from streamlstm.kernels import hash_table
from streamlstm.state.slots import SlotTable, stable_hashes


class Keys:
    """Columns as EventBatch has them, for a list of keys."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        lengths = [len(key) for key in keys]
        self.payload = np.frombuffer(bytearray(b"\xff" + b"".join(keys) + b"\xff" * PADDING), np.uint8)
        self.at = np.cumsum([1, *lengths])[:-1].astype(np.int64)
        self.length = np.array(lengths, np.int64)
        self.reason = np.zeros(len(keys), np.uint8)
        self.slot = np.full(len(keys), -7, np.int64)

    def assign(self, table: SlotTable, partition: int = 0, start: int = 0, stop: int | None = None) -> int:
        """How many streams are new."""
        before = table.n_streams
        self.walk(table, partition, start, stop)
        return table.n_streams - before

    def walk(
        self, table: SlotTable, partition: int = 0, start: int = 0, stop: int | None = None, *,
        cap: int | None = None, full_stops: bool = False,
    ) -> int:  # fmt: skip
        """Where the table stopped."""
        stop = len(self.slot) if stop is None else stop
        return table.assign(
            self.payload, partition, start, stop, self.at, self.length, self.reason, self.slot,
            cap=cap, full_stops=full_stops,
        )  # fmt: skip


class Model:
    """What the table promises, said with a dict and a list."""

    def __init__(self, max_streams: int, max_key_bytes: int) -> None:
        self.slots: dict[tuple[int, bytes], int] = {}
        self.free: list[int] = []
        self.unused = [*range(max_streams)]
        self.max_key_bytes = max_key_bytes

    def assign(self, partition: int, key: bytes, cap: int = 99) -> tuple[int, Reason]:
        if len(key) > self.max_key_bytes:
            return -1, Reason.KEY_TOO_LONG
        known = (partition, key)
        if known not in self.slots:
            if len(self.of(partition)) >= cap or not (self.free or self.unused):
                return -1, Reason.CAPACITY
            self.slots[known] = self.free.pop() if self.free else self.unused.pop(0)
        return self.slots[known], Reason.OK

    def of(self, partition: int) -> list[int]:
        return sorted(slot for (owner, _), slot in self.slots.items() if owner == partition)

    def release(self, slots: Sequence[int]) -> None:
        self.slots = {known: slot for known, slot in self.slots.items() if slot not in slots}
        self.free += reversed(slots)


def sip_hash(key: bytes) -> int:
    """SipHash-2-4 as the paper says it (Aumasson and Bernstein 2012, section 2), the key 00, 01, ... 0f."""
    mask = (1 << 64) - 1
    v = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]
    k = [int.from_bytes(bytes(range(8 * i, 8 * i + 8)), "little") for i in range(2)]
    v = [word ^ k[i % 2] for i, word in enumerate(v)]

    def turn(word: int, by: int) -> int:
        return (word << by | word >> (64 - by)) & mask

    def rounds(n: int) -> None:
        for _ in range(n):
            v[0] = (v[0] + v[1]) & mask
            v[2] = (v[2] + v[3]) & mask
            v[1], v[3] = turn(v[1], 13) ^ v[0], turn(v[3], 16) ^ v[2]
            v[0] = turn(v[0], 32)
            v[2] = (v[2] + v[1]) & mask
            v[0] = (v[0] + v[3]) & mask
            v[1], v[3] = turn(v[1], 17) ^ v[2], turn(v[3], 21) ^ v[0]
            v[2] = turn(v[2], 32)

    padded = key + bytes(-(len(key) + 1) % 8) + bytes([len(key) % 256])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


KEYS = st.one_of(
    st.binary(min_size=0, max_size=20),
    st.sampled_from([b"a", b"b", b"a\0", b"\0", b"\0\0", b"12345678", b"123456789", b"12345678\0", b"x" * 17]),
)
PARTITIONS = st.sampled_from([0, 1, 2, 40])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), PARTITIONS, st.lists(KEYS, max_size=30), st.integers(0, 14)),
        st.tuples(st.just("make_room"), PARTITIONS, st.lists(KEYS, max_size=30), st.integers(1, 14)),
        st.tuples(st.just("install"), PARTITIONS, st.lists(KEYS.filter(lambda key: len(key) < 18), unique=True)),
        st.tuples(st.just("release"), PARTITIONS),
        st.tuples(st.just("release_slots"), st.lists(st.integers(0, 12), max_size=5, unique=True)),
    ),
    max_size=25,
)


def step_both(table: SlotTable, model: Model, step: tuple) -> None:
    """Do the same to both and compare what they say."""
    if step[0] == "assign":
        _, partition, keys, cap = step
        expected = [model.assign(partition, key, cap) for key in keys]
        columns = Keys(keys)
        assert columns.walk(table, partition, cap=cap) == len(keys)
        assert [*zip(columns.slot.tolist(), columns.reason.tolist(), strict=True)] == expected
    elif step[0] == "make_room":  # forget the partition's stream of the lowest slot whenever there's no room for a row
        _, partition, keys, cap = step
        columns, row = Keys(keys), 0
        for i, key in enumerate(keys):
            expected_slot, reason = model.assign(partition, key, cap)
            if reason == Reason.CAPACITY:
                assert columns.walk(table, partition, row, cap=cap, full_stops=True) == i
                assert columns.reason[i] == 0
                row, gone = i, model.of(partition)[:1]
                assert table.release_slots(np.array(gone, np.int64)) == len(gone)
                model.release(gone)
                expected_slot, reason = model.assign(partition, key, cap)
            if reason == Reason.CAPACITY:  # others fill the table
                row = i + 1
                continue
            assert columns.walk(table, partition, row, i + 1, cap=cap, full_stops=True) == i + 1
            assert (columns.slot[i], columns.reason[i]) == (expected_slot, reason)
    elif step[0] == "install":
        _, partition, keys = step
        keys = [key for key in keys if (partition, key) not in model.slots]
        lengths, text = np.array([len(key) for key in keys], np.uint16), np.frombuffer(b"".join(keys), np.uint8)
        if len(keys) > table.max_streams - table.n_streams:
            with pytest.raises(
                ConfigError, match=r"state.max_streams is \d+: \d+ more streams are needed, \d+ are free"
            ):
                table.install(partition, lengths, text)
        else:
            assert table.install(partition, lengths, text).tolist() == [model.assign(partition, key)[0] for key in keys]
    elif step[0] == "release":
        held = model.of(step[1])
        assert table.release(step[1]).tolist() == held
        model.release(held)
    else:
        wanted = [slot for slot in step[1] if slot < table.max_streams]
        held = [slot for slot in wanted if slot in model.slots.values()]
        assert table.release_slots(np.array(wanted, np.int64)) == len(held)
        model.release(held)


@settings(max_examples=300)
@given(
    steps=STEPS, max_streams=st.integers(1, 13), seed=st.integers(0, 2**64 - 1),
    cuts=st.sets(st.integers(0, 2**64 - 1), max_size=4),
)  # fmt: skip
def test_any_history_gives_what_a_dict_gives(steps: list[tuple], max_streams: int, seed: int, cuts: set[int]) -> None:
    table, model = SlotTable(max_streams, 17, seed), Model(max_streams, 17)
    for step in steps:
        step_both(table, model, step)
        assert table.n_streams == len(model.slots)
        for (partition, key), slot in model.slots.items():
            assert table.key_of(slot) == (partition, key)
            assert table.hashes_of(np.array([slot])) == [sip_hash(key)]
    bounds = [0, *sorted(cuts), 2**64]
    ranges = [(first, after - 1) for first, after in pairwise(bounds) if first < after][::2]
    for partition in (0, 1, 2, 40, 1000):
        assert table.streams_of(partition) == len(model.of(partition))
        assert table.slots_of(partition).tolist() == model.of(partition)
        keys = {slot: key for (owner, key), slot in model.slots.items() if owner == partition}
        under = [sorted(s for s, key in keys.items() if first <= sip_hash(key) <= last) for first, last in ranges]
        assert [slots.tolist() for slots in table.slots_under(partition, ranges)] == under
        slots = table.slots_of(partition)[::-1]
        lengths, text = table.keys_of(slots)
        assert lengths.tolist() == [len(keys[slot]) for slot in slots.tolist()]
        assert text.tobytes() == b"".join(keys[slot] for slot in slots.tolist())


def test_the_stable_hash_is_that_of_the_paper_for_ever() -> None:
    """Vectors of the authors' reference implementation (vectors_sip64), messages 00, 01, 02, ... of these lengths."""
    known = {0: "310e0edd47db6f72", 1: "fd67dc93c539f874", 15: "e545be4961ca29a1"}
    for length, expected in known.items():
        key = bytes(range(length))
        found = int(stable_hashes(np.array([length]), np.frombuffer(key, np.uint8))[0])
        assert found == sip_hash(key)
        assert found.to_bytes(8, "little").hex().startswith(expected)
    keys = [b"\xff" * length for length in range(300)]
    lengths = np.array([len(key) for key in keys])
    found = stable_hashes(lengths, np.frombuffer(b"".join(keys), np.uint8))
    assert found.tolist() == [sip_hash(key) for key in keys]


def test_a_stream_installed_twice_is_a_bug() -> None:
    table = SlotTable(4, seed=1)
    with pytest.raises(InvariantError, match="2 streams to install; 1"):
        table.install(0, np.array([1, 1]), np.frombuffer(b"aa", np.uint8))


def test_a_key_that_is_too_long_is_not_installed() -> None:
    with pytest.raises(ConfigError, match=r"state\.max_key_bytes is 4: a stored stream has a key of 5 bytes"):
        SlotTable(4, 4).install(0, np.array([1, 5]), np.frombuffer(b"abcdef", np.uint8))


def test_rows_with_a_reason_get_no_slot_and_make_no_stream() -> None:
    table = SlotTable(4, seed=1)
    columns = Keys([b"a", b"b", b"a"])
    columns.reason[1] = Reason.NOT_JSON
    assert columns.assign(table) == 1
    assert columns.slot.tolist() == [0, -1, 0]
    assert columns.reason.tolist() == [0, Reason.NOT_JSON, 0]


def test_only_the_rows_asked_for_are_touched() -> None:
    table = SlotTable(4, seed=1)
    columns = Keys([b"a", b"b", b"c", b"d"])
    columns.assign(table, start=1, stop=3)
    assert columns.slot.tolist() == [-7, 0, 1, -7]


def test_the_same_key_on_two_partitions_is_two_streams() -> None:
    table = SlotTable(4, seed=1)
    first, second = Keys([b"pump"]), Keys([b"pump"])
    first.assign(table, partition=0)
    second.assign(table, partition=1)
    assert (first.slot[0], second.slot[0]) == (0, 1)
    assert table.release(0).tolist() == [0]
    assert table.key_of(1) == (1, b"pump")


def test_a_full_table_refuses_new_streams_and_serves_the_known_ones() -> None:
    table = SlotTable(2, seed=1)
    columns = Keys([b"a", b"b", b"c", b"a", b"d", b"b"])
    assert columns.assign(table) == 2
    assert columns.slot.tolist() == [0, 1, -1, 0, -1, 1]
    assert columns.reason.tolist() == [0, 0, Reason.CAPACITY, 0, Reason.CAPACITY, 0]


@pytest.mark.parametrize("batches", [1, 3, 10])
def test_admission_follows_the_order_of_events_and_not_batches_or_seeds(batches: int) -> None:
    rng = np.random.default_rng(5)
    keys = [b"s%d" % k for k in rng.integers(0, 900, 3000)]
    whole = Keys(keys)
    whole.assign(SlotTable(500, seed=1))
    parted = Keys(keys)
    table = SlotTable(500, seed=2)
    for start, stop in zip(range(0, 3000, 3000 // batches), range(3000 // batches, 3001, 3000 // batches), strict=True):
        parted.assign(table, start=start, stop=stop)
    np.testing.assert_array_equal(parted.slot, whole.slot)
    np.testing.assert_array_equal(parted.reason, whole.reason)


def with_colliding_hashes(n_keys: int, seed: int, max_streams: int) -> list[bytes]:
    """Keys whose home buckets lie in the last two of the table, so that every chain runs across its end."""
    table = SlotTable(max_streams, seed=seed)
    buckets = len(table._buckets)
    found: list[bytes] = []
    k = 0
    while len(found) < n_keys:
        key = b"key-%d" % k
        k += 1
        Keys([key]).assign(table)
        home = int(np.flatnonzero(table._buckets)[0])
        table.release(0)
        if home >= buckets - 2:
            found.append(key)
    return found


def test_chains_survive_deletion_in_any_order() -> None:
    seed, max_streams = 11, 64
    keys = with_colliding_hashes(24, seed, max_streams)
    rng = np.random.default_rng(0)
    for _ in range(50):
        table = SlotTable(max_streams, seed=seed)
        Keys(keys).assign(table)
        gone = rng.permutation(24)[: rng.integers(1, 24)]
        assert table.release_slots(gone) == len(gone)
        kept = [key for k, key in enumerate(keys) if k not in gone]
        columns = Keys(kept)
        assert columns.assign(table) == 0
        assert [table.key_of(int(slot))[1] for slot in columns.slot] == kept
        assert np.count_nonzero(table._buckets) == len(kept)


def test_keys_with_the_same_hash_are_told_apart() -> None:
    """A multiplier of 1 and a seed of 0 make a hash that anybody can collide: here, by swapping two words."""
    table = SlotTable(8)
    table._seed, table._multiplier = np.uint64(0), np.uint64(1)
    keys = [a + b for a in (b"AAAAAAAA", b"BBBBBBBB") for b in (b"AAAAAAAA", b"BBBBBBBB")]
    columns = Keys(keys)
    columns.assign(table)
    assert columns.slot.tolist() == [0, 1, 2, 3]
    tags = table._buckets[table._buckets != 0] >> np.uint64(32)
    assert len(set(tags.tolist())) < 4
    again = Keys(keys)
    assert again.assign(table) == 0
    np.testing.assert_array_equal(again.slot, columns.slot)


def spread(table: SlotTable) -> float:
    """Mean probes for a key that is there."""
    buckets = table._buckets
    mask = len(buckets) - 1
    places = np.flatnonzero(buckets)
    homes = buckets[places] >> np.uint64(64 - mask.bit_length())
    return float(((places - homes.astype(np.int64)) & mask).mean()) + 1


@pytest.mark.parametrize("shape", [b"%d", b"host-%08d/cpu", b"%08d-0000-4000-8000-0123456789ab"])
def test_chains_stay_short(shape: bytes) -> None:
    n = 100_000
    table = SlotTable(n, seed=3)
    Keys([shape % k for k in range(n)]).assign(table)
    assert spread(table) < 1.5  # linear probing at load a: (1 + 1 / (1 - a)) / 2


def test_a_million_keys() -> None:
    n = 1_000_000
    keys = Keys([b"stream-%d" % k for k in range(n)])
    table = SlotTable(n)
    assert keys.assign(table) == n
    np.testing.assert_array_equal(keys.slot, np.arange(n))
    assert keys.assign(table) == 0
    np.testing.assert_array_equal(keys.slot, np.arange(n))
    assert len(table.release(0)) == n
    assert not table._buckets.any()
    assert not table._cells.any()


def test_releasing_an_unknown_partition_or_a_free_slot_does_nothing() -> None:
    table = SlotTable(4, seed=1)
    Keys([b"a"]).assign(table)
    assert table.release(3).tolist() == []
    assert table.release_slots(np.array([1, 2], np.int64)) == 0
    assert table.release_slots(np.array([0, 0], np.int64)) == 1
    assert table.n_streams == 0


def test_what_cannot_be_is_refused() -> None:
    table = SlotTable(4, seed=1)
    with pytest.raises(InvariantError, match=r"slots 4\.\.4"):
        table.release_slots(np.array([4], np.int64))
    with pytest.raises(InvariantError, match="slot 0 holds no stream"):
        table.key_of(0)
    with pytest.raises(InvariantError, match="max_streams=0"):
        SlotTable(0)


@pytest.mark.parametrize(("max_streams", "max_key_bytes"), [(1, 1), (1000, 64), (1024, 65), (1025, 8)])
def test_memory_is_said_beforehand(max_streams: int, max_key_bytes: int) -> None:
    table = SlotTable(max_streams, max_key_bytes)
    arrays: list[NDArray] = [table._buckets, table._cells, table._owner, table._stable, table._free]
    assert SlotTable.memory_bytes(max_streams, max_key_bytes) == sum(array.nbytes for array in arrays)
    assert 2 * len(table._buckets) >= 3 * max_streams


def test_the_kernel_knows_the_reasons_by_number() -> None:
    assert hash_table.KEY_TOO_LONG == Reason.KEY_TOO_LONG
    assert hash_table.CAPACITY == Reason.CAPACITY
