"""Bookkeeping and scaling of a stream, by cases and against a plain Python model of the same sentences."""

import math

import numpy as np
import pytest

from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status
from streamlstm.kernels import observe

HEADER_AT, WORDS = 3, 16
YHAT_AT, X_AT, MOMENTS_AT = HEADER_AT + 2, HEADER_AT + 4, HEADER_AT + 5  # O = 2, I = 1
TIMES = [100, 50, 160, 7, 130, 200]
STREAMS = [1, 2, 1, -1, 1, 1]


def test_codes_are_the_wire_format() -> None:
    for name in (
        "NULL_VALUE",
        "OUT_OF_RANGE",
        "KEY_TOO_LONG",
        "REPLAYED",
        "DUPLICATE",
        "OUT_OF_ORDER",
        "TOO_FAR_AHEAD",
    ):
        assert getattr(observe, name) == Reason[name]
    for name in ("OK", "WARMUP", "GAP", "LATE", "FILLED"):
        assert getattr(observe, name) == Status[name]


class Seen:
    """One call of `observe` over an arena of four rows."""

    def __init__(self, streams: list[int], times: list[int], x: list[float] | None = None, **rules: int) -> None:
        n = len(streams)
        self.arena = np.zeros((4, WORDS), np.int64)
        self.rules = np.zeros(observe.RULES, np.int64)
        self.rules[[observe.GAP_MS, observe.TTL_MS, observe.MOST_EVENTS]] = observe.NEVER
        for name, value in rules.items():
            self.rules[getattr(observe, name.upper())] = value
        self.slot, self.times = np.array(streams, np.int64), np.array(times, np.int64)
        self.x = np.zeros((n, 1)) if x is None else np.array(x)[:, None]
        self.watermarks, self.owner = np.maximum.accumulate(self.times), np.zeros(n, np.int64)
        self.oldest, self.touched = np.array([observe.NEVER]), np.zeros(4, np.uint8)
        self.hollow, self.reason, self.status = np.zeros(n + 1, np.int64), np.zeros(n, np.uint8), np.zeros(n, np.uint8)
        self.n_seen, self.gap = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.done = 0
        self.go_on()

    def go_on(self) -> None:
        rows = slice(self.done, None)
        self.done += observe.observe(
            len(self.slot) - self.done, self.rules, self.times[rows], self.watermarks[rows], self.owner[rows],
            np.zeros(1), np.ones(1), 1e30, self.arena, HEADER_AT, YHAT_AT, X_AT, self.oldest, self.touched, self.hollow,
            self.slot[rows], self.x[rows], self.reason[rows], self.n_seen[rows], self.gap[rows], self.status[rows],
        )  # fmt: skip
        assert not self.touched.any()


def test_counts_and_gaps_follow_the_stream() -> None:
    seen = Seen(STREAMS, TIMES, [1.5, 2.5, 3.5, 4.5, 5.5, 6.5], warmup_events=3)
    assert seen.done == 6
    assert seen.n_seen.tolist() == [1, 1, 2, 0, 3, 4]
    assert seen.gap.tolist() == [-1, -1, 60, 0, -1, 40]  # 130 came late: no step forward; 200 counts from 160
    assert seen.status.tolist() == [Status.WARMUP, Status.WARMUP, Status.WARMUP, 0, Status.LATE, Status.OK]
    assert seen.arena[1, HEADER_AT : HEADER_AT + 2].tolist() == [4, 200]
    assert seen.arena.view(np.float64)[[1, 2], X_AT].tolist() == [6.5, 2.5]
    assert not seen.arena[[0, 3]].any()


def test_a_known_interval_wins() -> None:
    assert Seen([0, 0], [5, 9], interval=60_000).gap.tolist() == [60_000, 60_000]


def test_out_of_order_and_duplicates_can_be_refused() -> None:
    seen = Seen([1, 1, 1, 1], [10, 10, 9, 11], refuses_duplicate=1)
    assert seen.reason.tolist() == [0, Reason.DUPLICATE, 0, 0]
    assert seen.n_seen.tolist() == [1, 0, 2, 3]
    seen = Seen([1, 1, 1, 1], [10, 10, 9, 11], refuses_out_of_order=1)
    assert seen.reason.tolist() == [0, 0, Reason.OUT_OF_ORDER, 0]
    assert seen.slot.tolist() == [1, 1, -1, 1]


def test_a_gap_has_no_time_step() -> None:
    seen = Seen([1, 1, 1], [10, 20, 31], gap_ms=10)
    assert seen.gap.tolist() == [-1, 10, -1]
    assert seen.status.tolist() == [0, 0, Status.GAP]
    assert seen.n_seen.tolist() == [1, 2, 3]


def test_a_reset_waits_for_earlier_events_of_the_stream_in_the_call() -> None:
    seen = Seen([1, 2, 1, 2], [10, 10, 50, 12], gap_ms=10, gap_resets=1)
    assert seen.done == 2
    seen.arena[1, 0] = 77  # state
    seen.go_on()
    assert seen.done == 4
    assert seen.n_seen.tolist() == [1, 1, 1, 2]
    assert seen.status.tolist() == [0, 0, Status.GAP, 0]
    assert seen.arena[1, 0] == 0


def test_an_expired_stream_begins_anew_by_the_watermark() -> None:
    seen = Seen([1, 2, 1, 2, 2], [10, 100, 60, 101, 30], ttl_ms=50)
    assert seen.done == 2  # the third event finds its stream 90 behind
    seen.go_on()
    assert seen.n_seen.tolist() == [1, 1, 1, 2, 3]
    assert seen.gap.tolist() == [-1, -1, -1, 1, -1]
    assert seen.status.tolist() == [0, 0, 0, 0, Status.LATE]
    assert seen.oldest.tolist() == [10]


def test_missing_inputs_are_held() -> None:
    nan = math.nan
    seen = Seen([1, 1, 1, 2, 3, 2], [1, 2, 3, 4, 5, 6], [nan, 7.0, nan, nan, nan, 8.0], fills=observe.FILLS_LAST)
    assert seen.done == 6
    assert seen.reason.tolist() == [Reason.NULL_VALUE, 0, 0, Reason.NULL_VALUE, Reason.NULL_VALUE, 0]
    assert seen.status.tolist() == [0, 0, Status.FILLED, 0, 0, 0]
    assert seen.x[[1, 2, 5], 0].tolist() == [7.0, 7.0, 8.0]
    assert seen.hollow[: 1 + seen.hollow[0]].tolist() == [3, 1, 2, 3]


def test_missing_inputs_become_the_streams_last_forecast() -> None:
    seen = Seen([1, 1, 1], [1, 2, 3], [5.0, math.nan, math.nan], fills=observe.FILLS_FORECAST)
    for yhat, done in ((6.0, 2), (1e31, 3)):
        assert seen.done == done - 1
        seen.arena.view(np.float64)[1, YHAT_AT : YHAT_AT + 2] = yhat, 99.0
        seen.go_on()
    assert seen.x[:2, 0].tolist() == [5.0, 6.0]
    assert seen.reason.tolist() == [0, 0, Reason.OUT_OF_RANGE]
    assert seen.arena.view(np.float64)[1, X_AT] == 6.0


@pytest.mark.parametrize("lets_missing", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308, 1e39])
def test_screen_refuses_what_could_overflow(bad: float, lets_missing: bool) -> None:
    x = np.array([[1.0, 2.0], [1.0, bad], [3.0, 4.0]])
    reason, times, watermarks = np.zeros(3, np.uint8), np.arange(3), np.zeros(3, np.int64)
    offset, unit = np.array([1.0, 2.0]), np.array([2.0, 4.0])
    observe.screen(3, times, times, times, x, offset, unit, 1e30, lets_missing, 9, 9, 0, reason, watermarks)
    refused = 0 if lets_missing and math.isnan(bad) else Reason.OUT_OF_RANGE
    assert reason.tolist() == [0, refused, 0]


def test_screen_judges_times_by_the_records_and_keeps_the_watermark() -> None:
    times, stamps = np.array([5, 20, 16, 14, 40, 7, 17]), np.array([5, 5, 5, 5, -1, 0, 7])
    length = np.array([1, 1, 1, 99, 1, 1, 1])
    reason = np.array([0, 0, 0, 0, 0, Reason.BAD_TIME, Reason.REPLAYED], np.uint8)
    watermarks = np.zeros(7, np.int64)
    unit = np.ones(1)
    after = observe.screen(
        7, times, stamps, length, np.zeros((7, 1)), unit, unit, 1e30, False, 9, 11, observe.NO_TIME, reason, watermarks
    )
    assert reason.tolist() == [0, Reason.TOO_FAR_AHEAD, 0, Reason.KEY_TOO_LONG, 0, Reason.BAD_TIME, Reason.REPLAYED]
    assert watermarks.tolist() == [5, 5, 16, 16, 40, 40, 40]
    assert after == 40


def test_fixed_scaling_and_the_way_back() -> None:
    x, slot = np.array([[1.0, 2.0], [7.0, 7.0], [3.0, 4.0]]), np.array([1, -1, 1])
    scaled, base, scale = np.zeros((3, 2), np.float32), np.zeros(3), np.zeros(3)
    offset, unit = np.array([1.0, 2.0]), np.array([2.0, 4.0])
    observe.scale_fixed(3, slot, x, offset, unit, 0, False, scaled, base, scale)
    assert scaled.tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 0.5]]
    assert base.tolist() == [1.0, 0.0, 1.0]
    assert scale.tolist() == [2.0, 0.0, 2.0]
    observe.scale_fixed(3, slot, x, offset, unit, 1, True, scaled, base, scale)
    assert base.tolist() == [2.0, 0.0, 4.0]
    arena, yhat = np.zeros((2, WORDS), np.int64), np.zeros((3, 2))
    y = np.array([[1.0, 2.0], [5.0, 5.0], [0.5, 0.25]], np.float32)
    observe.unscale(3, slot, y, base, scale, arena, YHAT_AT, yhat)
    assert yhat.tolist() == [[6.0, 10.0], [0.0, 0.0], [6.0, 5.0]]
    assert arena.view(np.float64)[1, YHAT_AT : YHAT_AT + 2].tolist() == [6.0, 5.0]
    assert not arena[0].any()


def plain_running(values: list[float], window: int) -> list[tuple[float, float]]:
    mean = var = 0.0
    found = []
    for n, x in enumerate(values, 1):
        alpha = 1.0 / min(n, window)
        d = x - mean
        mean += alpha * d
        var = (1.0 - alpha) * (var + alpha * d * d)
        found.append((mean, var))
    return found


@pytest.mark.parametrize("window", [1, 5, 1000])
def test_running_moments(window: int) -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([np.full(4, 7.0), rng.normal(100, 5, 60)])
    n = len(values)
    arena, slot, n_seen = np.zeros((2, WORDS)), np.ones(n, np.int64), np.arange(1, n + 1)
    scaled, base, scale = np.zeros((n, 1), np.float32), np.zeros(n), np.zeros(n)
    observe.scale_running(n, slot, n_seen, values[:, None], arena, MOMENTS_AT, window, 0, False, scaled, base, scale)
    for i, (mean, var) in enumerate(plain_running(values.tolist(), window)):
        moved = math.sqrt(var) > 1e-9 * abs(mean)
        assert base[i] == mean
        assert scale[i] == (math.sqrt(var) if moved else 0.0)
        assert scaled[i, 0] == np.float32((values[i] - mean) / math.sqrt(var) if moved else 0.0)
        assert abs(scaled[i, 0]) <= math.sqrt(window)
    if window >= n:
        assert base[-1] == pytest.approx(values.mean())
        assert scale[-1] == pytest.approx(values.std())


def test_running_scaling_survives_the_largest_value_it_admits() -> None:
    values = np.array([[observe.RUNNING_LIMIT], [-observe.RUNNING_LIMIT], [1.0], [observe.RUNNING_LIMIT]])
    arena, slot, n_seen = np.zeros((1, WORDS)), np.zeros(4, np.int64), np.arange(1, 5)
    scaled, base, scale = np.zeros((4, 1), np.float32), np.zeros(4), np.zeros(4)
    observe.scale_running(4, slot, n_seen, values, arena, 2, 1000, 0, True, scaled, base, scale)
    assert np.isfinite(scaled).all()
    assert np.isfinite(scale).all()
