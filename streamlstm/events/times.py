"""Event times as text, to epoch milliseconds, rounded down: a number in a unit, or a date and time as in RFC 3339.

The compiled scanner (kernels/text.py) reads the common shapes by the same rules; the tests hold the two together.
"""

import re
from datetime import UTC, date, datetime

from streamlstm.events.fields import TimeUnit

EARLIEST_MS = -2_208_988_800_000
"""1900-01-01T00:00:00Z, the first time that an event may have."""

LATEST_MS = 7_289_654_399_999
"""The last millisecond of the year 2200, UTC."""

EARLIEST_USUAL_MS = 100_000_000_000
"""March 1973: where a person writes a smaller number, it is rather something else, such as an offset or a share."""

DECIMALS: dict[TimeUnit, int] = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""One second is 10**DECIMALS of the unit."""

_EPOCH_DAY = datetime(1970, 1, 1, tzinfo=UTC).date().toordinal()
_DAY_SECONDS = 86_400
_MOST_DIGITS = 20
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([-+]?)0*([0-9]+))?")
_RFC_3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([-+])([0-9]{2}):([0-9]{2}))?)?"
)


def parse_time(text: str, unit: TimeUnit) -> int | None:
    """Epoch milliseconds of a JSON number in `unit` or of a text that `parse_rfc3339` takes.

    None when it is neither or lies outside the years 1900 to 2200.
    """
    return parse_number(text, unit) if _NUMBER.fullmatch(text) else parse_rfc3339(text)


def parse_usual_time(text: str) -> int | None:
    """Epoch milliseconds of what a person gave for a time, RFC 3339 or milliseconds; None also for a number that is
    hardly meant as one.
    """
    time_ms = parse_time(text, "ms")
    is_unusual = time_ms is not None and time_ms < EARLIEST_USUAL_MS and _NUMBER.fullmatch(text)
    return None if is_unusual else time_ms


def parse_number(text: str, unit: TimeUnit) -> int | None:
    """Epoch milliseconds of the JSON number `text` in `unit`, exact and then rounded down; None as in `parse_time`.

    The digits are read as they stand: a float64 would lose some, and with them now and then a millisecond.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent_sign, exponent = match.groups(default="")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    power = 0 if not exponent else int(exponent[:_MOST_DIGITS]) * (-1 if exponent_sign == "-" else 1)
    before_point = len(digits) - len(fraction) + power + 3 - DECIMALS[unit]
    if before_point > _MOST_DIGITS:
        return None
    kept = max(before_point, 0)
    milliseconds = int(digits[:kept].ljust(kept, "0") or "0")
    if sign:
        milliseconds = -milliseconds - bool(digits[kept:].strip("0"))
    return within_years(milliseconds)


def from_integer(number: int, unit: TimeUnit) -> int | None:
    """Epoch milliseconds of `number` in `unit`, rounded down; None outside the years 1900 to 2200."""
    return within_years(number * 1000 // 10 ** DECIMALS[unit])


def parse_rfc3339(text: str) -> int | None:
    """Epoch milliseconds of `2024-05-01T12:00:00.250+02:00`; None when it's no such text or outside 1900 to 2200.

    RFC 3339, section 5.6, and also: a space between date and time, no offset (UTC), no time of day (midnight). Digits
    behind the millisecond are cut. A leap second, allowed where UTC has them, counts as the second that follows it.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        return None
    fraction, sign = match[7] or "", match[8]
    year, month, day, hour, minute, second, zone_hour, zone_minute = (
        int(match[group] or 0) for group in (1, 2, 3, 4, 5, 6, 9, 10)
    )
    if hour > 23 or minute > 59 or second > 60 or zone_hour > 23 or zone_minute > 59:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    offset = (zone_hour * 60 + zone_minute) * 60 * (-1 if sign == "-" else 1)
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - offset
    if second == 60 and seconds % _DAY_SECONDS:
        return None
    return within_years(seconds * 1000 + int(fraction[:3].ljust(3, "0")))


def within_years(milliseconds: int) -> int | None:
    """`milliseconds` if the epoch time lies in the years 1900 to 2200, else None."""
    return milliseconds if EARLIEST_MS <= milliseconds <= LATEST_MS else None
