"""Adam over one flat vector of weights, and what comes before it: the sum of the shards' gradients and its norm.

Kingma & Ba 2015, algorithm 1. All functions take arrays of one dtype, float32 or float64; sums run in a fixed order.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled

Reals = NDArray[Any]


@compiled
def sum_shards(gradients: Reals, total: Reals) -> None:
    """total [P] = gradients[0] + gradients[1] + ..., gradients being [shards, P]; added in that order."""
    shards, size = gradients.shape
    for k in range(size):
        total[k] = gradients[0, k]
    for shard in range(1, shards):
        for k in range(size):
            total[k] += gradients[shard, k]


@compiled
def sum_of_squares(values: Reals) -> float:
    """In float64; four running sums, so that they needn't wait for each other."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = len(values) // 4 * 4
    for k in range(0, whole, 4):
        a += np.float64(values[k]) ** 2
        b += np.float64(values[k + 1]) ** 2
        c += np.float64(values[k + 2]) ** 2
        d += np.float64(values[k + 3]) ** 2
    for k in range(whole, len(values)):
        a += np.float64(values[k]) ** 2
    return (a + b) + (c + d)


@compiled
def adam_step(
    weights: Reals, gradient: Reals, m: Reals, v: Reals, factor: Any, beta_1: Any, rest_1: Any, beta_2: Any,
    rest_2: Any, rate: Any, root_factor: Any, epsilon: Any,
) -> None:  # fmt: skip
    """One step, with g = gradient * factor (factor: that of gradient clipping):

        m <- beta_1 m + rest_1 g      v <- beta_2 v + rest_2 g²      weights -= rate m / (root_factor sqrt(v) + epsilon)

    All arrays [P]; weights, m and v are updated. The scalars are of the arrays' dtype; rest is 1 - beta. With t steps,
    this one included, algorithm 1 and PyTorch have rate = lr / (1 - beta_1^t), root_factor = 1 / sqrt(1 - beta_2^t);
    Keras, the last form of the paper's section 2, rate = lr sqrt(1 - beta_2^t) / (1 - beta_1^t) and root_factor = 1.
    """
    for k in range(len(weights)):
        g = gradient[k] * factor
        m[k] = beta_1 * m[k] + rest_1 * g
        v[k] = beta_2 * v[k] + rest_2 * (g * g)
        weights[k] -= rate * m[k] / (root_factor * np.sqrt(v[k]) + epsilon)
