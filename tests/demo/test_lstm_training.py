"""The demo's training: gradients by finite differences, the forward pass by the oracle, Adam by its first step."""

import numpy as np
import pytest
from reference import Oracle

from deploy.demo.lstm_training import Adam, State, Weights, backward, clip, forward, initial_weights
from streamlstm.model.parameters import Layer, Parameters

STEPS, LANES, INPUTS, HIDDEN, OUTPUTS = 6, 3, 2, 4, 2
NAMES = ("weight_ih", "weight_hh", "bias", "head_weight", "head_bias")


def small_net(rng: np.random.Generator) -> Weights:
    """In float64, so that differences can be small."""
    weights = initial_weights(INPUTS, HIDDEN, OUTPUTS, rng)
    return Weights(*(array.astype(np.float64) for array in weights.arrays()))


@pytest.mark.parametrize("name", NAMES)
def test_backward_is_the_slope_of_the_loss(name: str) -> None:
    rng = np.random.default_rng(3)
    weights = small_net(rng)
    x = rng.normal(size=(STEPS, LANES, INPUTS))
    start = State(rng.normal(size=(LANES, HIDDEN)), rng.normal(size=(LANES, HIDDEN)))
    cost = rng.normal(size=(STEPS, LANES, OUTPUTS))
    gradient = getattr(backward(weights, forward(weights, x, start)[1], cost), name)

    array = getattr(weights, name)
    for place in np.ndindex(array.shape):
        before, step = array[place], 1e-6
        loss = []
        for side in (1, -1):
            array[place] = before + side * step
            loss.append(float((forward(weights, x, start)[0] * cost).sum()))
        array[place] = before
        assert gradient[place] == pytest.approx((loss[0] - loss[1]) / (2 * step), rel=1e-5, abs=1e-7)


def test_forward_is_the_oracle_and_carries_its_state() -> None:
    rng = np.random.default_rng(4)
    weights = initial_weights(INPUTS, HIDDEN, OUTPUTS, rng)
    layer = Layer(weights.weight_ih, weights.weight_hh, weights.bias)
    oracle = Oracle(Parameters((layer,), weights.head_weight, weights.head_bias))
    x = rng.normal(size=(STEPS, LANES, INPUTS)).astype(np.float32)
    zeros = np.zeros((LANES, HIDDEN), np.float32)
    first, tape = forward(weights, x[:4], State(zeros, zeros))
    second, _ = forward(weights, x[4:], State(tape.h[-1], tape.c[-1]))
    expected = np.array([[oracle.event(lane, x[t, lane]) for lane in range(LANES)] for t in range(STEPS)])
    np.testing.assert_allclose(np.concatenate([first, second]), expected, rtol=1e-5, atol=1e-6)


def test_adam_first_moves_every_weight_by_the_learning_rate() -> None:
    rng = np.random.default_rng(5)
    weights = small_net(rng)
    before = [array.copy() for array in weights.arrays()]
    gradient = Weights(*(rng.choice([-2.0, 0.5], array.shape) for array in before))
    Adam(weights).step(weights, gradient, 0.01)
    for old, new, slope in zip(before, weights.arrays(), gradient.arrays(), strict=True):
        np.testing.assert_allclose(new - old, -0.01 * np.sign(slope), rtol=1e-6)


def test_adam_second_step_by_hand() -> None:
    weights = Weights(*(np.zeros(1) for _ in NAMES))
    adam = Adam(weights)
    for slope in (1.0, -3.0):
        adam.step(weights, Weights(*(np.full(1, slope) for _ in NAMES)), 0.1)
    first, second = (0.9 * 0.1 - 0.1 * 3) / (1 - 0.9**2), (0.999 * 0.001 + 0.001 * 9) / (1 - 0.999**2)
    assert weights.bias[0] == pytest.approx(-0.1 - 0.1 * first / second**0.5, rel=1e-6)


def test_clip_bounds_the_norm_over_all_weights() -> None:
    gradient = small_net(np.random.default_rng(6))
    before = [array.copy() for array in gradient.arrays()]
    norm = np.sqrt(sum((array**2).sum() for array in before))
    clip(gradient, 2 * norm)
    np.testing.assert_array_equal(gradient.weight_ih, before[0])
    clip(gradient, norm / 4)
    for old, new in zip(before, gradient.arrays(), strict=True):
        np.testing.assert_allclose(new, old / 4)
