"""The matrix product of training: every shape and stride, one FMA chain per element, nothing touched beside C."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlstm.kernels.matmul import multiply_add

SIZES = st.integers(1, 60)
GUARD = 7.5  # around C, to see what is overwritten


def multiply(a: NDArray[Any], b: NDArray[Any], s: NDArray[Any], c: NDArray[Any]) -> None:
    """c = s + a b; rows of b, s and c are contiguous."""
    (rows, inner), columns = a.shape, b.shape[1]
    s_row = s.strides[0] if s.ndim == 2 else 0
    multiply_add(
        a.dtype.type(0), rows, columns, inner, a.ctypes.data, *a.strides, b.ctypes.data, b.strides[0], s.ctypes.data,
        s_row, c.ctypes.data, c.strides[0],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=150)
@given(rows=SIZES, columns=st.integers(1, 120), inner=SIZES, transposed=st.booleans(), start=st.integers(0, 2))
def test_any_shape(dtype: Any, rows: int, columns: int, inner: int, transposed: bool, start: int) -> None:
    """Whole numbers, so that every order gives the same sum. S: a row for all, a matrix, or C itself."""
    rng = np.random.default_rng(rows + 100 * columns)

    def whole(*shape: int) -> NDArray[Any]:
        return rng.integers(-9, 10, shape).astype(dtype)

    a = whole(inner, rows).T if transposed else whole(rows, inner + 3)[:, :inner]
    b = whole(inner, columns + 2)[:, :columns]
    guarded = np.full((rows + 2, columns + 2), GUARD, dtype)
    c = guarded[1:-1, 1:-1]
    s = [whole(columns), whole(rows, columns), c][start]
    if start == 2:
        c[...] = whole(rows, columns)
    expected = s + a @ b
    multiply(a, b, s, c)
    assert (c == expected).all()
    guarded[1:-1, 1:-1] = GUARD
    assert (guarded == GUARD).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_element_is_one_chain_wherever_it_lies(dtype: Any) -> None:
    """Row 5 and column 9 of a product have the bits of that row times that column alone."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(13, 40)).astype(dtype), rng.normal(size=(40, 131)).astype(dtype)
    s, c = rng.normal(size=131).astype(dtype), np.zeros((13, 131), dtype)
    multiply(a, b, s, c)
    for row, column in np.ndindex(c.shape):
        alone = np.zeros((1, 1), dtype)
        multiply(a[row : row + 1], np.ascontiguousarray(b[:, column : column + 1]), s[column:], alone)
        assert alone[0, 0] == c[row, column]


def test_products_are_fused() -> None:
    """(1 + e)² - 1 - 2 e = e² survives only if the product isn't rounded before the sum."""
    e = np.float32(2**-13)
    a, s, c = np.full((1, 1), 1 + e), np.array([-1 - 2 * e]), np.zeros((1, 1), np.float32)
    multiply(a, a, s, c)
    assert c[0, 0] == e * e
