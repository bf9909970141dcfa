"""JSON numbers: from text to their parts, and from the parts to the nearest float64.

Text is addressed by int64 addresses p < end; up to 16 bytes from `end` on may be read, and never count.
"""

import numpy as np
from numba import float64, int64, uint64
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.words import as_real, leading_zeros, load_byte, load_word, multiply_high, trailing_zeros

MOST_DIGITS = 19
"""Digits that surely fit a uint64."""

UNREADABLE = np.nan
"""What `nearest` gives for numbers that are for a slower reader: subnormal or too large."""

_MINUS, _PLUS, _POINT, _ZERO, _SMALL_E = (ord(character) for character in "-+.0e")
_LOWER_CASE = 0x20
_EXPONENT_DIGITS = 3

POWERS_OF_TEN = np.array([10**power for power in range(20)], np.uint64)
_EXACT_REALS = np.array([10.0**power for power in range(23)])  # the powers of ten that float64 holds exactly
_LEAST_POWER, _LARGEST_POWER = -342, 308
_EXACT_MANTISSA = uint64(1 << 53)


def _powers_of_five() -> NDArray[np.uint64]:
    """5**q as 128-bit significands with the top bit set, (high, low), for q from -342 to 308.

    Cut to 128 bits; but rounded up for -27 <= q < 0, where a tie has to be seen as one (Lemire 2021, sections 5 and 6).
    """
    significands = []
    for power in range(_LEAST_POWER, _LARGEST_POWER + 1):
        five = 5 ** abs(power)
        bits = five.bit_length()
        if power >= 0:
            significands.append(five << (128 - bits) if bits <= 128 else five >> (bits - 128))
        else:
            inverse = (1 << (bits + 127 if power >= -27 else 2 * bits + 128)) // five + 1
            significands.append(inverse >> (inverse.bit_length() - 128))
    return np.array([(one >> 64, one & (2**64 - 1)) for one in significands], np.uint64)


_FIVES = _powers_of_five()


@embedded
def digits_at(p: int) -> tuple[int, int]:
    """Up to 8 decimal digits at p at once: their value (uint64) and how many there are.

    Each byte less "0" is a digit when it is below 10; the digits are then shifted to the top, so that zeros stand
    before them, and joined in pairs, fours and eights.
    """
    word = load_word(p) ^ uint64(0x3030303030303030)
    others = ((word + uint64(0x7676767676767676)) | word) & uint64(0x8080808080808080)
    count = trailing_zeros(others) >> 3
    if count == 0:
        return uint64(0), 0
    word <<= uint64(64 - 8 * count)
    word = word * uint64(10) + (word >> uint64(8))
    low = (word & uint64(0x000000FF000000FF)) * uint64(0x000F424000000064)
    high = ((word >> uint64(16)) & uint64(0x000000FF000000FF)) * uint64(0x0000271000000001)
    return (low + high) >> uint64(32), count


@embedded
def digit_run(p: int, end: int, mantissa: int) -> tuple[int, int]:
    """All digits from p on, appended to the uint64 `mantissa` (modulo 2**64), and where they end."""
    while p < end:
        value, count = digits_at(p)
        mantissa = mantissa * POWERS_OF_TEN[count] + value
        p += count
        if count < 8:
            break
    return mantissa, p


@embedded
def number_parts(p: int, end: int) -> tuple[int, bool, int, int, int, int]:
    """The JSON number (RFC 8259, section 6) at p: its end, sign, mantissa, digits, digits behind the point, exponent.

    Its value is mantissa * 10**(exponent - behind), if `digits` is at most MOST_DIGITS; of more, zeros in front don't
    count. The end is 0 when it is none, or has an exponent of four digits. One that reaches `end` is none: something
    has to close the object around it.
    """
    negative = load_byte(p) == _MINUS
    if negative:
        p += 1
    first = p
    mantissa, p = digit_run(p, end, uint64(0))
    digits = p - first
    if digits == 0 or (digits > 1 and load_byte(first) == _ZERO) or p >= end:
        return 0, False, uint64(0), 0, 0, 0
    behind = 0
    if load_byte(p) == _POINT:
        point = p + 1
        mantissa, p = digit_run(point, end, mantissa)
        behind = p - point
        if behind <= 0 or p >= end:
            return 0, False, uint64(0), 0, 0, 0
        if digits + behind > MOST_DIGITS and load_byte(first) == _ZERO:
            digits = -_zeros(point, p)
    exponent = 0
    if (load_byte(p) | _LOWER_CASE) == _SMALL_E:
        sign = int64(load_byte(p + 1))
        first = p + 2 if sign in (_MINUS, _PLUS) else p + 1
        power, p = digit_run(first, end, uint64(0))
        if p <= first or p - first > _EXPONENT_DIGITS or p >= end:
            return 0, False, uint64(0), 0, 0, 0
        exponent = -int64(power) if sign == _MINUS else int64(power)
    return p, negative, mantissa, digits + behind, behind, exponent


@compiled
def _zeros(p: int, end: int) -> int:
    """How many zeros stand from p on, before `end`."""
    first = p
    while p < end and load_byte(p) == _ZERO:
        p += 1
    return p - first


@embedded
def nearest(mantissa: int, power: int, negative: bool) -> float:
    """The float64 nearest to mantissa * 10**power, ties to even; UNREADABLE beyond the range of normal numbers.

    Takes any uint64 mantissa. Exact operands and one rounding where float64 holds both (Clinger 1990), else Eisel and
    Lemire's product (Lemire 2021, "Number parsing at a gigabyte per second", algorithm 1).
    """
    if mantissa <= _EXACT_MANTISSA and -22 <= power <= 22:
        real = float64(mantissa)
        real = real / _EXACT_REALS[-power] if power < 0 else real * _EXACT_REALS[power]
        return -real if negative else real  # type: ignore[no-any-return]
    if mantissa == uint64(0):
        return -0.0 if negative else 0.0
    return _product(mantissa, power, negative)


@compiled
def _product(mantissa: int, power: int, negative: bool) -> float:
    if power < _LEAST_POWER or power > _LARGEST_POWER:
        return UNREADABLE
    shift = leading_zeros(mantissa)
    scaled = mantissa << uint64(shift)
    five, five_low = _FIVES[power - _LEAST_POWER, 0], _FIVES[power - _LEAST_POWER, 1]
    low, high = scaled * five, multiply_high(scaled, five)
    if high & uint64(0x1FF) == uint64(0x1FF):  # the low half of the power of five may decide the rounding
        carry = multiply_high(scaled, five_low)
        low += carry
        if low < carry:
            high += uint64(1)
    top = int64(high >> uint64(63))
    fraction = high >> uint64(top + 9)
    exponent = ((217706 * power) >> 16) + 63 + top - shift + 1023  # 217706 / 2**16 is log2(10), near enough here
    if exponent <= 0:
        return UNREADABLE
    halfway = low <= uint64(1) and -4 <= power <= 23 and fraction & uint64(3) == uint64(1)
    if halfway and fraction << uint64(top + 9) == high:
        fraction &= ~uint64(1)  # a tie goes to the even neighbour
    fraction = (fraction + (fraction & uint64(1))) >> uint64(1)
    if fraction >= uint64(1 << 53):
        fraction = uint64(1 << 52)
        exponent += 1
    if exponent >= 0x7FF:
        return UNREADABLE
    bits = (fraction & uint64((1 << 52) - 1)) | (uint64(exponent) << uint64(52))
    return as_real(bits | (uint64(1 << 63) if negative else uint64(0)))  # type: ignore[no-any-return]
