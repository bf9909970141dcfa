"""The corpus: record batches and records that are not what they should be, each by its name.

A case is one batch as a broker might keep it, and how many offsets it takes up in the log. Made anew by every run from
the lines below, so that the corpus can be read.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from streamlstm.events.compression import Codec, compressor
from tests.events.record_encoding import headers_section, varint
from tests.fuzz.batch_parts import (
    BASE_TIME,
    CODECS,
    Written,
    batch,
    compressed,
    event,
    garbage,
    null_value,
    other_framings,
    section,
    with_field,
)

LIMIT = 1 << 20
"""Most bytes a batch may decompress to where the corpus is read."""

TRANSACTIONAL, CONTROL = 0x10, 0x20
INT32, INT64 = 2**31 - 1, 2**63 - 1
THREE = [Written(i, b"victim-%d" % i) for i in range(3)]
SOUND = bytes(batch(section(THREE), 3))


@dataclass(frozen=True)
class Case:
    """`lying`: the CRC is right and the header contradicts the batch's place in the log, so that only a broken broker
    could give it: no crash, no hang, no answer twice; what such a header hides is hidden.
    """

    name: str
    data: bytes
    count: int = 3
    lying: bool = False


def corpus() -> list[Case]:
    found = [*_frames(), *_headers(), *_records(), *_codecs(), *_values(), *_keys_and_headers()]
    assert len({case.name for case in found}) == len(found)
    return found


def _frames() -> Iterator[Case]:
    """Batches that begin, end or break in the wrong place."""
    for length in (-INT32 - 1, -1, 0, 3, 4, 5, 48, 49, 1 << 20, 1 << 30, INT32):
        yield Case(f"length {length}", bytes(with_field(SOUND, "length", length, sign=False)))
    for by in (-30, -1, 1, 30):
        yield Case(f"length off by {by}", bytes(with_field(SOUND, "length", len(SOUND) - 12 + by, sign=False)))
    for cut in (1, 8, 11, 12, 16, 17, 21, 22, 60, 61, 62, 70, len(SOUND) - 20, len(SOUND) - 1):
        yield Case(f"torn after {cut} bytes", SOUND[:cut], lying=True)
    for magic in (-128, -1, 0, 1, 3, 127):
        yield Case(f"magic {magic}", bytes(with_field(SOUND, "magic", magic, sign=False)))
    for crc in (0, 1, 2**32 - 1):
        yield Case(f"crc {crc:08x}", bytes(with_field(SOUND, "crc", crc)))
    yield Case("nothing but zeros", bytes(len(SOUND)))
    yield Case("nothing but ones", b"\xff" * len(SOUND))
    for seed in range(4):
        yield Case(f"garbage {seed}", garbage(200, seed))
    for at in range(17, len(SOUND), 7):
        flipped = bytearray(SOUND)
        flipped[at] ^= 1 << at % 8
        yield Case(f"bit flipped in byte {at}", bytes(flipped))


def _headers() -> Iterator[Case]:
    """Headers that lie under a right CRC."""
    for number in (-INT32 - 1, -1, 0, 1, 2, 4, 100, 1 << 20, INT32):
        yield Case(f"count {number} of 3", bytes(with_field(SOUND, "count", number)))
    for number in (-INT32 - 1, -5, -1, 0, 1, 3, 99, 1 << 20):
        changed = with_field(SOUND, "last_offset_delta", number)
        yield Case(f"last offset delta {number} of 2", bytes(changed), lying=True)
    for number in (-INT64 - 1, -1000, -1, 1, 1000, INT64 - 1000):
        yield Case(f"base offset off by {number}", bytes(with_field(SOUND, "base_offset", number)), lying=True)
    for number in (5, 6, 7):
        yield Case(f"codec {number}", bytes(with_field(SOUND, "attributes", number)))
    for bit in range(6, 16):
        yield Case(f"unused attribute bit {bit}", bytes(with_field(SOUND, "attributes", 1 << bit)))
    for codec in CODECS:
        yield Case(f"{codec.name.lower()} said, plain found", bytes(with_field(SOUND, "attributes", codec)))
        plain = with_field(compressed(section(THREE), 3, codec), "attributes", 0)
        yield Case(f"plain said, {codec.name.lower()} found", bytes(plain))
    yield Case("control batch with records", bytes(with_field(SOUND, "attributes", CONTROL)), lying=True)
    yield Case("transactional without a producer", bytes(with_field(SOUND, "attributes", TRANSACTIONAL)))
    for name in ("leader_epoch", "producer_id", "producer_epoch", "base_sequence"):
        for number in (-INT64 - 1, -2, INT64):
            yield Case(f"{name} {number}", bytes(with_field(SOUND, name, number)))
    for number in (-INT64 - 1, -1, 0, INT64):
        yield Case(f"base timestamp {number}", bytes(with_field(SOUND, "base_timestamp", number)))
        appended = with_field(with_field(SOUND, "attributes", 8), "max_timestamp", number)
        yield Case(f"append time {number}", bytes(appended))
    yield Case("no records left after compaction", bytes(with_field(batch(b"", 0), "last_offset_delta", 2)), lying=True)
    yield Case("no records, but bytes", bytes(with_field(SOUND, "count", 0)))


def _one_wrong(name: str, wrong: Written) -> Iterator[Case]:
    """The record first, in the middle and last of three, plain and compressed."""
    for place, where in enumerate(("first", "second", "third")):
        records = [wrong if i == place else sound for i, sound in enumerate(THREE)]
        yield Case(f"{name}, {where} of 3", bytes(batch(section(records), 3)))
    yield Case(f"{name}, in zstd", bytes(compressed(section([wrong, *THREE[1:]]), 3, Codec.ZSTD)))


def _records() -> Iterator[Case]:
    """Records whose lengths, varints and offsets are out of place, under a right CRC."""
    true = len(Written(0).encode()) - 1
    lengths = {
        "-1": varint(-1),
        "0": varint(0),
        "1": varint(1),
        "one less": varint(true - 2),
        "one more": varint(true),
        "beyond the end": varint(1 << 20),
        "2^31-1": varint(INT32),
        "-2^31": varint(-INT32 - 1),
        "cut": b"\xff",
        "never ending": b"\xff" * 11,
        "padded with zeros": b"\x80\x80\x80\x80\x00",
        "six bytes of zeros": b"\x80\x80\x80\x80\x80\x00",
    }
    for name, text in lengths.items():
        yield from _one_wrong(f"record length {name}", Written(1, length=text))
        yield from _one_wrong(f"key length {name}", Written(1, key_length=text))
        yield from _one_wrong(f"value length {name}", Written(1, value_length=text))
        yield from _one_wrong(f"headers count {name}", Written(1, headers=text))
        yield from _one_wrong(f"header key length {name}", Written(1, headers=varint(1) + text + b"name" + varint(0)))
        yield from _one_wrong(f"header value length {name}", Written(1, headers=varint(1) + varint(1) + b"h" + text))
        yield Case(f"offset {name}", bytes(batch(section([THREE[0], Written(1, offset_text=text), THREE[2]]), 3)))
        yield Case(f"time {name}", bytes(batch(section([THREE[0], Written(1, time_text=text), THREE[2]]), 3)))
    yield from _one_wrong("bytes left over in the record", Written(1, tail=b"\0"))
    yield from _one_wrong("record cut in its headers", Written(1, headers=varint(2) + varint(1) + b"h" + varint(-1)))
    for name, offsets in {
        "equal": (0, 0, 1),
        "falling": (2, 1, 0),
        "negative": (-1, 0, 1),
        "huge": (0, 1, 2**31),
    }.items():
        records = [Written(offset, b"victim-%d" % offset) for offset in offsets]
        yield Case(f"{name} offsets", bytes(batch(section(records), 3)))
    yield Case("an offset beyond the last", bytes(batch(section([THREE[0], THREE[1], Written(50)]), 3)), lying=True)
    holes = [Written(0, b"victim-0"), Written(40, b"victim-40"), Written(99, b"victim-99")]
    yield Case(
        "holes of compaction", bytes(with_field(batch(section(holes), 3), "last_offset_delta", 99)), 100, lying=True
    )
    for delta in (-BASE_TIME - 1, -1, INT64 - BASE_TIME, INT64, -INT64 - 1):
        yield Case(f"time delta {delta}", bytes(batch(section([Written(0, timestamp_delta=delta), *THREE[1:]]), 3)))
    yield Case("bytes behind the last record", bytes(batch(section(THREE) + b"\0", 3)))
    yield Case("a fourth record behind the third", bytes(batch(section([*THREE, Written(3)]), 3)))
    yield Case("a record within a record", bytes(batch(section([Written(0, value=section(THREE)), *THREE[1:]]), 3)))
    yield Case("attributes of a record", bytes(batch(section([Written(0, attributes=255), *THREE[1:]]), 3)))


def _codecs() -> Iterator[Case]:
    """What no decompressor likes."""
    plain = section(THREE)
    bomb = bytes(2 * LIMIT)
    for codec in CODECS:
        name, pack = codec.name.lower(), compressor(codec)
        packed = pack(plain)
        contents = {
            "empty": b"",
            "garbage": garbage(150, int(codec)),
            "its first byte": packed[:1],
            "its half": packed[: len(packed) // 2],
            "all but the last byte": packed[:-1],
            "garbage behind it": packed + garbage(40),
            "a zero behind it": packed + b"\0",
            "twice": packed + packed,
            "nothing": pack(b""),
            "a bomb": pack(bomb),
            "bombs": pack(bomb[: LIMIT // 2]) * 4,
            "a bomb in a bomb": pack(pack(bomb)),
            "only the magic": packed[:4] + bytes(60),
            "without its magic": packed[4:],
        }
        for what, content in contents.items():
            yield Case(f"{name}: {what}", bytes(batch(content, 3, codec)))
        for at in range(0, min(len(packed), 24), 3):
            flipped = bytearray(packed)
            flipped[at] ^= 0x11
            yield Case(f"{name}: byte {at} flipped", bytes(batch(bytes(flipped), 3, codec)))
    for name, (codec, content) in other_framings(plain).items():
        yield Case(name, bytes(batch(content, 3, codec)))
    xerial = compressor(Codec.SNAPPY)(plain)
    for length in (-INT32 - 1, -1, 0, 1, 1 << 20, INT32):
        changed = xerial[:16] + struct.pack(">i", length) + xerial[20:]
        yield Case(f"snappy: xerial block of {length}", bytes(batch(changed, 3, Codec.SNAPPY)))
    yield Case("snappy: xerial header and no block", bytes(batch(xerial[:16], 3, Codec.SNAPPY)))
    yield Case("snappy: cut xerial header", bytes(batch(xerial[:10], 3, Codec.SNAPPY)))
    claims = {"4 GiB": b"\xff\xff\xff\xff\x0f", "without end": b"\xff" * 9, "one byte": b"\x01", "none": b"\x00"}
    for name, preamble in claims.items():
        yield Case(f"snappy: claims {name}", bytes(batch(preamble + garbage(50), 3, Codec.SNAPPY)))
    huge = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60) + garbage(30)
    yield Case("zstd: claims 2^60 bytes", bytes(batch(huge, 3, Codec.ZSTD)))
    window = b"\x28\xb5\x2f\xfd\x00\xf8" + garbage(30)
    yield Case("zstd: claims a window of 3 TB", bytes(batch(window, 3, Codec.ZSTD)))
    sized = b"\x04\x22\x4d\x18\x6c\x40" + struct.pack("<Q", 1 << 60) + b"\0" + garbage(30)
    yield Case("lz4: claims 2^60 bytes", bytes(batch(sized, 3, Codec.LZ4)))
    yield Case("gzip: flags for every extra", bytes(batch(b"\x1f\x8b\x08\x1f" + bytes(60), 3, Codec.GZIP)))


TEXTS: dict[str, bytes] = {
    "empty": b"",
    "one space": b" ",
    "one byte 0": b"\0",
    "byte order mark": b'\xef\xbb\xbf{"ts":1,"value":1}',
    "utf-16": '{"ts":1,"value":1}'.encode("utf-16"),
    "invalid utf-8 in a string": b'{"ts":1,"value":1,"a":"\xff\xfe"}',
    "overlong utf-8": b'{"ts":1,"value":1,"a":"\xc0\xaf"}',
    "surrogate in utf-8": b'{"ts":1,"value":1,"a":"\xed\xa0\x80"}',
    "utf-8 cut at the end": b'{"ts":1,"value":1,"a":"\xe2\x82',
    "lone surrogate escape": b'{"ts":1,"value":1,"a":"\\ud800"}',
    "surrogates in the wrong order": b'{"ts":1,"value":1,"stream":"\\udc00\\ud800"}',
    "pair of surrogates": b'{"ts":1,"value":1,"stream":"\\ud83c\\udf21"}',
    "escaped zero in the stream": b'{"ts":1,"value":1,"stream":"a\\u0000b"}',
    "raw zero in the stream": b'{"ts":1,"value":1,"stream":"a\0b"}',
    "zero behind the event": b'{"ts":1,"value":1}\0',
    "two events": b'{"ts":1,"value":1}{"ts":2,"value":2}',
    "two lines": b'{"ts":1,"value":1}\n{"ts":2,"value":2}',
    "field twice": b'{"ts":1,"value":1,"value":2}',
    "field ten times": b'{"ts":1' + b',"value":7' * 10 + b"}",
    "stream twice": b'{"ts":1,"value":1,"stream":"a","stream":"b"}',
    "escaped field name": b'{"ts":1,"\\u0076alue":1}',
    "field name with a zero": b'{"ts":1,"value\\u0000":1}',
    "deep arrays, closed": b'{"ts":1,"value":1,"a":' + b"[" * 200 + b"]" * 200 + b"}",
    "too deep arrays": b'{"ts":1,"value":1,"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deep arrays, open": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep value": b'{"ts":1,"value":' + b"[" * 300 + b"1" + b"]" * 300 + b"}",
    "1e400": b'{"ts":1,"value":1e400}',
    "-1e400": b'{"ts":1,"value":-1e400}',
    "1e-400": b'{"ts":1,"value":1e-400}',
    "1e309 written out": b'{"ts":1,"value":1' + b"0" * 309 + b"}",
    "ten thousand digits": b'{"ts":1,"value":0.' + b"1" * 10_000 + b"}",
    "exponent of a thousand digits": b'{"ts":1,"value":1e' + b"9" * 1000 + b"}",
    "zero with a huge exponent": b'{"ts":1,"value":0e999999999999}',
    "-0": b'{"ts":1,"value":-0}',
    "-0.0": b'{"ts":1,"value":-0.0}',
    "smallest denormal": b'{"ts":1,"value":4.9e-324}',
    "half of the smallest denormal": b'{"ts":1,"value":2.4703282292062327e-324}',
    "largest float64": b'{"ts":1,"value":1.7976931348623157e308}',
    "just above float32": b'{"ts":1,"value":3.4028236e38}',
    "2^63": b'{"ts":1,"value":9223372036854775808}',
    "2^64": b'{"ts":1,"value":18446744073709551616}',
    "halfway between two doubles": b'{"ts":1,"value":9007199254740993}',
    "NaN": b'{"ts":1,"value":NaN}',
    "nan": b'{"ts":1,"value":nan}',
    "Infinity": b'{"ts":1,"value":Infinity}',
    "-Infinity": b'{"ts":1,"value":-Infinity}',
    "plus sign": b'{"ts":1,"value":+1}',
    "leading zero": b'{"ts":1,"value":01}',
    "no digit behind the point": b'{"ts":1,"value":1.}',
    "no digit before the point": b'{"ts":1,"value":.5}',
    "hexadecimal": b'{"ts":1,"value":0x10}',
    "comma as decimal point": b'{"ts":1,"value":1,5}',
    "underscore in a number": b'{"ts":1,"value":1_000}',
    "null": b'{"ts":1,"value":null}',
    "true": b'{"ts":1,"value":true}',
    "text": b'{"ts":1,"value":"1.5"}',
    "array": b'{"ts":1,"value":[1.5]}',
    "object": b'{"ts":1,"value":{"value":1.5}}',
    "no value": b'{"ts":1}',
    "two values": b'{"ts":1,"values":[1,2]}',
    "no values": b'{"ts":1,"values":[]}',
    "no object": b"[1,2]",
    "a number alone": b"1.5",
    "a string alone": b'"value"',
    "null alone": b"null",
    "time in words": b'{"ts":"yesterday","value":1}',
    "time 2^63": b'{"ts":9223372036854775808,"value":1}',
    "time -2^63": b'{"ts":-9223372036854775808,"value":1}',
    "time 1e400": b'{"ts":1e400,"value":1}',
    "time NaN": b'{"ts":NaN,"value":1}',
    "time of the year 1": b'{"ts":"0001-01-01T00:00:00Z","value":1}',
    "time of the year 9999": b'{"ts":"9999-12-31T23:59:59Z","value":1}',
    "30th of February": b'{"ts":"2024-02-30T00:00:00Z","value":1}',
    "leap second": b'{"ts":"2016-12-31T23:59:60Z","value":1}',
    "time with a long fraction": b'{"ts":"2024-05-01T12:00:00.' + b"9" * 4000 + b'Z","value":1}',
    "time true": b'{"ts":true,"value":1}',
    "time null": b'{"ts":null,"value":1}',
    "stream empty": b'{"ts":1,"value":1,"stream":""}',
    "stream a number": b'{"ts":1,"value":1,"stream":17}',
    "stream a fraction": b'{"ts":1,"value":1,"stream":1.5}',
    "stream an object": b'{"ts":1,"value":1,"stream":{}}',
    "stream of 64 bytes": b'{"ts":1,"value":1,"stream":"' + b"s" * 64 + b'"}',
    "stream of 65 bytes": b'{"ts":1,"value":1,"stream":"' + b"s" * 65 + b'"}',
    "stream of a megabyte": b'{"ts":1,"value":1,"stream":"' + b"s" * 500_000 + b'"}',
    "string of half a megabyte": b'{"ts":1,"value":1,"a":"' + b"\\n" * 250_000 + b'"}',
    "unclosed string": b'{"ts":1,"value":1,"a":"' + b"x" * 1000,
    "ends in a backslash": b'{"ts":1,"value":1,"a":"\\',
    "ends in half an escape": b'{"ts":1,"value":1,"a":"\\u00',
    "control character in a string": b'{"ts":1,"value":1,"a":"\x01"}',
    "newline in a string": b'{"ts":1,"value":1,"a":"\n"}',
    "form feed as space": b'{"ts":1,\x0c"value":1}',
    "comment": b'{"ts":1,/* one */"value":1}',
    "single quotes": b"{'ts':1,'value':1}",
    "trailing comma": b'{"ts":1,"value":1,}',
    "no closing brace": b'{"ts":1,"value":1',
    "one brace too many": b'{"ts":1,"value":1}}',
    "a thousand fields": b'{"ts":1,"value":1' + b"".join(b',"f%d":%d' % (i, i) for i in range(1000)) + b"}",
    "xml": b"<event><value>1</value></event>",
    "csv": b"victim,1,1.5",
    "raw float64": struct.pack("<d", 1.5),
    "avro-like": b"\0\0\0\0\x07" + garbage(30),
    "gzip": compressor(Codec.GZIP)(event()),
}


def _values() -> Iterator[Case]:
    for name, text in TEXTS.items():
        yield Case(f"value: {name}", bytes(batch(section([THREE[0], Written(1, value=text), THREE[2]]), 3)))
    yield Case("no value at all", bytes(batch(section([THREE[0], null_value(1), THREE[2]]), 3)))
    yield Case("no value at all and no key", bytes(batch(section([THREE[0], null_value(1, None), THREE[2]]), 3)))
    every = [Written(i, b"victim-%d" % (i % 5), text) for i, text in enumerate(TEXTS.values())]
    for codec in Codec:
        small = [record for record in every if len(record.value or b"") < 20_000]
        small = [Written(i, record.key, record.value) for i, record in enumerate(small)]
        packed = batch(compressor(codec)(section(small)), len(small), codec)
        yield Case(f"every text at once, {codec.name.lower()}", bytes(packed), len(small))


def _keys_and_headers() -> Iterator[Case]:
    keys = {
        "null": None,
        "empty": b"",
        "not utf-8": b"\xff\xfe",
        "cut utf-8": b"\xe2\x82",
        "surrogate": b"\xed\xa0\x80",
        "zero": b"\0",
        "zeros": bytes(64),
        "of 64 bytes": b"k" * 64,
        "of 65 bytes": b"k" * 65,
        "of 4 KiB": b"k" * 4096,
        "of 900 KB": b"k" * 900_000,
        "of quotes": b'"\\"\\',
        "of newlines": b"\n\r\n",
        "of four-byte characters": "🌡".encode() * 16,
    }
    for name, key in keys.items():
        yield Case(f"key {name}", bytes(batch(section([THREE[0], Written(1, key), THREE[2]]), 3)))
        refused = Written(1, key, b"garbage")
        yield Case(f"key {name}, value refused", bytes(batch(section([THREE[0], refused, THREE[2]]), 3)))
    headers: dict[str, tuple[tuple[bytes, bytes | None], ...]] = {
        "a thousand": tuple((b"h%d" % i, b"v") for i in range(1000)),
        "one twice": ((b"h", b"1"), (b"h", b"2")),
        "empty name": ((b"", b"v"),),
        "null value": ((b"h", None),),
        "not utf-8": ((b"\xff", b"\xfe"),),
        "of ours": ((b"__streamlstm.errors.reason", b"forged"),),
        "of half a megabyte": ((b"h", bytes(500_000)),),
        "with a name of 100 KB": ((b"n" * 100_000, b""),),
    }
    for name, found in headers.items():
        raw = headers_section(found)
        yield Case(f"headers {name}", bytes(batch(section([THREE[0], Written(1, headers=raw), THREE[2]]), 3)))
        refused = Written(1, value=b"garbage", headers=raw)
        yield Case(f"headers {name}, value refused", bytes(batch(section([THREE[0], refused, THREE[2]]), 3)))
