"""Members of consumer groups, for tests against a real broker: opened, polled and closed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streamlstm.transport.fetched import PoisonBatch
from streamlstm.transport.group import Group
from streamlstm.transport.settings import SourceSettings
from streamlstm.transport.source import Fetched, Source
from tests.transport.live import connected, eventually

MIB = 1 << 20


@contextmanager
def reading(
    bootstrap: str, topic: str, group: str, connection: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Source]:
    with connected(bootstrap, **(connection or {})) as cluster:
        given = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 200, **settings}
        source = Source(cluster, SourceSettings((topic,), group, **given))
        try:
            yield source
        finally:
            source.close()


def poll(source: Source, timeout_ms: int, max_bytes: int) -> Fetched:
    """One poll; new partitions are read from where they begin."""
    fetched = source.poll(timeout_ms, max_bytes)
    for partition, offset in fetched.assigned.items():
        source.seek(partition, offset)
    return fetched


def group_of(source: Source) -> Group:
    """The membership to commit by, polled for: a machine out of breath may lose one and join again at any moment."""
    return eventually(lambda: source.group() or (poll(source, 20, MIB) and None))


def gather(source: Source, enough: Any, seconds: float = 60.0, max_bytes: int = MIB) -> Fetched:
    """Poll until `enough(all)`; everything that came, as one."""
    whole, deadline = Fetched(), time.monotonic() + seconds
    while not enough(whole):
        assert time.monotonic() < deadline, f"not enough came: {whole}"
        part = poll(source, 100, max_bytes)
        whole.batches += part.batches
        whole.positions |= part.positions
        whole.assigned |= part.assigned
        whole.revoked |= part.revoked
        whole.lost |= part.lost
        whole.gaps += part.gaps
    return whole


def records(fetched: Fetched) -> int:
    """Records at or above the offset asked for."""
    found = (each for each in fetched.batches if not isinstance(each, PoisonBatch))
    return sum(each.last_offset + 1 - max(each.base_offset, each.min_offset) for each in found)


def text(fetched: Fetched) -> bytes:
    return b"".join(bytes(each.records) for each in fetched.batches if not isinstance(each, PoisonBatch))
