"""float16 and bfloat16, there and back, held to NumPy and to exact arithmetic; whoever the CPU is: test_bits.py."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled
from streamlstm.kernels.half import as_float32, narrow, widen
from streamlstm.kernels.layout import BFLOAT16, FLOAT16, STATE_DTYPES, StateDtype

EVERY = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
NARROW = STATE_DTYPES[1:]


@compiled
def _widen(dtype: int, target: int, source: int, count: int) -> None:
    widen(dtype, target, source, count)


@compiled
def _narrow(dtype: int, target: int, source: int, count: int) -> None:
    narrow(dtype, target, source, count)


def widened(halves: NDArray[np.uint16], dtype: StateDtype) -> NDArray[np.float32]:
    found = np.empty(len(halves), np.float32)
    _widen(STATE_DTYPES.index(dtype), found.ctypes.data, halves.ctypes.data, len(halves))
    return found


def narrowed(x: NDArray[np.float32], dtype: StateDtype) -> NDArray[np.uint16]:
    found = np.empty(len(x), np.uint16)
    _narrow(STATE_DTYPES.index(dtype), found.ctypes.data, x.ctypes.data, len(x))
    return found


def expected(x: NDArray[np.float32], dtype: StateDtype) -> NDArray[np.uint16]:
    """The nearer neighbour, the even one of two that are as near; of a NaN the quiet one."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            found = x.astype(np.float16).view(np.uint16)
        nan = 0x7E00
    else:  # by distance in float64, where both are exact; what is next to the largest number counts as 2^128
        below = x.view(np.uint32) >> 16
        finite = np.isfinite(x)
        exact, lower, upper = (
            np.abs(bits.view(np.float32)[finite].astype(np.float64))
            for bits in (x.view(np.uint32), below << 16, (below + 1) << 16)
        )
        upper[np.isinf(upper)] = 2.0**128
        odd = below[finite] % 2 == 1
        below[finite] += (upper - exact < exact - lower) | ((upper - exact == exact - lower) & odd)
        found, nan = below.astype(np.uint16), 0x7FC0
    return np.where(np.isnan(x), np.where(np.signbit(x), 0x8000 | nan, nan), found).astype(np.uint16)


def near_the_borders(dtype: StateDtype) -> NDArray[np.float32]:
    """Every number that 16 bits can hold, and what lies half way to the next one, with its neighbours in float32."""
    values = widened(EVERY, dtype)
    values = values[np.isfinite(values)]
    values = np.unique(np.abs(values))
    middles = ((values[:-1].astype(np.float64) + values[1:].astype(np.float64)) / 2).astype(np.float32)
    largest = np.array([65519.996, 65520.0, 65536.0, 3.39e38, np.inf, np.nan], np.float32)
    centres = np.concatenate([values, middles, largest])
    with np.errstate(over="ignore"):
        found = [centres, *(np.nextafter(centres, np.float32(to)) for to in (0.0, np.inf))]
    found += [-each for each in found]
    return np.resize(np.concatenate(found), -(-sum(map(len, found)) // 16) * 16).astype(np.float32)


def test_every_number_of_16_bits_is_widened_exactly() -> None:
    with np.errstate(invalid="ignore"):
        true = EVERY.view(np.float16).astype(np.float32)
    found = widened(EVERY, "float16")
    is_nan = np.isnan(true)
    assert (found.view(np.uint32) == true.view(np.uint32))[~is_nan].all()
    assert np.isnan(found[is_nan]).all()
    assert (widened(EVERY, "bfloat16").view(np.uint32) == EVERY.astype(np.uint32) << 16).all()


@pytest.mark.parametrize("dtype", NARROW)
def test_numbers_are_narrowed_to_the_nearest(dtype: StateDtype) -> None:
    x = near_the_borders(dtype)
    assert (narrowed(x, dtype) == expected(x, dtype)).all()
    anything = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, np.uint32).view(np.float32)
    assert (narrowed(anything, dtype) == expected(anything, dtype)).all()


@pytest.mark.parametrize("dtype", NARROW)
def test_what_was_narrowed_stays_as_it_is(dtype: StateDtype) -> None:
    values = widened(EVERY, dtype)
    same = narrowed(values, dtype) == EVERY
    assert same[~np.isnan(values)].all()
    assert np.isnan(widened(narrowed(values, dtype), dtype)[np.isnan(values)]).all()
    again = as_float32(EVERY.view(np.uint8), dtype)
    assert (again.view(np.uint32) == values.view(np.uint32))[~np.isnan(values)].all()


@pytest.mark.parametrize("code", [FLOAT16, BFLOAT16])
@pytest.mark.parametrize("count", [8, 16, 24, 104])
def test_no_memory_beside_is_touched(code: int, count: int) -> None:
    x, halves = np.full(count + 16, 7.0, np.float32), np.full(count + 16, 7, np.uint16)
    ones = np.ones(count, np.float32)
    _narrow(code, halves[8:].ctypes.data, ones.ctypes.data, count)
    _widen(code, x[8:].ctypes.data, halves[8:].ctypes.data, count)
    for array, inside in ((x, 1.0), (halves, 0x3C00 if code == FLOAT16 else 0x3F80)):
        assert (array[8:-8] == inside).all()
        assert (array[:8] == 7).all()
        assert (array[-8:] == 7).all()
