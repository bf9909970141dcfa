"""Adam's kernels against the equations, in NumPy."""

from typing import Any

import numpy as np
import pytest

from streamlstm.kernels.adam import adam_step, sum_of_squares, sum_shards

DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])


@DTYPES
def test_steps_are_algorithm_1(dtype: Any, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=101).astype(dtype)
    m, v = np.zeros_like(weights), np.zeros_like(weights)
    expected, first, second = weights.astype(np.float64), np.zeros(101), np.zeros(101)
    lr, beta_1, beta_2, epsilon, factor = 0.01, 0.8, 0.95, 1e-3, 0.5
    for t in range(1, 8):
        gradient = rng.normal(size=101).astype(dtype)
        g = factor * gradient.astype(np.float64)
        first, second = beta_1 * first + (1 - beta_1) * g, beta_2 * second + (1 - beta_2) * g**2
        m_hat, v_hat = first / (1 - beta_1**t), second / (1 - beta_2**t)
        expected = expected - lr * m_hat / (np.sqrt(v_hat) + epsilon)
        scalars = [
            factor,
            beta_1,
            1 - beta_1,
            beta_2,
            1 - beta_2,
            lr / (1 - beta_1**t),
            (1 - beta_2**t) ** -0.5,
            epsilon,
        ]
        adam_step(weights, gradient, m, v, *map(dtype, scalars))
    np.testing.assert_allclose(weights, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(m, first, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(v, second, rtol=tolerance, atol=tolerance)


@DTYPES
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000])
def test_sum_of_squares(dtype: Any, tolerance: float, size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(dtype)
    assert sum_of_squares(values) == pytest.approx(float(np.sum(values.astype(np.float64) ** 2)), rel=1e-14)


def test_shards_are_added_in_order() -> None:
    """1e8 + 1 - 1e8 is 0 in float32, in another order 1."""
    gradients = np.array([[1e8, 1.0], [1.0, 1e8], [-1e8, -1e8]], np.float32)
    total = np.full(2, np.nan, np.float32)
    sum_shards(gradients, total)
    assert total.tolist() == [0.0, 0.0]
    sum_shards(np.array([[1e8], [-1e8], [1.0]], np.float32), total[:1])
    assert total[0] == 1.0
