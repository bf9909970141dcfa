"""Weighted least squares by the normal equations, for fits of the absolute error by reweighting (Schlossmacher 1973).

Sums run in a fixed order, so that a fit has the same bits on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.matmul import multiply_add

Floats = NDArray[np.float64]

ROWS_AT_ONCE = 256  # weighted rows that stay in the first caches while they are multiplied


@compiled("void(float64[:, ::1], int64, int64, float64[::1], float64[:, ::1], float64[:, ::1])")
def weighted_gram(joined: Floats, columns: int, target: int, weight: Floats, scratch: Floats, gram: Floats) -> None:
    """gram [L, L + 1] = the sum over rows of weight u (u, y)ᵀ, without reading what was there.

    joined    [n, >= L]: u in the first L = `columns` columns, y in column `target`
    scratch   [ROWS_AT_ONCE, L + 1], overwritten
    """
    n, width = joined.shape
    gram[:] = 0.0
    gram_row = 8 * (columns + 1)
    for first in range(0, n, ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, n - first)
        for i in range(rows):
            for j in range(columns):
                scratch[i, j] = weight[first + i] * joined[first + i, j]
            scratch[i, columns] = weight[first + i] * joined[first + i, target]
        multiply_add(
            1.0, columns, columns + 1, rows, joined.ctypes.data + 8 * first * width, 8, 8 * width,
            scratch.ctypes.data, gram_row, gram.ctypes.data, gram_row, gram.ctypes.data, gram_row,
        )  # fmt: skip


@compiled("boolean(float64[:, ::1], float64, float64[::1])")
def solve(gram: Floats, ridge: float, solution: Floats) -> bool:
    """Solve (G + ridge I) a = b, G and b being the columns of gram [L, L + 1], by Cholesky's decomposition; gram is
    overwritten. False, and a solution of zeros, where G isn't positive definite or not finite.
    """
    L = len(solution)
    solution[:] = 0.0
    for i in range(L):
        gram[i, i] += ridge
    for i in range(L):
        for j in range(i + 1):
            total = gram[i, j]
            for k in range(j):
                total -= gram[i, k] * gram[j, k]
            if i == j:
                if not 0.0 < total < np.inf:
                    return False
                gram[i, i] = np.sqrt(total)
            else:
                gram[i, j] = total / gram[j, j]
    for i in range(L):
        total = gram[i, L]
        for k in range(i):
            total -= gram[i, k] * solution[k]
        solution[i] = total / gram[i, i]
    for i in range(L - 1, -1, -1):
        total = solution[i]
        for k in range(i + 1, L):
            total -= gram[k, i] * solution[k]
        solution[i] = total / gram[i, i]
    return True


@compiled("void(float64[:, ::1], int64, int64, float64[::1], float64[::1])")
def residuals(joined: Floats, columns: int, target: int, solution: Floats, out: Floats) -> None:
    """out [n] = |y - u a|."""
    for i in range(joined.shape[0]):
        a, b, c, d = joined[i, target], 0.0, 0.0, 0.0
        whole = columns // 4 * 4
        for j in range(0, whole, 4):
            a -= joined[i, j] * solution[j]
            b -= joined[i, j + 1] * solution[j + 1]
            c -= joined[i, j + 2] * solution[j + 2]
            d -= joined[i, j + 3] * solution[j + 3]
        for j in range(whole, columns):
            a -= joined[i, j] * solution[j]
        out[i] = abs((a + b) + (c + d))


@compiled("void(float64[::1], float64, float64[::1])")
def reweigh(residual: Floats, floor: float, weight: Floats) -> None:
    """weight [n] = 1 / max(residual, floor), scaled to a mean of 1."""
    total = 0.0
    for i in range(len(residual)):
        weight[i] = 1.0 / max(residual[i], floor)
        total += weight[i]
    for i in range(len(residual)):
        weight[i] *= len(residual) / total
