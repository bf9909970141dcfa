"""Bookkeeping and scaling of a stream against a plain Python model of the same sentences."""

import math

import numpy as np
import pytest

from streamlstm.events.batch import Reason
from streamlstm.kernels import observe

HEADER_AT = 3
WORDS = 16


def test_reason_is_the_wire_format() -> None:
    assert observe.OUT_OF_RANGE == Reason.OUT_OF_RANGE


def columns(n: int) -> dict[str, np.ndarray]:
    return {name: np.zeros(n, np.int64) for name in ("n_seen", "gap")}


def test_counts_and_gaps_follow_the_stream() -> None:
    rows = np.zeros((4, WORDS), np.int64)
    slot = np.array([1, 2, 1, -1, 1, 1], np.int64)
    time = np.array([100, 50, 160, 7, 130, 200], np.int64)
    c = columns(6)
    observe.observe(6, slot, time, 0, rows, HEADER_AT, c["n_seen"], c["gap"])
    assert c["n_seen"].tolist() == [1, 1, 2, 0, 3, 4]
    assert c["gap"].tolist() == [-1, -1, 60, 0, -1, 40]  # 130 came late: no step forward; 200 counts from 160
    assert rows[1, HEADER_AT : HEADER_AT + 2].tolist() == [4, 200]
    assert rows[0].tolist() == rows[3].tolist() == [0] * WORDS


def test_a_known_interval_wins() -> None:
    rows, c = np.zeros((1, WORDS), np.int64), columns(2)
    observe.observe(2, np.zeros(2, np.int64), np.array([5, 9], np.int64), 60_000, rows, 0, c["n_seen"], c["gap"])
    assert c["gap"].tolist() == [60_000, 60_000]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308, 1e39])
def test_normalise_refuses_what_could_overflow(bad: float) -> None:
    x = np.array([[1.0, 2.0], [1.0, bad], [3.0, 4.0]])
    reason = np.zeros(3, np.uint8)
    scaled, base, scale = np.zeros((3, 2), np.float32), np.zeros(3), np.zeros(3)
    offset, unit = np.array([1.0, 2.0]), np.array([2.0, 4.0])
    observe.normalise(3, x, offset, unit, 1e30, 0, False, reason, scaled, base, scale)
    assert reason.tolist() == [0, Reason.OUT_OF_RANGE, 0]
    assert scaled[0].tolist() == [0.0, 0.0]
    assert scaled[2].tolist() == [1.0, 0.5]
    assert base[2] == 1.0
    assert scale[2] == 2.0


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
    arena = np.zeros((2, WORDS), np.int64)
    slot, time, c = np.ones(n, np.int64), np.arange(n, dtype=np.int64), columns(n)
    observe.observe(n, slot, time, 0, arena, HEADER_AT, c["n_seen"], c["gap"])
    scaled, base, scale = np.zeros((n, 1), np.float32), np.zeros(n), np.zeros(n)
    observe.scale_running(
        n, slot, c["n_seen"], values[:, None], arena.view(np.float64), HEADER_AT + 2, window, 0,
        False, scaled, base, scale,
    )  # fmt: skip
    for i, (mean, var) in enumerate(plain_running(values.tolist(), window)):
        moved = math.sqrt(var) > 1e-9 * max(1.0, abs(mean))
        assert base[i] == mean
        assert scale[i] == (math.sqrt(var) if moved else 1.0)
        assert scaled[i, 0] == np.float32((values[i] - mean) / math.sqrt(var) if moved else 0.0)
        assert abs(scaled[i, 0]) <= math.sqrt(window)
    if window >= n:
        assert base[-1] == pytest.approx(values.mean())
        assert scale[-1] == pytest.approx(values.std())


def test_running_scaling_survives_the_largest_value_it_admits() -> None:
    values = np.array([[observe.RUNNING_LIMIT], [-observe.RUNNING_LIMIT], [1.0], [observe.RUNNING_LIMIT]])
    reason = np.zeros(4, np.uint8)
    observe.check_running_range(4, values, reason)
    assert not reason.any()
    arena, c = np.zeros((1, WORDS), np.int64), columns(4)
    slot = np.zeros(4, np.int64)
    observe.observe(4, slot, slot, 0, arena, 0, c["n_seen"], c["gap"])
    scaled, base, scale = np.zeros((4, 1), np.float32), np.zeros(4), np.zeros(4)
    observe.scale_running(4, slot, c["n_seen"], values, arena.view(np.float64), 2, 1000, 0, True, scaled, base, scale)
    assert np.isfinite(scaled).all()
    assert np.isfinite(scale).all()
    over = np.array([[np.nextafter(observe.RUNNING_LIMIT, np.inf)], [np.nan]])
    observe.check_running_range(2, over, reason)
    assert reason[:2].tolist() == [Reason.OUT_OF_RANGE] * 2
