"""JSON from files of unknown origin: bounded, no duplicate keys, no NaN, never a RecursionError."""

import json
from typing import Any, NoReturn

from streamlstm.errors import ModelFileError
from streamlstm.model.limits import MAX_JSON_BYTES


def parse_json(text: bytes, where: str) -> Any:
    """Parse UTF-8 JSON. Raises ModelFileError on anything that RFC 8259 doesn't allow, on duplicate keys and on deep
    nesting.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ModelFileError(where, "JSON size", expected=f"at most {MAX_JSON_BYTES} bytes", found=f"{len(text)} bytes")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ModelFileError(
            where, "JSON nested too deep", expected="a shallow document", found="deep nesting"
        ) from None
    except ValueError as error:
        found = str(error)[:120]
        raise ModelFileError(where, "not valid JSON", expected="UTF-8 JSON with unique keys", found=found) from None


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """The same, for a document that must be a JSON object."""
    document = parse_json(text, where)
    if not isinstance(document, dict):
        raise ModelFileError(where, "wrong JSON type", expected="an object", found=type_name(document))
    return document


def type_name(value: object) -> str:
    """The JSON word for the type of a parsed value; never prints the value, which may be huge."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a duplicate key")
    return members


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"the token {token}")
