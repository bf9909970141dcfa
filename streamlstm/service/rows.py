"""From what the transport fetched to rows of the events' columns: the two rooms don't know each other."""

from streamlstm.events.batch import EventBatch
from streamlstm.events.decode import Appended, MalformedBatch, append_batch
from streamlstm.transport.fetched import FetchedBatch


def append_fetched(batch: EventBatch, item: FetchedBatch, min_offset: int) -> Appended | MalformedBatch:
    """Make the records of `item` from `min_offset` on rows of `batch`; see events.decode.append_batch."""
    return append_batch(
        batch, item.topic, item.partition, item.records, count=item.count, base_offset=item.base_offset,
        base_timestamp=item.base_timestamp, append_time=item.append_time, min_offset=min_offset,
        last_offset=item.last_offset,
    )  # fmt: skip
