"""Decompression of a record batch's records section, never to more than a given size.

Codec numbers are those of the batch's attributes (bits 0-2). Snappy is read raw, as librdkafka writes it, and in the
framing of the xerial library, as the Java client does.
"""

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import lz4.frame
import snappy
import zstandard

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER = 16
_CHUNK = 1 << 20
_FED = 1 << 14
_GZIP_WBITS = 31
_UNDECODABLE = (
    zlib.error,
    snappy.UncompressError,
    zstandard.ZstdError,
    struct.error,
    RuntimeError,
    ValueError,
    EOFError,
    MemoryError,
)


class Codec(IntEnum):
    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class UndecodableError(Exception):
    """The bytes are not what the codec says they are, or decompress to more than the limit."""


class UnknownCodecError(Exception):
    """The number stands for no codec that Kafka has."""


def decompress(codec: int, section: memoryview, limit: int) -> bytes | memoryview:
    """The records section in the clear; with codec NONE the very same view.

    Memory stays below `limit` plus one chunk whatever the bytes claim. Raises UnknownCodecError, UndecodableError.
    """
    if codec == Codec.NONE:
        return section
    try:
        if codec == Codec.GZIP:
            return _parts(Codec.GZIP, lambda: zlib.decompressobj(_GZIP_WBITS), limit + 1, section, limit)
        if codec == Codec.SNAPPY:
            return _snappy(bytes(section), limit)
        if codec == Codec.LZ4:
            # Room for what is asked for is set aside at once: the limit's would be mapped and unmapped each time.
            return _parts(Codec.LZ4, lz4.frame.LZ4FrameDecompressor, _CHUNK, section, limit)
        if codec == Codec.ZSTD:
            return _zstd(section, limit)
    except _UNDECODABLE as error:
        raise UndecodableError(f"{Codec(codec).name.lower()}: {error}") from error
    raise UnknownCodecError(f"compression codec {codec}; Kafka has 0 to {max(Codec)}")


def _too_large(codec: Codec, limit: int) -> UndecodableError:
    return UndecodableError(f"{codec.name.lower()}: decompresses to more than {limit} bytes")


def _parts(codec: Codec, begin: Callable[[], Any], most: int, section: memoryview, limit: int) -> bytes:
    """The members of gzip, the frames of lz4, one after the other, at most `most` bytes at a time. What a stream hasn't
    used it copies: so it is fed piece by piece, or thousands of tiny parts would take minutes.
    """
    plain, size, at = [], 0, 0
    while at < len(section):
        stream = begin()
        while not stream.eof:
            is_hungry = getattr(stream, "needs_input", True)  # zlib's always is: it keeps nothing back below the limit
            fed = section[at : at + _FED] if is_hungry else b""
            if is_hungry and not fed:
                raise UndecodableError(f"{codec.name.lower()}: it ends early")
            plain.append(stream.decompress(fed, min(most, limit + 1 - size)))
            size += len(plain[-1])
            if size > limit:
                raise _too_large(codec, limit)
            at += len(fed) - (len(stream.unused_data or b"") if stream.eof else 0)
    return plain[0] if len(plain) == 1 else b"".join(plain)


def _zstd(section: memoryview, limit: int) -> bytes:
    chunks, size = [], 0
    with zstandard.ZstdDecompressor().stream_reader(section, read_across_frames=True) as stream:
        while chunk := stream.read(_CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise _too_large(Codec.ZSTD, limit)
    if not chunks:
        raise UndecodableError("zstd: the frame ends early")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _snappy(section: bytes, limit: int) -> bytes:
    if not section.startswith(_XERIAL):
        return _snappy_block(section, limit, limit)
    blocks, size, at = [], 0, _XERIAL_HEADER
    while at < len(section):
        (length,) = struct.unpack_from(">i", section, at)
        at += 4
        if length < 0 or at + length > len(section):
            raise UndecodableError(f"snappy: a block of {length} bytes where {len(section) - at} are left")
        blocks.append(_snappy_block(section[at : at + length], limit - size, limit))
        size += len(blocks[-1])
        at += length
    return b"".join(blocks)


def _snappy_block(block: bytes, left: int, limit: int) -> bytes:
    """One raw block of at most `left` bytes. Its length preamble is checked before anything is allocated for it."""
    length = shift = 0
    for byte in block[:5]:
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    else:
        raise UndecodableError("snappy: no length")
    if length > left:
        raise _too_large(Codec.SNAPPY, limit)
    plain: bytes = snappy.decompress(block)
    return plain
