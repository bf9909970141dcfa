"""Compression of the records section of a record batch, in the framings that Kafka's clients read.

lz4 frames have independent blocks, since Kafka's own reader refuses linked ones (KafkaLZ4BlockInputStream). snappy is
in the framing of xerial's snappy-java: a 16-byte header, then blocks of at most 32 KiB, each after its length.
"""

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum

import lz4.frame
import snappy
import zstandard

from streamlstm.errors import ConfigError

_XERIAL_HEADER = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK = 32 << 10
_GZIP_CONTAINER = 16 + zlib.MAX_WBITS

Compress = Callable[[bytes | memoryview], bytes]


class Codec(IntEnum):
    """Kafka's numbers, bits 0-2 of a batch's attributes. The names in lower case are those of `compression.type`."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


def codec_of(name: str) -> Codec:
    """Raises ConfigError for a name that Kafka doesn't know."""
    try:
        return Codec[name.upper()]
    except KeyError:
        known = "|".join(codec.name.lower() for codec in Codec)
        raise ConfigError([f"compression: expected {known}; found {name!r}"]) from None


def compressor(codec: Codec) -> Compress:
    """The function that compresses with `codec`; the same bytes for the same input, always."""
    if codec is Codec.NONE:
        return bytes
    if codec is Codec.ZSTD:
        return zstandard.ZstdCompressor().compress
    return {Codec.GZIP: _gzip, Codec.SNAPPY: _xerial_snappy, Codec.LZ4: _lz4}[codec]


def _gzip(section: bytes | memoryview) -> bytes:
    return zlib.compress(section, wbits=_GZIP_CONTAINER)  # unlike gzip.compress, never writes the time of day


def _lz4(section: bytes | memoryview) -> bytes:
    return bytes(lz4.frame.compress(section, block_linked=False, store_size=False))


def _xerial_snappy(section: bytes | memoryview) -> bytes:
    parts = [_XERIAL_HEADER]
    for start in range(0, len(section), _XERIAL_BLOCK):
        block = snappy.compress(bytes(section[start : start + _XERIAL_BLOCK]))
        parts += (struct.pack(">i", len(block)), block)
    return b"".join(parts)
