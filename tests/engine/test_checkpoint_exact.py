"""Whatever the events, batches, chunks and crashes: restored and replayed is as if nothing had been, bit for bit."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.events.batch import Reason
from tests.engine.expected import SCALINGS, make_featured, make_model
from tests.engine.snapshot_topic import (
    KEY_BYTES,
    PARTITIONS,
    Event,
    Member,
    SnapshotTopic,
    is_cover,
    keys_of,
)

MAX_STREAMS = 60

CASES: dict[str, dict] = {
    "carry": {"scaling": "standard"},
    "window": {"scaling": "minmax", "window": 5},
    "running": {"scaling": "running"},
    "rules": {
        "scaling": "running", "gap_ms": 3000, "after_gap": "reset", "out_of_order": "dead_letter",
        "duplicate": "dead_letter", "missing": "forecast", "max_ahead_ms": 10_000,
    },
    "hold": {"scaling": "none", "missing": "hold", "gap_ms": 500},
    "expiring": {"scaling": "standard", "ttl_ms": 4000},
    "capped": {"scaling": "standard", "max_streams_per_partition": 9},
    "near the bound": {"scaling": "standard", "max_streams_per_partition": 12},
    "evicting": {"scaling": "running", "max_streams_per_partition": 9, "on_full": "evict"},
    "lags": {"featured": {}, "gap_ms": 3000, "after_gap": "reset"},
    "judged": {"featured": {"guard": True, "level": 0.9}, "gap_ms": 3000, "missing": "forecast"},
    "judged and expiring": {"featured": {"level": 0.8}, "ttl_ms": 4000},
    "capped and expiring": {"scaling": "none", "max_streams_per_partition": 9, "ttl_ms": 2500},
}  # fmt: skip
FORGETS = {"expiring", "judged and expiring", "capped and expiring"}  # expired streams may be there or not


@cache
def forecasters(case: str) -> tuple[Forecaster, Forecaster]:
    given = dict(CASES[case])
    if "featured" in given:
        model = make_featured(**given.pop("featured"))
    else:
        model = make_model(SCALINGS[given.pop("scaling")], window=given.pop("window", 0))
    options = ForecasterSettings(max_streams=MAX_STREAMS, max_key_bytes=KEY_BYTES, **given)
    return Forecaster(model, options), Forecaster(model, options)


@dataclass
class World:
    """Two partitions' logs; what a member did and the topic kept."""

    rng: np.random.Generator
    logs: dict[int, list[Event]]
    topics: dict[int, SnapshotTopic]
    at: dict[int, int]

    @staticmethod
    def make(seed: int, streams: int, tombstones: float = 0.05) -> "World":
        rng = np.random.default_rng(seed)
        logs = {partition: make_log(rng, 200, streams, tombstones) for partition in PARTITIONS}
        return World(rng, logs, {partition: SnapshotTopic() for partition in PARTITIONS}, dict.fromkeys(PARTITIONS, 0))

    def offset(self, partition: int) -> int:
        """Of the next event; behind the last one there is a control record."""
        log, at = self.logs[partition], self.at[partition]
        return log[at].offset if at < len(log) else log[-1].offset + 2

    def some(self, largest: int) -> list[tuple[int, list[Event]]]:
        """The next events, in one or several runs."""
        parts = []
        for partition in self.rng.permutation([*PARTITIONS, *PARTITIONS]).tolist():
            size = int(self.rng.integers(0, largest + 1))
            events = self.logs[partition][self.at[partition] : self.at[partition] + size]
            self.at[partition] += len(events)
            if events:
                parts.append((partition, events))
        return parts

    def is_done(self) -> bool:
        return all(self.at[partition] == len(log) for partition, log in self.logs.items())


def make_log(rng: np.random.Generator, n: int, streams: int, tombstones: float) -> list[Event]:
    """Events of few streams: some late, some far ahead, some missing or absurd, some tombstones, some not readable."""
    offset, time = int(rng.integers(0, 5)), 1_730_000_000_000
    log = []
    active = np.arange(streams)
    for _ in range(n):
        offset += int(rng.choice([1, 1, 1, 2, 7]))
        time += int(rng.choice([0, 20, 50, 200]))
        if rng.random() < 0.01:
            time += 3500
        if rng.random() < 0.05:
            active = rng.permutation(streams)[: max(1, streams // 2)]
        key = b"s%d" % rng.choice(active)
        seen = time - int(rng.choice([0, 0, 0, 30, 1000])) + int(rng.choice([0, 0, 0, 0, 0, 100]))
        x = float(rng.choice([rng.normal(10, 4), rng.normal(10, 4), rng.normal(10, 4), 1e300, np.nan], p=PARTS))
        fates = [Reason.OK, Reason.TOMBSTONE, Reason.NOT_JSON]
        reason = Reason(int(rng.choice(fates, p=[0.97 - tombstones, tombstones, 0.03])))
        if reason != Reason.OK:
            x = np.nan
        elif rng.random() < 0.03:
            key = b"k" * 20
        log.append(Event(offset, key, seen, x, reason))
    return log


PARTS = [0.4, 0.3, 0.2, 0.03, 0.07]


def damaged(topic: SnapshotTopic, rng: np.random.Generator) -> SnapshotTopic:
    """With a bit flipped in the newest record of a leaf of which an older one is there too; else as it is."""
    before: dict[bytes, bytes] = {}
    candidates = {}
    for place, (key, value) in enumerate(topic.records):
        candidates.pop(key, None)
        if value is None:
            before.pop(key, None)
            continue
        if key in before:
            candidates[key] = place
        before[key] = value
    if not candidates:
        return topic
    place = rng.choice(sorted(candidates.values()))
    key, value = topic.records[place]
    assert value is not None
    broken = bytearray(value)
    broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
    return SnapshotTopic([*topic.records[:place], (key, bytes(broken)), *topic.records[place + 1 :]], topic.committed)


def crash_and_restore(world: World, member: Member) -> None:
    member.empty()
    for partition, topic in world.topics.items():
        if world.rng.random() < 0.5:
            topic.compact(int(world.rng.integers(0, len(topic.records) + 1)), bool(world.rng.random() < 0.5))
        log = world.logs[partition]
        seen = damaged(topic, world.rng) if not member.bounded and world.rng.random() < 0.3 else topic
        done = member.restore(partition, seen, 0, log[-1].offset + 2)
        assert done.problems == []
        assert done.older == (seen is not topic)
        if topic.committed is None:
            world.at[partition] = 0
            continue
        assert done.live_from == topic.committed
        replay = [event for event in log if done.replay_from <= event.offset < done.live_from]
        while replay:
            cut = int(world.rng.integers(1, len(replay) + 1))
            member.replay([(partition, replay[:cut])])
            replay = replay[cut:]
        world.at[partition] = sum(event.offset < done.live_from for event in log)


def check_cover(world: World, member: Member, partition: int) -> None:
    """What the topic holds covers every hash once, and its chunks are those of their leaves."""
    chunks = world.topics[partition].chunks()
    assert is_cover([*chunks])
    keys = [key for chunk in chunks.values() for key in keys_of(chunk)]
    assert len(set(keys)) == len(keys)
    oldest = member.checkpoint.oldest_tag(partition)
    assert oldest is not None
    assert oldest <= min(chunk.header.offset for chunk in chunks.values())  # it may have read a damaged one


def run(world: World, member: Member, largest: int) -> int:
    """Answer everything, crashing before or after commits; returns how often it crashed."""
    crashes = 0
    for partition in PARTITIONS:
        member.restore(partition, world.topics[partition], 0, world.offset(partition))
    while not world.is_done():
        member.now += float(world.rng.exponential(1.0))
        parts = world.some(largest)
        member.answer(parts)
        ends = {partition: world.offset(partition) for partition in PARTITIONS}
        records = {partition: member.checkpoint.take(partition, end, 5, member.now) for partition, end in ends.items()}
        if world.rng.random() < 0.9:  # the transaction commits
            for partition, end in ends.items():
                world.topics[partition].records += records[partition]
                world.topics[partition].committed = end
                check_cover(world, member, partition)
            if world.rng.random() < 0.85:
                continue
        crashes += 1
        crash_and_restore(world, member)
    return crashes


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32), streams=st.integers(1, 25), streams_per_chunk=st.integers(1, 6),
    interval=st.sampled_from([0.5, 5.0, 40.0]), largest=st.integers(1, 20),
)  # fmt: skip
def test_nothing_shows_of_any_crash(
    case: str, seed: int, streams: int, streams_per_chunk: int, interval: float, largest: int
) -> None:
    straight, crashing = forecasters(case)
    is_near = case == "near the bound"
    world = World.make(seed, min(streams, 13) if is_near else streams, 0.25 if is_near else 0.05)
    wanted = Member(straight, 100, 1e9)
    for partition, log in world.logs.items():
        wanted.answer([(partition, log)])
    found = Member(crashing, streams_per_chunk, interval)
    run(world, found, largest)
    assert found.answers == wanted.answers
    for partition in PARTITIONS:
        rows = wanted.rows(partition)
        if case in FORGETS:
            both = rows.keys() & found.rows(partition).keys()
            assert {key: rows[key] for key in both} == {key: found.rows(partition)[key] for key in both}
        else:
            assert found.rows(partition) == rows


def test_the_worlds_are_worth_something() -> None:
    """There are crashes, splits, and chunks of several ages."""
    crashes = splits = ages = 0
    for seed in range(20):
        world = World.make(seed, 25)
        crashes += run(world, Member(forecasters("running")[0], 3, 5.0), 12)
        for topic in world.topics.values():
            splits += len(topic.chunks()) - 1
            ages += len({chunk.header.offset for chunk in topic.chunks().values()})
    assert crashes > 40
    assert splits > 200
    assert ages > 120
