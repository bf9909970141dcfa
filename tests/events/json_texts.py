"""Text of JSON events, mostly good ones, and ways to damage it."""

import json
import random
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from streamlstm.events.fields import FieldPaths
from streamlstm.events.times import DECIMALS

DEFAULT = FieldPaths()
THREE = FieldPaths(inputs=("temp", "load", "température in °C"))
MANY = FieldPaths(inputs=tuple(f"sensor_number_{i}" for i in range(300)))
NESTED = FieldPaths(
    stream=("meta.device.id", "id"),
    time=("meta.ts", "ts"),
    value=("payload.temp", "payload.other.x", "v"),
    values="payload.values",
    time_unit="s",
)
KEYED = FieldPaths(stream_source="key", time_unit="us")
FIELDED = FieldPaths(stream_source="field", time_unit="ns", stream=("stream", "a_longer_stream_name"))
OVERLAPPING = FieldPaths(stream=("a", "b"), time=("a.t", "v"), value=("v", "b.v", "w"), values="b", time_unit="s")
EVERY_FIELDS = (DEFAULT, THREE, NESTED, KEYED, FIELDED, OVERLAPPING)

# ---- pieces of JSON

exponents = st.sampled_from(["", "e5", "E-30", "e+300", "e-310"])
digits = st.text("0123456789", min_size=1, max_size=22)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.builds("{}{}.{}{}".format, st.sampled_from(["", "-"]), st.integers(0, 10**20), digits, exponents),
    st.builds("{}.{}".format, st.integers(-999, 999), digits),
    st.sampled_from(["0", "-0", "-0.0", "0e9", "1e22", "1e23", "9007199254740993", "2e16", "1e-400", "1e400"]),
)
texts = st.text(max_size=40)
strings = st.one_of(
    texts.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text(max_size=10).map(json.dumps),
    st.sampled_from([r'"\ud83c\udf21"', '"2024-05-01"', r'"\\\"\/\b\f\n\r\t\u00e4"']),
)
scalars = st.one_of(numbers, strings, st.sampled_from(["true", "false", "null"]))
no_json = st.sampled_from(
    [
        r'"\ud800"',
        r'"\udc00\ud800"',
        r'"\ud83cx"',
        r'"\x"',
        r'"\u12g4"',
        '"a\tb"',
        "NaN",
        "-Infinity",
        "tru",
        "01",
        "1.",
        "-",
    ]
)
spaces = st.sampled_from(["", "", "", "", " ", "\n\t \r"])
names = st.text("abcdefgh", min_size=1, max_size=20)
good_strings = (names | texts.filter(len)).map(lambda text: json.dumps(text, ensure_ascii=False))

# ---- times

pairs = st.integers(0, 61).map("{:02d}".format)
fractions = st.sampled_from(["", "", ".", ".5", ".25", ".999", ".9999999999999999999999", ".000", ".1234567"])
zones = st.sampled_from(["", "", "Z", "Z", "z", "+00:00", "-23:59", "+0100", "Q"]) | st.builds(
    "{}{}:{}".format, st.sampled_from("+-"), pairs, pairs
)
odd_date_times = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.sampled_from(["1899", "1900", "1969", "1970", "2024", "2023", "2000", "2100", "2200", "2201", "0000", "9999"]),
    st.integers(0, 13).map("{:02d}".format),
    st.integers(0, 32).map("{:02d}".format),
    st.sampled_from("TTt  _"),
    st.integers(0, 24).map("{:02d}".format),
    pairs,
    pairs,
    fractions,
    zones,
)
date_times = st.one_of(
    st.builds(
        lambda when, zone: when.isoformat() + zone, st.datetimes(datetime(1899, 12, 30), datetime(2201, 1, 2)), zones
    ),
    st.dates().map(lambda when: when.isoformat()),
    odd_date_times,
)


def epochs(unit: str) -> Any:
    """Numeric times of the years 1800 to 2300, with and without a fraction."""
    scale = 10 ** DECIMALS[unit]  # type: ignore[index]
    whole = st.integers(-5_400_000_000 * scale, 10_500_000_000 * scale)
    return whole.map(str) | st.builds("{}.{}".format, whole, digits) | st.integers(0, 2_000_000_000 * scale).map(str)


# ---- values of several kinds


@st.composite
def containers(draw: Any, inner: Any) -> str:
    brackets = draw(st.sampled_from(["[]", "{}"]))
    found = draw(st.lists(inner, max_size=3))
    if brackets == "{}":
        found = [f"{draw(strings)}{draw(spaces)}:{one}" for one in found]
    return brackets[0] + ",".join(f"{draw(spaces)}{one}{draw(spaces)}" for one in found) + brackets[1]


values = st.recursive(scalars, containers, max_leaves=6)


def arrays(fields: FieldPaths) -> Any:
    count = len(fields.inputs)
    return st.lists(numbers, min_size=count, max_size=count).map(lambda found: f"[{','.join(found)}]")


def by_name(fields: FieldPaths) -> Any:
    quoted = [json.dumps(name, ensure_ascii=False) for name in fields.inputs]
    members = st.tuples(*(numbers.map(f"{name} : {{}}".format) for name in quoted))
    return members.flatmap(st.permutations).map(lambda found: f"{{{', '.join(found)}}}")


# ---- events


@st.composite
def members(draw: Any, fields: FieldPaths) -> list[tuple[tuple[str, ...], str]]:
    """Some paths with texts for their values: mostly what belongs there."""
    alone = fields.value if len(fields.inputs) == 1 else ()
    roles = (
        (fields.stream, good_strings | st.integers(-(2**66), 2**66).map(str), 2),
        (fields.time, epochs(fields.time_unit) | date_times.map(json.dumps), 3),
        (alone, numbers, 2),
        ((fields.values,), arrays(fields) | by_name(fields), 2 if alone else 1),
        (("other", "a.b.c"), values, 3),
    )
    found = [
        (tuple(path.split(".")), draw(usual if draw(st.integers(0, 19)) else values | no_json))
        for paths, usual, one_in in roles
        for path in paths
        if draw(st.integers(1, one_in)) == 1
    ]
    if found and draw(st.integers(0, 14)) == 0:
        found.append((draw(st.sampled_from(found))[0], draw(values)))
    return draw(st.permutations(found))  # type: ignore[no-any-return]


def _write(draw: Any, found: list[tuple[tuple[str, ...], str]]) -> str:
    """The members as an object's text. Members of one nested object stand together; equal names may occur twice."""
    parts: list[str] = []
    inner: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    order: list[tuple[str, str | None]] = []
    for path, text in found:
        if len(path) == 1:
            order.append((path[0], text))
        else:
            if path[0] not in inner:
                order.append((path[0], None))
            inner.setdefault(path[0], []).append((path[1:], text))
    for name, text in order:
        body = _write(draw, inner[name]) if text is None else text
        quoted = json.dumps(name, ensure_ascii=draw(st.integers(0, 19)) == 0)
        parts.append(f"{draw(spaces)}{quoted}{draw(spaces)}:{draw(spaces)}{body}{draw(spaces)}")
    return "{" + ",".join(parts) + "}"


@st.composite
def event_texts(draw: Any) -> tuple[FieldPaths, bytes]:
    fields = draw(st.sampled_from(EVERY_FIELDS))
    text = _write(draw, draw(members(fields)))
    return fields, f"{draw(spaces)}{text}{draw(spaces)}".encode("utf-8", "surrogatepass")


# ---- damage

PIECES = [*b'"\\{}[],:-.e0 \v\xc3\0']
STRUCTURE = b'{}[],:"'
LONG_PIECES = [b"\xed\xa0\x80", b"\\u00", b'"value":', b'"ts":"', b"null"]


def damaged(text: bytes, chance: random.Random) -> bytes:
    """`text` with a few bytes cut off, put in, taken out or flipped."""
    changed = bytearray(text)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.randrange(len(changed) + 1)
        piece = bytes([chance.choice(PIECES)]) if chance.random() < 0.8 else chance.choice(LONG_PIECES)
        kind = chance.randrange(6)
        if kind == 0:
            del changed[at:]
        elif kind == 5:
            places = [i for i, byte in enumerate(changed) if byte in STRUCTURE]
            if places:
                changed[chance.choice(places)] = chance.choice(STRUCTURE)
        elif kind == 1:
            changed[at:at] = piece
        elif kind == 2:
            del changed[at : at + chance.choice([1, 1, 2, 8])]
        elif kind == 3:
            changed[at : at + 1] = piece
        elif at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)
