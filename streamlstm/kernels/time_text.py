"""Event times in JSON text to epoch milliseconds, rounded down; the rules are those of streamlstm.events.times.

Text is addressed by int64 addresses p < end; up to 32 bytes from `end` on may be read, and never count. The end of what
was read is 0 where a slower reader has to decide.
"""

from numba import int64, uint64

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.number import MOST_DIGITS, POWERS_OF_TEN, digit_run, number_parts
from streamlstm.kernels.strings import QUOTE, SPACE
from streamlstm.kernels.words import load_byte

_ZERO, _PLUS, _MINUS, _POINT, _COLON, _T, _Z = (ord(character) for character in "0+-.:TZ")
_UPPER_CASE = 0xDF
_FIRST_YEAR, _LAST_YEAR = 1900, 2200  # the calendar's formula below wants the years after a 1st of March to be positive
_NO_PAIR = -(10**6)


@embedded
def read_epoch(p: int, end: int, decimals: int) -> tuple[int, int]:
    """The number at p as epoch ms, where one second is 10**decimals of its unit, and where it ends."""
    p, negative, mantissa, digits, behind, exponent = number_parts(p, end)
    shift = 3 - decimals - behind
    if p == 0 or exponent != 0 or digits + max(shift, 0) >= MOST_DIGITS or shift <= -MOST_DIGITS:
        return 0, 0
    if shift >= 0:
        time = int64(mantissa * POWERS_OF_TEN[shift])
        return p, -time if negative else time
    unit = POWERS_OF_TEN[-shift]
    time = int64(mantissa // unit)
    if negative:
        time = -time - int64(uint64(time) * unit != mantissa)
    return p, time


@compiled
def read_date_time(p: int, end: int) -> tuple[int, int]:
    """The RFC 3339 text at p, behind its opening quote, as epoch ms; and the address behind the closing quote.

    Years 1900 to 2200 and no leap seconds; a date alone is midnight, a time without an offset is UTC.
    """
    year = 100 * _pair(p) + _pair(p + 2)
    month, day = _pair(p + 5), _pair(p + 8)
    dashes = load_byte(p + 4) == _MINUS and load_byte(p + 7) == _MINUS
    if p + 10 >= end or not dashes or not _FIRST_YEAR <= year <= _LAST_YEAR or not 1 <= month <= 12:
        return 0, 0
    if not 1 <= day <= _days_of_month(year, month):
        return 0, 0
    seconds = 86_400 * _days_since_1970(year, month, day)
    p += 10
    if load_byte(p) == QUOTE:
        return p + 1, 1000 * seconds
    letter = load_byte(p)
    hour, minute, second = _pair(p + 1), _pair(p + 4), _pair(p + 7)
    colons = load_byte(p + 3) == _COLON and load_byte(p + 6) == _COLON
    if p + 9 >= end or not colons or not (letter & _UPPER_CASE == _T or letter == SPACE):
        return 0, 0
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 59:
        return 0, 0
    seconds += 3600 * hour + 60 * minute + second
    p += 9
    milliseconds = 0
    if load_byte(p) == _POINT:
        fraction = p + 1
        digits, p = digit_run(fraction, end, uint64(0))
        count = p - fraction
        if not 0 < count < MOST_DIGITS or p >= end:
            return 0, 0
        milliseconds = int64(digits * POWERS_OF_TEN[3 - count] if count < 3 else digits // POWERS_OF_TEN[count - 3])
    p, offset = _read_offset(p, end)
    if p == 0 or p >= end or load_byte(p) != QUOTE:
        return 0, 0
    return p + 1, 1000 * (seconds - offset) + milliseconds


@compiled
def _read_offset(p: int, end: int) -> tuple[int, int]:
    """The seconds by which the local time at p is ahead of UTC, and where the offset ends: where it began for none."""
    sign = load_byte(p)
    if sign & _UPPER_CASE == _Z:
        return p + 1, 0
    if sign not in (_PLUS, _MINUS):
        return p, 0
    hour, minute = _pair(p + 1), _pair(p + 4)
    if p + 6 >= end or load_byte(p + 3) != _COLON or not 0 <= hour <= 23 or not 0 <= minute <= 59:
        return 0, 0
    seconds = 3600 * hour + 60 * minute
    return p + 6, -seconds if sign == _MINUS else seconds


@compiled
def _pair(p: int) -> int:
    """The value of two digits, or something very negative."""
    tens, ones = int64(load_byte(p)) - _ZERO, int64(load_byte(p + 1)) - _ZERO
    return 10 * tens + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else _NO_PAIR


@compiled
def _days_of_month(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 + ((month + (month >> 3)) & 1)


@compiled
def _days_since_1970(year: int, month: int, day: int) -> int:
    """Days of the proleptic Gregorian calendar; years begin in March, so that a leap day is a year's last."""
    year -= month <= 2
    month_from_march = (month + 9) % 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month_from_march + 2) // 5 + day - 719_469
