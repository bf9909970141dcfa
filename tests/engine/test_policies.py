"""The policies of the state machine against a plain model of their rules; batches, threads, restores change nothing."""

import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.forecast import Status
from streamlstm.kernels.observe import NO_TIME
from streamlstm.state.leaves import FOREVER
from tests.engine.expected import INPUTS, SCALINGS, make_model
from tests.engine.policy_model import Answer, PolicyModel, Record

WARMUP, TOPIC, BASE = 3, "events", 1_730_000_000_000
MODELS = {
    (scaling, window): make_model(SCALINGS[scaling], window=window)
    for scaling in ("none", "standard", "running")
    for window in (0, 4)
}
EXECUTOR = ThreadPoolExecutor(1)


def batch_of(records: Sequence[Record]) -> EventBatch:
    """The columns of all records, no row part of the batch yet: `include` makes them so."""
    batch = EventBatch(INPUTS, np.zeros(0, np.uint8), max(1, len(records)))
    for row, record in enumerate(records):
        batch.stream_at[row], batch.stream_len[row] = batch.append_payload(record.key), len(record.key)
        batch.event_time[row], batch.timestamp[row] = record.time, record.timestamp
        batch.x[row] = record.x or math.nan
        batch.reason[row] = Reason.TOMBSTONE if record.x is None else record.refused
    return batch


def include(batch: EventBatch, records: Sequence[Record], stop: int) -> None:
    for row in range(batch.n, stop):
        batch.extend_run(TOPIC, records[row].partition, row + 1)


class Run:
    """A forecaster fed with records, and the answers it gave."""

    def __init__(self, model: Any, settings: ForecasterSettings) -> None:
        self.forecaster = Forecaster(model, settings, EXECUTOR if settings.threads > 1 else None)
        self.answers: list[Answer] = []

    def feed(self, records: Sequence[Record], calls: Sequence[int] = ()) -> None:
        """One batch, forecast in as many calls as there are numbers: calls end before those rows."""
        batch = batch_of(records)
        start = 0
        for stop in (*calls, len(records)):
            include(batch, records, stop)
            found = self.forecaster.forecast(batch, start)
            start = stop
        for row in range(len(records)):
            reason = Reason(batch.reason[row])
            self.answers.append(
                Answer(reason)
                if reason is not Reason.OK
                else Answer(
                    reason, Status(found.status[row]), int(found.n_seen[row]), int(found.gap_ms[row]),
                    tuple(found.yhat[row].tolist()),
                )
            )  # fmt: skip

    def moved(self, seed: int, **changes: Any) -> "Run":
        """Another forecaster with the same rows and watermarks, nothing else, and the streams in another order."""
        old = self.forecaster
        run = Run(old.model, replace(old.settings, **changes))
        for partition in range(2):
            index, new = old.partition_index(TOPIC, partition), run.forecaster.partition_index(TOPIC, partition)
            slots = np.random.default_rng(seed).permutation(old.slots.slots_of(index))
            placed = run.forecaster.slots.install(new, *old.slots.keys_of(slots))
            run.forecaster.backend.write_rows(placed, old.backend.read_rows(slots))
            run.forecaster.set_watermark(new, old.watermark(index))
        return run


def settings_of(**given: Any) -> ForecasterSettings:
    return ForecasterSettings(max_streams=64, max_key_bytes=8, warmup_events=WARMUP, **given)


@st.composite
def policies(draw: st.DrawFn) -> ForecasterSettings:
    return settings_of(
        interval_ms=draw(st.sampled_from([0, 0, 7])),
        max_streams_per_partition=draw(st.sampled_from([None, 1, 2, 4])),
        on_full=draw(st.sampled_from(["refuse", "evict"])),
        ttl_ms=draw(st.sampled_from([None, 25, 100])),
        duplicate=draw(st.sampled_from(["process", "dead_letter"])),
        out_of_order=draw(st.sampled_from(["process", "dead_letter"])),
        max_ahead_ms=draw(st.sampled_from([None, 0, 20])),
        gap_ms=draw(st.sampled_from([None, 4, 15])),
        after_gap=draw(st.sampled_from(["continue", "reset"])),
        missing=draw(st.sampled_from(["dead_letter", "hold", "forecast"])),
    )


VALUES = st.one_of(
    st.tuples(st.integers(0, 20).map(float), st.integers(-5, 0).map(float)),
    st.sampled_from([(math.nan, -3.0), (10.0, math.nan), (math.nan, math.nan), (math.inf, -3.0), (1e200, 1.0), None]),
)
STEPS = st.sampled_from([-60, -3, -1, 0, 0, 1, 1, 2, 3, 5, 10, 30, 120])


Event = tuple[int, int, tuple[float, ...] | None, int, int, Reason]


def records_of(events: Sequence[Event]) -> list[Record]:
    """Of each event: key, step of time from the latest, inputs, how far ahead of its record, partition, reason."""
    now, records = BASE, []
    for key, step, x, ahead, partition, reason in events:
        time = now + step
        now = max(now, time)
        text = b"key-%d" % key if key != 6 else b"much too long"
        stamp = -1 if ahead == -1 else time - ahead
        records.append(Record(partition, text, time, stamp, x, Reason.OK if x is None else reason))
    return records


@st.composite
def odd_histories(draw: st.DrawFn) -> list[Record]:
    event = st.tuples(
        st.integers(0, draw(st.sampled_from([1, 3, 7]))), STEPS, VALUES, st.sampled_from([0, 0, 0, -1, 15, 30]),
        st.integers(0, 1), st.sampled_from([Reason.OK] * 9 + [Reason.NOT_JSON, Reason.REPLAYED]),
    )  # fmt: skip
    return records_of(draw(st.lists(event, min_size=1, max_size=60)))


@st.composite
def long_histories(draw: st.DrawFn) -> list[Record]:
    """Mostly good events of a few streams."""
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    keys, partitions, oddness = chance.choice([1, 3, 6]), chance.randint(1, 2), chance.choice([0.02, 0.1, 0.4])
    odd_values: list[tuple[float, ...] | None] = [
        (math.nan, -3.0), (10.0, math.nan), (math.nan, math.nan), (1e200, 1.0), None
    ]  # fmt: skip
    events: list[Event] = []
    for _ in range(chance.randint(20, 200)):
        x: tuple[float, ...] | None = (chance.gauss(10, 4), chance.gauss(-3, 0.5))
        if chance.random() < oddness:
            x = chance.choice(odd_values)
        step = (
            chance.choice([-60, -3, -1, 5, 10, 30, 120]) if chance.random() < oddness else chance.choice([0, 1, 1, 2])
        )
        ahead = chance.choice([-1, 15, 30]) if chance.random() < oddness / 2 else 0
        reason = chance.choice([Reason.NOT_JSON, Reason.REPLAYED]) if chance.random() < oddness / 4 else Reason.OK
        events.append((chance.randrange(keys), step, x, ahead, chance.randrange(partitions), reason))
    return records_of(events)


HISTORIES = st.one_of(odd_histories(), long_histories())


def assert_same(found: Sequence[Answer], wanted: Sequence[Answer]) -> None:
    for row, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert replace(one, yhat=()) == replace(other, yhat=()), (row, one, other)
        np.testing.assert_allclose(one.yhat, other.yhat, rtol=1e-3, atol=1e-3)


@given(policies(), HISTORIES, st.sampled_from(sorted(MODELS)))
@hypothesis_settings(max_examples=300)
def test_as_the_rules_say(settings: ForecasterSettings, records: list[Record], model: tuple[str, int]) -> None:
    run = Run(MODELS[model], settings)
    run.feed(records)
    plain = PolicyModel(MODELS[model], settings, WARMUP)
    assert_same(run.answers, [plain.answer(record) for record in records])
    for number, partition in plain.partitions.items():
        index = run.forecaster.partition_index(TOPIC, number)
        assert run.forecaster.watermark(index) == partition.watermark
        if settings.ttl_ms is None:
            assert run.forecaster.slots.streams_of(index) == len(partition.streams)


@given(
    policies(), st.sampled_from([64, 64, 1, 2, 5]), HISTORIES, st.sampled_from(sorted(MODELS)),
    st.randoms(use_true_random=False),
)  # fmt: skip
@hypothesis_settings(max_examples=300)
def test_batches_threads_and_restores_change_no_byte(
    settings: ForecasterSettings, slots: int, records: list[Record], model: tuple[str, int], chance: Any
) -> None:
    settings = replace(settings, max_streams=slots)
    whole, parted, single = (Run(MODELS[model], settings) for _ in range(3))
    whole.feed(records)
    for record in records:
        single.feed([record])
    answers: list[Answer] = []
    start = 0
    while start < len(records):
        stop = chance.randint(start + 1, len(records))
        calls = sorted(chance.randint(0, stop - start) for _ in range(chance.randint(0, 2)))
        parted.feed(records[start:stop], calls)
        start = stop
        if chance.random() < 0.5:
            answers += parted.answers
            parted = parted.moved(start, threads=chance.randint(1, 2))
    answers += parted.answers
    assert whole.answers == single.answers == answers


@pytest.mark.parametrize("on_full", ["refuse", "evict"])
@pytest.mark.parametrize("missing", ["dead_letter", "forecast"])
@pytest.mark.parametrize("ttl_ms", [None, 400])
def test_many_streams_over_the_bound_of_a_partition(on_full: Any, missing: Any, ttl_ms: int | None) -> None:
    """A bound of 130: two go at a time."""
    rng = np.random.default_rng(7)
    model = MODELS["standard", 0]
    given = ForecasterSettings(
        max_streams=400, max_streams_per_partition=130, on_full=on_full, ttl_ms=ttl_ms, missing=missing,
        warmup_events=WARMUP, gap_ms=300, after_gap="reset",
    )  # fmt: skip
    records = []
    for i in range(3000):
        key = int(rng.integers(0, 100) if rng.random() < 0.6 else rng.integers(0, 2000))
        x = (float(rng.integers(0, 20)), math.nan if rng.random() < 0.2 else float(rng.integers(-5, 0)))
        time = BASE + i // 2 - int(rng.integers(0, 30))
        records.append(Record(int(rng.integers(0, 2)), b"stream-%d" % key, time, time, x if i % 50 else None))
    run, parted = Run(model, given), Run(model, given)
    run.feed(records)
    for start in range(0, len(records), 170):
        parted.feed(records[start : start + 170], [60])
        if start % 340 == 0:
            run.answers, parted.answers, before = run.answers, [], parted.answers
            parted = parted.moved(start)
            parted.answers = before
    plain = PolicyModel(model, given, WARMUP)
    assert run.answers == parted.answers
    assert_same(run.answers, [plain.answer(record) for record in records])
    reasons = {answer.reason for answer in run.answers}
    assert (Reason.CAPACITY in reasons) == (on_full == "refuse")


def good(partition: int, key: int, time: int) -> Record:
    return Record(partition, b"key-%d" % key, BASE + time, BASE + time, (10.0, -3.0))


def outcomes(run: Run) -> list[Status | Reason]:
    return [answer.status if answer.reason is Reason.OK else answer.reason for answer in run.answers]


def test_streams_that_lost_their_state_say_so_while_they_warm_up() -> None:
    run = Run(MODELS["none", 0], settings_of(gap_ms=50))
    asked: list[int] = []

    def degraded(index: int, slots: np.ndarray) -> np.ndarray:
        asked.append(index)
        names = [run.forecaster.slots.key_of(slot)[1] for slot in slots.tolist()]
        return np.array([{b"key-1": FOREVER, b"key-2": BASE}.get(name, NO_TIME) for name in names])

    run.forecaster.degraded_until = degraded
    run.feed([good(0, 1, 0), good(0, 2, 1), good(1, 1, 100), good(0, 1, 101), good(0, 1, 102), good(1, 2, 103)])
    assert outcomes(run) == [Status.DEGRADED, Status.WARMUP, Status.DEGRADED, Status.GAP, Status.OK, Status.WARMUP]
    assert asked == [0, 1]


def test_when_all_slots_are_taken_a_partition_gives_of_its_own() -> None:
    given = ForecasterSettings(max_streams=3, on_full="evict", warmup_events=0)
    run = Run(MODELS["none", 0], given)
    run.feed([good(0, 1, 5), good(0, 2, 3), good(0, 3, 4), good(1, 1, 6), good(0, 4, 7)])
    assert outcomes(run) == [Status.OK] * 3 + [Reason.CAPACITY, Status.OK]
    held = {run.forecaster.slots.key_of(slot) for slot in range(3)}
    assert held == {(0, b"key-1"), (0, b"key-3"), (0, b"key-4")}


def test_what_has_not_expired_yet_makes_no_room() -> None:
    """The batch ends far behind the row that needs room, and the streams live on in between."""
    records = [good(0, 1, 0), good(0, 2, 900), good(0, 3, 950), good(0, 1, 990), good(0, 3, 2500)]
    given = ForecasterSettings(max_streams=2, ttl_ms=1000, warmup_events=0)
    runs = [Run(MODELS["none", 0], given) for _ in range(2)]
    runs[0].feed(records)
    for record in records:
        runs[1].feed([record])
    assert outcomes(runs[0]) == [Status.OK, Status.OK, Reason.CAPACITY, Status.OK, Status.OK]
    assert [answer.n_seen for answer in runs[0].answers] == [1, 1, 0, 2, 1]
    assert runs[0].answers == runs[1].answers


def test_expired_streams_of_another_partition_make_room() -> None:
    run = Run(MODELS["none", 0], ForecasterSettings(max_streams=2, ttl_ms=10, warmup_events=0))
    run.feed([good(0, 1, 0), good(0, 2, 8), good(1, 1, 9), good(0, 2, 12), good(1, 1, 13), good(1, 2, 14)])
    assert outcomes(run) == [Status.OK, Status.OK, Reason.CAPACITY, Status.OK, Status.OK, Reason.CAPACITY]
    assert [run.forecaster.slots.streams_of(index) for index in range(2)] == [1, 1]


def test_expired_streams_are_freed_in_passing() -> None:
    run = Run(MODELS["none", 0], settings_of(ttl_ms=10))
    run.feed([good(0, key, 0) for key in range(5)])
    run.feed([good(0, 1, 50), good(0, 1, 51)])
    assert run.forecaster.n_streams == 5
    run.feed([good(0, 1, 52), good(0, 1, 53), good(0, 1, 54)])
    assert run.forecaster.n_streams == 1
    assert run.answers[-1].n_seen == 5
