"""Where a log ends for a writer, against a real broker with an open transaction."""

import pytest
from confluent_kafka import Producer

from streamlstm.errors import InputMissingError
from streamlstm.transport.offsets import LATEST, high_watermarks, list_offsets
from tests.transport.live import connected, fresh, make_topic, produce


@pytest.mark.kafka
def test_counts_what_readers_of_committed_records_have_to_wait_for(kafka: str) -> None:
    topic = make_topic(kafka, 2)
    produce(kafka, topic, 1, [b"a", b"b"])
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": fresh("tx")})
    producer.init_transactions(20)
    producer.begin_transaction()
    for value in (b"c", b"d", b"e"):
        producer.produce(topic, value, partition=1)
    assert producer.flush(20) == 0
    with connected(kafka) as cluster:
        here = (topic, 1)
        assert high_watermarks(cluster, [here], cluster.deadline()) == {here: 5}
        assert list_offsets(cluster, [here], LATEST, cluster.deadline())[here] == 2
        assert high_watermarks(cluster, [(topic, 0)], cluster.deadline()) == {(topic, 0): 0}
        producer.abort_transaction(20)
        assert high_watermarks(cluster, [here], cluster.deadline())[here] >= 5


@pytest.mark.kafka
def test_a_topic_that_is_not_there(kafka: str) -> None:
    with connected(kafka) as cluster, pytest.raises(InputMissingError, match="is not there"):
        high_watermarks(cluster, [(fresh("none"), 0)], cluster.deadline())
