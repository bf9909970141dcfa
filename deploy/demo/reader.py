"""An independent read_committed reader of what the daemon writes, and of what it has committed."""

from kafka import KafkaConsumer, TopicPartition

from deploy.demo.wire import DEAD_LETTERS, FORECASTS, INPUT, PARTITIONS, Answer, DeadLetter, Forecast

MAX_RECORDS = 2000


def _partitions(*topics: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS)]


class Reader:
    """Follows forecasts and dead letters from their beginning. `group` is the daemon's, to look up its offsets."""

    def __init__(self, bootstrap: str, group: str) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=100,
        )
        self._answers = _partitions(FORECASTS, DEAD_LETTERS)
        self._consumer.assign(self._answers)  # by hand, so it never joins the daemon's group
        self._consumer.seek_to_beginning(*self._answers)

    def poll(self, timeout_ms: int) -> list[Answer]:
        """The next committed answers, at most `MAX_RECORDS`; none when nothing came within the time."""
        answers: list[Answer] = []
        for partition, records in self._consumer.poll(timeout_ms=timeout_ms, max_records=MAX_RECORDS).items():
            for record in records:
                if partition.topic == FORECASTS:
                    answers.append(Forecast.parse(record.value))
                else:
                    answers.append(DeadLetter.parse(record.value, record.headers))
        return answers

    def input_ends(self) -> dict[int, int]:
        """End offset of every input partition: how many records the broker has of it."""
        ends = self._consumer.end_offsets(_partitions(INPUT))
        return {partition.partition: offset for partition, offset in ends.items()}

    def committed(self) -> dict[int, int]:
        """The daemon's committed offset of every input partition, 0 where it has none."""
        return {partition.partition: self._consumer.committed(partition) or 0 for partition in _partitions(INPUT)}

    def at_end(self) -> bool:
        """Whether everything committed by now has been read."""
        ends = self._consumer.end_offsets(self._answers)
        return all(self._consumer.position(partition) >= end for partition, end in ends.items())

    def close(self) -> None:
        self._consumer.close()


def lagging(ends: dict[int, int], committed: dict[int, int]) -> list[str]:
    """A sentence for every partition whose committed offset isn't its end."""
    return [
        f"partition {partition}: committed offset {committed[partition]}, end {end}"
        for partition, end in sorted(ends.items())
        if committed[partition] != end
    ]
