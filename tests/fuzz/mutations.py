"""Random batches: sound ones from the corpus' parts, damaged in one of many ways. All comes from the given chance."""

import json
import random

from streamlstm.events.compression import Codec, compressor
from tests.events.json_texts import damaged
from tests.events.record_encoding import headers_section, varint
from tests.fuzz.batch_parts import BASE_TIME, FIELDS, HEADER, Written, batch, event, section, signed, with_field
from tests.fuzz.cases import TEXTS, Case

MOVING = ("base_offset", "last_offset_delta", "attributes")
"""Header fields that say which offsets a batch has, or whether it has any."""

_INTERESTING = (
    -(2**63),
    -(2**31),
    -1000,
    -2,
    -1,
    0,
    1,
    2,
    3,
    7,
    63,
    64,
    127,
    128,
    255,
    2**14,
    2**31 - 1,
    2**31,
    2**63 - 1,
)
_SMALL_TEXTS = [text for text in TEXTS.values() if len(text) < 2_000]
_PIECES = [
    b"0",
    b"-",
    b".",
    b"e",
    b"9" * 20,
    b"1e308",
    b"\\u",
    b"\\ud800",
    b'"',
    b"{",
    b"[",
    b"null",
    b"\0",
    b"\xff",
    b" " * 70,
]


def random_case(chance: random.Random) -> Case:
    """One batch. Its name says how it was made."""
    count = chance.choice([1, 1, 2, 3, 8, 40])
    kind = chance.choice(_KINDS)
    data, lying = kind(chance, count)
    return Case(kind.__name__.strip("_"), bytes(data), count, lying)


def _number(chance: random.Random) -> int:
    return (
        chance.choice(_INTERESTING) + chance.choice([0, 0, 0, -1, 1])
        if chance.random() < 0.8
        else chance.getrandbits(63)
    )


def _value(chance: random.Random) -> bytes:
    text = chance.choice([event(chance.gauss(0, 1)), event(chance.uniform(-1e9, 1e9)), chance.choice(_SMALL_TEXTS)])
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        if chance.random() < 0.3:
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(_PIECES) + text[at + chance.choice([0, 0, 1, 5]) :]
        else:
            text = damaged(text, chance)
    return text


def _event_of_parts(chance: random.Random) -> bytes:
    """An object of fields that the decoder looks for, with values of every kind."""
    names = ["ts", "timestamp", "time", "ds", "value", "y", "target", "values", "stream", "a", "b"]
    values = [
        "1",
        "-0.0",
        "1e5",
        str(BASE_TIME),
        "null",
        "true",
        '"s"',
        "[1]",
        '{"value":2}',
        "1e-320",
        "123456789012345678901",
    ]
    fields = [f"{json.dumps(name)}:{chance.choice(values)}" for name in chance.sample(names, chance.randrange(1, 6))]
    return "{{{}}}".format(chance.choice([",", " , ", "\n,"]).join(fields)).encode()


def _key(chance: random.Random) -> bytes | None:
    return chance.choice(
        [b"victim-%d" % chance.randrange(9), b"victim", None, b"", b"\xff", b"k" * chance.choice([63, 64, 65, 300])]
    )


def _headers(chance: random.Random) -> bytes:
    found = [(b"h%d" % i, chance.choice([None, b"", b"value"])) for i in range(chance.choice([0, 0, 0, 1, 3]))]
    return headers_section(tuple(found))


def _records(chance: random.Random, count: int) -> list[Written]:
    value = chance.choice([_value, _event_of_parts])
    return [
        Written(i, _key(chance), value(chance), chance.choice([0, 0, i, -i, _number(chance) >> 8]), _headers(chance))
        for i in range(count)
    ]  # fmt: skip


def _packed(chance: random.Random, records: bytes, count: int) -> bytearray:
    codec = chance.choice([Codec.NONE, Codec.NONE, *Codec])
    return batch(compressor(codec)(records), count, codec)


def _hurt(chance: random.Random, content: bytes, first: int = 0) -> bytes:
    """Bytes flipped, set, put in, taken out or cut off, from `first` on."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at = chance.randrange(first, len(changed) + 1) if len(changed) >= first else len(changed)
        kind = chance.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif kind == 2:
            changed[at:at] = chance.randbytes(chance.choice([1, 1, 4, 30]))
        elif kind == 3:
            del changed[at : at + chance.choice([1, 1, 4, 30])]
        elif kind == 4:
            changed[at:at] = varint(_number(chance) % 2**32 - 2**31)
        elif at > 0 and chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def _sound(chance: random.Random, count: int) -> tuple[bytes, bool]:
    return bytes(_packed(chance, section(_records(chance, count)), count)), False


def _damage_at_rest(chance: random.Random, count: int) -> tuple[bytes, bool]:
    """Bits flip in what lies behind the length: the CRC tells, or the bit is in none of the fields it covers."""
    changed = bytearray(_packed(chance, section(_records(chance, count)), count))
    for _ in range(chance.choice([1, 1, 1, 2, 20])):
        changed[chance.randrange(12, len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed), False


def _torn(chance: random.Random, count: int) -> tuple[bytes, bool]:
    whole = bytes(_packed(chance, section(_records(chance, count)), count))
    return whole[: chance.randrange(1, len(whole))], True


def _lying_header(chance: random.Random, count: int) -> tuple[bytes, bool]:
    whole = _packed(chance, section(_records(chance, count)), count)
    names = chance.sample(sorted(set(FIELDS) - {"magic", "length"}), chance.choice([1, 1, 2, 4]))
    for name in names:
        whole = with_field(whole, name, _number(chance))
    return bytes(signed(whole)), bool(set(names) & set(MOVING))


def _lying_records(chance: random.Random, count: int) -> tuple[bytes, bool]:
    """One or two lengths, times or offsets of the records are others than the true ones."""
    records = _records(chance, count)
    moved = False
    for _ in range(chance.choice([1, 1, 2])):
        name = chance.choice(["length", "time_text", "offset_text", "key_length", "value_length", "headers", "tail"])
        text = chance.choice(
            [varint(_number(chance) % 2**64 - 2**63), b"\xff" * chance.randrange(12), b"", chance.randbytes(3)]
        )
        at = chance.randrange(count)
        changed = {**{each: getattr(records[at], each) for each in Written.__dataclass_fields__}, name: text}
        records[at] = Written(**changed)
        moved |= name == "offset_text"
    return bytes(_packed(chance, section(records), count)), moved


def _hurt_records(chance: random.Random, count: int) -> tuple[bytes, bool]:
    """Any damage to the section, under a right CRC: it may give other offsets, so it counts as lying."""
    return bytes(_packed(chance, _hurt(chance, section(_records(chance, count))), count)), True


def _hurt_compressed(chance: random.Random, count: int) -> tuple[bytes, bool]:
    codec = chance.choice([codec for codec in Codec if codec is not Codec.NONE])
    packed = _hurt(chance, compressor(codec)(section(_records(chance, count))))
    return bytes(batch(packed, count, codec)), True


def _garbage_compressed(chance: random.Random, count: int) -> tuple[bytes, bool]:
    codec = chance.choice(list(Codec))
    magic = {
        Codec.GZIP: b"\x1f\x8b\x08",
        Codec.SNAPPY: b"\x82SNAPPY\0",
        Codec.LZ4: b"\x04\x22\x4d\x18",
        Codec.ZSTD: b"\x28\xb5\x2f\xfd",
    }
    front = magic.get(codec, b"") if chance.random() < 0.7 else b""
    return bytes(batch(front + chance.randbytes(chance.randrange(200)), count, codec)), True


def _garbage(chance: random.Random, count: int) -> tuple[bytes, bool]:
    """Not a batch at all, or only the beginning of one."""
    whole = bytes(_packed(chance, section(_records(chance, count)), count))
    return _hurt(chance, whole, chance.choice([0, 8, HEADER.size])) or b"\0", True


_KINDS = (
    _sound,
    _sound,
    _damage_at_rest,
    _torn,
    _lying_header,
    _lying_records,
    _hurt_records,
    _hurt_compressed,
    _garbage_compressed,
    _garbage,
)
