"""From a history to a model: scale, cut windows, train by a recipe, and hold the result to the naive forecast."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamlstm import __version__
from streamlstm.errors import BadDataError
from streamlstm.evaluation.metrics import mae, rel_mae, rmse
from streamlstm.history.history import History
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind
from streamlstm.model.parameters import Parameters
from streamlstm.service.learned_from import LEARNED_TO
from streamlstm.training.recipes import Pass, Recipe, forecasts, run_passes
from streamlstm.training.steps import Trainer
from streamlstm.training.weights import Sizes
from streamlstm.training.windows import Windows, rows_to_forecast


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """`window`: rows that a forecast sees. `tail`: the share of each stream, its end, that is kept from training.
    `threads` changes no bit.
    """

    recipe: Recipe
    window: int = 24
    tail: float = 0.2
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class TailScores:
    """One-step forecasts of the tails, beside repeating the last value, in the unit of the series.

    `rel_mae`: geometric mean over the streams of MAE / MAE of the naive forecast; below 1 is better. `better`: streams
    where it is below 1, of `streams` that have a tail.
    """

    count: int
    mae: float
    rmse: float
    naive_mae: float
    naive_rmse: float
    rel_mae: float
    better: int
    streams: int


@dataclass(frozen=True, slots=True)
class Learned:
    model: Model
    windows: int
    scores: TailScores


def learn(history: History, options: LearnOptions, tell: Callable[[Pass], None]) -> Learned:
    """Train one model for all streams of the history; `tell` hears of each pass.

    Raises BadDataError when there is nothing to learn from, or the loss is not finite.
    """
    recipe, inputs = options.recipe, len(history.inputs)
    begin, stop, tail = history.start[:-1], history.start[1:], history.tail_after(1 - options.tail)
    if not len(rows := rows_to_forecast(begin, begin, tail, options.window)):
        longest = int((tail - begin).max(initial=0))
        raise BadDataError(
            f"history: expected a stream with more than {options.window} rows before its tail, for one window and what "
            f"follows it; the longest has {longest}"
        )
    scaling = _between_0_and_1(history, tail)
    x = ((history.x - scaling.offset) / scaling.scale).astype(np.float32)
    known = Windows(x, rows, options.window)
    random = np.random.Generator(np.random.PCG64(options.seed))
    weights = recipe.draw(Sizes(inputs, recipe.hidden, 1), random)
    with ThreadPoolExecutor(max(1, options.threads - 1), "train") as executor:
        trainer = Trainer(
            weights, adam=recipe.adam, seed=options.seed, executor=executor, threads=options.threads
        )  # fmt: skip
        losses = []
        for one_pass in run_passes(trainer, known, recipe, random):
            losses.append(one_pass.loss)
            tell(one_pass)
        held = replace(known, following=rows_to_forecast(begin, tail, stop, options.window))
        scores = _scores(history, held, forecasts(trainer, held) * scaling.scale[0] + scaling.offset[0])
    origin = {
        "trained_by": f"streamlstm {__version__}", "recipe": recipe.name, "seed": str(options.seed),
        "passes": str(recipe.passes), "batch": str(recipe.batch), "windows": str(len(known)),
        "loss": f"{losses[-1]:.6g}", LEARNED_TO: str(int(history.time[rows].max())),
    }  # fmt: skip
    return Learned(_model(history, trainer.parameters(), options.window, scaling, origin), len(known), scores)


def _between_0_and_1(history: History, tail: NDArray[np.int64]) -> Scaling:
    """By the smallest and largest value of each input in front of the tails, over all streams."""
    is_known = np.arange(history.rows) < np.repeat(tail, np.diff(history.start))
    low, high = history.x[is_known].min(axis=0), history.x[is_known].max(axis=0)
    extent = np.where(high > low, high - low, 1.0)
    return Scaling(ScalingKind.MINMAX, tuple(low.tolist()), tuple(extent.tolist()))


def _scores(history: History, held: Windows, forecast: NDArray[np.float64]) -> TailScores:
    rows = held.following
    actual, naive = history.x[rows, 0], history.x[rows - 1, 0]
    stream = np.searchsorted(history.start, rows, side="right") - 1
    present, place = np.unique(stream, return_inverse=True)
    counts = np.bincount(place)
    errors, naive_errors = (
        np.bincount(place, np.abs(actual - each), len(present)) / counts for each in (forecast, naive)
    )
    return TailScores(
        count=len(rows),
        mae=mae(actual, forecast),
        rmse=rmse(actual, forecast),
        naive_mae=mae(actual, naive),
        naive_rmse=rmse(actual, naive),
        rel_mae=rel_mae(errors, naive_errors),
        better=int((errors < naive_errors).sum()),
        streams=len(present),
    )


def _model(history: History, parameters: Parameters, window: int, scaling: Scaling, origin: dict[str, str]) -> Model:
    return Model(
        parameters=parameters,
        window=window,
        inputs=history.inputs,
        target=0,
        predicts="value",
        horizons=(1,),
        scaling=scaling,
        interval_ms=None,
        origin=origin,
        golden=make_golden(parameters, window, "the trained model"),
    )
