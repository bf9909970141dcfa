"""Record batches put together from parts that may lie: every length, count and header field can be given."""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import crc32c
import lz4.frame
import snappy
import zstandard

from streamlstm.events.compression import Codec, compressor
from tests.events.record_encoding import varint

BASE_TIME = 1_730_000_000_000
HEADER = struct.Struct(">qiibIhiqqqhii")
FIELDS = {  # name -> (position, struct code)
    "base_offset": (0, ">q"),
    "length": (8, ">i"),
    "leader_epoch": (12, ">i"),
    "magic": (16, ">b"),
    "crc": (17, ">I"),
    "attributes": (21, ">h"),
    "last_offset_delta": (23, ">i"),
    "base_timestamp": (27, ">q"),
    "max_timestamp": (35, ">q"),
    "producer_id": (43, ">q"),
    "producer_epoch": (51, ">h"),
    "base_sequence": (53, ">i"),
    "count": (57, ">i"),
}
CODECS = tuple(codec for codec in Codec if codec is not Codec.NONE)


def event(number: float = 1.5, second: int = 0, **more: str) -> bytes:
    """A good event; `more` are further fields, as texts of JSON."""
    fields = {"ts": str(BASE_TIME + 1000 * second), "value": repr(number), **more}
    return b"{%s}" % ",".join(f'"{name}":{text}' for name, text in fields.items()).encode()


@dataclass(frozen=True)
class Written:
    """A record as bytes, with every length and count as it is given: None stands for the true one.

    `tail` follows the headers inside the record; `headers` is the raw section with its count.
    """

    offset_delta: int
    key: bytes | None = b"victim"
    value: bytes | None = None
    timestamp_delta: int = 0
    headers: bytes = b"\0"
    attributes: int = 0
    length: bytes | None = None
    offset_text: bytes | None = None
    time_text: bytes | None = None
    key_length: bytes | None = None
    value_length: bytes | None = None
    tail: bytes = b""

    def encode(self) -> bytes:
        key, value = self.key, event(1.5, self.offset_delta) if self.value is None else self.value
        body = bytes([self.attributes])
        body += self.time_text if self.time_text is not None else varint(self.timestamp_delta)
        body += self.offset_text if self.offset_text is not None else varint(self.offset_delta)
        body += self.key_length if self.key_length is not None else varint(-1 if key is None else len(key))
        body += key or b""
        body += self.value_length if self.value_length is not None else varint(len(value))
        body += value + self.headers + self.tail
        return (self.length if self.length is not None else varint(len(body))) + body


def null_value(offset_delta: int, key: bytes | None = b"victim") -> Written:
    return Written(offset_delta, key, b"", value_length=varint(-1))


def section(records: Sequence[Written]) -> bytes:
    return b"".join(record.encode() for record in records)


def batch(records: bytes, count: int, attributes: int = 0) -> bytearray:
    """A record batch around a section that is as the broker has it: base offset 0, right length, right CRC."""
    whole = bytearray(HEADER.size) + records
    HEADER.pack_into(
        whole, 0, 0, len(whole) - 12, 5, 2, 0, attributes, count - 1, BASE_TIME, BASE_TIME + 60_000, -1, -1, -1, count
    )  # fmt: skip
    return signed(whole)


def compressed(records: bytes, count: int, codec: Codec) -> bytearray:
    return batch(compressor(codec)(records), count, codec)


def with_field(whole: bytes, name: str, number: int, sign: bool = True) -> bytearray:
    """The batch with one header field overwritten; numbers wrap around. `sign`: its CRC fits again."""
    at, code = FIELDS[name]
    bits = 8 * struct.calcsize(code)
    number &= (1 << bits) - 1
    changed = bytearray(whole)
    struct.pack_into(code.upper(), changed, at, number)
    return signed(changed) if sign and name != "crc" else changed


def signed(whole: bytearray) -> bytearray:
    struct.pack_into(">I", whole, 17, crc32c.crc32c(bytes(whole[21:])))
    return whole


def placed(whole: bytes, base: int) -> bytes:
    """The batch at another place in the log: its base offset is counted on from `base`."""
    if len(whole) < 8:
        return bytes(whole)
    (found,) = struct.unpack_from(">q", whole)
    number = (found + base) & (1 << 64) - 1
    return struct.pack(">Q", number) + bytes(whole[8:])


def garbage(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def raw_snappy(content: bytes) -> bytes:
    """As librdkafka writes it: one block without a frame."""
    packed: bytes = snappy.compress(content)
    return packed


def other_framings(content: bytes) -> dict[str, tuple[Codec, bytes]]:
    """Compressed in ways that other writers than ours use."""
    linked = lz4.frame.compress(content, block_linked=True, block_size=lz4.frame.BLOCKSIZE_MAX64KB)
    sized = lz4.frame.compress(content, store_size=True, content_checksum=True, block_checksum=True)
    stream = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True)
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    packed: dict[Codec, Callable[[bytes], bytes]] = {codec: compressor(codec) for codec in CODECS}
    half = len(content) // 2
    return {
        "snappy raw": (Codec.SNAPPY, raw_snappy(content)),
        "lz4 linked": (Codec.LZ4, linked),
        "lz4 with size and checksums": (Codec.LZ4, sized),
        "zstd without size": (Codec.ZSTD, stream.compress(content)),
        "zstd behind a skippable frame": (Codec.ZSTD, skippable + packed[Codec.ZSTD](content)),
        "gzip in two members": (Codec.GZIP, packed[Codec.GZIP](content[:half]) + packed[Codec.GZIP](content[half:])),
        "lz4 in two frames": (Codec.LZ4, packed[Codec.LZ4](content[:half]) + packed[Codec.LZ4](content[half:])),
        "zstd in two frames": (Codec.ZSTD, packed[Codec.ZSTD](content[:half]) + packed[Codec.ZSTD](content[half:])),
    }
