"""The anomaly score against its sentences in NumPy, and by cases."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlstm.kernels.anomaly import (
    BOTH,
    COUNT,
    DOWN,
    MAX_SCORE,
    UP,
    WARMUP,
    WORDS,
    score_series,
)

Float64s = NDArray[np.float64]
NO = np.full(0, np.nan)


def scores(
    y: Float64s,
    yhat: Float64s = NO,
    seasonal: Float64s = NO,
    direction: int = BOTH,
    min_dev: float = 0.0,
    relative: float = 0.0,
    words: Float64s | None = None,
) -> Float64s:
    none = np.full(len(y), np.nan)
    out = np.empty(len(y))
    words = np.zeros(WORDS) if words is None else words
    score_series(
        y, yhat if len(yhat) else none, seasonal if len(seasonal) else none, direction, min_dev, relative, words, out
    )
    return out


def last_value(y: Float64s) -> Float64s:
    return np.append(np.nan, y[:-1])


def oracle(y: Float64s, yhat: Float64s, seasonal: Float64s) -> Float64s:
    """Both directions, no least deviation, known y: the module's sentences with arrays for the five deviations."""
    factor = np.array([1.5, 1.04, 1.04, 1.04, 1.4])
    record = np.zeros((2, 5))
    mean = short = long = y[1]
    season = alarm = 0.0
    result = np.full(len(y), np.nan)
    for n in range(2, len(y)):
        bound = 4.0 * record[:, 1].max() or np.inf
        step = np.clip(y[n] - mean, -bound, bound)
        residual = y[n] - yhat[n]
        young = 1.0 / n if n < 256 else 0.0
        level, taken = mean, mean + step
        short += max(1 / 16, young) * (taken - short)
        long += max(1 / 128, young) * (taken - long)
        mean += max(1 / 256, young) * (taken - mean)
        if not np.isnan(seasonal[n]):
            season += max(1 / 6, young) * (np.clip(y[n] - seasonal[n], -bound, bound) - season)
        deviation = np.array([residual, y[n] - level, short - level, long - level, season])
        bounded = np.array([np.clip(residual, -bound, bound), step, *deviation[2:]])
        known = np.array([not np.isnan(residual), True, True, True, not np.isnan(seasonal[n])])
        own = np.where(deviation > 0, record[0], record[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(deviation) / (factor * own)
        ratio[~known | (np.abs(deviation) <= 1e-9 * abs(level))] = 0.0
        for side, sign in enumerate((1, -1)):
            fresh = np.maximum(record[side] * (1 - 1 / 20_000), sign * bounded)
            record[side, known] = fresh[known]
        if n >= WARMUP:
            result[n] = min(ratio.max(), MAX_SCORE) / (1 + alarm)
            alarm = 1.0 if result[n] > 1 else alarm * (1 - 1 / 32)
    return result


def noise(n: int = 3000) -> Float64s:
    return 50.0 + np.random.default_rng(1).standard_normal(n)


@pytest.mark.parametrize("seed", range(4))
def test_the_sentences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = 1e3 * rng.standard_t(2, 1500) * rng.choice([0.01, 1.0], 1500) + np.where(np.arange(1500) > 900, 8e3, 0.0)
    seasonal = np.append(np.full(24, np.nan), y[:-24])
    got, expected = scores(y, last_value(y), seasonal), oracle(y, last_value(y), seasonal)
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert np.array_equal(np.isnan(got), np.arange(1500) < WARMUP)


def test_the_same_bits_in_pieces() -> None:
    y = noise()
    whole, words = scores(y, last_value(y)), np.zeros(WORDS)
    cuts = [0, 1, 2, 50, 99, 100, 101, 2000, 3000]
    parts = [scores(y[a:b], last_value(y)[a:b], words=words) for a, b in itertools.pairwise(cuts)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_free_of_scale_and_level() -> None:
    y = noise()
    assert scores(y * 2.0**40, last_value(y) * 2.0**40).tobytes() == scores(y, last_value(y)).tobytes()
    shifted = y + 2.0**14
    np.testing.assert_allclose(scores(shifted, last_value(shifted)), scores(y, last_value(y)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "laplace", "cauchy", "walk", "daily"])
def test_nothing_happens_and_little_is_reported(kind: str) -> None:
    rng, n = np.random.default_rng(9), 20_000
    y = {
        "normal": rng.standard_normal(n),
        "laplace": rng.laplace(size=n),
        "cauchy": rng.standard_cauchy(n),
        "walk": np.cumsum(rng.standard_normal(n)),
        "daily": np.abs(np.arange(n) % 288 - 144.0) + rng.standard_normal(n),
    }[kind]
    seasonal = np.append(np.full(288, np.nan), y[:-288])
    assert np.nansum(scores(y, last_value(y), seasonal)[2000:] > 1) <= 36  # two in a thousand


def test_a_spike_is_reported_once() -> None:
    y = noise()
    y[2000] += 15
    found = scores(y, last_value(y))
    assert found[2000] > 2
    assert not (found[1900:2000] > 1).any()
    assert (found[2000:2300] > 1).sum() <= 2  # and perhaps the way back, further than any before it


def test_a_change_of_level_is_reported_when_it_begins() -> None:
    y = noise()
    y[2000:] += 12
    found = scores(y, last_value(y))
    assert found[2000] > 1
    assert (found[2000:] > 1).sum() <= 15
    assert (found[2400:] > 1).sum() <= 1


def test_a_change_too_small_for_one_event_is_reported() -> None:
    y = noise()
    y[2000:] += 2.0
    found = scores(y, last_value(y))
    assert (found[2000:2100] > 1).any()


def test_unlike_one_season_ago() -> None:
    n, day = 6000, 144
    y = 10.0 * (np.arange(n) % day > day // 2) + 0.2 * np.random.default_rng(3).standard_normal(n)
    quiet_day = slice(30 * day + day // 2 + 1, 31 * day)
    y[quiet_day] -= 10.0
    seasonal = np.append(np.full(day, np.nan), y[:-day])
    assert (scores(y, y, seasonal)[quiet_day] > 1).any()
    assert not (scores(y, y)[quiet_day] > 1).any()  # low at noon: only the season tells


def test_directions() -> None:
    y = noise()
    y[2000] += 15
    y[2500] -= 15
    both, up, down = (scores(y, last_value(y), direction=side) for side in (BOTH, UP, DOWN))
    assert ((both > 1) == ((up > 1) | (down > 1)))[[2000, 2500]].all()
    assert (up > 1)[[2000, 2500]].tolist() == [True, False]
    assert (down > 1)[[2000, 2500]].tolist() == [False, True]


def test_least_deviations() -> None:
    y = noise()
    y[2000] += 15
    assert scores(y, min_dev=14.0)[2000] > 1
    assert scores(y, min_dev=20.0)[2000] == 0
    assert scores(y, relative=0.25)[2000] > 1  # of a mean of 50
    assert scores(y, relative=0.4)[2000] == 0


def test_what_is_not_known_leaves_the_stream_as_it_was() -> None:
    y = noise()
    holes = np.insert(y, [500, 500, 900, 1700], [np.nan, 2e300, np.inf, -np.inf])
    found = scores(holes)
    assert np.isnan(found[[500, 501, 902, 1703]]).all()
    assert np.delete(found, [500, 501, 902, 1703]).tobytes() == scores(y).tobytes()
    forecast = last_value(y)
    forecast[1000:1010] = np.inf
    without = np.where(np.isinf(forecast), np.nan, forecast)
    assert scores(y, forecast).tobytes() == scores(y, without).tobytes()


@pytest.mark.parametrize("at", [0, 1, 2, 10, 99, 100, 1000])
@pytest.mark.parametrize("huge", [1e300, -1e300, 1e12])
def test_one_huge_value_does_not_blind(at: int, huge: float) -> None:
    y = noise()
    y[at] = huge
    y[2500] += 60
    words = np.zeros(WORDS)
    found = scores(y, last_value(y), np.append(np.full(24, np.nan), y[:-24]), words=words)
    assert np.isfinite(words).all()
    assert found[2500] > 1
    assert np.isfinite(found[1400:]).all()


def test_hostile_series_stay_finite() -> None:
    rng = np.random.default_rng(0)
    for magnitudes in ([0.0, 5e-324, 1e300], [1.0, -1e300, 1e300, 1e-300], [1e300, math.nan, -1e300]):
        y, yhat, seasonal = (rng.choice(magnitudes, 4000) for _ in range(3))
        words = np.zeros(WORDS)
        found = scores(y, yhat, seasonal, words=words)
        assert np.isfinite(words).all()
        assert ((found >= 0) & (found <= MAX_SCORE))[~np.isnan(found)].all()
        assert not np.isnan(found[~np.isnan(y)][-1]) or words[COUNT] < WARMUP


def test_constants() -> None:
    y = np.full(2000, 0.1)
    assert (scores(y, y, y)[WARMUP:] == 0).all()
    y[1000] = 0.2
    assert scores(y, y)[1000] == MAX_SCORE
    y[1000] = 0.1 * (1 + 1e-12)
    assert (scores(y, y)[WARMUP:] == 0).all()
