"""Gradients, Adam and whole passes as the frameworks computed them (tests/fixtures/train)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlstm.training.adam import AdamSettings, EpsilonPlace
from streamlstm.training.steps import Trainer
from streamlstm.training.tape import State
from streamlstm.training.weights import Sizes, Weights

HERE = Path(__file__).parents[1] / "fixtures" / "train"
ONE_LAYER, TWO_LAYERS = "i1_h50_l1_o1_t24", "i3_h16_l2_o2_t20"
SIZES = {ONE_LAYER: Sizes(1, (50,), 1), TWO_LAYERS: Sizes(3, (16, 16), 2)}
CLIP_NORM = 0.25
Arrays = dict[str, NDArray[Any]]


def load(name: str) -> Arrays:
    with np.load(HERE / f"{name}.npz") as file:
        return dict(file)


def arrays_of_torch(source: Arrays, prefix: str, layers: int, biases: int = 2) -> Arrays:
    """By our names, in float64; of a gradient one of the two equal `biases` is taken, of weights their sum."""
    own = {"head.weight": source[f"{prefix}/fc.weight"], "head.bias": source[f"{prefix}/fc.bias"]}
    for k in range(layers):
        for name in ("weight_ih", "weight_hh"):
            own[f"layers.{k}.{name}"] = source[f"{prefix}/lstm.{name}_l{k}"]
        summed = [source[f"{prefix}/lstm.{name}_l{k}"].astype(np.float64) for name in ("bias_ih", "bias_hh")[:biases]]
        own[f"layers.{k}.bias"] = np.sum(summed, axis=0)
    return {name: array.astype(np.float64) for name, array in own.items()}


def weights_from(sizes: Sizes, arrays: Arrays, dtype: Any) -> Weights:
    weights = Weights(sizes, np.zeros(sizes.total, dtype))
    for name, view in weights.arrays().items():
        view[...] = arrays[name]
    return weights


def difference(found: Arrays, true: Arrays) -> float:
    assert set(found) == set(true)
    return max(float(np.abs(found[name] - true[name]).max()) for name in true)


def on_the_last_step(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Targets and mask [B, T, O] of y [B, O]."""
    targets = np.full((*x.shape[:2], y.shape[1]), np.nan)
    targets[:, -1] = y
    return targets, ~np.isnan(targets)


def train(trainer: Trainer, data: Arrays, steps: int) -> list[tuple[float, float]]:
    """(loss, gradient norm) of `steps` steps over the fixture's batches."""
    outcomes = []
    for rows in data["batch_index"][trainer.steps : trainer.steps + steps]:
        x = data["X"][rows]
        outcome = trainer.step(x, *on_the_last_step(x, data["Y"][rows]))
        outcomes.append((outcome.loss, outcome.gradient_norm))
    return outcomes


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("where", ["last", "seq"])
def test_gradients_are_those_of_torch(shape: str, where: str, dtype: Any, tolerance: float) -> None:
    data, sizes = load(f"grad_{shape}_f64"), SIZES[shape]
    layers = len(sizes.hidden)
    trainer = Trainer(weights_from(sizes, arrays_of_torch(data, "w", layers), dtype))
    if where == "last":
        found = trainer.gradients(data["X"], *on_the_last_step(data["X"], data["Y"]))
    else:
        found = trainer.gradients(
            data["X"], data["seq/Yseq"], None, State(tuple(data["seq/h0"]), tuple(data["seq/c0"]))
        )
        for own, name in (
            (found.d_state.h, "dh0"),
            (found.d_state.c, "dc0"),
            (found.state.h, "hn"),
            (found.state.c, "cn"),
        ):
            true = data[f"seq/{name}"]
            assert np.abs(np.stack(own) - true).max() <= tolerance * np.abs(true).max()
    assert found.loss == pytest.approx(float(data[f"{where}/loss"]), rel=tolerance)
    assert np.abs(found.d_x - data[f"{where}/dX"]).max() <= tolerance * np.abs(data[f"{where}/dX"]).max()
    for name, true in arrays_of_torch(data, f"{where}/grad", layers, biases=1).items():
        assert np.abs(found.by_name[name] - true).max() <= tolerance * np.abs(true).max()


# ---------------------------------------------------------------------------------------------------------------- Adam


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("dtype", "name", "tolerance"), [(np.float32, "f32", 5e-6), (np.float64, "f64", 1e-10)])
def test_a_hundred_steps_of_adam(shape: str, dtype: Any, name: str, tolerance: float) -> None:
    start, expected, sizes = load(f"adam_{shape}_f32"), load(f"adam_{shape}_{name}"), SIZES[shape]
    layers = len(sizes.hidden)
    weights = weights_from(sizes, arrays_of_torch(start, "w0", layers), dtype)
    trainer = Trainer(weights, adam=AdamSettings(double_bias=True))
    losses = []
    for stop in (1, 10, 100):
        losses += [loss for loss, _ in train(trainer, start, stop - trainer.steps)]
        if f"w{stop}/fc.bias" in expected:
            true = arrays_of_torch(expected, f"w{stop}", layers)
            assert difference(trainer.arrays(), true) <= tolerance
    np.testing.assert_allclose(losses, expected["loss"], rtol=0, atol=tolerance)
    y_hat, _ = trainer.forward(start["X"])
    final = np.mean((y_hat[:, -1].astype(np.float64) - start["Y"]) ** 2)
    assert final == pytest.approx(float(expected["final_loss_all"]), abs=tolerance)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-10)])
def test_a_hundred_steps_of_clipped_adam(shape: str, dtype: Any, tolerance: float) -> None:
    start, expected, sizes = load(f"adam_{shape}_f32"), load(f"adam_clip_{shape}_f64"), SIZES[shape]
    layers = len(sizes.hidden)
    weights = weights_from(sizes, arrays_of_torch(start, "w0", layers), dtype)
    trainer = Trainer(weights, adam=AdamSettings(double_bias=True, clip_norm=CLIP_NORM))
    losses, norms = zip(*train(trainer, start, 100), strict=True)
    assert max(norms) > CLIP_NORM > min(norms)
    np.testing.assert_allclose(losses, expected["loss"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(norms, expected["grad_norm_before_clip"], rtol=tolerance, atol=tolerance)
    assert difference(trainer.arrays(), arrays_of_torch(expected, "w100", layers)) <= tolerance


def arrays_of_keras(source: Arrays, prefix: str) -> Arrays:
    """Keras keeps columns where PyTorch keeps rows; its gates i, f, c, o are i, f, g, o."""
    kernel, recurrent, bias, head_weight, head_bias = (source[f"{prefix}/{k}"].astype(np.float64) for k in range(5))
    return {
        "layers.0.weight_ih": kernel.T,
        "layers.0.weight_hh": recurrent.T,
        "layers.0.bias": bias,
        "head.weight": head_weight.T,
        "head.bias": head_bias,
    }


def test_a_hundred_steps_of_keras() -> None:
    start, expected = load(f"adam_{ONE_LAYER}_f32"), load(f"kerasadam_{ONE_LAYER}_float64")
    weights = weights_from(SIZES[ONE_LAYER], arrays_of_keras(expected, "w0"), np.float64)
    trainer = Trainer(weights, adam=AdamSettings(epsilon=1e-7, epsilon_place=EpsilonPlace.RAW_ROOT))
    losses = []
    for stop, tolerance in ((1, 7e-9), (10, 1e-7), (100, 1e-6)):
        losses += [loss for loss, _ in train(trainer, start, stop - trainer.steps)]
        assert difference(trainer.arrays(), arrays_of_keras(expected, f"w{stop}")) <= tolerance
    np.testing.assert_allclose(losses, expected["loss"], rtol=0, atol=1e-5)  # all weights are off to the same side


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-10)])
def test_passes_with_a_last_batch_of_four(dtype: Any, tolerance: float) -> None:
    data, sizes = load("epochs_partial_batch_f64"), SIZES[TWO_LAYERS]
    weights = weights_from(sizes, arrays_of_torch(data, "w0", 2), dtype)
    trainer = Trainer(weights, adam=AdamSettings(learning_rate=float(data["lr"]), double_bias=True))
    size = int(data["batch"])
    for one_pass in range(int(data["epochs"])):
        losses, sequences = [], []
        for first in range(0, len(data["X"]), size):
            x, y = data["X"][first : first + size], data["Y"][first : first + size]
            losses.append(trainer.step(x, *on_the_last_step(x, y)).loss)
            sequences.append(len(x))
        assert sequences[-1] == 4
        assert np.mean(losses) == pytest.approx(data["epoch_loss_mean_of_batches"][one_pass], abs=tolerance)
        weighted = np.average(losses, weights=sequences)
        assert weighted == pytest.approx(data["epoch_loss_sample_weighted"][one_pass], abs=tolerance)
    # Adam divides by |g|: where a gradient is near 0 its rounding moves the weight by as much as 1e-2 (torch: 8e-6)
    assert difference(trainer.arrays(), arrays_of_torch(data, "w_end", 2)) <= (
        1e-4 if dtype == np.float32 else tolerance
    )
