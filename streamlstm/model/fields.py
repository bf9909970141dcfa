"""Typed reading of one JSON object: every field asked for by name, every field left over refused."""

import math
from typing import Any

from streamlstm.errors import ModelFileError
from streamlstm.model.strict_json import type_name

MAX_TEXT = 4096


class Fields:
    """Takes fields out of an object; `finish` refuses what nobody took. Every method raises ModelFileError naming the
    field.
    """

    def __init__(self, members: dict[str, Any], where: str) -> None:
        self._members = dict(members)
        self.where = where

    def place(self, name: str) -> str:
        return f"{self.where}: {name}"

    def has(self, name: str) -> bool:
        return name in self._members

    def take(self, name: str, expected: str) -> Any:
        if name not in self._members:
            raise ModelFileError(self.place(name), "missing field", expected=expected, found="nothing")
        return self._members.pop(name)

    def integer(self, name: str, low: int, high: int) -> int:
        expected = f"an integer from {low} to {high}"
        value = self.take(name, expected)
        if type(value) is not int or not low <= value <= high:
            raise ModelFileError(self.place(name), "wrong value", expected=expected, found=brief(value))
        return value

    def boolean(self, name: str) -> bool:
        value = self.take(name, "true or false")
        if type(value) is not bool:
            raise ModelFileError(self.place(name), "wrong value", expected="true or false", found=brief(value))
        return value

    def number(self, name: str) -> float:
        value = self.take(name, "a number")
        if type(value) not in (int, float) or not abs(value) < 1e308:
            raise ModelFileError(self.place(name), "wrong value", expected="a number", found=brief(value))
        return float(value)

    def text(self, name: str) -> str:
        value = self.take(name, "a string")
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise ModelFileError(self.place(name), "wrong value", expected="a string", found=brief(value))
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._array(name, "strings")
        if not all(isinstance(value, str) and len(value) <= MAX_TEXT for value in values):
            raise ModelFileError(self.place(name), "wrong value", expected="an array of strings", found=brief(values))
        return tuple(values)

    def integers(self, name: str) -> tuple[int, ...]:
        values = self._array(name, "integers")
        if not all(type(value) is int for value in values):
            raise ModelFileError(self.place(name), "wrong value", expected="an array of integers", found=brief(values))
        return tuple(values)

    def numbers(self, name: str) -> tuple[float, ...]:
        values = self._array(name, "numbers")
        if not all(type(value) in (int, float) and abs(value) < 1e308 and math.isfinite(value) for value in values):
            raise ModelFileError(self.place(name), "wrong value", expected="an array of numbers", found=brief(values))
        return tuple(float(value) for value in values)

    def object(self, name: str) -> "Fields":
        value = self.take(name, "an object")
        if not isinstance(value, dict):
            raise ModelFileError(self.place(name), "wrong value", expected="an object", found=brief(value))
        return Fields(value, self.place(name))

    def text_by_name(self, name: str) -> dict[str, str]:
        fields = self.object(name)
        return {key: fields.text(key) for key in list(fields._members)}

    def finish(self) -> None:
        if self._members:
            names = ", ".join(sorted(self._members))[:200]
            raise ModelFileError(self.where, "unknown field", expected="only the fields of this format", found=names)

    def _array(self, name: str, of: str) -> list[Any]:
        value = self.take(name, f"an array of {of}")
        if not isinstance(value, list):
            raise ModelFileError(self.place(name), "wrong value", expected=f"an array of {of}", found=brief(value))
        return value


def brief(value: object) -> str:
    """A value for a message: small scalars as they are, containers and long text by type only."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"a string of {len(value)} characters"
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return str(value)
    return type_name(value)
