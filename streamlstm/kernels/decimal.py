"""Shortest round-trip decimal text of floating-point numbers, and integers.

A float prints as the shortest decimal that reads back to the same float, the nearest to it where several are as short.
Digits come from Schubfach (Raffaello Giulietti, "The Schubfach way to render doubles", 2020; the organisation of the
steps follows Alexander Bolz's Drachennest), in 64-bit integers with 128-bit products: no float operation, so the same
text on every machine. Most measurements have few decimals, though, and of decimals with up to 15 digits no two round to
one float64: so n x 10^-6 is the text of x < 10^9 where n / 10^6 is x (IEEE division, correctly rounded).

The form is that of `orjson.dumps` since 3.11.7: `0.00001` to `9999999999999998.0` in plain notation, `1.5e-7` and
`1e+16` outside; integers keep `.0`; `-0.0` keeps its sign.

`print_*` write at an address and return the address after the text. They may store up to 16 bytes beyond it.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.words import (
    as_real,
    float32_bits,
    float64_bits,
    leading_zeros,
    multiply_high,
    signed,
    store_byte,
    store_word,
    trailing_zeros,
)

FLOAT_BYTES = 24
"""Longest text of a float64: -2.2250738585072014e-308."""
INTEGER_BYTES = 20
"""Longest text of an int64: -9223372036854775808."""

_LEAST, _MOST = -292, 324  # what the exponents of float64 need


def _powers_of_ten() -> NDArray[np.uint64]:
    """[exponent - _LEAST, (high, low)]: the upper 128 bits of 10^exponent, rounded up; exact up to 10^55."""
    rows = []
    for exponent in range(_LEAST, _MOST + 1):
        if exponent >= 0:
            power = 10**exponent
            excess = power.bit_length() - 128
            bits = -(-power >> excess) if excess > 0 else power << -excess
        else:
            divisor = 10**-exponent
            scale = divisor.bit_length() + 127
            bits = -(-(1 << scale) // divisor)
        rows.append((bits >> 64, bits & (1 << 64) - 1))
    return np.array(rows, np.uint64)


_POWERS = _powers_of_ten()
_TENS = np.array([10**n for n in range(20)], np.uint64)
_DIGITS = 17
_FEW_DECIMALS_BELOW = 1e9
_POINT = np.uint64(ord("."))
_ZEROS = np.uint64(0x3030303030303030)
NOT_SIGN = np.uint64((1 << 63) - 1)
_0, _1, _2, _3, _4, _8, _10, _32, _40, _52, _63 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 8, 10, 32, 40, 52, 63))


@embedded
def _round_to_odd(high: np.uint64, low: np.uint64, scaled: np.uint64) -> np.uint64:
    """Upper 64 bits of the 192-bit product (high, low) x scaled; the last bit set when anything was cut off."""
    carry = multiply_high(low, scaled)
    middle = high * scaled + carry
    top: np.uint64 = multiply_high(high, scaled) + (_1 if middle < carry else _0)
    return top | (_1 if middle > _1 else _0)


@embedded
def _shortest_digits(significand: np.uint64, exponent: int, closer_below: bool) -> tuple[np.uint64, int]:
    """Shortest decimal d x 10^e that rounds to significand x 2^exponent (> 0): (d, e).

    `closer_below`: the next float below is half as far as the next above, as at powers of two.
    Serves float64 and float32: the float's spacing, 2^exponent, says how many digits are needed. d may end in zeros.
    """
    c = np.uint64(significand)
    even = (c & _1) == _0
    # k = floor(log10(2^exponent)), of 3/4 of it where the interval is lopsided: decimals 10^k apart hit the interval
    k = (exponent * 1262611 - (524031 if closer_below else 0)) >> 22
    shift = np.uint64(exponent + ((-k * 1741647) >> 19) + 1)
    high = _POWERS[-k - _LEAST, 0]
    low = _POWERS[-k - _LEAST, 1]
    # four times the value and the ends of its rounding interval, in units of 10^k
    middle = _round_to_odd(high, low, (_4 * c) << shift)
    lower = _round_to_odd(high, low, (_4 * c - (_1 if closer_below else _2)) << shift)
    upper = _round_to_odd(high, low, (_4 * c + _2) << shift)
    if not even:  # an end of the interval reads back as this float only when its significand is even
        lower += _1
        upper -= _1
    s = middle >> _2
    # whether there is a shorter one can't be predicted: both are computed, and one is chosen
    tenth = s // _10
    below, above = lower <= _40 * tenth, _40 * tenth + _40 <= upper
    shorter, is_shorter = tenth + (_1 if above else _0), (below != above) & (s >= _10)
    below, above = lower <= _4 * s, _4 * s + _4 <= upper
    half = _4 * s + _2
    nearer_above = (middle > half) | ((middle == half) & ((s & _1) == _1))
    up = above if below != above else nearer_above
    digits = shorter if is_shorter else s + (_1 if up else _0)
    return digits, k + (1 if is_shorter else 0)


@embedded
def _eight_digits(n: np.uint64) -> np.uint64:
    """n < 10^8 as 8 bytes, each a digit 0..9, the first digit in the lowest byte."""
    pair = n // np.uint64(10000)
    w = pair | ((n - pair * np.uint64(10000)) << _32)
    pair = ((w * np.uint64(10486)) >> np.uint64(20)) & np.uint64(0x7F0000007F)
    w = pair | ((w - pair * np.uint64(100)) << np.uint64(16))
    pair = ((w * np.uint64(103)) >> _10) & np.uint64(0x000F000F000F000F)
    return pair | ((w - pair * _10) << _8)


@embedded
def _with_point(digits: np.uint64, at: int) -> np.uint64:
    """Eight text bytes with a point put in before byte `at` (0..7): what follows moves up, the last byte is lost."""
    bits = np.uint64(8 * at)
    kept = (_1 << bits) - _1
    return (digits & kept) | (_POINT << bits) | ((digits & ~kept) << _8)


@embedded
def _print_digits(to: int, first: np.uint64, second: np.uint64, last: np.uint8, length: int, point: int) -> int:
    """`length` of 8 + 8 + 1 text digits with a point after `point` (1..16) of them; returns the address after."""
    store_word(to + 1, first)
    store_word(to + 9, second)
    store_byte(to + 17, last)
    if point < 8:
        store_word(to, _with_point(first, point))
    else:
        store_word(to, first)
        if point < 16:
            store_word(to + 8, _with_point(second, point - 8))
        else:
            store_word(to + 8, second)
            store_byte(to + 16, np.uint8(_POINT))
    return to + length + 1


@embedded
def _print_decimal(to: int, digits: np.uint64, exponent: int) -> int:
    """Text of digits x 10^exponent, digits in 1 .. 10^17 - 1."""
    bits = 64 - leading_zeros(digits)
    count = (bits * 1233) >> 12
    count += 1 if digits >= _TENS[count] else 0
    point = count + exponent  # digits before the decimal point
    full = digits * _TENS[_DIGITS - count]
    upper = full // np.uint64(10**9)
    rest = full - upper * np.uint64(10**9)
    tail = rest // _10
    last = rest - tail * _10
    first = _eight_digits(upper)
    second = _eight_digits(tail)
    if last != 0:
        length = 17
    elif second != 0:
        length = 16 - (leading_zeros(second) >> 3)
    else:
        length = 8 - (leading_zeros(first) >> 3)
    first |= _ZEROS
    second |= _ZEROS
    ending = np.uint8(last | np.uint64(48))
    if 0 < point <= 16:
        return _print_digits(to, first, second, ending, max(length, point + 1), point)
    if -5 < point <= 0:
        store_word(to, np.uint64(0x3030303030302E30))  # 0.000000
        to += 2 - point
        store_word(to, first)
        store_word(to + 8, second)
        store_byte(to + 16, ending)
        return to + length
    to = _print_digits(to, first, second, ending, length, 1)
    to -= 1 if length == 1 else 0  # 1e+16: a digit alone has no point
    scale = point - 1
    store_byte(to, np.uint8(ord("e")))
    store_byte(to + 1, np.uint8(ord("-") if scale < 0 else ord("+")))
    return print_unsigned(to + 2, np.uint64(abs(scale)))


@compiled
def _print_scaled(to: int, significand: np.uint64, exponent: int, closer_below: bool) -> int:
    """Text of the float that is significand x 2^exponent > 0; see `_shortest_digits`."""
    if 0 <= -exponent <= trailing_zeros(significand):  # an integer all of whose digits count
        return _print_decimal(to, significand >> np.uint64(-exponent), 0)
    digits, tens = _shortest_digits(significand, exponent, closer_below)
    return _print_decimal(to, digits, tens)


@compiled
def print_float64(to: int, bits: np.uint64) -> int:
    """Text of the float64 with these bits; `null` when it isn't finite."""
    size = as_real(bits & NOT_SIGN)
    if size < _FEW_DECIMALS_BELOW:
        millionths = np.uint64(size * 1e6 + 0.5)
        if np.float64(millionths) / 1e6 == size and millionths != _0:
            return _print_decimal(_print_sign(to, bits >> _63), millionths, -6)
    fraction = bits & np.uint64((1 << 52) - 1)
    biased = signed((bits >> _52) & np.uint64(0x7FF))
    if biased == 0x7FF:
        return _print_null(to)
    to = _print_sign(to, bits >> _63)
    if biased == 0:
        return _print_zero(to) if fraction == 0 else _print_scaled(to, fraction, -1074, False)
    return _print_scaled(to, fraction | np.uint64(1 << 52), biased - 1075, bool(fraction == 0) and biased > 1)


@compiled
def print_float32(to: int, bits: np.uint64) -> int:
    """Text of the float32 with these bits (in the lower half), in as few digits as tell it from its neighbours."""
    fraction = bits & np.uint64((1 << 23) - 1)
    biased = signed((bits >> np.uint64(23)) & np.uint64(0xFF))
    if biased == 0xFF:
        return _print_null(to)
    to = _print_sign(to, bits >> np.uint64(31))
    if biased == 0:
        return _print_zero(to) if fraction == 0 else _print_scaled(to, fraction, -149, False)
    return _print_scaled(to, fraction | np.uint64(1 << 23), biased - 150, bool(fraction == 0) and biased > 1)


@embedded
def _print_sign(to: int, negative: np.uint64) -> int:
    store_byte(to, np.uint8(ord("-")))
    return to + signed(negative)


@embedded
def _print_null(to: int) -> int:
    """JSON has no word for NaN or infinity."""
    store_word(to, np.uint64(0x6C6C756E))
    return to + 4


@embedded
def _print_zero(to: int) -> int:
    store_word(to, np.uint64(0x302E30))  # 0.0
    return to + 3


@embedded
def _print_leading(to: int, n: np.uint64) -> int:
    """n < 10^8 without leading zeros."""
    digits = _eight_digits(n)
    skipped: int = min(trailing_zeros(digits) >> 3, 7)
    store_word(to, (digits | _ZEROS) >> np.uint64(8 * skipped))
    return to + 8 - skipped


@compiled
def print_unsigned(to: int, n: np.uint64) -> int:
    """Decimal text of n, uint64."""
    unit = np.uint64(10**8)
    if n < unit:
        return _print_leading(to, n)
    upper = n // unit
    if upper < unit:
        to = _print_leading(to, upper)
    else:
        top = upper // unit
        to = _print_leading(to, top)
        store_word(to, _eight_digits(upper - top * unit) | _ZEROS)
        to += 8
    store_word(to, _eight_digits(n - upper * unit) | _ZEROS)
    return to + 8


@compiled
def print_integer(to: int, n: int) -> int:
    """Decimal text of n, int64."""
    if n < 0:
        store_byte(to, np.uint8(ord("-")))
        return print_unsigned(to + 1, _0 - np.uint64(n))
    return print_unsigned(to, np.uint64(n))


@compiled
def print_lines(values: NDArray[np.float64], single: bool, out: NDArray[np.uint8]) -> int:
    """Each float64 [N] on a line of its own, as float32 digits when `single`; returns the bytes written.

    out uint8 [>= N * (FLOAT_BYTES + 1) + 16].
    """
    start = signed(out.ctypes.data)
    to = start
    for i in range(values.shape[0]):
        if single:
            to = print_float32(to, float32_bits(values[i]))
        else:
            to = print_float64(to, float64_bits(values[i]))
        store_byte(to, np.uint8(10))
        to += 1
    return to - start
