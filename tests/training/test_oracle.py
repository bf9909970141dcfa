"""The oracle's gradients against finite differences of its loss."""

import numpy as np
import pytest

from streamlstm.training.weights import weights_of
from tests.reference import random_parameters
from tests.training import oracle

B, T, I, O = 3, 5, 2, 2  # noqa: E741 - the field's letters
HIDDEN = (4, 3)


@pytest.fixture
def case() -> dict[str, oracle.Float64]:
    rng = np.random.default_rng(3)
    arrays = weights_of(random_parameters(rng, I, HIDDEN, O), np.float64).arrays()
    arrays |= {"x": rng.normal(size=(B, T, I))}
    return arrays | {f"{letter}_{k}": rng.normal(size=(B, h)) for letter in "hc" for k, h in enumerate(HIDDEN)}


def expected(case: dict[str, oracle.Float64]) -> oracle.Expected:
    rng = np.random.default_rng(4)
    counted = rng.random((B, T, O)) < 0.7
    loss = oracle.huber(rng.normal(size=(B, T, O)), counted, 0.3)
    masks = [rng.choice([0.0, 1.5], (T, B, HIDDEN[0]))]
    weights = {name: array for name, array in case.items() if "." in name}
    h, c = ([case[f"{letter}_{k}"] for k in range(len(HIDDEN))] for letter in "hc")
    return oracle.run(weights, case["x"], loss, h, c, masks)


def test_gradients_are_slopes(case: dict[str, oracle.Float64]) -> None:
    found = expected(case)
    slopes = found.by_name | {"x": found.d_x}
    slopes |= {f"h_{k}": d for k, d in enumerate(found.d_h)} | {f"c_{k}": d for k, d in enumerate(found.d_c)}
    assert set(slopes) == set(case)
    for name, slope in slopes.items():
        array = case[name]
        for place in np.ndindex(array.shape):
            before, step, loss = array[place], 1e-6, []
            for side in (1, -1):
                array[place] = before + side * step
                loss.append(expected(case).loss)
            array[place] = before
            assert slope[place] == pytest.approx((loss[0] - loss[1]) / (2 * step), rel=1e-6, abs=1e-9), name
