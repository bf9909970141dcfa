"""A sample of the sweep over random models (`make test-kernels-long`), and proof that its bounds would notice."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from streamlstm.model.parameters import Layer, Parameters
from tests.kernels.sweep import Configuration, check


def test_random_configurations_are_within_their_bounds() -> None:
    for number in range(40):
        rng = default_rng([7, number])
        configuration = Configuration.random(rng)
        worst = check(configuration, rng)
        assert worst.part <= 1.0, (number, configuration, worst)


def one_weight_off(p: Parameters) -> Parameters:
    """By a percent."""
    weight_hh = p.layers[0].weight_hh.copy()
    weight_hh[3, 2] *= np.float32(1.01)
    return replace(p, layers=(Layer(p.layers[0].weight_ih, weight_hh, p.layers[0].bias), *p.layers[1:]))


def head_off(p: Parameters) -> Parameters:
    """By 512 roundings."""
    return replace(p, head_weight=p.head_weight * np.float32(1 + 2.0**-15))


@pytest.mark.parametrize("spoil", [one_weight_off, head_off])
@pytest.mark.parametrize("window", [0, 2])
def test_small_mistakes_are_outside_the_bounds(window: int, spoil: object) -> None:
    configuration = Configuration(2, (5,), 1, window, 8, 1.0, 1.0)
    assert check(configuration, default_rng(1)).part <= 1.0
    assert check(configuration, default_rng(1), spoil).part > 1.0  # type: ignore[arg-type]
