"""Gradients of the trainer against the oracle, over shapes, losses, missing targets, dropout and initial states."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlstm.kernels.dropout import draw_mask
from streamlstm.training.losses import AbsoluteError, Huber, Loss, Quantile, SquaredError
from streamlstm.training.steps import Gradients, Trainer
from streamlstm.training.tape import State
from streamlstm.training.weights import weights_of
from tests.reference import random_parameters
from tests.training import oracle

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
SEED = 5

shapes = st.fixed_dictionaries(
    {
        "inputs": st.integers(1, 19),
        "hidden": st.lists(st.integers(1, 70), min_size=1, max_size=3).map(tuple),
        "outputs": st.integers(1, 9),
        "steps": st.integers(1, 14),
        "sequences": st.integers(1, 41),
    }
)
SMALL = {"inputs": 3, "hidden": (18, 7), "outputs": 2, "steps": 9, "sequences": 21}


def close(found: NDArray[Any], true: NDArray[Any], largest: float, tolerance: float) -> None:
    """Within `tolerance` of the array's largest element, or of a tenth of the largest of all: small sums cancel."""
    assert found.shape == true.shape
    assert np.abs(found - true).max() <= tolerance * max(float(np.abs(true).max()), 0.1 * largest)


def compare(found: Gradients, true: oracle.Expected, tolerance: float) -> None:
    largest = max(float(np.abs(array).max()) for array in true.by_name.values())
    assert found.loss == pytest.approx(true.loss, rel=tolerance)
    for name, array in true.by_name.items():
        close(found.by_name[name], array, largest, tolerance)
    close(found.d_x, true.d_x, 1e-2 * largest, tolerance)
    for own, others in ((found.d_state.h, true.d_h), (found.d_state.c, true.d_c)):
        for k, other in enumerate(others):
            close(own[k], other, 1e-2 * largest, tolerance)
    for own, others in ((found.state.h, true.h), (found.state.c, true.c)):
        for k, other in enumerate(others):
            np.testing.assert_allclose(own[k], other, rtol=tolerance, atol=0.2 * tolerance)


def check(dtype: Any, shape: dict[str, Any], loss: Loss, dropout: float, seed: int, missing: float = 0.0) -> None:
    rng = np.random.default_rng(seed)
    B, T, O = shape["sequences"], shape["steps"], shape["outputs"]  # noqa: E741 - the field's letters
    # 1 - σ(z) loses the digits of a gate that is nearly open: float32 is judged where gates aren't
    scale, reach = (2.0, 2.0) if dtype is np.float64 else (1.0, shape["inputs"] ** -0.5)
    weights = weights_of(random_parameters(rng, shape["inputs"], shape["hidden"], O, scale=scale), dtype)
    x = rng.uniform(-reach, reach, (B, T, shape["inputs"])).astype(dtype)
    # far from any forecast: where the two nearly agree, the slope of a loss is little but rounding
    y = rng.uniform(20, 40, (B, T, O)).astype(dtype)
    h, c = (tuple(rng.uniform(-1, 1, (B, n)).astype(dtype) for n in shape["hidden"]) for _ in range(2))
    counted = rng.random((B, T, O)) >= missing
    counted[0, 0, 0] = True
    targets = y.astype(np.float64)
    losses = {
        SquaredError: lambda: oracle.squared(targets, counted),
        AbsoluteError: lambda: oracle.absolute(targets, counted),
        Huber: lambda: oracle.huber(targets, counted, loss.delta),  # type: ignore[union-attr]
        Quantile: lambda: oracle.pinball(targets, counted, loss.levels),  # type: ignore[union-attr]
    }
    y[~counted] = np.nan
    masks = None
    if dropout and len(shape["hidden"]) > 1:
        masks = [np.zeros((T, B, n)) for n in shape["hidden"][:-1]]
        for layer, mask in enumerate(masks):
            draw_mask(SEED, 0, layer, B, 0, dropout, mask)
    arrays = {name: array.astype(np.float64) for name, array in weights.arrays().items()}
    state = ([array.astype(np.float64) for array in arrays_of] for arrays_of in (h, c))
    true = oracle.run(arrays, x.astype(np.float64), losses[type(loss)](), *state, masks)
    trainer = Trainer(weights, loss=loss, dropout=dropout, seed=SEED)
    found = trainer.gradients(x, y, counted if missing else None, State(h, c))
    assert all(array.dtype == dtype for array in found.by_name.values())
    compare(found, true, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60)
@given(shape=shapes, seed=st.integers(0, 1 << 30))
@example(shape=SMALL | {"hidden": (50,), "sequences": 64, "inputs": 1, "outputs": 1, "steps": 96}, seed=1)
@example(shape=SMALL | {"hidden": (64, 64), "sequences": 40, "inputs": 1, "outputs": 1, "steps": 48}, seed=1)
def test_any_shape(dtype: Any, shape: dict[str, Any], seed: int) -> None:
    check(dtype, shape, SquaredError(), 0.0, seed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", [SquaredError(), AbsoluteError(), Huber(0.3), Quantile((0.1, 0.9))], ids=repr)
@pytest.mark.parametrize("missing", [0.0, 0.5, 1.0])
def test_losses_and_missing_targets(dtype: Any, loss: Loss, missing: float) -> None:
    """At `missing` 1 one target is left."""
    check(dtype, SMALL, loss, 0.0, 7, missing)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("hidden", [(18, 7), (5, 33, 16)])
def test_dropout_between_layers(dtype: Any, hidden: tuple[int, ...]) -> None:
    check(dtype, SMALL | {"hidden": hidden}, SquaredError(), 0.4, 8)


@pytest.mark.parametrize("batch", [1, 16, 17, 64, 300])
def test_a_batch_in_any_number_of_shards(batch: int) -> None:
    check(np.float64, SMALL | {"sequences": batch}, SquaredError(), 0.3, 9)
