"""Training of the network on what the skip connection leaves over: random crops, Adam, averaged weights, and an end
when the tail has not improved for a while.

The forecast is made by a running mean of the weights over the last steps (Polyak & Juditsky 1992; exponential, as in
Adam's section 7.2): it does what a decay of the learning rate would do, at every step.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import BadDataError
from streamlstm.training.adam import AdamSettings
from streamlstm.training.losses import AbsoluteError
from streamlstm.training.past import Base, Int64s, Past, crops_of, first_rows
from streamlstm.training.recipes import draw_torch
from streamlstm.training.steps import Trainer
from streamlstm.training.weights import Sizes, Weights

Vector = NDArray[np.float32]

UNSCORED_STEPS = 8  # of a crop that begins within its stream: the state has to find its feet
TARGET_LIMIT = 20.0  # units
AVERAGED = 0.02  # weight of the newest weights in their running mean
_LARGEST_LOSS = 1e6
LARGEST = 1e300  # no score yet


@dataclass(frozen=True)
class FitSettings:
    """`patience`: looks at the tail, one every `every` steps, without a gain before training ends."""

    hidden: tuple[int, ...] = (50,)
    batch: int = 64
    crop: int = 96
    learning_rate: float = 3e-3
    clip_norm: float = 1.0
    steps: int = 10_000
    every: int = 100
    patience: int = 5
    least_gain: float = 1e-4


@dataclass(frozen=True)
class Look:
    """After `step` steps: the mean loss since the last look, and the score on the tail (None: there is none)."""

    step: int
    loss: float
    tail: float | None


@dataclass(frozen=True, eq=False)
class Lent:
    """Threads for the shards of a batch; they change no bit."""

    executor: Executor | None = None
    threads: int = 1


class Fit:
    """The weights on their way. `state` is everything that decides the next step, and what is known of those before."""

    def __init__(self, past: Past, stop: Int64s, base: Base, settings: FitSettings, seed: int, lent: Lent) -> None:
        """Learns from the rows before `stop` [S]. Raises BadDataError where no stream has two of them."""
        self._past, self._stop, self._base, self._settings = past, stop, base, settings
        self._first = first_rows(past, stop, base.lags)
        self._steps = int(min(settings.crop, max(2, (stop - self._first).max(initial=0))))
        starts = stop - self._first - 1
        self._ends = np.cumsum(np.where(starts > 0, np.maximum(starts - self._steps, 1), 0))
        if not len(self._ends) or not self._ends[-1]:
            raise BadDataError("history: expected a stream with a few rows to learn from, found none")
        self._random = np.random.Generator(np.random.PCG64(seed))
        sizes = Sizes(len(base.lags.fed) + past.others.shape[1], settings.hidden, len(base.horizons))
        self._weights = draw_torch(sizes, self._random)
        self._weights.head_weight[...] = 0.0
        self._weights.head_bias[...] = 0.0
        self._mean = Weights(sizes, self._weights.vector.copy())
        adam = AdamSettings(learning_rate=settings.learning_rate, clip_norm=settings.clip_norm)
        shared: dict[str, Any] = {"loss": AbsoluteError(), "adam": adam, "executor": lent.executor}
        self._trainer = Trainer(self._weights, threads=lent.threads, **shared)
        self._judged = Trainer(self._mean, threads=lent.threads, **shared)
        self.best = self._mean.vector.copy()
        self.best_step, self.best_score = 0, LARGEST
        self.looks: list[Look] = []
        self.ended = False
        self._since_best = 0
        self._loss, self._loss_count = 0.0, 0

    @property
    def steps(self) -> int:
        return self._trainer.steps

    def weights_at_best(self) -> Weights:
        """A copy."""
        return Weights(self._mean.sizes, self.best.copy())

    def averaged(self) -> Weights:
        """The running mean of the weights; a copy."""
        return Weights(self._mean.sizes, self._mean.vector.copy())

    def run(self, score: Callable[[Trainer], float] | None, steps: int) -> Iterator[Look | None]:
        """Train to `steps` steps in all, or until `score` of the averaged weights doesn't fall any more. Yields after
        every step: a look every so many, else None. Raises BadDataError when the loss isn't finite, or explodes.
        """
        own = self._settings
        if score is not None and not self.looks and not self.steps:
            self.best_score = score(self._judged)
        while not self.ended and self.steps < steps:
            self._step()
            look = self._look(score) if self.steps % own.every == 0 or self.steps == steps else None
            self.ended = self.steps >= steps or self._since_best >= own.patience
            yield look
        self.ended = True

    def state(self) -> tuple[dict[str, Vector], dict[str, Any]]:
        """Arrays [P] by name, and numbers that JSON can hold."""
        m, v = self._trainer.adam.moments
        arrays = {"weights": self._weights.vector, "mean": self._mean.vector, "m": m, "v": v, "best": self.best}
        numbers = {
            "steps": self.steps, "random": self._random.bit_generator.state, "best_step": self.best_step,
            "best_score": self.best_score, "since_best": self._since_best, "loss": self._loss,
            "loss_count": self._loss_count, "ended": self.ended,
            "looks": [[look.step, look.loss, look.tail] for look in self.looks],
        }  # fmt: skip
        return arrays, numbers

    def restore(self, arrays: dict[str, Vector], numbers: dict[str, Any]) -> None:
        """Go on from a `state` of a Fit of the same arguments. Raises KeyError, TypeError or ValueError for another."""
        own, _ = self.state()
        for name, array in own.items():
            array[...] = arrays[name]
        self._trainer.adam.steps = int(numbers["steps"])
        self._random.bit_generator.state = numbers["random"]
        self.best_step, self.best_score = int(numbers["best_step"]), float(numbers["best_score"])
        self._since_best, self.ended = int(numbers["since_best"]), bool(numbers["ended"])
        self._loss, self._loss_count = float(numbers["loss"]), int(numbers["loss_count"])
        self.looks = [Look(*look) for look in numbers["looks"]]
        self._trainer.refresh()
        self._judged.refresh()

    def _step(self) -> None:
        crops = self._batch()
        outcome = self._trainer.step(*crops)
        if not (np.isfinite(outcome.gradient_norm) and outcome.loss < _LARGEST_LOSS):
            raise BadDataError(
                f"step {self.steps}: expected a finite loss, found {outcome.loss:.6g}: the weights have exploded; a "
                "smaller --learning-rate would keep them"
            )
        self._mean.vector += np.float32(AVERAGED) * (self._weights.vector - self._mean.vector)
        self._loss += outcome.loss
        self._loss_count += 1

    def _batch(self) -> tuple[Any, Any, Any]:
        while True:
            place = self._random.integers(self._ends[-1], size=self._settings.batch)
            stream = np.searchsorted(self._ends, place, side="right")
            first = self._first[stream] + place - np.concatenate([[0], self._ends])[stream]
            crops = crops_of(self._past, self._stop, self._base, stream, first, self._steps, TARGET_LIMIT)
            within = first > self._past.start[stream]
            crops.counted[within, : min(UNSCORED_STEPS, self._steps // 4)] = False
            if crops.counted.any():
                return crops.inputs, crops.targets, crops.counted

    def _look(self, score: Callable[[Trainer], float] | None) -> Look:
        loss, found = self._loss / self._loss_count, None
        self._loss, self._loss_count = 0.0, 0
        if score is not None:
            self._judged.refresh()
            found = score(self._judged)
            if found < self.best_score - self._settings.least_gain:
                self.best, self.best_step, self.best_score = self._mean.vector.copy(), self.steps, found
                self._since_best = 0
            else:
                self._since_best += 1
        look = Look(self.steps, loss, found)
        self.looks.append(look)
        return look
