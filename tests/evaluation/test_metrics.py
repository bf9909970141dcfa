"""Measures against their definitions, spelled out, and against figures from the literature's own examples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamlstm.evaluation.baselines import naive, seasonal_naive
from streamlstm.evaluation.compare import diebold_mariano
from streamlstm.evaluation.metrics import coverage, crps, mae, mase, pinball, rel_mae, rmse, scale, width

VALUES = st.floats(-1e6, 1e6) | st.just(math.nan)
SERIES = arrays(np.float64, st.integers(0, 40), elements=VALUES)


@given(SERIES, st.integers(1, 12), st.integers(1, 30))
def test_baselines_know_only_what_was_there(y: np.ndarray, period: int, horizon: int) -> None:
    for k, (last, season) in enumerate(zip(naive(y, horizon), seasonal_naive(y, period, horizon), strict=True)):
        known = k - horizon
        np.testing.assert_equal(last, y[known] if known >= 0 else math.nan)
        same_season = [at for at in range(known + 1) if (k - at) % period == 0]
        np.testing.assert_equal(season, y[same_season[-1]] if same_season else math.nan)


def test_a_lag_of_nothing() -> None:
    with pytest.raises(ValueError, match="lag: expected at least 1, found 0"):
        naive(np.zeros(3), 0)


@given(SERIES, st.data())
def test_errors(actual: np.ndarray, data: st.DataObject) -> None:
    forecast = data.draw(arrays(np.float64, len(actual), elements=VALUES))
    errors = [a - f for a, f in zip(actual.tolist(), forecast.tolist(), strict=True) if not math.isnan(a - f)]
    if not errors:
        assert math.isnan(mae(actual, forecast))
        return
    assert mae(actual, forecast) == pytest.approx(math.fsum(map(abs, errors)) / len(errors))
    assert rmse(actual, forecast) == pytest.approx(math.sqrt(math.fsum(e * e for e in errors) / len(errors)))


def test_scaled_and_relative_errors() -> None:
    history = np.array([1.0, 5.0, 2.0, 7.0, 4.0])
    assert scale(history, 1) == pytest.approx((4 + 3 + 5 + 3) / 4)
    assert scale(history, 2) == pytest.approx((1 + 2 + 2) / 3)
    assert mase(np.array([3.0, 4.0]), np.array([1.0, 4.0]), 0.5) == 2.0
    assert math.isnan(mase(np.ones(2), np.zeros(2), 0.0))
    assert rel_mae(np.array([2.0, 1.0, 0.0, 3.0]), np.array([1.0, 8.0, 1.0, math.nan])) == pytest.approx(0.5)
    assert math.isnan(rel_mae(np.zeros(2), np.ones(2)))


def test_quantiles() -> None:
    levels = [0.1, 0.5, 0.9]
    actual = np.array([10.0, 0.0])
    quantiles = np.array([[8.0, 9.0, 12.0], [1.0, 2.0, 3.0]])
    expected = [(0.1 * 2 + 0.9 * 1) / 2, (0.5 * 1 + 0.5 * 2) / 2, (0.1 * 2 + 0.1 * 3) / 2]
    np.testing.assert_allclose(pinball(actual, quantiles, levels), expected)
    assert crps(actual, quantiles, levels) == pytest.approx(2 * sum(expected) / 3)


def test_the_crps_of_a_normal_distribution() -> None:
    """Of many quantiles, against the closed form (Gneiting and Raftery 2007, section 4.2)."""
    from scipy.stats import norm

    levels = (np.arange(2_000) + 0.5) / 2_000
    actual = np.array([0.0, 0.7, -2.5])
    quantiles = np.tile(norm.ppf(levels), (3, 1))
    closed = actual * (2 * norm.cdf(actual) - 1) + 2 * norm.pdf(actual) - 1 / math.sqrt(math.pi)
    assert crps(actual, quantiles, levels) == pytest.approx(closed.mean(), rel=1e-4)


def test_intervals() -> None:
    low, high = np.array([0.0, 0.0, 0.0, math.nan]), np.array([1.0, 2.0, 3.0, 4.0])
    assert coverage(np.array([1.0, 2.1, -0.0, 1.0]), low, high) == pytest.approx(2 / 3)
    assert width(low, high) == 2.0
    assert math.isnan(coverage(np.array([math.nan]), np.zeros(1), np.ones(1)))


class TestDieboldMariano:
    def test_the_published_statistic(self) -> None:
        """By hand for h = 1: the t test of the mean, with the corrected variance."""
        rng = np.random.default_rng(1)
        a, b = rng.normal(1.0, 1.0, 50) ** 2, rng.normal(0.0, 1.0, 50) ** 2
        found = diebold_mariano(a, b)
        from scipy.stats import ttest_1samp

        expected = ttest_1samp(a - b, 0.0)
        assert found.statistic == pytest.approx(expected.statistic)
        assert found.p_value == pytest.approx(expected.pvalue)
        assert found.verdict() == 1
        assert diebold_mariano(b, a).verdict() == -1

    def test_forecasts_of_one_quality_are_seldom_told_apart(self) -> None:
        """Overlapping errors of 4 steps ahead; at the level of 5 %, about 5 % of 400 pairs are."""
        rng, rejected = np.random.default_rng(2), 0
        for _ in range(400):
            noise = rng.normal(size=(2, 203))
            errors = np.stack([np.convolve(each, np.ones(4), "valid") for each in noise])
            rejected += diebold_mariano(errors[0] ** 2, errors[1] ** 2, horizon=4).verdict() != 0
        assert 8 <= rejected <= 36

    def test_nothing_to_tell(self) -> None:
        assert math.isnan(diebold_mariano(np.ones(30), np.ones(30)).p_value)
        assert math.isnan(diebold_mariano(np.arange(9.0), np.zeros(9)).p_value)
        assert math.isnan(diebold_mariano(np.zeros(0), np.zeros(0)).mean_difference)
        assert diebold_mariano(np.ones(30), np.ones(30)).verdict() == 0
