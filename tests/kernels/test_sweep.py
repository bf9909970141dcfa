"""A sample of the sweep over random models (`make test-kernels-long`), and proof that its bounds would notice."""

import numpy as np
import pytest
from numpy.random import default_rng

from tests.kernels import sweep
from tests.kernels.sweep import Configuration, check


def test_random_configurations_are_within_their_bounds() -> None:
    for number in range(40):
        rng = default_rng([7, number])
        configuration = Configuration.random(rng)
        worst = check(configuration, rng)
        assert worst.part <= 1.0, (number, configuration, worst)
        assert worst.bound < 0.1 * configuration.reach + 0.1


@pytest.mark.parametrize("window", [0, 2])
def test_an_error_of_some_units_in_the_last_place_is_outside(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Of one weight: half a percent. Or of everything, where the terms are few: 30 roundings."""
    configuration = Configuration(2, (5,), 1, window, 4, 1.0, 1.0)
    assert check(configuration, default_rng(1)).part <= 1.0

    def off(*arguments: object) -> object:
        parameters = random_parameters(*arguments)  # type: ignore[arg-type]
        parameters.layers[0].weight_hh[3, 2] *= np.float32(1.005)
        return parameters

    random_parameters = sweep.random_parameters
    plain, made = sweep.Stream.__init__, {}

    def other(self: sweep.Stream, p: object, window: int) -> None:
        made.setdefault("p", random_parameters(default_rng(1), 2, (5,), 1, 1.0))
        plain(self, made["p"], window)

    monkeypatch.setattr(sweep, "random_parameters", off)
    monkeypatch.setattr(sweep.Stream, "__init__", other)
    assert check(configuration, default_rng(1)).part > 1.0
