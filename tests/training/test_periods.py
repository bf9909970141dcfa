"""Seasons are found where they are, and not where they aren't."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlstm.training.past import Past, past_of
from streamlstm.training.periods import Periods, find_periods

Floats = NDArray[np.float64]
RANDOM = np.random.default_rng(5)


def past(*streams: Floats) -> Past:
    start = np.cumsum([0, *map(len, streams)])
    x = np.concatenate(streams)
    return past_of(x, np.empty((len(x), 0), np.float32), start)


def found(*streams: Floats) -> Periods:
    own = past(*streams)
    return find_periods(own, own.start[1:])


def wave(rows: int, period: int, noise: float = 0.0, shift: float = 0.0) -> Floats:
    t = np.arange(rows)
    return 5 * np.sin(2 * np.pi * (t + shift) / period) + noise * RANDOM.normal(size=rows)


@pytest.mark.parametrize("period", [4, 7, 12, 24, 48, 288])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_wave(period: int, noise: float) -> None:
    assert abs(found(wave(12 * period, period, noise * min(1.0, 20 / period))).short - period) <= period // 40


def test_noise_on_a_slow_wave_is_no_short_season() -> None:
    assert found(*(wave(900, 24, 1.0, s) for s in range(5))).short == 24


def test_a_season_under_a_random_walk() -> None:
    assert found(wave(2000, 24) + np.cumsum(RANDOM.normal(size=2000))).short == 24


def test_days_of_a_week() -> None:
    day = np.tile(np.where(np.arange(7) < 5, 1.0, 0.5), 12).repeat(24)
    periods = found(day * (10 + wave(len(day), 24)) + 0.1 * RANDOM.normal(size=len(day)))
    assert (periods.short, periods.long) == (24, 168)
    assert periods.long_strength > 0.5


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(500),
        np.cumsum(RANDOM.normal(size=3000)),
        RANDOM.normal(size=3000),
        np.arange(500.0),
        np.arange(500.0) ** 2,
        np.array([1.0, 2.0]),
        np.array([1.0]),
        np.repeat([0.0, 1e30, -1e30], 20),
    ],
    ids=["zeros", "walk", "noise", "ramp", "parabola", "two", "one", "steps"],
)
def test_none(x: Floats) -> None:
    assert found(x) == Periods()


def test_outliers_do_not_decide() -> None:
    x = wave(1000, 24, 0.5)
    x[[100, 133, 450]] = 1e9
    assert found(x).short == 24


def test_streams_of_all_lengths_together() -> None:
    assert found(wave(50, 24), np.zeros(3), wave(400, 24, shift=5), wave(1000, 24, 1.0)).short == 24


def test_a_lag_gains_nothing_by_streams_too_short_for_it() -> None:
    """At lags from 320 on only the regular stream is known: there its correlation alone would be twice the mean."""
    assert found(wave(1100, 24, 0.5), np.cumsum(RANDOM.normal(size=960))).short == 24


def test_nothing_behind_the_stop_is_read() -> None:
    x = wave(1000, 24)
    own, other = past(x), past(np.where(np.arange(1000) < 600, x, 0.0))
    stop = np.array([600])
    assert find_periods(own, stop) == find_periods(other, stop)
