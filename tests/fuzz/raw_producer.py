"""Puts bytes into a topic as they are: a Produce request written by hand, with nobody between it and the broker."""

import socket
import struct
from types import TracebackType

_VERSION, _PRODUCE, _ALL_REPLICAS, _TIMEOUT_MS = 7, 0, -1, 10_000


class RawProducer:
    """One connection to the leader of everything (a single broker)."""

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)

    def __enter__(self) -> "RawProducer":
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._socket.close()

    def send(self, topic: str, partition: int, batch: bytes) -> int:
        """Kafka's error code, 0 when the broker has taken it."""
        name = topic.encode()
        body = struct.pack(">hhih4s", _PRODUCE, _VERSION, 1, 4, b"fuzz")
        body += struct.pack(">hhi", -1, _ALL_REPLICAS, _TIMEOUT_MS)  # no transactional id
        body += struct.pack(f">ih{len(name)}si", 1, len(name), name, 1)
        body += struct.pack(">ii", partition, len(batch)) + batch
        self._socket.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", self._exactly(4))
        reply = self._exactly(size)
        at = 4 + 4 + 2 + len(name) + 4 + 4  # correlation, topics, name, partitions, index
        return int(struct.unpack_from(">h", reply, at)[0])

    def _exactly(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            part = self._socket.recv(size - len(received))
            if not part:
                raise ConnectionError("the broker has closed the connection")
            received += part
        return received
