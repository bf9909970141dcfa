"""JSON events by example: what the compiled scanner takes, what the reader in Python takes, and what is refused."""

import json

from streamlstm.events.batch import Reason
from streamlstm.events.fields import FieldPaths
from tests.events.json_texts import DEFAULT, FIELDED, KEYED, MANY, NESTED, OVERLAPPING, THREE
from tests.events.rows import BASE_TIME

# what the compiled scanner has to take by itself: (fields, key, value, stream, time, inputs)
SCANNED: list[tuple[FieldPaths, bytes | None, str, bytes, int, list[float]]] = [
    (DEFAULT, b"k", '{"ts":1730000000000,"value":1.25}', b"k", 1730000000000, [1.25]),
    (DEFAULT, None, '{"stream":"s","ts":1730000000000,"value":-1}', b"s", 1730000000000, [-1.0]),
    (DEFAULT, b"k", ' {\t"value" :\r\n2.5e3 , "stream" : "s" } ', b"s", BASE_TIME, [2500.0]),
    (DEFAULT, b"k", '{"stream":17,"y":0.1}', b"17", BASE_TIME, [0.1]),
    (DEFAULT, b"k", '{"stream":"Zürich 🌡","y":0.30000000000000004}', "Zürich 🌡".encode(), BASE_TIME, [0.1 + 0.2]),
    (DEFAULT, "schlüssel".encode(), '{"y":1}', "schlüssel".encode(), BASE_TIME, [1.0]),
    (DEFAULT, b"k", '{"values":[3]}', b"k", BASE_TIME, [3.0]),
    (DEFAULT, b"k", '{"values":{"value":3,"more":[{}]}}', b"k", BASE_TIME, [3.0]),
    (DEFAULT, b"k", '{"y":1,"target":2,"values":[9],"value":3}', b"k", BASE_TIME, [3.0]),
    (DEFAULT, b"k", '{"y":1,"target":2,"values":"?"}', b"k", BASE_TIME, [2.0]),
    (DEFAULT, b"k", '{"ds":5,"time":4,"ts":3,"timestamp":2,"y":1}', b"k", 3, [1.0]),
    (DEFAULT, b"k", '{"ts":"2024-05-01T12:00:00.250+02:00","y":1}', b"k", 1714557600250, [1.0]),
    (DEFAULT, b"k", '{"ts":"2024-05-01 12:00:00","y":1}', b"k", 1714564800000, [1.0]),
    (DEFAULT, b"k", '{"ts":"2024-05-01t12:00:00.123456789z","y":1}', b"k", 1714564800123, [1.0]),
    (DEFAULT, b"k", '{"ts":"2024-02-29","y":1}', b"k", 1709164800000, [1.0]),
    (DEFAULT, b"k", '{"u":"\\u00b0 \\ud83c\\udf21","tags":{"a":[1,{"b":[]},"]"]},"y":1}', b"k", BASE_TIME, [1.0]),
    (DEFAULT, b"k", '{"good":true,"bad":false,"none":null,"n":-1.5e99,"":"","y":1}', b"k", BASE_TIME, [1.0]),
    (NESTED, None, '{"meta":{"device":{"id":"d"},"ts":1730000000.1234567},"v":7}', b"d", 1730000000123, [7.0]),
    (NESTED, None, '{"payload":{"temp":7},"meta":{"x":1,"device":{"x":1,"id":"d"}}}', b"d", BASE_TIME, [7.0]),
    (NESTED, b"k", '{"payload":{"other":{"x":1},"values":[5]},"ts":1.0005}', b"k", 1000, [1.0]),
    (NESTED, b"k", '{"payload":{"values":{"value":5}},"ts":-1.0005}', b"k", -1001, [5.0]),
    (NESTED, b"k", '{"payload":{},"meta":[],"v":1,"ts":-0.5}', b"k", -500, [1.0]),
    (THREE, b"k", '{"values":[1,-2.5,3e-2]}', b"k", BASE_TIME, [1.0, -2.5, 0.03]),
    (THREE, b"k", '{"values":{"x":"y","load":2,"température in °C":3,"temp":1}}', b"k", BASE_TIME, [1.0, 2.0, 3.0]),
    (THREE, b"k", '{"value":"not asked for","values":[1,2,3]}', b"k", BASE_TIME, [1.0, 2.0, 3.0]),
    (KEYED, b"k", '{"stream":[],"ts":1730000000123999,"y":1}', b"k", 1730000000123, [1.0]),
    (FIELDED, None, '{"a_longer_stream_name":"s","ts":-1,"y":1}', b"s", -1, [1.0]),
    (MANY, b"k", json.dumps({"values": list(range(300))}), b"k", BASE_TIME, list(map(float, range(300)))),
    (
        MANY,
        b"k",
        json.dumps({"values": {f"sensor_number_{i}": i / 7 for i in reversed(range(300))}}),
        b"k",
        BASE_TIME,
        [i / 7 for i in range(300)],
    ),
]  # fmt: skip


# what the reader in Python takes instead
HANDED_ON: list[tuple[FieldPaths, bytes | None, str, bytes, int, list[float]]] = [
    (DEFAULT, b"k", '{"stream":"a\\"b\\u00e4","y":1}', 'a"bä'.encode(), BASE_TIME, [1.0]),
    (DEFAULT, b"k", '{"val\\u0075e":1}', b"k", BASE_TIME, [1.0]),
    (DEFAULT, b"k", '{"value":1,"value":2}', b"k", BASE_TIME, [2.0]),
    (DEFAULT, b"k", '{"y":1,"ts":5,"ts":6}', b"k", 6, [1.0]),
    (DEFAULT, b"k", '{"y":1,"ts":null,"stream":null}', b"k", BASE_TIME, [1.0]),
    (DEFAULT, b"k", '{"y":123456789012345678901234567890}', b"k", BASE_TIME, [123456789012345678901234567890.0]),
    (DEFAULT, b"k", '{"y":4.9e-324,"ts":"2016-12-31T23:59:60Z"}', b"k", 1483228800000, [5e-324]),
    (DEFAULT, b"k", '{"y":-0}', b"k", BASE_TIME, [0.0]),
    (DEFAULT, b"k", '{"y":-0.0}', b"k", BASE_TIME, [-0.0]),
    (DEFAULT, b"k", '{"y":1,"ts":1.73e12}', b"k", 1730000000000, [1.0]),
    (DEFAULT, b"k", '{"y":1,"deep":' + "[" * 200 + "]" * 200 + "}", b"k", BASE_TIME, [1.0]),
    (NESTED, b"k", '{"v":1,"ts":1730000000.12299999999999999999}', b"k", 1730000000122, [1.0]),
    (NESTED, b"k", '{"payload":{"temp":1},"v":3,"payload":{}}', b"k", BASE_TIME, [3.0]),
    (OVERLAPPING, b"k", '{"a":"s","v":5}', b"s", 5000, [5.0]),
]


NO_VALUES = rb"""
    [1} {"a":1] [[1}] {"a":[1}} [1,] [,1] [1,,2] {,} {"a":1,} {"a"} {"a":} {:1} {1:1} [1:2] {"a":1:2} ][ } ]
    tru truE nul nulls fals false1 falsE True - -a +1 1. .1 1e 01 0x1 1a " "a \"a" a" "\a" "\u12" 'a' [1;2] [1/**/]
""".split()
NO_ARRAYS = b"[1,2,3, [1],2,3] [1,2],3] [1,2,3} [1,2,3 [1:2,3] [,1,2,3] [1,2,3,] [1,2,3]] [1,2,3],".split()
NESTED_TOO_DEEP = b'{"y":1,"deep":' + b"[" * 256 + b"]" * 256 + b"}"
REFUSED: list[tuple[FieldPaths, bytes | None, bytes | None, Reason]] = [
    (DEFAULT, b"k", None, Reason.TOMBSTONE),
    (DEFAULT, b"k", b"", Reason.NOT_JSON),
    (DEFAULT, b"k", b"garbage", Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":1', Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":1}}', Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":1,}', Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":01}', Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":1,"z":"\xff"}', Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":1,"z":"\xed\xa0\x80"}', Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":1,"z":"\\ud800"}', Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":1,"z":"\n"}', Reason.NOT_JSON),
    (DEFAULT, b"k", b'\xef\xbb\xbf{"y":1}', Reason.NOT_JSON),
    (DEFAULT, b"k", '{"y":1}'.encode("utf-16"), Reason.NOT_JSON),
    (DEFAULT, b"k", NESTED_TOO_DEEP, Reason.NOT_JSON),
    (DEFAULT, b"k", b"[" * 1_000_000, Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":' * 100_000 + b"1" + b"}" * 100_000, Reason.NOT_JSON),
    (DEFAULT, b"k", b'{"y":NaN,"z":' + b'"\\"' * 300_000 + b"[" * 300, Reason.NOT_JSON),
    *((DEFAULT, b"k", b'{"z":%s,"y":1}' % text, Reason.NOT_JSON) for text in NO_VALUES),
    *((DEFAULT, b"k", b'{"y":1,"z":%s}' % text, Reason.NOT_JSON) for text in NO_VALUES),
    (DEFAULT, b"k", b"[1]", Reason.NOT_OBJECT),
    (DEFAULT, b"k", b"3", Reason.NOT_OBJECT),
    (DEFAULT, b"k", b"{}", Reason.MISSING_FIELD),
    (DEFAULT, b"k", b'{"ts":1}', Reason.MISSING_FIELD),
    (DEFAULT, b"k", b'{"y":"1"}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"y":true}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"y":{}}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"y":[1]}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"values":1}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"values":[false]}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"values":[1,2]}', Reason.WRONG_LENGTH),
    (DEFAULT, b"k", b'{"values":[]}', Reason.WRONG_LENGTH),
    (DEFAULT, b"k", b'{"values":{"x":1}}', Reason.MISSING_FIELD),
    (DEFAULT, b"k", b'{"value":null,"y":1}', Reason.NULL_VALUE),
    (DEFAULT, b"k", b'{"values":null}', Reason.NULL_VALUE),
    (DEFAULT, b"k", b'{"values":[null]}', Reason.NULL_VALUE),
    (DEFAULT, b"k", b'{"y":NaN}', Reason.NOT_FINITE),
    (DEFAULT, b"k", b'{"y":-Infinity}', Reason.NOT_FINITE),
    (DEFAULT, b"k", b'{"y":1e999}', Reason.NOT_FINITE),
    (DEFAULT, b"k", b'{"y":1' + b"0" * 5000 + b"}", Reason.NOT_FINITE),
    (DEFAULT, b"k", b'{"y":1,"ts":true}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"y":1,"ts":[]}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"y":1,"ts":"yesterday"}', Reason.BAD_TIME),
    (DEFAULT, b"k", b'{"y":1,"ts":"1730000000000"}', Reason.BAD_TIME),
    (DEFAULT, b"k", b'{"y":1,"ts":"2023-02-29T00:00:00Z"}', Reason.BAD_TIME),
    (DEFAULT, b"k", b'{"y":1,"ts":"2024-05-01T24:00:00Z"}', Reason.BAD_TIME),
    (DEFAULT, b"k", b'{"y":1,"ts":"2024-05-01T12:00:00+24:00"}', Reason.BAD_TIME),
    (DEFAULT, b"k", b'{"y":1,"ts":7289654400000}', Reason.BAD_TIME),
    (DEFAULT, b"k", b'{"y":1,"ts":-2208988800001}', Reason.BAD_TIME),
    (DEFAULT, b"k", b'{"y":1,"ts":99999999999999999999999999}', Reason.BAD_TIME),
    (DEFAULT, b"k", b'{"y":1,"stream":""}', Reason.NO_KEY),
    (DEFAULT, b"", b'{"y":1}', Reason.NO_KEY),
    (DEFAULT, None, b'{"y":1}', Reason.NO_KEY),
    (FIELDED, b"k", b'{"y":1}', Reason.NO_KEY),
    (FIELDED, b"k", b'{"y":1,"stream":null}', Reason.NO_KEY),
    (KEYED, b"\xc3", b'{"y":1}', Reason.KEY_ENCODING),
    (DEFAULT, b"\xff\xfe", b'{"y":1}', Reason.KEY_ENCODING),
    (DEFAULT, b"k", b'{"y":1,"stream":1.5}', Reason.WRONG_TYPE),
    (DEFAULT, b"k", b'{"y":1,"stream":[1]}', Reason.WRONG_TYPE),
    *((THREE, b"k", b'{"values":%s}' % text, Reason.NOT_JSON) for text in NO_ARRAYS),
    (THREE, b"k", b'{"value":1}', Reason.MISSING_FIELD),
    (THREE, b"k", b'{"values":[1,2]}', Reason.WRONG_LENGTH),
    (THREE, b"k", b'{"values":[1,2,null]}', Reason.NULL_VALUE),
    (THREE, b"k", b'{"values":{"temp":1,"load":2}}', Reason.MISSING_FIELD),
]
