"""Golden vectors: any float32 kernel passes, any misreading fails; the forward pass against the equations by hand."""

from typing import Any

import numpy as np
import pytest

from streamlstm.errors import ModelFileError
from streamlstm.model.forward import run, served
from streamlstm.model.golden import STEPS, check_golden, golden_input, make_golden
from streamlstm.model.parameters import Layer, Parameters
from tests.model.random_models import random_parameters


def by_hand(parameters: Parameters, x: np.ndarray[Any, Any]) -> list[list[float]]:
    """One sequence x (T, I), one number at a time, from the equations."""
    from math import exp, tanh

    def sigma(z: float) -> float:
        return 1.0 / (1.0 + exp(-z))

    states = [([0.0] * layer.hidden, [0.0] * layer.hidden) for layer in parameters.layers]
    forecasts = []
    for event in x:
        signal = [float(value) for value in event]
        for k, layer in enumerate(parameters.layers):
            h, c = states[k]
            H = layer.hidden
            z = [
                sum(float(w) * v for w, v in zip(layer.weight_ih[row], signal, strict=True))
                + sum(float(w) * v for w, v in zip(layer.weight_hh[row], h, strict=True))
                + float(layer.bias[row])
                for row in range(4 * H)
            ]
            c = [sigma(z[H + j]) * c[j] + sigma(z[j]) * tanh(z[2 * H + j]) for j in range(H)]
            h = [sigma(z[3 * H + j]) * tanh(c[j]) for j in range(H)]
            states[k] = (h, c)
            signal = h
        head = zip(parameters.head_weight, parameters.head_bias, strict=True)
        forecasts.append([sum(float(w) * v for w, v in zip(row, signal, strict=True)) + float(b) for row, b in head])
    return forecasts


def test_the_forward_pass_is_the_equations() -> None:
    parameters = random_parameters(2, (4, 3), 2)
    x = np.random.default_rng(0).standard_normal((2, 9, 2))
    y = run(parameters, x).y
    for n in range(2):
        assert np.allclose(y[n], by_hand(parameters, x[n]), rtol=1e-13, atol=1e-14)


def test_a_state_handed_over_continues() -> None:
    parameters = random_parameters(1, (4, 3), 1)
    x = np.random.default_rng(1).standard_normal((3, 12, 1))
    whole, first = run(parameters, x), run(parameters, x[:, :5])
    states = tuple(state for pair in zip(first.h, first.c, strict=True) for state in pair)
    assert np.allclose(run(parameters, x[:, 5:], states).y, whole.y[:, 5:], rtol=1e-14, atol=1e-15)


def test_a_window_starts_from_zero() -> None:
    parameters = random_parameters(1, (4,), 1)
    x = np.random.default_rng(2).standard_normal((2, 10, 1))
    y = served(parameters, 4, x)
    for t in range(10):
        assert np.allclose(y[:, t], run(parameters, x[:, max(0, t - 3) : t + 1]).y[:, -1], atol=1e-15)
    assert np.array_equal(served(parameters, 0, x), run(parameters, x).y)


@pytest.mark.parametrize("inputs", [1, 2, 7])
def test_the_input_has_large_and_small_values(inputs: int) -> None:
    x = golden_input(inputs)
    assert x.shape == (3, STEPS, inputs)
    assert np.array_equal(x, golden_input(inputs))
    size = np.abs(x[x != 0.0])
    assert size.max() > 100.0
    assert size.min() < 1e-30
    assert (x == 0.0).any()


@pytest.mark.parametrize("window", [0, 1, 6, 200])
@pytest.mark.parametrize(
    ("inputs", "hidden", "outputs", "scale"), [(1, (50,), 1, 0.2), (3, (32, 16), 4, 0.3), (2, (8,), 1, 3.0)]
)
def test_float32_passes(inputs: int, hidden: tuple[int, ...], outputs: int, scale: float, window: int) -> None:
    parameters = random_parameters(inputs, hidden, outputs, scale)
    golden = make_golden(parameters, window)
    check_golden(golden, lambda x: served(parameters, window, x, np.float32))


def test_a_head_of_large_cancelling_terms_passes() -> None:
    small = random_parameters(1, (20,), 1)
    parameters = Parameters(small.layers, small.head_weight * np.float32(30_000), np.float32([15_000.0]))
    check_golden(make_golden(parameters), lambda x: served(parameters, 0, x, np.float32))


def misread(parameters: Parameters, order: tuple[int, ...]) -> Parameters:
    def gates(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.concatenate([np.split(rows, 4)[k] for k in order])

    layers = tuple(Layer(gates(one.weight_ih), gates(one.weight_hh), gates(one.bias)) for one in parameters.layers)
    return Parameters(layers, parameters.head_weight, parameters.head_bias)


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2), (0, 1, 3, 2), (3, 1, 2, 0)])
def test_a_misreading_fails(order: tuple[int, ...]) -> None:
    parameters = random_parameters(1, (50,), 1, 0.14)
    wrong = misread(parameters, order)
    golden = make_golden(parameters)
    with pytest.raises(ModelFileError, match=r"golden\.y\["):
        check_golden(golden, lambda x: run(wrong, x).y)
    for other in (
        Parameters(
            (
                Layer(
                    *(getattr(parameters.layers[0], name) for name in ("weight_ih", "weight_hh")),
                    parameters.layers[0].bias * 2,
                ),
            ),
            parameters.head_weight,
            parameters.head_bias,
        ),
        Parameters(parameters.layers, parameters.head_weight, parameters.head_bias * 2),
    ):
        with pytest.raises(ModelFileError):
            check_golden(golden, lambda x, other=other: run(other, x).y)  # type: ignore[misc]


def test_windows_and_carrying_are_told_apart() -> None:
    parameters = random_parameters(1, (10,), 1)
    with pytest.raises(ModelFileError):
        check_golden(make_golden(parameters, 6), lambda x: served(parameters, 0, x))


def test_nan_and_wrong_shapes_fail() -> None:
    parameters = random_parameters(1, (4,), 1)
    golden = make_golden(parameters)
    for wrong in (golden.y * np.nan, golden.y[:, 1:], golden.y + np.inf):
        with pytest.raises(ModelFileError):
            check_golden(golden, lambda x, wrong=wrong: wrong)  # type: ignore[misc]


def test_weights_that_overflow_are_refused() -> None:
    parameters = random_parameters(1, (4,), 1)
    huge = Parameters(parameters.layers, np.full((1, 4), 3e38, np.float32), np.float32([3e38]))
    with pytest.raises(ModelFileError, match="overflow"):
        make_golden(huge)
