"""Decimal text: digits and form against orjson, NumPy and Python, which print by other algorithms."""

import re

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlstm.kernels import decimal
from streamlstm.kernels.decimal import FLOAT_BYTES, INTEGER_BYTES, print_integer, print_lines

RANDOM = np.random.default_rng(20250101)


def printed(values: NDArray[np.float64], single: bool = False) -> list[bytes]:
    values = np.ascontiguousarray(values, np.float64)
    guard = 64
    out = np.full(len(values) * (FLOAT_BYTES + 1) + 16 + guard, 0xAA, np.uint8)
    size = print_lines(values, single, out)
    assert (out[-guard:] == 0xAA).all()
    return out[:size].tobytes().split(b"\n")[:-1]


def orjson_lines(values: NDArray[np.float64]) -> list[bytes]:
    """orjson before 3.11.7 wrote 1e16 for 1e+16; the digits are the same."""
    signed_exponent = re.sub(rb"e(?=\d)", b"e+", orjson.dumps(values.tolist())[1:-1])
    return signed_exponent.split(b",")


def finite_from_bits(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    values = bits.view(np.float64)
    return values[np.isfinite(values)]


DECIMALS = np.concatenate(
    [np.round(RANDOM.normal(size=20_000) * 10.0 ** RANDOM.uniform(-8, 10, 20_000), k) for k in range(10)]
)
POPULATIONS = {
    "any bits": finite_from_bits(RANDOM.integers(0, 1 << 64, 300_000, np.uint64)),
    "subnormal": finite_from_bits(RANDOM.integers(1, 1 << 52, 50_000, np.uint64)),
    "powers of two": finite_from_bits(np.arange(0, 2047, dtype=np.uint64) << np.uint64(52)),
    "beside powers of two": finite_from_bits(
        np.concatenate(
            [(np.arange(1, 2047, dtype=np.uint64) << np.uint64(52)) + np.uint64(d % (1 << 64)) for d in (1, -1)]
        )
    ),
    "powers of ten": np.array([float(f"1e{k}") for k in range(-323, 309)]),
    "beside powers of ten": np.nextafter([float(f"1e{k}") for k in range(-323, 309)], 0.0),
    "integers": RANDOM.integers(-(1 << 60), 1 << 60, 50_000).astype(np.float64),
    "small integers": np.arange(-20_000, 20_000, dtype=np.float64),
    "few decimals": np.round(RANDOM.normal(size=100_000) * 1000, 3),
    "decimals of any number": DECIMALS,
    "beside decimals": np.concatenate([np.nextafter(DECIMALS, 0.0), np.nextafter(DECIMALS, np.inf)]),
    "every magnitude": RANDOM.normal(size=100_000) * 10.0 ** RANDOM.uniform(-20, 20, 100_000),
    "edges": np.array([0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 2.0**53, 2.0**53 - 1, 1e16]),
}


@pytest.mark.parametrize("population", POPULATIONS)
def test_float64_text_is_that_of_orjson(population: str) -> None:
    values = POPULATIONS[population]
    assert printed(values) == orjson_lines(values)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float64_reads_back(value: float) -> None:
    (text,) = printed(np.array([value]))
    assert np.float64(text).view(np.uint64) == np.float64(value).view(np.uint64)
    assert len(text) <= FLOAT_BYTES


def significant_digits(text: bytes) -> bytes:
    return text.lstrip(b"-").partition(b"e")[0].replace(b".", b"").strip(b"0")


FLOAT32_BITS = {
    "any bits": RANDOM.integers(0, 1 << 32, 30_000, np.uint64).astype(np.uint32),
    "subnormal": RANDOM.integers(1, 1 << 23, 10_000, np.uint64).astype(np.uint32),
    "powers of two": np.arange(0, 255, dtype=np.uint32) << np.uint32(23),
    "integers": np.arange(-5_000, 5_000).astype(np.float32).view(np.uint32),
    "large integers": RANDOM.integers(-(1 << 40), 1 << 40, 10_000).astype(np.float32).view(np.uint32),
    "near one": RANDOM.normal(size=30_000).astype(np.float32).view(np.uint32),
}


@pytest.mark.parametrize("population", FLOAT32_BITS)
def test_float32_has_numpys_shortest_digits_and_reads_back(population: str) -> None:
    values = FLOAT32_BITS[population].view(np.float32)
    values = values[np.isfinite(values)]
    for value, text in zip(values, printed(values.astype(np.float64), single=True), strict=True):
        assert np.float32(text).view(np.uint32) == value.view(np.uint32), text
        expected = np.format_float_scientific(value, unique=True, trim="-").encode()
        assert significant_digits(text) == significant_digits(expected), (text, expected)
        assert float(text) == float(expected)


def test_float32_has_the_form_of_float64() -> None:
    values = np.array([0.1, -2.5, 3e-5, 1e-6, 16777216.0, 1e16, 0.0, -0.0, 1.5e20], np.float32).astype(np.float64)
    assert printed(values, single=True) == [
        b"0.1", b"-2.5", b"0.00003", b"1e-6", b"16777216.0", b"1e+16", b"0.0", b"-0.0", b"1.5e+20",
    ]  # fmt: skip


@pytest.mark.parametrize("single", [False, True])
def test_what_json_cannot_say_is_null(single: bool) -> None:
    assert printed(np.array([np.nan, np.inf, -np.inf, -np.nan]), single) == [b"null"] * 4


def integer_text(n: int) -> bytes:
    out = np.zeros(INTEGER_BYTES + 16, np.uint8)
    end = print_integer(out.ctypes.data, n)
    return out[: end - out.ctypes.data].tobytes()


INTEGER_EDGES = [0, -(1 << 63), (1 << 63) - 1, *(s * 10**k + d for k in range(19) for s in (1, -1) for d in (-1, 0, 1))]


@pytest.mark.parametrize("n", INTEGER_EDGES)
def test_integers_at_the_edges(n: int) -> None:
    assert integer_text(n) == str(n).encode()


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_integers(n: int) -> None:
    assert integer_text(n) == str(n).encode()


def test_the_table_holds_the_powers_of_ten_rounded_up() -> None:
    for exponent in (-292, -55, -1, 0, 1, 55, 56, 200, 324):
        high, low = (int(half) for half in decimal._POWERS[exponent - decimal._LEAST])
        bits = high << 64 | low
        assert bits.bit_length() == 128
        numerator, denominator = (10**exponent, 1) if exponent >= 0 else (1, 10**-exponent)
        scale = 0  # 2^scale brings the power into [2^127, 2^128]
        while (numerator << max(scale, 0)) // (denominator << max(-scale, 0)) < 1 << 127:
            scale += 1
        while (numerator << max(scale, 0)) // (denominator << max(-scale, 0)) >= 1 << 128:
            scale -= 1
        numerator, denominator = numerator << max(scale, 0), denominator << max(-scale, 0)
        assert (bits - 1) * denominator < numerator <= bits * denominator
