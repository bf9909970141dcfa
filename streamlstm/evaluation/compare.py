"""Whether one forecast is better than another on a series, or only luckier: the test of Diebold and Mariano (1995)."""

from dataclasses import dataclass

import numpy as np

from streamlstm.evaluation.baselines import Floats

SHORTEST = 10
"""Pairs of errors below which nothing is concluded."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`statistic` below 0: the first is better. `p_value` is two-sided; NaN where the losses can't be told apart."""

    mean_difference: float
    statistic: float
    p_value: float

    def verdict(self, level: float = 0.05) -> int:
        """-1 where the first is better, 1 where the second is, 0 where neither is at that level."""
        return int(np.sign(self.statistic)) if self.p_value < level else 0


def diebold_mariano(losses: Floats, other_losses: Floats, horizon: int = 1) -> Comparison:
    """Compare the losses, both [n] in the order of time, of forecasts `horizon` steps ahead.

    The long-run variance of the difference takes in `horizon` - 1 autocovariances, as optimal forecasts so far ahead
    have them; with the small-sample correction of Harvey, Leybourne and Newbold (1997), against Student's t of n - 1
    degrees of freedom. Pairs with a NaN don't count. Where the estimated variance isn't positive, which happens with
    few pairs, only the variance itself is taken (Harvey, Leybourne and Newbold, section 3).
    """
    from scipy.special import stdtr  # noqa: PLC0415, of the extra [train]

    difference = losses - other_losses
    difference = difference[~np.isnan(difference)]
    n = len(difference)
    mean = float(difference.mean()) if n else np.nan
    if n < max(SHORTEST, 2 * horizon):
        return Comparison(mean, np.nan, np.nan)
    centred = difference - mean
    covariances = [float(centred[k:] @ centred[: n - k]) / n for k in range(horizon)]
    variance = covariances[0] + 2.0 * sum(covariances[1:])
    variance = variance if variance > 0 else covariances[0]
    if variance <= 0:
        return Comparison(mean, np.nan, np.nan)
    correction = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    statistic = mean / np.sqrt(variance / n) * np.sqrt(correction)
    return Comparison(mean, float(statistic), float(2.0 * stdtr(n - 1, -abs(statistic))))
