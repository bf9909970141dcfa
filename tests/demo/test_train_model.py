"""The demo's model: trained as it is served, reproducible, and better than naive where it says so."""

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.demo.lstm_training import Weights
from deploy.demo.scores import geometric_mean
from deploy.demo.series import DATA, Series, load_series
from deploy.demo.train_model import MODEL, Recipe, forecasts, model_of, running_scaling, train
from streamlstm.cli.main import outcome
from streamlstm.model.model_file import load, save

SHORT = Recipe(hidden=8, steps=300, lanes=8, chunk=16, visit=4, burn_in=4)


def shipped_weights() -> Weights:
    parameters = load(MODEL).parameters
    layer = parameters.layers[0]
    return Weights(layer.weight_ih, layer.weight_hh, layer.bias, parameters.head_weight, parameters.head_bias)


def noise_around_a_level(seed: int, n: int = 600) -> Series:
    """A series whose best forecast is its level: naive is 1.41 times worse."""
    y = np.random.default_rng(seed).normal(50.0, 4.0, n)
    return Series(f"noise_{seed}", np.arange(n, dtype=np.int64) * 60_000, y)


def held_out_ratio(weights: Weights, one: Series, window: int) -> float:
    before, actual = slice(one.n_trained - 1, -1), one.y[one.n_trained :]
    yhat = forecasts(weights, one.y, window)[before]
    return float(np.abs(actual - yhat).mean() / np.abs(actual - one.y[before]).mean())


def test_running_scaling_is_exact_at_first() -> None:
    y = np.random.default_rng(0).normal(1e3, 20, 40)
    scaled, scale = running_scaling(y, window=100)
    for n in range(1, 40):
        seen = y[: n + 1]
        assert scale[n] == pytest.approx(seen.std(), rel=1e-9)
        assert scaled[n] == pytest.approx((y[n] - seen.mean()) / seen.std(), rel=1e-6, abs=1e-9)


def test_running_scaling_of_a_constant_and_of_a_shift() -> None:
    scaled, scale = running_scaling(np.full(50, 1e6), window=10)
    assert (scale == 1.0).all()
    assert (scaled == 0.0).all()
    shifted, _ = running_scaling(np.concatenate([np.zeros(500), np.full(500, 9.0)]), window=20)
    assert abs(shifted[-1]) < 1e-3


def test_training_learns_and_repeats_itself() -> None:
    series = [noise_around_a_level(seed) for seed in range(4)]
    first, again = train(series, SHORT), train(series, SHORT)
    for one, other in zip(first.arrays(), again.arrays(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert geometric_mean(held_out_ratio(first, one, SHORT.scaling_window) for one in series) < 0.85


def test_a_trained_model_is_a_model_file(tmp_path: Path) -> None:
    recipe = Recipe(hidden=4, steps=2, lanes=2, chunk=8, burn_in=2)
    model = model_of(train([noise_around_a_level(0)], recipe), recipe)
    save(model, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").model_hash == model.model_hash


def test_the_shipped_model_beats_naive_on_what_it_never_saw() -> None:
    model, weights = load(MODEL), shipped_weights()
    ratios = [held_out_ratio(weights, one, model.scaling.window) for one in load_series()]
    assert geometric_mean(ratios) < 0.86
    assert sum(ratio < 1 for ratio in ratios) >= 10


def test_the_shipped_model_is_that_of_the_recipe() -> None:
    assert load(MODEL).origin["recipe"] == repr(Recipe())


def test_served_as_trained(tmp_path: Path) -> None:
    """`streamlstm forecast` gives the very forecasts that training scored, to float32 rounding of the change."""
    one = next(one for one in load_series() if one.stream == "nyc_taxi")
    out = tmp_path / "forecasts.jsonl"
    source = DATA / "nyc_taxi.csv"
    assert outcome(["forecast", "--model", str(MODEL), "--input", str(source), "--output", str(out)]) == 0
    served = [json.loads(line) for line in out.read_text().splitlines()]
    window = load(MODEL).scaling.window
    _, scale = running_scaling(one.y, window)
    error = np.abs(np.array([line["yhat"][0] for line in served]) - forecasts(shipped_weights(), one.y, window))
    assert [line["y"] for line in served] == one.y.tolist()
    assert (error <= 1e-4 * scale).all()
