"""The committed records of a range of offsets, read outside any group: by the audit, and for histories."""

from collections.abc import Callable, Iterator

from streamlstm.config import Config
from streamlstm.errors import RetryError
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.fetched import FetchedBatch, PoisonBatch
from streamlstm.transport.log_reader import LogReader

Progress = Callable[[int], None]
"""Told how many offsets have been read since the last time."""


def read_range(
    cluster: Cluster, config: Config, topic: str, partition: int, start: int, stop: int
) -> Iterator[tuple[list[FetchedBatch | PoisonBatch], int]]:
    """The batches of offsets [start, stop), part by part, and how many offsets of the range each part covers. Records
    behind `stop` may come with the last part.

    A transaction that is open before `stop` is waited for, for two of its time-outs; then RetryError. Raises what
    LogReader.read raises.
    """
    patience = (2 * config.commit.transaction_timeout_ms + config.commit.request_timeout_ms) / 1000
    reader = LogReader(cluster, topic, partition, start, max_batch_bytes=config.fetch.max_batch_bytes)
    while reader.position < stop:
        before = reader.position
        found = reader.read(patience)
        if reader.position == before:
            raise RetryError(
                f"{topic}-{partition}: expected committed records up to offset {stop}, but an open transaction has "
                f"been holding up readers at {reader.last_stable}; its producer's time-out ends it"
            )
        yield found, min(reader.position, stop) - before
