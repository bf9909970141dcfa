"""The linear part: a fit of the absolute error, against a slow one, and what it must withstand."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streamlstm.kernels.least_squares import ROWS_AT_ONCE, solve, weighted_gram
from streamlstm.training.linear import SLIGHT, STRONG, Effort, fit_linear
from streamlstm.training.past import Lags, Past, past_of

LAGS = Lags("made", (1, 2, 3), (0,))


def autoregression(rows: int) -> Past:
    """x_{t+1} = 0.6 x_t + 0.3 x_{t-1} + noise."""
    random = np.random.default_rng(3)
    x, noise = np.zeros(rows), random.normal(size=rows)
    for t in range(2, rows):
        x[t] = 0.6 * x[t - 1] + 0.3 * x[t - 2] + noise[t]
    return past_of(x, np.empty((rows, 0), np.float32), np.array([0, rows]))


def fit(past: Past, effort: Effort | None = None, **rest: object) -> np.ndarray:
    return fit_linear(past, past.start[1:], LAGS, (1, 2), np.random.default_rng(0), effort or Effort(), **rest)  # type: ignore[arg-type]


def test_the_weighted_products() -> None:
    random = np.random.default_rng(1)
    for n in (1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 3 * ROWS_AT_ONCE + 7):
        joined, weight = random.normal(size=(n, 7)), random.random(n)
        gram = np.empty((5, 6))
        weighted_gram(joined, 5, 6, weight, np.empty((ROWS_AT_ONCE, 6)), gram)
        u = joined[:, :5]
        assert np.allclose(gram[:, :5], (u * weight[:, None]).T @ u, rtol=1e-12, atol=1e-12)
        assert np.allclose(gram[:, 5], (u * weight[:, None]).T @ joined[:, 6], rtol=1e-12, atol=1e-12)


def test_solutions() -> None:
    random = np.random.default_rng(2)
    u = random.normal(size=(50, 6))
    gram = np.concatenate([u.T @ u, random.normal(size=(6, 1))], axis=1)
    expected, found = np.linalg.solve(gram[:, :6] + 0.5 * np.eye(6), gram[:, 6]), np.empty(6)
    assert solve(gram.copy(), 0.5, found)
    assert np.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("gram", [np.zeros((2, 3)), -np.ones((2, 3)), np.full((2, 3), np.nan)])
def test_no_solution(gram: np.ndarray) -> None:
    found = np.ones(2)
    assert not solve(gram, 0.0, found)
    assert not found.any()


def test_an_autoregression_is_found() -> None:
    """x_{t+1} - x_t = -0.1 x_t + 0.3 (x_{t-1} - x_t) + noise; the level is known by further lags at best."""
    found = fit(autoregression(20_000))
    assert found[0] == pytest.approx([0.3, 0.0, 0.05], abs=0.05)


def test_few_rows_do_not_learn_their_noise() -> None:
    """What comes next in a random walk is the last value: twelve lags of 30 rows must not say much else."""
    lags, errors, naive = Lags("many", tuple(range(1, 13)), (0,)), 0.0, 0.0
    for seed in range(20):
        x = np.cumsum(np.random.default_rng(seed).normal(size=400))
        past = past_of(x, np.empty((400, 0), np.float32), np.array([0, 400]))
        skip = fit_linear(past, np.array([45]), lags, (1, 24), np.random.default_rng(0), Effort())[0]
        t = np.arange(45, 399)
        d = np.stack([x[t - lag] - x[t] for lag in lags.lags], 1)
        errors += float(np.abs(x[t + 1] - x[t] - d @ skip).sum())
        naive += float(np.abs(x[t + 1] - x[t]).sum())
    assert errors < 1.25 * naive


def test_a_level_in_noise_is_told_by_a_mean() -> None:
    """60 rows of noise: one weight for 30 lags finds more of their mean than 30 weights do."""
    many = Lags("many", tuple(range(1, 31)), (0,))
    mean = Lags("mean", many.lags, many.fed, (0,) * 30)
    errors = {"many": 0.0, "mean": 0.0}
    for seed in range(10):
        x = np.random.default_rng(seed).normal(size=600)
        past, t = past_of(x, np.empty((600, 0), np.float32), np.array([0, 600])), np.arange(90, 599)
        d = np.stack([x[t - lag] - x[t] for lag in many.lags], 1)
        for lags in (many, mean):
            skip = fit_linear(past, np.array([90]), lags, (1,), np.random.default_rng(0), Effort())[0]
            errors[lags.name] += float(np.abs(x[t + 1] - x[t] - d @ skip).mean())
            if lags is mean:
                assert np.ptp(skip) == 0.0
    assert errors["mean"] < 0.9 * errors["many"]


def test_a_strong_doubt_believes_few_rows_less() -> None:
    past, size = autoregression(60), {}
    for doubt in (SLIGHT, STRONG):
        size[doubt] = np.abs(fit(past, doubt=doubt)).sum(axis=1)
        assert fit(autoregression(20_000), doubt=doubt)[0] == pytest.approx([0.3, 0.0, 0.05], abs=0.05)
    assert (size[STRONG] < size[SLIGHT]).all()


def test_a_near_horizon_learns_from_rows_that_do_not_reach_the_far_one() -> None:
    """30 rows, the far horizon 24 steps away: one step ahead is fitted as if it were alone."""
    past = autoregression(30)
    alone = fit_linear(past, past.start[1:], LAGS, (1,), np.random.default_rng(0), Effort())
    both = fit_linear(past, past.start[1:], LAGS, (1, 24), np.random.default_rng(0), Effort())
    assert np.allclose(both[0], alone[0], rtol=1e-5)


def test_threads_and_their_number_change_no_bit() -> None:
    past = autoregression(3000)
    alone = fit(past)
    with ThreadPoolExecutor(2) as executor:
        assert np.array_equal(fit(past, executor=executor), alone)


def test_less_absolute_error_than_least_squares() -> None:
    past = autoregression(5000)
    past.x[1000::50] += 1000.0
    past = past_of(past.x, past.others, past.start)
    errors = []
    for iterations in (1, 6):
        skip = fit(past, Effort(iterations=iterations))[0]
        t = np.arange(3, 4999)
        d = np.stack([past.x[t - lag] - past.x[t] for lag in LAGS.lags], 1)
        errors.append(np.abs(past.x[t + 1] - past.x[t] - d @ skip).mean())
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("x", [np.zeros(50), np.arange(50.0), np.array([1.0, 2.0]), np.full(20, 1e30)])
def test_nothing_to_fit(x: np.ndarray) -> None:
    past = past_of(x, np.empty((len(x), 0), np.float32), np.array([0, len(x)]))
    assert np.isfinite(fit(past)).all()


def test_effort_bounds_the_work() -> None:
    assert Effort().rows_for(12, 1) == Effort().rows
    assert Effort().rows_for(200, 100) == 20 * 200
