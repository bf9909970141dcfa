"""A chunk: the streams of one leaf of a partition, as one record of the snapshot topic.

The streams of a partition are cut by the stable hash of their keys (kernels/stable_hash.py), along a binary trie: the
leaf of depth b and prefix p covers the hashes whose b leading bits are p. The leaves of a partition cover every hash
exactly once. A leaf whose chunk has become too large gives way to its two children.

Key of the record: `chunk:` and the prefix as text bits, so `chunk:` is the root and `chunk:101` a leaf of depth 3.
Value, integers little-endian:

    SLSTATE1 | header length u32 | header, JSON | key lengths u16 [n] | keys | rows, row_bytes each [n] | CRC-32C u32

The CRC (RFC 3720, Castagnoli) is that of everything before it. Rows are those of the arena (kernels/layout.py), whole.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

import crc32c
import numpy as np
import orjson
from numpy.typing import NDArray

from streamlstm.kernels.layout import STATE_DTYPES, StateDtype

MAGIC = b"SLSTATE1"
KEY_PREFIX = b"chunk:"
HASH_BITS = 64
_HEADER_AT = len(MAGIC) + 4
_CRC_BYTES = 4
_INT64 = range(-(1 << 63), 1 << 63)
_FROM_ZERO = range(1 << 63)
_OPTIONAL = "state_dtype"  # of the header


class ChunkError(Exception):
    """A value that is no whole chunk; `problem` says why."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


@dataclass(frozen=True, slots=True, order=True)
class Leaf:
    """The hashes whose `depth` leading bits are `prefix`."""

    depth: int
    prefix: int

    @property
    def key(self) -> bytes:
        """Of the record that holds its chunk."""
        return KEY_PREFIX + (f"{self.prefix:0{self.depth}b}".encode() if self.depth else b"")

    @staticmethod
    def of_key(key: bytes) -> "Leaf | None":
        """None: not the key of a chunk."""
        bits = key.removeprefix(KEY_PREFIX)
        if not key.startswith(KEY_PREFIX) or len(bits) > HASH_BITS or bits.strip(b"01"):
            return None
        return Leaf(len(bits), int(bits, 2) if bits else 0)

    @property
    def first(self) -> int:
        """The least hash that it covers."""
        return self.prefix << (HASH_BITS - self.depth)

    @property
    def last(self) -> int:
        """The greatest hash that it covers."""
        return self.first + (1 << (HASH_BITS - self.depth)) - 1

    @property
    def parent(self) -> "Leaf":
        return Leaf(self.depth - 1, self.prefix >> 1)

    def children(self) -> "tuple[Leaf, Leaf]":
        return Leaf(self.depth + 1, 2 * self.prefix), Leaf(self.depth + 1, 2 * self.prefix + 1)

    def covers(self, stable_hash: int) -> bool:
        return self.first <= stable_hash <= self.last

    def overlaps(self, other: "Leaf") -> bool:
        """Whether one of the two lies in the other."""
        return self.first <= other.last and other.first <= self.last


ROOT = Leaf(0, 0)


@dataclass(frozen=True, slots=True)
class Header:
    """What the rows are the state of.

    `offset` is the tag: the state is that after all events of the input partition below it, and none from it on.
    `watermark` is the largest event time of the partition below the tag, epoch ms. `degraded_until`: the history of
    these streams was lost, and one that begins up to this event time may be one of those; None: it wasn't, or long ago.
    `state_dtype` is there where h and c aren't float32.
    """

    group: str
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    model: str
    abi: int
    watermark: int | None
    degraded_until: int | None
    streams: int
    row_bytes: int
    state_dtype: StateDtype = "float32"

    _RANGES: ClassVar[dict[str, range]] = {
        "partition": range(1 << 31), "offset": _FROM_ZERO, "leader_epoch": range(-1, 1 << 31), "abi": range(1 << 31),
        "watermark": _INT64, "degraded_until": _INT64, "streams": range(1 << 31), "row_bytes": range(1, 1 << 31),
    }  # fmt: skip

    @property
    def degraded(self) -> bool:
        return self.degraded_until is not None

    def to_json(self) -> bytes:
        """As it stands in a chunk."""
        content = {field: getattr(self, field) for field in _FIELDS}
        if self.state_dtype == "float32":
            del content[_OPTIONAL]
        return orjson.dumps(content)

    @staticmethod
    def of_json(text: bytes) -> "Header":
        """Raises ChunkError for anything but what `to_json` makes of a Header."""
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ChunkError(f"header: {error}") from None
        if not isinstance(found, dict) or {*found, _OPTIONAL} != {*_FIELDS}:
            raise ChunkError(f"header: expected an object with the fields {', '.join(sorted(_FIELDS))}")
        for name, value in found.items():
            if name in Header._RANGES:
                is_null = name in ("watermark", "degraded_until") and value is None
                fits = is_null or (type(value) is int and value in Header._RANGES[name])
            elif name == _OPTIONAL:
                fits = value in STATE_DTYPES
            else:
                fits = type(value) is str
            if not fits:
                raise ChunkError(f"header: {name}: found {value!r:.100}")
        return Header(**found)


_FIELDS = tuple(field.name for field in fields(Header))


@dataclass(frozen=True, slots=True)
class Chunk:
    """key_len uint16 [n], keys uint8 (one after the other), rows uint8 [n, row_bytes]: views of the value."""

    header: Header
    key_len: NDArray[np.uint16]
    keys: NDArray[np.uint8]
    rows: NDArray[np.uint8]


def chunk_bytes(header: Header, key_bytes: int) -> int:
    """The size of a chunk whose keys have so many bytes in all."""
    return (
        _HEADER_AT + len(header.to_json()) + header.streams * (2 + header.row_bytes) + key_bytes + _CRC_BYTES
    )  # fmt: skip


def encode_chunk(
    header: Header, key_len: NDArray[np.uint16], keys: NDArray[np.uint8], rows: NDArray[np.uint8]
) -> bytes:
    """The value of a chunk. Arrays as in Chunk, C-contiguous."""
    text = header.to_json()
    lengths = key_len.astype("<u2", copy=False)
    content = b"".join((MAGIC, len(text).to_bytes(4, "little"), text, lengths.data, keys.data, rows.data))
    return content + int(crc32c.crc32c(content)).to_bytes(_CRC_BYTES, "little")


def decode_chunk(value: bytes | bytearray | memoryview) -> Chunk:
    """The chunk of a value, its arrays views of it. Raises ChunkError, and nothing else, whatever the bytes are."""
    content = np.frombuffer(value, np.uint8) if len(value) else np.empty(0, np.uint8)
    size = len(content)
    if size < _HEADER_AT + _CRC_BYTES or content[: len(MAGIC)].tobytes() != MAGIC:
        raise ChunkError(f"{size} bytes that don't begin as a chunk does")
    end = size - _CRC_BYTES
    stored = int.from_bytes(content[end:].tobytes(), "little")
    if (computed := crc32c.crc32c(content[:end])) != stored:
        raise ChunkError(f"CRC-32C: expected {stored:08x}, found {computed:08x} over {end} bytes")
    lengths_at = _HEADER_AT + int.from_bytes(content[len(MAGIC) : _HEADER_AT].tobytes(), "little")
    if lengths_at > end:
        raise ChunkError(f"a header that ends at byte {lengths_at} of {end}")
    header = Header.of_json(content[_HEADER_AT:lengths_at].tobytes())
    n = header.streams
    keys_at = lengths_at + 2 * n
    if keys_at > end:
        raise ChunkError(f"{n} key lengths that end at byte {keys_at} of {end}")
    key_len = content[lengths_at:keys_at].view("<u2")
    rows_at = keys_at + int(key_len.sum(dtype=np.int64))
    if rows_at + n * header.row_bytes != end:
        raise ChunkError(f"{n} streams that end at byte {rows_at + n * header.row_bytes} of {end}")
    rows = content[rows_at:end].reshape(n, header.row_bytes)
    return Chunk(header, key_len, content[keys_at:rows_at], rows)
