"""The tutorials' recipes: windows, initial weights, and the frameworks' own loss curves (tests/fixtures/train)."""

from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlstm.errors import BadDataError
from streamlstm.training.adam import AdamSettings
from streamlstm.training.recipes import RECIPES, Recipe, draw_keras, draw_torch, forecasts, run_pass, run_passes
from streamlstm.training.steps import Trainer
from streamlstm.training.weights import Sizes
from streamlstm.training.windows import Windows, rows_to_forecast
from tests.training.test_fixtures import (
    ONE_LAYER,
    SIZES,
    TWO_LAYERS,
    arrays_of_keras,
    arrays_of_torch,
    load,
    weights_from,
)

KERAS, TORCH = RECIPES["keras-tutorial"], RECIPES["pytorch-tutorial"]
STARTS = np.array([0, 7, 9, 20])  # three streams of 7, 2 and 11 rows


@dataclass
class Cut:
    """Windows that somebody else has cut: X [W, T, I], Y [W, 1]."""

    X: NDArray[Any]
    Y: NDArray[Any]

    @property
    def length(self) -> int:
        return int(self.X.shape[1])

    def batches(self, order: NDArray[np.int64], size: int) -> Any:
        return ((self.X[rows], self.Y[rows]) for rows in np.split(order, range(size, len(order), size)))


# ------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 10, 11])
def test_a_window_is_of_one_stream_and_ends_before_what_it_forecasts(length: int) -> None:
    x = np.arange(20.0, dtype=np.float32)[:, None]
    windows = Windows(x, rows_to_forecast(STARTS[:-1], STARTS[:-1], STARTS[1:], length), length)
    expected = [row for a, b in pairwise(STARTS.tolist()) for row in range(a + length, b)]
    assert windows.following.tolist() == expected
    if len(windows):
        seen, followed = windows.cut(np.arange(len(windows)))
        assert followed[:, 0].tolist() == expected
        for row, window in zip(expected, seen[:, :, 0].tolist(), strict=True):
            assert window == list(range(row - length, row))


def test_windows_of_a_tail_look_back_before_it() -> None:
    tail = np.array([5, 8, 18])
    rows = rows_to_forecast(STARTS[:-1], tail, STARTS[1:], 3)
    assert rows.tolist() == [5, 6, 18, 19]  # of the second stream nothing has three rows before it
    assert rows_to_forecast(STARTS[:-1], STARTS[:-1], tail, 3).tolist() == [3, 4, *range(12, 18)]


def test_every_window_comes_once_in_a_pass() -> None:
    windows = Windows(np.arange(100.0)[:, None], np.arange(5, 100), 5)
    given = [y for _, y in windows.batches(np.random.default_rng(1).permutation(95), 32)]
    assert [len(y) for y in given] == [32, 32, 31]
    assert sorted(np.concatenate(given)[:, 0].tolist()) == list(range(5, 100))


# ------------------------------------------------------------------------------------------------------ initial weights


def test_weights_as_keras_draws_them() -> None:
    sizes = Sizes(3, (40, 30), 2)
    weights = draw_keras(sizes, np.random.default_rng(1))
    for k, hidden in enumerate(sizes.hidden):
        inputs = sizes.layer_inputs[k]
        limit = np.sqrt(6 / (inputs + 4 * hidden))
        kernel, recurrent = weights.layers[k][:inputs], weights.layers[k][inputs:].astype(np.float64)
        assert 0.9 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(hidden), atol=1e-5)
        assert weights.biases[k].tolist() == [0.0] * hidden + [1.0] * hidden + [0.0] * 2 * hidden
    assert np.abs(weights.head_weight).max() <= np.sqrt(6 / 32)
    assert not weights.head_bias.any()


def test_weights_as_pytorch_draws_them() -> None:
    sizes = Sizes(3, (64, 64), 1)
    weights = draw_torch(sizes, np.random.default_rng(1))
    limit = 1 / 8
    for weight, bias in zip(weights.layers, weights.biases, strict=True):
        assert 0.99 * limit < np.abs(weight).max() <= limit
        assert limit < np.abs(bias).max() <= 2 * limit, "two biases, of which the sum counts"
    assert np.abs(weights.head_weight).max() <= limit
    assert 0 < np.abs(weights.head_bias).max() <= limit


# --------------------------------------------------------------------------------------------------------- loss curves


def test_the_loss_of_a_pass_is_that_of_keras() -> None:
    """`fit` reports the mean over the samples; here all batches are of one size."""
    start, expected = load(f"adam_{ONE_LAYER}_f32"), load(f"kerasadam_{ONE_LAYER}_float64")
    trainer = Trainer(weights_from(SIZES[ONE_LAYER], arrays_of_keras(expected, "w0"), np.float32), adam=KERAS.adam)
    rows = start["batch_index"]
    recipe = Recipe("keras", (50,), KERAS.adam, draw_keras, weighs_batches=True, batch=rows.shape[1])
    for part in range(0, 100, 20):
        loss = run_pass(trainer, Cut(start["X"], start["Y"]), recipe, rows[part : part + 20].ravel())  # type: ignore[arg-type]
        assert loss == pytest.approx(float(expected["loss"][part : part + 20].mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("weighs", "name"), [(True, "epoch_loss_sample_weighted"), (False, "epoch_loss_mean_of_batches")]
)
def test_the_loss_curve_is_that_of_pytorch(weighs: bool, name: str) -> None:
    data = load("epochs_partial_batch_f64")
    adam = AdamSettings(learning_rate=float(data["lr"]), double_bias=True)
    trainer = Trainer(weights_from(SIZES[TWO_LAYERS], arrays_of_torch(data, "w0", 2), np.float32), adam=adam)
    recipe = Recipe("torch", (16, 16), adam, draw_torch, weighs_batches=weighs, batch=int(data["batch"]))
    windows, order = Cut(data["X"], data["Y"]), np.arange(len(data["X"]))
    losses = [run_pass(trainer, windows, recipe, order) for _ in range(int(data["epochs"]))]  # type: ignore[arg-type]
    np.testing.assert_allclose(losses, data[name], rtol=1e-4)


# -------------------------------------------------------------------------------------------------------- by seed alone


def sine(streams: int = 3, rows: int = 200) -> Windows:
    t = np.arange(rows)
    x = np.concatenate([0.5 + 0.4 * np.sin(t / 5 + k) for k in range(streams)]).astype(np.float32)[:, None]
    start = np.arange(streams) * rows
    return Windows(x, rows_to_forecast(start, start, start + rows, 12), 12)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_recipe_learns_and_is_a_matter_of_its_seed(recipe: Recipe) -> None:
    windows = sine()

    def run(seed: int) -> tuple[list[float], bytes, float]:
        random = np.random.default_rng(seed)
        trainer = Trainer(recipe.draw(Sizes(1, recipe.hidden, 1), random), adam=recipe.adam)
        losses = [each.loss for each in run_passes(trainer, windows, recipe, random)]
        error = np.abs(forecasts(trainer, windows, 100) - windows.x[windows.following, 0]).mean()
        return losses, b"".join(array.tobytes() for array in trainer.arrays().values()), float(error)

    losses, weights, error = run(1)
    assert len(losses) == 10
    assert losses[-1] < losses[0] / 10
    assert error < np.abs(np.diff(windows.x[:200, 0])).mean()
    assert run(1)[:2] == (losses, weights)
    assert run(2)[1] != weights


def test_forecasts_do_not_depend_on_the_batch() -> None:
    windows = sine(1, 60)
    trainer = Trainer(KERAS.draw(Sizes(1, (50,), 1), np.random.default_rng(1)))
    assert forecasts(trainer, windows, 7).tobytes() == forecasts(trainer, windows, 1000).tobytes()


def test_a_loss_that_is_not_finite_is_told_with_advice() -> None:
    explodes: Any = SimpleNamespace(steps=5, step=lambda *_: SimpleNamespace(loss=np.inf))
    with pytest.raises(BadDataError, match=r"pass 3, step 5: expected a finite loss, found inf.*--learning-rate"):
        run_pass(explodes, sine(1, 60), KERAS, np.arange(48), number=3)
