"""Answers are cut out of what a socket brings, however it comes; requests go out in pieces, as whole as in one."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import errors as kafka_errors
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.producer import InitProducerIdRequest

from streamlstm.transport.frames import Answer, Brought, Frames, Pieces, read_answers_in_place


def framed(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def brought(frames: Frames, stream: bytes, most: int, reads: list[int]) -> list[bytes]:
    """The answers found when each read brings as many bytes as `reads` says in turn, or as few as there is room for."""
    found, turn = [], 0
    while stream:
        room = frames.room(most)
        count = min(len(room), len(stream), reads[turn % len(reads)])
        room[:count] = stream[:count]
        stream, turn = stream[count:], turn + 1
        found += [bytes(answer.read()) for answer in frames.take(count)]
    return found


@given(
    contents=st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 40_000).map(bytes)), max_size=12),
    reads=st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    most=st.integers(1, 30_000),
)
def test_however_it_is_cut_each_answer_comes_whole_and_once(contents: list[bytes], reads: list[int], most: int) -> None:
    frames = Frames(lambda size: None)
    stream = b"".join(map(framed, contents))
    assert brought(frames, stream, most, reads) == contents
    assert frames.missing == 0


def test_what_is_missing_of_a_large_answer_is_known() -> None:
    frames = Frames(lambda size: None)
    assert frames.missing == 0
    begun = framed(bytes(50_000))[:3000]
    assert brought(frames, begun, 1 << 20, [3000]) == []
    assert frames.missing == 50_000 - 2996
    assert len(frames.room(1000)) == 1000
    assert len(frames.room(1 << 20)) == frames.missing


@pytest.mark.parametrize("size", [-1, 101])
def test_a_size_that_cannot_be_is_refused(size: int) -> None:
    frames = Frames(KafkaProtocol(receive_message_max_bytes=100)._validate_frame_size)
    with pytest.raises(kafka_errors.InvalidReceiveError, match=str(size)):
        brought(frames, struct.pack(">i", size), 100, [4])


def test_an_answer_is_read_as_kafka_python_reads_its_own() -> None:
    answer = Answer(bytearray(b"abcdefgh"))
    assert (answer.read(3), answer.tell(), len(answer)) == (b"abc", 3, 8)
    rest = answer.read()
    assert isinstance(rest, memoryview)
    assert bytes(rest) == b"defgh"
    answer.seek(6)
    assert answer.read(9) == b"gh"


def test_requests_leave_in_order_in_pieces_or_whole() -> None:
    parser = KafkaProtocol(client_id="test")
    read_answers_in_place(parser)
    assert parser.send_bytes() == []
    parser.bytes_to_send = [Pieces([b"a", b"b"])]
    assert parser.send_bytes() == Pieces([b"a", b"b"])
    parser.bytes_to_send = [b"x", Pieces([b"a", b"b"]), b"y"]
    assert parser.send_bytes() == Pieces([b"x", b"a", b"b", b"y"])
    assert parser.bytes_to_send == []


def test_an_answer_is_decoded_as_by_kafka_python() -> None:
    # correlation id, no tagged fields; throttle 7 ms, no error, producer 258, epoch 3, no tagged fields
    content = struct.pack(">ib ihqh b", 1, 0, 7, 0, 258, 3, 0)
    for parser in (KafkaProtocol(client_id="test"), KafkaProtocol(client_id="test")):
        request = InitProducerIdRequest(
            version=4, transactional_id="t", transaction_timeout_ms=1, producer_id=-1, producer_epoch=-1
        )
        parser.send_request(request)
        if parser.send_bytes.__name__ == "send_bytes":
            theirs = parser.receive_bytes(framed(content))
            read_answers_in_place(parser)
        parser.send_request(request, correlation_id=1)
    brought = Brought()
    brought.add(len(content) + 4, [Answer(bytearray(content))])
    ours = parser.receive_bytes(brought)
    assert ours == theirs
    assert ours[0][1].producer_id == 258


@pytest.mark.parametrize("content", [b"", b"\0\0", struct.pack(">ib ih", 1, 0, 7, 0)])
def test_an_answer_that_makes_no_sense_ends_the_connection(content: bytes) -> None:
    parser = KafkaProtocol(client_id="test")
    read_answers_in_place(parser)
    parser.send_request(
        InitProducerIdRequest(
            version=4, transactional_id="t", transaction_timeout_ms=1, producer_id=-1, producer_epoch=-1
        )
    )
    brought = Brought()
    brought.add(len(content) + 4, [Answer(bytearray(content))])
    with pytest.raises(kafka_errors.KafkaProtocolError):
        parser.receive_bytes(brought)
