"""What training cuts out of a history: lagged values and targets, relative to the newest and in units of the stream.

All streams lie one after the other: rows [start[s], start[s + 1]) are those of stream s.

    x        float64 [N]       the target input
    held     float64 [N]       what serving remembers of x
    unit     float64 [N]       s_t, the running mean of |x_t - x_{t-1}|, or 0 where that is nothing to divide by
    others   float32 [N, E]    the other inputs, standardised

held and unit come from kernels.features.survey_changes; the arithmetic is that of kernels.features, bit for bit.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.features import network_input

Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]


@embedded
def within(value: float, limit: float) -> float:
    inside: float = min(max(value, -limit), limit)
    return inside


@embedded
def difference(x: Floats, held: Floats, begin: int, row: int, lag: int) -> float:
    """d of one lag at a row of the stream that begins at row `begin`."""
    if row - lag < begin:
        return 0.0
    d: float = held[row - lag] - x[row]
    return d


@compiled
def cut_rows(
    x: Floats, held: Floats, unit: Floats, start: Int64s, stop: Int64s, stream: Int64s, row: Int64s,
    lags: Int64s, column: Int64s, part: Floats, horizons: Int64s, limit: float, joined: Floats,
    known: NDArray[np.bool_],
) -> None:  # fmt: skip
    """One row of a regression for each of n rows: joined [n, C + O], in each of C columns the sum of part[j] u_j over
    the lags j that have it as column[j], u within `limit`; then the targets (x_{t+h} - x_t) / s_t, 0 from stop[s] on;
    known [n]: a target lies before it, and there is a unit.
    """
    C = joined.shape[1] - len(horizons)
    for n in range(len(row)):
        s, t = stream[n], row[n]
        known[n] = t + horizons[0] < stop[s] and unit[t] > 0.0
        joined[n] = 0.0
        if not known[n]:
            continue
        for j in range(len(lags)):
            joined[n, column[j]] += part[j] * within(difference(x, held, start[s], t, lags[j]) / unit[t], limit)
        for k in range(len(horizons)):
            h = horizons[k]
            joined[n, C + k] = (x[t + h] - x[t]) / unit[t] if t + h < stop[s] else 0.0


@compiled
def cut_crops(
    x: Floats, held: Floats, unit: Floats, others: Float32s, start: Int64s, stop: Int64s,
    stream: Int64s, first: Int64s, lags: Int64s, fed: Int64s, horizons: Int64s, skip: Floats, limit: float,
    inputs: Float32s, targets: Float32s, counted: NDArray[np.bool_],
) -> None:  # fmt: skip
    """B crops of T rows from first[b] on: what the network sees, and what the skip connection leaves to it.

    stop [S]     rows from here on aren't known: neither as inputs nor as targets
    skip         [L, O], the transpose of model.features'
    inputs       [B, T, F + E], written; 0 past the end of the stream
    targets      [B, T, O], written: (x_{t+h} - x_t - sum_j skip d_j) / s_t within `limit`; 0 where not counted
    counted      [B, T, O], written
    """
    B, T, outputs = targets.shape
    base = np.empty(outputs, np.float64)
    for b in range(B):
        s = stream[b]
        for step in range(T):
            t = first[b] + step
            if t >= stop[s]:
                inputs[b, step] = 0.0
                targets[b, step] = 0.0
                counted[b, step] = False
                continue
            for i in range(len(fed)):
                d = difference(x, held, start[s], t, lags[fed[i]])
                inputs[b, step, i] = network_input(d, unit[t])
            for i in range(others.shape[1]):
                inputs[b, step, len(fed) + i] = others[t, i]
            base[:] = 0.0
            for j in range(len(lags)):
                d = difference(x, held, start[s], t, lags[j])
                for k in range(outputs):
                    base[k] += skip[j, k] * d
            for k in range(outputs):
                is_known = unit[t] > 0.0 and t + horizons[k] < stop[s]
                counted[b, step, k] = is_known
                targets[b, step, k] = 0.0
                if is_known:
                    left = ((x[t + horizons[k]] - x[t]) - base[k]) / unit[t]
                    targets[b, step, k] = np.float32(within(left, limit))


@compiled
def add_errors(
    x: Floats, unit: Floats, start: Int64s, stream: Int64s, slot: Int64s, first: Int64s, low: Int64s, high: Int64s,
    period: int, horizons: Int64s, targets: Float32s, counted: NDArray[np.bool_], y_hat: Float32s,
    errors: Floats, counts: Int64s,
) -> None:  # fmt: skip
    """Add what was missed in B crops, over rows within [low[b], high[b]), to the sums of slot[b].

    y_hat    [B, T, O]: what the network says to `targets`
    errors   [slots, K, O, 3], added to, in each of K equal stretches of [low, high): absolute errors of the model, the
             naive and the seasonal naive forecast (where a season lies before the row; the naive one elsewhere, and
             with period 0)
    counts   [slots, O], added to
    """
    B, T, outputs = targets.shape
    stretches = errors.shape[1]
    for b in range(B):
        s = stream[b]
        for step in range(T):
            t = first[b] + step
            if t < low[b] or t >= high[b]:
                continue
            of_row = errors[slot[b], (t - low[b]) * stretches // (high[b] - low[b])]
            for k in range(outputs):
                if not counted[b, step, k]:
                    continue
                h = horizons[k]
                season = t
                if period > 0 and t + h - period * ((h + period - 1) // period) >= start[s]:
                    season = t + h - period * ((h + period - 1) // period)
                miss = np.float64(targets[b, step, k]) - np.float64(y_hat[b, step, k])
                of_row[k, 0] += abs(miss) * unit[t]
                of_row[k, 1] += abs(x[t + h] - x[t])
                of_row[k, 2] += abs(x[t + h] - x[season])
                counts[slot[b], k] += 1
