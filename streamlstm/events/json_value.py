"""One JSON value to an event, or the reason why not: what decides wherever the compiled scanner passes a record on.

orjson says what is JSON (RFC 8259) and, of equal keys, keeps the last. The standard library's parser only tells text
with NaN, Infinity or a number beyond float64 from text that is no JSON, and gives a decimal time with all its digits.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from streamlstm.events.batch import Reason
from streamlstm.events.fields import FieldPaths, split_path
from streamlstm.events.times import from_integer, parse_number, parse_rfc3339
from streamlstm.kernels.text import nests_deeper

NESTING_LIMIT = 256
"""Deeper arrays and objects are refused as NOT_JSON, so that no parser's own limit decides."""

_ABSENT = object()
_INFINITE = (float("inf"), float("-inf"))


@dataclass(frozen=True, slots=True)
class JsonEvent:
    """What a JSON value says: stream id (None: the record's key), epoch ms (None: the record's timestamp), inputs (NaN:
    missing).
    """

    stream: bytes | None
    time: int | None
    x: tuple[float, ...]


class JsonReader:
    """Reads single JSON values by field paths, some microseconds each. Raises nothing, whatever the bytes."""

    def __init__(self, fields: FieldPaths, *, lets_missing: bool = False) -> None:
        """`lets_missing`: inputs that are null become NaN; else they are a reason against the event."""
        self._inputs = fields.inputs
        self._lets_missing = lets_missing
        self._unit = fields.time_unit
        self._stream_required = fields.stream_source == "field"
        self._stream = [] if fields.stream_source == "key" else [split_path(path) for path in fields.stream]
        self._time = [split_path(path) for path in fields.time]
        self._value = [split_path(path) for path in fields.value] if len(fields.inputs) == 1 else []
        self._values = [split_path(fields.values)]

    def read(self, text: bytes) -> JsonEvent | Reason:
        """The event in `text`, or the first reason against it: form, then stream, time and inputs."""
        if _nested_too_deep(text):
            return Reason.NOT_JSON
        try:
            root = orjson.loads(text)
        except orjson.JSONDecodeError:
            return _why_refused(text)
        if not isinstance(root, dict):
            return Reason.NOT_OBJECT
        stream = self._read_stream(root)
        if isinstance(stream, Reason):
            return stream
        time = self._read_time(root, text)
        if isinstance(time, Reason):
            return time
        x = self._read_inputs(root)
        return x if isinstance(x, Reason) else JsonEvent(stream, time, x)

    def _read_stream(self, root: Any) -> bytes | Reason | None:
        found = _first(root, self._stream, skip_null=True)
        if found is _ABSENT:
            return Reason.NO_KEY if self._stream_required else None
        if type(found) is int:
            return str(found).encode()
        if not isinstance(found, str):
            return Reason.WRONG_TYPE
        return found.encode() or Reason.NO_KEY

    def _read_time(self, root: Any, text: bytes) -> int | Reason | None:
        found = _first(root, self._time, skip_null=True)
        if found is _ABSENT:
            return None
        if type(found) is float:
            exact = json.loads(text, parse_int=_NumberText, parse_float=_NumberText)
            found = _first(exact, self._time, skip_null=True)
        if isinstance(found, _NumberText):
            time = parse_number(found, self._unit)
        elif isinstance(found, str):
            time = parse_rfc3339(found)
        elif type(found) is int:
            time = from_integer(found, self._unit)
        else:
            return Reason.WRONG_TYPE
        return Reason.BAD_TIME if time is None else time

    def _read_inputs(self, root: Any) -> tuple[float, ...] | Reason:
        alone = _first(root, self._value)
        if alone is not _ABSENT:
            return self._numbers([alone])
        together = _first(root, self._values)
        if together is _ABSENT:
            return Reason.MISSING_FIELD
        if together is None:
            return self._numbers([None] * len(self._inputs))
        if isinstance(together, dict):
            return self._numbers([together.get(name, _ABSENT) for name in self._inputs])
        if not isinstance(together, list):
            return Reason.WRONG_TYPE
        if len(together) != len(self._inputs):
            return Reason.WRONG_LENGTH
        return self._numbers(together)

    def _numbers(self, found: list[Any]) -> tuple[float, ...] | Reason:
        """The inputs as float64, or the reason of the first that isn't a number."""
        for one in found:
            if one is _ABSENT:
                return Reason.MISSING_FIELD
            if one is None:
                if not self._lets_missing:
                    return Reason.NULL_VALUE
            elif type(one) is not int and type(one) is not float:
                return Reason.WRONG_TYPE
        return tuple(math.nan if one is None else float(one) for one in found)


class _NumberText(str):
    """A JSON number as it stands in the text."""

    __slots__ = ()


def _first(root: Any, paths: list[tuple[str, ...]], skip_null: bool = False) -> Any:
    """What stands at the first of `paths` that `root` has, or _ABSENT."""
    for path in paths:
        found = root
        for name in path:
            found = found.get(name, _ABSENT) if isinstance(found, dict) else _ABSENT
        if found is not _ABSENT and not (skip_null and found is None):
            return found
    return _ABSENT


def _nested_too_deep(text: bytes) -> bool:
    few_brackets = text.count(b"[") + text.count(b"{") <= NESTING_LIMIT
    return not few_brackets and bool(nests_deeper(np.frombuffer(text, np.uint8), NESTING_LIMIT))


def _why_refused(text: bytes) -> Reason:
    """NOT_FINITE when only NaN, Infinity or numbers beyond float64 keep `text` from being JSON, else NOT_JSON."""
    infinite: list[str] = []

    def number(digits: str) -> float:
        if float(digits) in _INFINITE:
            infinite.append(digits)
        return 0.0

    try:
        json.loads(text.decode(), parse_constant=infinite.append, parse_float=number, parse_int=number)
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are such
        return Reason.NOT_JSON
    return Reason.NOT_FINITE if infinite else Reason.NOT_JSON
