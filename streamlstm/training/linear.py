"""The linear part of the forecast: least absolute errors of lagged values, over rows of all streams.

By iteratively reweighted least squares (Schlossmacher 1973), in each stream's own unit, with a ridge: few rows say
little of many weights.
"""

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.least_squares import ROWS_AT_ONCE, residuals, reweigh, solve, weighted_gram
from streamlstm.training.past import Floats, Lags, Past, rows_of

Int64s = NDArray[np.int64]

CLIP = 50.0  # units: beyond, a lagged value says no more
_RIDGE = 1e-5  # of the number of rows
_FLOOR = 0.1  # of the median residual: below, a row weighs no more


@dataclass(frozen=True)
class Doubt:
    """What weights have to outweigh: so many `rows` that tell nothing. In those each lag lies a unit from the newest
    value, or, `sized`, as far as it does on the average: a far lag is then believed no sooner than a near one.
    """

    rows: float
    sized: bool


SLIGHT, STRONG = Doubt(3.0, sized=False), Doubt(20.0, sized=True)


@dataclass(frozen=True)
class Effort:
    """`work`: multiplications that the fit may cost at most; fewer rows where the lags and horizons are many."""

    rows: int = 30_000
    iterations: int = 5
    work: float = 6e10

    def rows_for(self, weights: int, outputs: int) -> int:
        return int(min(self.rows, max(20 * weights, self.work / (self.iterations * outputs * weights**2))))


def fit_linear(
    past: Past,
    stop: Int64s,
    lags: Lags,
    horizons: tuple[int, ...],
    random: np.random.Generator,
    effort: Effort,
    executor: Executor | None = None,
    doubt: Doubt = SLIGHT,
) -> Floats:
    """The skip connection, float64 [O, L], of rows before `stop` [S]: those of model.features. Zeros without rows.

    The horizons are fitted each on its own, by the threads of `executor`.
    """
    C = lags.weights
    most = effort.rows_for(C, len(horizons))
    joined, known = rows_of(past, stop, lags, horizons, most, CLIP, random)
    size = _sizes(joined[:, :C]) if doubt.sized else np.ones(C)
    joined[:, :C] /= size

    def fit(k: int) -> Floats:
        return _least_absolute(joined[: known[k]], C, C + k, effort.iterations, doubt.rows) / size

    fits = executor.map(fit, range(len(horizons))) if executor else map(fit, range(len(horizons)))
    column, part = lags.columns
    skip = np.array(list(fits))[:, column] * part
    return skip.astype(np.float32).astype(np.float64)  # as it will be served


def _sizes(columns: Floats) -> Floats:
    """Root mean squares [C]; 1 of a column that is zero."""
    squares = (columns**2).sum(axis=0) / max(len(columns), 1)
    return np.sqrt(np.where(squares > 0, squares, 1.0))


def _least_absolute(joined: Floats, columns: int, target: int, iterations: int, doubt: float) -> Floats:
    n = len(joined)
    found, weight, residual = np.zeros(columns), np.ones(n), np.empty(n)
    gram, scratch = np.empty((columns, columns + 1)), np.empty((ROWS_AT_ONCE, columns + 1))
    for _ in range(iterations if n else 0):
        weighted_gram(joined, columns, target, weight, scratch, gram)
        solution = np.empty(columns)
        if not solve(gram, _RIDGE * n + doubt, solution):
            break
        found = solution
        residuals(joined, columns, target, found, residual)
        reweigh(residual, _FLOOR * float(np.median(residual)) + 1e-9, weight)
    return found
