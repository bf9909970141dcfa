"""Decompression: right, bounded, and never an exception of its own kind."""

import gzip
import tracemalloc
from contextlib import suppress

import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from kafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode

from streamlstm.transport.codecs import Codec, UndecodableError, UnknownCodecError, decompress

ENCODERS = {Codec.GZIP: gzip_encode, Codec.SNAPPY: snappy_encode, Codec.LZ4: lz4_encode, Codec.ZSTD: zstd_encode}
LIMIT = 1 << 20

every_codec = pytest.mark.parametrize("codec", list(ENCODERS))


@every_codec
@given(st.binary(min_size=1, max_size=100_000))
def test_round_trip(codec: Codec, plain: bytes) -> None:
    assert decompress(codec, memoryview(ENCODERS[codec](plain)), LIMIT) == plain


def test_the_forms_that_other_clients_write() -> None:
    plain = b"abc" * 50_000
    stream = zstandard.ZstdCompressor().compressobj()  # no content size, as from the Java client
    forms = {
        "raw snappy, as from librdkafka": (Codec.SNAPPY, snappy.compress(plain)),
        "two gzip members": (Codec.GZIP, gzip.compress(plain[:10]) + gzip.compress(plain[10:])),
        "two lz4 frames": (Codec.LZ4, lz4.frame.compress(plain[:10]) + lz4.frame.compress(plain[10:])),
        "zstd stream": (Codec.ZSTD, stream.compress(plain) + stream.flush()),
    }
    for name, (codec, packed) in forms.items():
        assert decompress(codec, memoryview(packed), LIMIT) == plain, name


@pytest.mark.parametrize(
    ("codec", "part"),
    [(Codec.GZIP, gzip.compress(bytes(2500))), (Codec.LZ4, lz4.frame.compress(bytes(40)))],
    ids=["gzip", "lz4"],
)
def test_a_batch_of_tiny_parts_takes_no_minutes(codec: Codec, part: bytes) -> None:
    """What isn't used of them must not be copied for each: that took minutes, and a member's place in the group."""
    plain = decompress(codec, memoryview(part * 20_000), 64 * LIMIT)
    assert plain == bytes(20_000 * (2500 if codec is Codec.GZIP else 40))


def test_none_is_not_copied() -> None:
    view = memoryview(b"plain")
    assert decompress(Codec.NONE, view, 1) is view


@every_codec
def test_a_bomb_is_refused_before_it_fills_the_memory(codec: Codec) -> None:
    packed = memoryview(ENCODERS[codec](bytes(200 << 20)))
    tracemalloc.start()
    with pytest.raises(UndecodableError, match="more than 1048576 bytes"):
        decompress(codec, packed, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * LIMIT + 2 * len(packed)


@every_codec
def test_exactly_the_limit_is_taken(codec: Codec) -> None:
    assert decompress(codec, memoryview(ENCODERS[codec](bytes(LIMIT))), LIMIT) == bytes(LIMIT)


@every_codec
@given(st.binary(max_size=300), st.data())
def test_garbage_is_undecodable_or_decodes(codec: Codec, garbage: bytes, choice: st.DataObject) -> None:
    whole = ENCODERS[codec](b"some text, some text" * 20)
    cut = choice.draw(st.integers(0, len(whole)))
    for packed in (garbage, whole[:cut] + garbage):
        with suppress(UndecodableError):
            assert len(decompress(codec, memoryview(packed), LIMIT)) <= LIMIT


@every_codec
def test_a_stream_that_ends_early(codec: Codec) -> None:
    whole = ENCODERS[codec](bytes(range(256)) * 300)
    with pytest.raises(UndecodableError):
        decompress(codec, memoryview(whole[: len(whole) // 2]), LIMIT)


@pytest.mark.parametrize("number", [5, 6, 7])
def test_a_codec_that_kafka_does_not_have(number: int) -> None:
    with pytest.raises(UnknownCodecError, match=f"codec {number}"):
        decompress(number, memoryview(b""), LIMIT)
