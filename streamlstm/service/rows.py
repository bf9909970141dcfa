"""From what the transport fetched to rows of the events' columns: the two rooms don't know each other."""

from streamlstm.events.batch import EventBatch
from streamlstm.events.decode import MalformedBatch, append_batch, append_batches
from streamlstm.transport.fetched import FetchedBatch, FetchedRun

Unreadable = tuple[int, int, int, MalformedBatch]
"""The row before which it stood, its first and last offset, and what is wrong with it."""


def append_fetched(batch: EventBatch, item: FetchedBatch | FetchedRun, min_offset: int) -> list[Unreadable]:
    """Make the records of `item` from `min_offset` on rows of `batch`, and return its record batches that can't be
    read; see events.decode.
    """
    if isinstance(item, FetchedRun):
        found = append_batches(batch, item.topic, item.partition, item.records, item.spans, min_offset)
        bases, lasts = item.spans[:, 3], item.spans[:, 4]
        return [(row, max(int(bases[k]), min_offset), int(lasts[k]), malformed) for k, row, malformed in found]
    appended = append_batch(
        batch, item.topic, item.partition, item.records, count=item.count, base_offset=item.base_offset,
        base_timestamp=item.base_timestamp, append_time=item.append_time, min_offset=min_offset,
        last_offset=item.last_offset,
    )  # fmt: skip
    if isinstance(appended, MalformedBatch):
        return [(batch.n, max(item.base_offset, min_offset), item.last_offset, appended)]
    return []
