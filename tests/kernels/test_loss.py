"""The losses at their corners; their values and slopes elsewhere are judged in tests/training/test_gradients.py."""

import numpy as np
import pytest

from streamlstm.kernels.loss import ABSOLUTE, HUBER, QUANTILE, SQUARED, loss_and_slope

KINDS = {SQUARED: 0.0, ABSOLUTE: 0.0, HUBER: 0.5, QUANTILE: 0.2}


def loss(kind: int, e: float, counted: bool = True) -> tuple[float, float]:
    """(value, slope) of one element with the error e."""
    y_hat, slope = np.array([[[1.0 + e]]]), np.full((1, 1, 1), np.inf)
    y = np.ones((1, 1, 1)) if counted else np.full((1, 1, 1), np.nan)
    value = loss_and_slope(kind, np.array([KINDS[kind]]), y_hat, y, np.full((1, 1, 1), counted), 1.0, slope)
    return value, float(slope[0, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_has_neither_loss_nor_slope(kind: int) -> None:
    assert loss(kind, 0.0) == (0.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_counted_is_not_looked_at(kind: int) -> None:
    assert loss(kind, 3.0, counted=False) == (0.0, 0.0)
    assert loss(kind, np.nan, counted=False) == (0.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_passes_through(kind: int) -> None:
    assert np.isnan(loss(kind, np.nan)).all()


def test_huber_is_smooth_at_delta() -> None:
    assert loss(HUBER, 0.5) == (0.125, 0.5)
    assert loss(HUBER, -0.75) == (0.25, -0.5)


def test_a_forecast_below_costs_its_quantile() -> None:
    assert loss(QUANTILE, -2.0) == pytest.approx((0.4, -0.2))
    assert loss(QUANTILE, 2.0) == pytest.approx((1.6, 0.8))
