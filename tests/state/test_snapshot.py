"""Chunks there and back; and whatever happens to their bytes, they are refused, or whole."""

from dataclasses import replace

import crc32c
import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamlstm.kernels.layout import STATE_DTYPES
from streamlstm.state.snapshot import (
    HASH_BITS,
    MAGIC,
    ROOT,
    Chunk,
    ChunkError,
    Header,
    Leaf,
    chunk_bytes,
    decode_chunk,
    encode_chunk,
)

HEADER = Header("group", "events", 3, 12_345, 7, "sha256:00ff", 2, 1_730_000_000_000, None, 3, 64)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
HEADERS = st.builds(
    Header, group=st.text(max_size=9), topic=st.text(max_size=9), partition=st.integers(0, (1 << 31) - 1),
    offset=st.integers(0, (1 << 63) - 1), leader_epoch=st.integers(-1, (1 << 31) - 1), model=st.text(max_size=9),
    abi=st.integers(0, (1 << 31) - 1), watermark=st.none() | INT64, degraded_until=st.none() | INT64,
    streams=st.integers(0, 20), row_bytes=st.integers(1, 130), state_dtype=st.sampled_from(STATE_DTYPES),
)  # fmt: skip
LEAVES = st.integers(0, HASH_BITS).flatmap(
    lambda depth: st.builds(Leaf, st.just(depth), st.integers(0, (1 << depth) - 1))
)


def value_of(header: Header, seed: int = 1) -> bytes:
    rng = np.random.default_rng(seed)
    key_len = rng.integers(0, 9, header.streams).astype(np.uint16)
    keys = rng.integers(0, 256, int(key_len.sum())).astype(np.uint8)
    rows = rng.integers(0, 256, (header.streams, header.row_bytes)).astype(np.uint8)
    return encode_chunk(header, key_len, keys, rows)


def sealed(content: bytes) -> bytes:
    """With the CRC that makes it look whole."""
    return content + int(crc32c.crc32c(content)).to_bytes(4, "little")


@given(header=HEADERS, seed=st.integers(0, 1000))
def test_what_is_encoded_is_decoded(header: Header, seed: int) -> None:
    value = value_of(header, seed)
    for form in (value, bytearray(value), memoryview(value)):
        chunk = decode_chunk(form)
        assert chunk.header == header
        assert chunk.rows.shape == (header.streams, header.row_bytes)
        assert encode_chunk(chunk.header, chunk.key_len, chunk.keys, chunk.rows) == value
    assert len(value) == chunk_bytes(header, len(chunk.keys))


def test_the_bytes_of_a_chunk() -> None:
    """As the docstring draws them: another program can read them."""
    value = encode_chunk(
        HEADER, np.array([1, 0, 2], np.uint16), np.frombuffer(b"abc", np.uint8), np.zeros((3, 64), np.uint8)
    )
    text = orjson.dumps(
        {
            "group": "group", "topic": "events", "partition": 3, "offset": 12_345, "leader_epoch": 7,
            "model": "sha256:00ff", "abi": 2, "watermark": 1_730_000_000_000, "degraded_until": None, "streams": 3,
            "row_bytes": 64,
        }
    )  # fmt: skip
    assert text == HEADER.to_json()
    assert replace(HEADER, state_dtype="float16").to_json() == text[:-1] + b',"state_dtype":"float16"}'
    content = b"SLSTATE1" + len(text).to_bytes(4, "little") + text + b"\1\0\0\0\2\0" + b"abc" + bytes(192)
    assert value == sealed(content)


@settings(max_examples=1000)
@given(
    seed=st.integers(0, 50),
    edits=st.lists(st.tuples(st.integers(0, 600), st.sampled_from("xid"), st.integers(1, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 40),
)
def test_a_changed_value_is_refused(seed: int, edits: list[tuple[int, str, int]], cut: int) -> None:
    value = value_of(HEADER, seed)
    changed = bytearray(value)
    for place, how, byte in edits:
        at = place % max(1, len(changed))
        if how == "x" and changed:
            changed[at] ^= byte
        elif how == "i":
            changed.insert(at, byte)
        else:
            del changed[at : at + byte % 5]
    changed = changed[: len(changed) - cut]
    if changed != value:
        with pytest.raises(ChunkError):
            decode_chunk(changed)


@given(st.binary(max_size=300))
@example(b"")
@example(MAGIC)
@example(MAGIC + bytes(8))
def test_bytes_of_somebody_else_are_refused(value: bytes) -> None:
    for form in (value, MAGIC + value, sealed(MAGIC + value)):
        with pytest.raises(ChunkError):
            decode_chunk(form)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=1000)
@given(
    changes=st.dictionaries(st.sampled_from([*orjson.loads(orjson.dumps(HEADER)), "other"]), JSON, max_size=3),
    gone=st.sets(st.sampled_from([*orjson.loads(orjson.dumps(HEADER))]), max_size=1),
    tail=st.binary(max_size=250), length=st.none() | st.integers(0, (1 << 32) - 1),
)  # fmt: skip
def test_a_whole_value_with_a_strange_header_is_refused_or_as_it_says(
    changes: dict, gone: set[str], tail: bytes, length: int | None
) -> None:
    """With a right CRC: nothing but a ChunkError, and what is taken agrees with its own header."""
    fields = {name: value for name, value in (orjson.loads(orjson.dumps(HEADER)) | changes).items() if name not in gone}
    try:
        text = orjson.dumps(fields)
    except (TypeError, orjson.JSONEncodeError):  # numbers beyond 64 bits, lone surrogates
        text = repr(fields).encode(errors="replace")
    size = len(text) if length is None else length
    try:
        chunk = decode_chunk(sealed(MAGIC + size.to_bytes(4, "little") + text + tail))
    except ChunkError:
        return
    assert isinstance(chunk, Chunk)
    header = chunk.header
    assert 2 * header.streams + int(chunk.key_len.sum()) + header.streams * header.row_bytes == len(tail)
    assert (len(chunk.key_len), chunk.rows.shape) == (header.streams, (header.streams, header.row_bytes))
    assert encode_chunk(header, chunk.key_len, chunk.keys, chunk.rows)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"offset": -1}, "header: offset: found -1"),
        ({"offset": True}, "header: offset: found True"),
        ({"degraded_until": True}, "header: degraded_until: found True"),
        ({"watermark": 1 << 63}, "header: watermark"),
        ({"model": None}, "header: model: found None"),
        ({"streams": 4}, "4 streams that end at byte"),
        ({"streams": 100_000}, "100000 key lengths that end at byte"),
        ({"row_bytes": 0}, "header: row_bytes: found 0"),
        ({"state_dtype": "int8"}, "header: state_dtype: found 'int8'"),
        ({"state_dtype": ["float16"]}, "header: state_dtype: found"),
        ({"more": 1}, "header: expected an object with the fields abi, degraded_until"),
    ],
)
def test_what_is_wrong_is_said(change: dict, problem: str) -> None:
    text = orjson.dumps(orjson.loads(orjson.dumps(HEADER)) | change)
    rest = value_of(HEADER)[12 + len(orjson.dumps(HEADER)) : -4]
    with pytest.raises(ChunkError, match=problem):
        decode_chunk(sealed(MAGIC + len(text).to_bytes(4, "little") + text + rest))


@given(LEAVES)
def test_a_leaf_is_its_key(leaf: Leaf) -> None:
    assert Leaf.of_key(leaf.key) == leaf
    assert leaf.covers(leaf.first)
    assert leaf.covers(leaf.last)
    assert not leaf.covers(leaf.last + 1)
    if leaf.depth < HASH_BITS:
        low, high = leaf.children()
        assert (low.first, low.last + 1, high.last) == (leaf.first, high.first, leaf.last)
        assert (low.key, high.key) == (leaf.key + b"0", leaf.key + b"1")


@given(LEAVES, LEAVES)
def test_leaves_overlap_where_one_lies_in_the_other(one: Leaf, other: Leaf) -> None:
    assert one.overlaps(other) == (one.key.startswith(other.key) or other.key.startswith(one.key))


@pytest.mark.parametrize(
    "key", [b"", b"chunk", b"chunks:", b"chunk:2", b"chunk: 1", b"chunk:1_0", b"chunk:" + b"1" * 65]
)
def test_another_key_is_no_leaf(key: bytes) -> None:
    assert Leaf.of_key(key) is None


def test_the_root_covers_every_hash() -> None:
    assert (ROOT.first, ROOT.last, ROOT.key) == (0, (1 << 64) - 1, b"chunk:")
