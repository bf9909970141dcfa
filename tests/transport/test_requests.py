"""Our encoding of a Produce request is kafka-python's, byte for byte, in every version that may be sent."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.producer import ProduceRequest

from streamlstm.transport.outcomes import Protocol
from streamlstm.transport.requests import ProduceBatch, Producer, produce

NAMES = st.text(min_size=1, max_size=40)
BATCHES = st.lists(
    st.builds(ProduceBatch, NAMES, st.integers(0, 1 << 20), st.binary(max_size=400).map(bytearray), st.just(1)),
    max_size=6,
)


def theirs(version: int, batches: Sequence[ProduceBatch], identity: str, timeout_ms: int) -> ProduceRequest:
    data = ProduceRequest.TopicProduceData
    rows: dict[str, list[object]] = {}
    for batch in batches:
        rows.setdefault(batch.topic, []).append(
            data.PartitionProduceData(index=batch.partition, records=bytes(batch.buffer))
        )
    return ProduceRequest(
        transactional_id=identity, acks=-1, timeout_ms=timeout_ms,
        topic_data=[data(name=name, partition_data=each) for name, each in rows.items()],
    )  # fmt: skip


@pytest.mark.parametrize("version", range(3, 13))
@given(BATCHES, NAMES, NAMES, st.integers(0, (1 << 31) - 1), st.integers(0, 60_000), st.booleans(), st.booleans())
def test_the_bytes_of_a_produce_request(
    version: int,
    batches: list[ProduceBatch],
    identity: str,
    client: str,
    correlation: int,
    timeout_ms: int,
    header: bool,
    framed: bool,
) -> None:
    ours = produce(Producer(identity, 1, 2), Protocol.V2, batches, timeout_ms)
    reference = theirs(version, batches, identity, timeout_ms)
    for request in (ours, reference):
        request.API_VERSION = version
        request.with_header(correlation_id=correlation, client_id=client)
    assert b"".join(ours.encode(header=header, framed=framed)) == bytes(reference.encode(header=header, framed=framed))
