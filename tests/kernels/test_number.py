"""Numbers from text: bit for bit what Python's correctly rounding float() reads, or handed on."""

import math
import struct
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.kernels.number import MOST_DIGITS, nearest, number_parts


def read(text: str, behind: bytes = b",") -> tuple[int, float] | None:
    """How many characters the number has and the nearest float64, nan if unreadable; None if it isn't a number."""
    content = text.encode() + behind
    buffer = np.frombuffer(content + b"9" * 64, np.uint8)
    start = buffer.ctypes.data
    end, negative, mantissa, digits, after_point, exponent = number_parts(start, start + len(content))
    if end == 0 or digits > MOST_DIGITS:
        return None
    return end - start, nearest(np.uint64(mantissa), exponent - after_point, negative)


def bits(real: float) -> bytes:
    return struct.pack("<d", real)


def must_read(text: str) -> None:
    found = read(text)
    assert found is not None, text
    assert found[0] == len(text)
    assert bits(found[1]) == bits(float(text)), text


@given(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False))
@settings(max_examples=2000)
def test_shortest_form_of_any_normal_float(real: float) -> None:
    must_read(repr(real))


@given(st.integers(0, 2**64 - 1), st.integers(-290, 288))
@settings(max_examples=2000)
def test_any_mantissa_with_any_power(mantissa: int, power: int) -> None:
    if len(str(mantissa)) <= MOST_DIGITS:
        must_read(f"{mantissa}e{power}")
    assert bits(nearest(np.uint64(mantissa), power, True)) == bits(float(f"-{mantissa}e{power}"))


@given(st.floats(1e-290, 1e290, allow_subnormal=False), st.integers(-2, 2))
@settings(max_examples=2000)
def test_next_to_the_middle_between_two_floats(real: float, step: int) -> None:
    with localcontext() as context:
        context.prec = 1100
        middle = (Decimal(real) + Decimal(math.nextafter(real, math.inf))) / 2
        mantissa, exponent = f"{middle:.18e}".replace(".", "").split("e")
    must_read(f"{int(mantissa) + step}e{int(exponent) - 18}")


def test_ties_go_to_the_even_neighbour() -> None:
    for odd in (2**53 + 1, 2**53 + 3, 2**54 + 2, 2**54 + 6, 2**60 + 2**7, 2**60 + 3 * 2**7, 2**63 + 2**10):
        must_read(str(odd))
        if odd < 10**18:
            must_read(f"{odd}0e-1")
            must_read(f"{odd / 10**4:.4f}")


EXAMPLES = """
    0 -0.0 0e5 1e22 1e23 8.5e22 9007199254740993 1E+5 1e-5 0.1 1.7976931348623157e308 2.2250738585072014e-308 5e-300
    9999999999999999999 0.3000000000000000444 0.0000000000000000000000001234567890123456789 123456789012345678e-17
    0.000000000000000000000000000000000000
"""
NO_NUMBERS = """
    - +1 .5 1. 1.e5 01 -01 00 1e 1e+ 1e1000 e5 x --1 11111111111111111111 0.011111111111111111111 1.0000000000000000000
"""


@pytest.mark.parametrize("text", EXAMPLES.split())
def test_by_example(text: str) -> None:
    must_read(text)


@pytest.mark.parametrize(
    "text", ["4.9e-324", "2.2250738585072011e-308", "1.7976931348623159e308", "1e309", "1e999", "1e-400", "9e-999"]
)
def test_beyond_the_normal_numbers_is_unreadable(text: str) -> None:
    found = read(text)
    assert found is not None
    assert math.isnan(found[1])


@pytest.mark.parametrize("text", ["", *NO_NUMBERS.split()])
def test_no_number_or_too_long(text: str) -> None:
    assert read(text) is None


@pytest.mark.parametrize("text", ["1", "-1", "1.5", "1e5", "12345678", "1234567890123456", "-", "1.", "1e", "1e-"])
def test_digits_behind_the_end_do_not_count(text: str) -> None:
    assert read(text, behind=b"") is None  # nothing closes the object that the number stands in
