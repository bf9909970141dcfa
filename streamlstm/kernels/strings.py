"""JSON strings and UTF-8, checked where they stand.

Text is addressed by int64 addresses p < end; up to 32 bytes from `end` on may be read, and never count. Functions that
walk return where they end, or 0 when the text isn't as they want it.
"""

from numba import uint64

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.words import load_byte, load_word, string_stops, trailing_zeros

QUOTE, BACKSLASH, SPACE = (ord(character) for character in '"\\ ')
_TAB, _LINE_FEED, _CARRIAGE_RETURN = 9, 10, 13
_SLASH, _B, _F, _N, _R, _T, _U = (ord(character) for character in "/bfnrtu")
_HIGH_BITS = uint64(0x8080808080808080)


@embedded
def skip_space(p: int, end: int) -> int:
    """The first address from p on, `end` at most, that holds no JSON white space."""
    while p < end:
        byte = load_byte(p)
        if byte > SPACE or byte not in (SPACE, _LINE_FEED, _CARRIAGE_RETURN, _TAB):
            break
        p += 1
    return p


@embedded
def string_end(p: int, end: int) -> int:
    """The closing quote of the string whose first byte is at p; less than 0, if it has escapes; 0 if it is invalid."""
    stops = string_stops(p)
    close = p + trailing_zeros(stops)
    if stops != uint64(0) and close < end and load_byte(close) == QUOTE:
        return close  # type: ignore[no-any-return]
    return _string_end(p, end)


@compiled
def _string_end(p: int, end: int) -> int:
    sign = 1
    while p < end:
        stops = string_stops(p)
        if stops == uint64(0):
            p += 32
            continue
        p += trailing_zeros(stops)
        if p >= end:
            return 0
        byte = load_byte(p)
        if byte == QUOTE:
            return sign * p
        if byte < SPACE:
            return 0
        if byte == BACKSLASH:
            sign = -1
            p = _skip_escape(p, end)
        else:
            p = _skip_character(p, end)
        if p == 0:
            return 0
    return 0


@compiled
def is_utf8(p: int, end: int) -> bool:
    """Whether the bytes [p, end) are UTF-8 (RFC 3629)."""
    while p < end:
        high = load_word(p) & _HIGH_BITS
        p += trailing_zeros(high) >> 3  # 8 when there is none
        if p < end and high != uint64(0):
            p = _skip_character(p, end)
            if p == 0:
                return False
    return True


@compiled
def _skip_character(p: int, end: int) -> int:
    """Behind the non-ASCII character at p, by the table of RFC 3629, section 4."""
    first, second = load_byte(p), load_byte(p + 1)
    if 0xC2 <= first <= 0xDF:
        least, most, size = 0x80, 0xBF, 2
    elif 0xE0 <= first <= 0xEF:
        least, most, size = 0xA0 if first == 0xE0 else 0x80, 0x9F if first == 0xED else 0xBF, 3
    elif 0xF0 <= first <= 0xF4:
        least, most, size = 0x90 if first == 0xF0 else 0x80, 0x8F if first == 0xF4 else 0xBF, 4
    else:
        return 0
    if size > end - p or not least <= second <= most:
        return 0
    for i in range(2, size):
        if load_byte(p + i) & 0xC0 != 0x80:
            return 0
    return p + size


@compiled
def _skip_escape(p: int, end: int) -> int:
    """Behind the escape at p; surrogates have to come as a high one and a low one (RFC 8259, section 7)."""
    if end - p < 2:
        return 0
    letter = load_byte(p + 1)
    if letter != _U:
        return p + 2 if letter in (QUOTE, BACKSLASH, _SLASH, _B, _F, _N, _R, _T) else 0
    unit = _code_unit(p, end)
    if unit < 0 or 0xDC00 <= unit <= 0xDFFF:
        return 0
    if not 0xD800 <= unit <= 0xDBFF:
        return p + 6
    low = _code_unit(p + 6, end)
    return p + 12 if 0xDC00 <= low <= 0xDFFF else 0


@compiled
def _code_unit(p: int, end: int) -> int:
    """The UTF-16 code unit of an escape with four hexadecimal digits at p, or -1."""
    if end - p < 6 or load_byte(p) != BACKSLASH or load_byte(p + 1) != _U:
        return -1
    unit = 0
    for i in range(2, 6):
        digit = int(load_byte(p + i))
        if 0x30 <= digit <= 0x39:
            digit -= 0x30
        elif 0x61 <= (digit | 0x20) <= 0x66:
            digit = (digit | 0x20) - 0x57
        else:
            return -1
        unit = 16 * unit + digit
    return unit
