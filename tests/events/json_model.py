"""What a JSON event means, said once more from the documentation, slowly: the judge of scanner and reader alike."""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import floor, nan
from typing import Any

import orjson

from streamlstm.events.batch import Reason
from streamlstm.events.fields import FieldPaths

NESTING = 256
MILLISECONDS = {"s": Fraction(1000), "ms": Fraction(1), "us": Fraction(1, 1000), "ns": Fraction(1, 1_000_000)}
FIRST, LAST = datetime(1900, 1, 1), datetime(2200, 12, 31, 23, 59, 59, 999_000)
EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Expected:
    reason: Reason
    stream: bytes = b""
    time: int = 0
    x: tuple[float, ...] = ()


class Refused(Exception):  # noqa: N818 - not an error of the model
    pass


def expected_event(
    value: bytes | None, key: bytes | None, timestamp: int, fields: FieldPaths, lets_missing: bool = False
) -> Expected:
    """`lets_missing`: an input that is null is NaN."""
    try:
        if value is None:
            raise Refused(Reason.TOMBSTONE)
        root = _parse(value)
        stream = _stream(root, fields)
        time = _time(root, value, fields)
        x = _inputs(root, fields, lets_missing)
        if stream is None:
            stream = _key(key)
        if time is None:
            time = timestamp
            if timestamp < 0 or not _in_years(timestamp):
                raise Refused(Reason.BAD_TIME)
    except Refused as refused:
        return Expected(refused.args[0])
    return Expected(Reason.OK, stream, time, x)


def _parse(value: bytes) -> dict[str, Any]:
    if _depth(value) > NESTING:
        raise Refused(Reason.NOT_JSON)
    try:
        root = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise Refused(_not_json(value)) from None
    if not isinstance(root, dict):
        raise Refused(Reason.NOT_OBJECT)
    return root


def _depth(value: bytes) -> int:
    depth = deepest = 0
    in_string = escaped = False
    for byte in value:
        character = chr(byte)
        if in_string:
            in_string = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _not_json(value: bytes) -> Reason:
    """NOT_FINITE if it is JSON once every number beyond float64 and every NaN and Infinity is a zero."""
    found = []

    def constant(name: str) -> int:
        found.append(name)
        return 0

    def number(digits: str) -> float:
        real = float(digits)
        if real - real != 0:
            found.append(digits)
        return real

    try:
        json.loads(value.decode("utf-8"), parse_constant=constant, parse_float=number, parse_int=number)
    except (UnicodeDecodeError, json.JSONDecodeError):
        return Reason.NOT_JSON
    return Reason.NOT_FINITE if found else Reason.NOT_JSON


def _at(root: Any, path: str) -> list[Any]:
    """What stands at a dotted path: a list of one, or of none."""
    here = [root]
    for name in path.split("."):
        here = [one[name] for one in here if isinstance(one, dict) and name in one]
    return here


def _stream(root: dict[str, Any], fields: FieldPaths) -> bytes | None:
    paths = () if fields.stream_source == "key" else fields.stream
    found = [one for path in paths for one in _at(root, path) if one is not None]
    if not found:
        if fields.stream_source == "field":
            raise Refused(Reason.NO_KEY)
        return None
    if isinstance(found[0], bool) or not isinstance(found[0], str | int):
        raise Refused(Reason.WRONG_TYPE)
    if found[0] == "":
        raise Refused(Reason.NO_KEY)
    return str(found[0]).encode()


def _key(key: bytes | None) -> bytes:
    if not key:
        raise Refused(Reason.NO_KEY)
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(Reason.KEY_ENCODING) from None
    return key


class _Text(str):
    pass


def _time(root: dict[str, Any], value: bytes, fields: FieldPaths) -> int | None:
    found = [one for path in fields.time for one in _at(root, path) if one is not None]
    if not found:
        return None
    if isinstance(found[0], bool) or not isinstance(found[0], str | int | float):
        raise Refused(Reason.WRONG_TYPE)
    if isinstance(found[0], str):
        milliseconds = date_time(found[0])
    else:
        texts = json.loads(value, parse_int=_Text, parse_float=_Text)
        digits = next(one for path in fields.time for one in _at(texts, path) if one is not None)
        milliseconds = number_time(digits, fields.time_unit)
    if milliseconds is None or not _in_years(milliseconds):
        raise Refused(Reason.BAD_TIME)
    return milliseconds


def _in_years(milliseconds: int) -> bool:
    unit = timedelta(milliseconds=1)
    return (FIRST - EPOCH) // unit <= milliseconds <= (LAST - EPOCH) // unit


def number_time(digits: str, unit: str) -> int | None:
    if digits == "-0":
        return 0
    exponent = re.search("[eE](.*)", digits)
    if exponent and abs(int(exponent[1])) > 10_000:  # exact fractions of these would fill the memory
        if not digits.strip("-").split("e")[0].split("E")[0].strip("0."):
            return 0
        if int(exponent[1]) > 0:
            return None
        return -1 if digits.startswith("-") else 0
    return floor(Fraction(digits) * MILLISECONDS[unit])


def date_time(text: str) -> int | None:
    """By taking the text apart with the standard library where it is willing to, which is not for every shape."""
    match = re.fullmatch(
        r"(?P<date>\d{4}-\d\d-\d\d)(?:[Tt ](?P<time>\d\d:\d\d):(?P<second>\d\d)(?P<fraction>\.\d+)?(?P<zone>.*))?",
        text,
        re.ASCII | re.DOTALL,
    )
    if match is None:
        return None
    zone = match["zone"] or "Z"
    if not re.fullmatch(r"[Zz]|[-+]([01]\d|2[0-3]):[0-5]\d", zone, re.ASCII):
        return None
    leap = match["second"] == "60"
    try:
        local = datetime.fromisoformat(
            f"{match['date']}T{match['time'] or '00:00'}:{'59' if leap else match['second'] or '00'}"
        )
    except ValueError:
        return None
    hours, minutes = (0, 0) if zone in "Zz" else (int(zone[1:3]), int(zone[4:6]))
    ahead = timedelta(hours=hours, minutes=minutes) * (-1 if zone.startswith("-") else 1)
    seconds = (local - EPOCH - ahead) // timedelta(seconds=1)
    if leap:
        seconds += 1
        if seconds % 86_400 != 0:
            return None
    return seconds * 1000 + floor(Fraction("0" + (match["fraction"] or ".0")) * 1000)


def _inputs(root: dict[str, Any], fields: FieldPaths, lets_missing: bool) -> tuple[float, ...]:
    def _number(found: Any) -> float:
        return nan if lets_missing and found is None else _real(found)

    if len(fields.inputs) == 1:
        for path in fields.value:
            for found in _at(root, path):
                return (_number(found),)
    for found in _at(root, fields.values):
        if found is None:
            return (_number(None),) * len(fields.inputs)
        if isinstance(found, list):
            if len(found) != len(fields.inputs):
                raise Refused(Reason.WRONG_LENGTH)
            return tuple(map(_number, found))
        if isinstance(found, dict):
            return tuple(_number(found[name]) if name in found else _missing() for name in fields.inputs)
        raise Refused(Reason.WRONG_TYPE)
    return _missing()


def _missing() -> Any:
    raise Refused(Reason.MISSING_FIELD)


def _real(found: Any) -> float:
    if found is None:
        raise Refused(Reason.NULL_VALUE)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise Refused(Reason.WRONG_TYPE)
    return float(found)
