"""The product with few columns beyond whole vectors: every shape, the order promised, nothing touched beside C."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlstm.kernels.narrow_product import LANES, NARROW, multiply_add_narrow

GUARD = 7.5  # around C, to see what is overwritten
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def multiply(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> None:
    """c += a b. Behind each row of a, b and its transpose lies a NaN."""

    def with_nan(matrix: NDArray[Any]) -> NDArray[Any]:
        return np.pad(np.ascontiguousarray(matrix), ((0, 0), (0, 1)), constant_values=np.nan)

    (rows, inner), columns = a.shape, b.shape[1]
    a, b, b_t = with_nan(a), with_nan(b), with_nan(b.T)
    multiply_add_narrow(
        a.dtype.type(0), rows, columns, inner, a.ctypes.data, a.strides[0], b.ctypes.data, b.strides[0],
        b_t.ctypes.data, b_t.strides[0], c.ctypes.data, c.strides[0],
    )  # fmt: skip


@DTYPES
@settings(max_examples=150)
@given(rows=st.integers(1, 20), columns=st.integers(1, 70), inner=st.integers(1, 70))
def test_any_shape(dtype: Any, rows: int, columns: int, inner: int) -> None:
    """Whole numbers, so that every order gives the same sum."""
    rng = np.random.default_rng(rows + 100 * columns)
    a, b = (rng.integers(-9, 10, shape).astype(dtype) for shape in ((rows, inner), (inner, columns)))
    guarded = np.full((rows + 2, columns + 2), GUARD, dtype)
    c = guarded[1:-1, 1:-1]
    c[...] = rng.integers(-9, 10, c.shape)
    expected = c + a @ b
    multiply(a, b, c)
    assert (c == expected).all()
    c[...] = GUARD
    assert (guarded == GUARD).all()


@DTYPES
@pytest.mark.parametrize("columns", [NARROW, LANES + 1, 3 * LANES + 2])
def test_the_order_of_a_narrow_column(dtype: Any, columns: int) -> None:
    """Powers of two lose bits by the order in which they are added: so much that any other order is seen."""
    rng = np.random.default_rng(columns)
    inner = 5 * LANES + 3
    a, b = (np.exp2(rng.integers(-20, 20, shape)).astype(dtype) for shape in ((7, inner), (inner, columns)))
    c = rng.normal(size=(7, columns)).astype(dtype)
    expected = c.copy()
    for row, column in np.ndindex(c.shape):
        chains = np.zeros(LANES, dtype)
        if column >= columns - columns % LANES:
            for k in range(inner):  # exact products
                chains[k % LANES] += a[row, k] * b[k, column]
            while len(chains) > 1:
                half = len(chains) // 2
                chains = chains[:half] + chains[half:]
            expected[row, column] += chains[0]
        else:
            for k in range(inner):
                expected[row, column] += a[row, k] * b[k, column]
    multiply(a, b, c)
    assert c.tobytes() == expected.tobytes()
