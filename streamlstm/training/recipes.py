"""The tutorials' recipes, step for step: initial weights, order, optimiser, and what a pass reports as its loss.

Keras:    Sequential([LSTM(50, input_shape=(None, 1)), Dense(1)]), adam, mse, fit(epochs=10, batch_size=32)
PyTorch:  nn.LSTM(input_dim, hidden_dim, layer_dim, batch_first=True), nn.Linear on the last step, MSELoss, Adam(1e-3)

The draws of the initial weights and of the order follow the frameworks' rules, not their generators: from equal weights
and in an equal order the curves are equal, and by a seed of its own each run is reproducible.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import BadDataError
from streamlstm.training.adam import AdamSettings, EpsilonPlace
from streamlstm.training.steps import Trainer
from streamlstm.training.weights import Sizes, Weights
from streamlstm.training.windows import Reals, Windows

Draw = Callable[[Sizes, np.random.Generator], Weights]


@dataclass(frozen=True)
class Recipe:
    """`weighs_batches`: a pass reports the mean over its windows, as Keras; else over its batches, as PyTorch's usual
    loop."""

    name: str
    hidden: tuple[int, ...]
    adam: AdamSettings
    draw: Draw
    weighs_batches: bool
    passes: int = 10
    batch: int = 32


@dataclass(frozen=True)
class Pass:
    """A pass over all windows: its number from 1, and its mean loss, of weights that move on meanwhile."""

    number: int
    loss: float


def draw_keras(sizes: Sizes, random: np.random.Generator) -> Weights:
    """Kernels Glorot-uniform (Glorot & Bengio 2010), recurrent kernels orthogonal (Saxe et al. 2014), biases 0, but for
    1 at the forget gates (Jozefowicz et al. 2015).
    """
    weights = Weights(sizes, np.zeros(sizes.total, np.float32))
    for weight, bias, inputs, hidden in zip(
        weights.layers, weights.biases, sizes.layer_inputs, sizes.hidden, strict=True
    ):
        limit = sqrt(6 / (inputs + 4 * hidden))
        weight[:inputs] = random.uniform(-limit, limit, (inputs, 4 * hidden))
        weight[inputs:] = _orthogonal(hidden, 4 * hidden, random)
        bias[hidden : 2 * hidden] = 1.0
    limit = sqrt(6 / (sizes.hidden[-1] + sizes.outputs))
    weights.head_weight[...] = random.uniform(-limit, limit, weights.head_weight.shape)
    return weights


def draw_torch(sizes: Sizes, random: np.random.Generator) -> Weights:
    """Everything uniform within 1 / sqrt(H); a layer's bias is the sum of two such draws."""
    weights = Weights(sizes, np.zeros(sizes.total, np.float32))
    for weight, bias, hidden in zip(weights.layers, weights.biases, sizes.hidden, strict=True):
        limit = 1 / sqrt(hidden)
        weight[...] = random.uniform(-limit, limit, weight.shape)
        bias[...] = random.uniform(-limit, limit, (2, *bias.shape)).sum(axis=0)
    limit = 1 / sqrt(sizes.hidden[-1])
    weights.head_weight[...] = random.uniform(-limit, limit, weights.head_weight.shape)
    weights.head_bias[...] = random.uniform(-limit, limit, weights.head_bias.shape)
    return weights


def _orthogonal(rows: int, columns: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Rows of length 1 at right angles, uniformly drawn (Mezzadri 2007); rows <= columns."""
    q, r = np.linalg.qr(random.standard_normal((columns, rows)))
    return np.asarray((q * np.sign(np.diag(r))).T)


KERAS_ADAM = AdamSettings(epsilon=1e-7, epsilon_place=EpsilonPlace.RAW_ROOT)
TORCH_ADAM = AdamSettings(double_bias=True)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("keras-tutorial", (50,), KERAS_ADAM, draw_keras, weighs_batches=True),
        Recipe("pytorch-tutorial", (64, 64), TORCH_ADAM, draw_torch, weighs_batches=False),
    )
}


def run_passes(trainer: Trainer, windows: Windows, recipe: Recipe, random: np.random.Generator) -> Iterator[Pass]:
    """Train, and tell of each pass as it ends; every pass has an order of its own.

    Raises BadDataError when the loss is not finite any more.
    """
    for number in range(1, recipe.passes + 1):
        yield Pass(number, run_pass(trainer, windows, recipe, random.permutation(len(windows)), number))


def run_pass(trainer: Trainer, windows: Windows, recipe: Recipe, order: NDArray[np.int64], number: int = 1) -> float:
    """One pass in that order; the loss that the recipe reports. Raises BadDataError as `run_passes`."""
    losses, sizes = [], []
    for x, y in windows.batches(order, recipe.batch):
        loss = trainer.step(x, *_on_the_last_step(y, windows.length)).loss
        if not np.isfinite(loss):
            raise BadDataError(
                f"pass {number}, step {trainer.steps}: expected a finite loss, found {loss}: the weights have "
                "exploded; a smaller --learning-rate, or inputs without such outliers, would keep them"
            )
        losses.append(loss)
        sizes.append(len(x))
    return float(np.average(losses, weights=sizes if recipe.weighs_batches else None))


def forecasts(trainer: Trainer, windows: Windows, batch: int = 512) -> NDArray[np.float64]:
    """What follows each window, scaled: [W]."""
    found = np.empty(len(windows))
    for first in range(0, len(windows), batch):
        x, _ = windows.cut(np.arange(first, min(first + batch, len(windows))))
        found[first : first + batch] = trainer.forward(x)[0][:, -1, 0]
    return found


def _on_the_last_step(y: Reals, steps: int) -> tuple[Reals, NDArray[np.bool_]]:
    """Targets and mask [B, T, 1] of y [B, 1]: the linear layer reads the last step alone."""
    targets = np.zeros((len(y), steps, y.shape[1]), y.dtype)
    counted = np.zeros(targets.shape, np.bool_)
    targets[:, -1] = y
    counted[:, -1] = True
    return targets, counted
