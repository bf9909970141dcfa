"""Train the demo's model. From the root of the checkout: `.venv/bin/python -m deploy.demo.train_model`, half a minute.

One LSTM for all streams, trained on the first part of each series (`series.TRAINED`) the way the daemon serves it:
running scaling that looks back only, state carried from event to event, the change to the next event predicted in units
of the stream's own running deviation. Prints every stream's error on the part that trained nothing against the naive
forecast (the next value is the last one), and writes deploy/demo/model.safetensors. The same seed gives the same model
on the same machine; elsewhere the last digits may differ with the BLAS.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: sums in one order

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.demo.lstm_training import Adam, State, Weights, backward, clip, forward, initial_weights
from deploy.demo.scores import geometric_mean
from deploy.demo.series import Series, load_series
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind, save
from streamlstm.model.parameters import Layer, Parameters

Array = NDArray[np.floating]
Float64 = NDArray[np.float64]
MODEL = Path(__file__).resolve().with_name("model.safetensors")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the model, apart from the series.

    Its numbers were chosen by the error on the last fifth of the training parts.

    lanes: sequences side by side. chunk: steps between two steps of Adam. visit: chunks that a lane walks along one
    stream before it starts elsewhere from an empty state, its first `burn_in` steps unscored. from_beginning: share of
    visits that start where the stream does. gain, shift: standard deviations of the logarithm of a factor and of an
    offset, drawn for each visit and put on its scaled values, so that twelve streams stand for many. huber: errors
    below it, in units of the stream's naive error, count quadratically. averaging: of the served weights over steps.
    """

    hidden: int = 40
    scaling_window: int = 500
    steps: int = 2400
    lanes: int = 48
    chunk: int = 48
    visit: int = 8
    burn_in: int = 24
    from_beginning: float = 0.15
    gain: float = 0.5
    shift: float = 0.5
    huber: float = 0.3
    learning_rate: float = 3e-3
    clip_norm: float = 1.0
    averaging: float = 0.998
    seed: int = 1


def running_scaling(y: Float64, window: int) -> tuple[Float64, Float64]:
    """Scaled values and scale (n,) of the daemon's `running` scaling: moments up to and with each event, float64.

    Over the first `window` events they are the exact moments; from there on the past fades exponentially.
    """
    mean = variance = 0.0
    scaled, scale = np.empty_like(y), np.empty_like(y)
    for n, value in enumerate(y.tolist()):
        alpha = 1.0 / min(n + 1, window)
        distance = value - mean
        mean += alpha * distance
        variance = (1.0 - alpha) * (variance + alpha * distance * distance)
        deviation = variance**0.5
        scale[n] = deviation if deviation > 1e-9 * max(1.0, abs(mean)) else 1.0
        scaled[n] = (value - mean) / scale[n]
    return scaled, scale


@dataclass(frozen=True, slots=True)
class Lessons:
    """The training parts of all series end to end, stream s in rows [begin[s], end[s]).

    x: scaled value. target: change to the next value, scaled. weight: what turns an error in scaled units into one in
    units of the stream's mean absolute change, so that the loss is the error against naive, stream by stream.
    """

    x: Array
    target: Array
    weight: Array
    begin: NDArray[np.int64]
    end: NDArray[np.int64]

    @classmethod
    def of(cls, series: list[Series], window: int) -> "Lessons":
        parts = []
        for one in series:
            scaled, scale = (column[: one.n_trained - 1] for column in running_scaling(one.y, window))
            change = np.diff(one.y[: one.n_trained])
            parts.append((scaled, change / scale, scale / np.abs(change).mean()))
        x, target, weight = (np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True))
        end = np.cumsum([len(scaled) for scaled, _, _ in parts])
        return cls(x, target, weight, np.concatenate([[0], end[:-1]]), end)


class Lanes:
    """Readers of the lessons, side by side, each walking along one stream for a visit, then starting elsewhere."""

    def __init__(self, lessons: Lessons, recipe: Recipe, rng: np.random.Generator) -> None:
        self._recipe, self._rng = recipe, rng
        self._begin, self._end = lessons.begin, lessons.end
        likely = np.sqrt(lessons.end - lessons.begin)  # long streams more often, yet less than by their length
        self._likely = likely / likely.sum()
        self._position = np.zeros(recipe.lanes, np.int64)
        self._stop = np.zeros(recipe.lanes, np.int64)
        self._chunks_left = np.zeros(recipe.lanes, np.int64)
        self.gain = np.ones(recipe.lanes, np.float32)
        self.shift = np.zeros(recipe.lanes, np.float32)
        zeros = np.zeros((recipe.lanes, recipe.hidden), np.float32)
        self.state = State(zeros, zeros.copy())

    def next_chunk(self) -> tuple[NDArray[np.int64], Array]:
        """Rows (T,B) of the lessons to step through, and (T,B) 1 where the error counts, else 0."""
        steps = self._recipe.chunk
        counts = np.ones((steps, self._recipe.lanes), np.float32)
        for lane in np.flatnonzero((self._chunks_left == 0) | (self._position + steps > self._stop)):
            self._start_visit(lane)
            counts[: self._recipe.burn_in, lane] = 0
        rows = self._position + np.arange(steps)[:, None]
        self._position += steps
        self._chunks_left -= 1
        return rows, counts

    def _start_visit(self, lane: np.intp) -> None:
        recipe, rng = self._recipe, self._rng
        stream = rng.choice(len(self._begin), p=self._likely)
        begin, self._stop[lane] = self._begin[stream], self._end[stream]
        latest = max(begin + 1, self._stop[lane] - 2 * recipe.chunk)
        self._position[lane] = begin if rng.random() < recipe.from_beginning else rng.integers(begin, latest)
        self._chunks_left[lane] = recipe.visit
        self.gain[lane] = np.exp(recipe.gain * rng.standard_normal())
        self.shift[lane] = recipe.shift * rng.standard_normal()
        self.state.h[lane] = self.state.c[lane] = 0


def train(series: list[Series], recipe: Recipe) -> Weights:
    """The averaged weights after `recipe.steps` steps of Adam, its learning rate falling along half a cosine."""
    rng = np.random.default_rng(recipe.seed)
    weights = initial_weights(1, recipe.hidden, 1, rng)
    weights.head_weight *= 0.1  # begin near the naive forecast, a change of 0
    weights.head_bias[:] = 0
    average = Weights(*(array.copy() for array in weights.arrays()))
    adam, lessons = Adam(weights), Lessons.of(series, recipe.scaling_window)
    lanes = Lanes(lessons, recipe, rng)
    errors = []
    for step in range(recipe.steps):
        error, gradient = _one_chunk(weights, lessons, lanes, recipe)
        clip(gradient, recipe.clip_norm)
        adam.step(weights, gradient, recipe.learning_rate * 0.5 * (1 + np.cos(np.pi * step / recipe.steps)))
        keep = min(recipe.averaging, (step + 1) / (step + 10))
        for slow, fast in zip(average.arrays(), weights.arrays(), strict=True):
            slow[...] += (1 - keep) * (fast - slow)
        errors.append(error)
        if (step + 1) % 200 == 0:
            print(f"step {step + 1:5d}  error against naive {np.mean(errors[-200:]):.3f}", flush=True)
    return average


def _one_chunk(weights: Weights, lessons: Lessons, lanes: Lanes, recipe: Recipe) -> tuple[float, Weights]:
    """Step every lane through its next chunk: mean absolute error against naive, and the Huber loss' gradient."""
    rows, counts = lanes.next_chunk()
    x = lessons.x[rows] * lanes.gain + lanes.shift
    out, tape = forward(weights, x[..., None], lanes.state)
    lanes.state = State(tape.h[-1].copy(), tape.c[-1].copy())
    weight = lessons.weight[rows] / lanes.gain
    error = (out[..., 0] - lessons.target[rows] * lanes.gain) * weight
    share = counts / counts.sum()
    slope = np.clip(error / recipe.huber, -1, 1) * weight * share
    return float((np.abs(error) * share).sum()), backward(weights, tape, slope[..., None])


def forecasts(weights: Weights, y: Float64, window: int) -> Float64:
    """At every event the forecast (n,) of the next one, as the daemon makes it from an empty state."""
    scaled, scale = running_scaling(y, window)
    zeros = np.zeros((1, weights.weight_hh.shape[1]), np.float32)
    out, _ = forward(weights, scaled.astype(np.float32)[:, None, None], State(zeros, zeros))
    return y + scale * out[:, 0, 0]


def report(series: list[Series], weights: Weights, window: int) -> None:
    """Print every stream's mean absolute error on the part that trained nothing, the model's and the naive one's."""
    print(f"\n{'stream':40s} {'events':>7s} {'model':>11s} {'naive':>11s} {'ratio':>7s}")
    ratios = []
    for one in series:
        before, actual = slice(one.n_trained - 1, -1), one.y[one.n_trained :]
        model = np.abs(actual - forecasts(weights, one.y, window)[before]).mean()
        naive = np.abs(actual - one.y[before]).mean()
        ratios.append(float(model / naive))
        print(f"{one.stream:40s} {len(one.y):7d} {model:11.5g} {naive:11.5g} {ratios[-1]:7.3f}")
    better = sum(ratio < 1 for ratio in ratios)
    print(f"geometric mean {geometric_mean(ratios):.3f}; better than naive on {better} of {len(series)} streams")


def model_of(weights: Weights, recipe: Recipe) -> Model:
    """The model file's content: carried state, running scaling, the change one step ahead."""
    layer = Layer(weights.weight_ih, weights.weight_hh, weights.bias)
    parameters = Parameters((layer,), weights.head_weight, weights.head_bias)
    return Model(
        parameters=parameters,
        window=0,
        inputs=("value",),
        target=0,
        predicts="change",
        horizons=(1,),
        scaling=Scaling(ScalingKind.RUNNING, (0.0,), (1.0,), recipe.scaling_window),
        interval_ms=None,
        origin={"made_by": "deploy/demo/train_model.py", "series": "NAB, twelve real series", "recipe": repr(recipe)},
        golden=make_golden(parameters),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=MODEL, help="where to write the model (%(default)s)")
    arguments = parser.parse_args()
    begin = time.monotonic()
    series, recipe = load_series(), Recipe()
    weights = train(series, recipe)
    report(series, weights, recipe.scaling_window)
    save(model_of(weights, recipe), arguments.output)
    print(f"{arguments.output} written after {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
