"""A proxy before a broker that reads Kafka's frames and does harm to chosen requests.

frame: length i32 | api key i16 | api version i16 | correlation id i32 | ...      (reply: length | correlation id)
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto


class Api(IntEnum):
    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS = 24
    ADD_OFFSETS = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


_KNOWN = frozenset(int(api) for api in Api)


class Harm(Enum):
    CUT_BEFORE = auto()  # the connection is closed, the broker never sees the request
    CUT_AFTER = auto()  # the broker carries it out, the connection is closed instead of the reply
    SWALLOW = auto()  # the broker never sees it, the connection stays open and silent
    SWALLOW_REPLY = auto()  # the broker carries it out, the reply never comes
    LATE = auto()  # the connection is closed at once, the broker gets the request a moment later


@dataclass(slots=True)
class Fault:
    api: Api
    harm: Harm
    skip: int = 0
    times: int = 1
    late_by: float = 0.5


@dataclass(slots=True)
class _Line:
    client: socket.socket
    broker: socket.socket
    replies: dict[int, Harm] = field(default_factory=dict)

    def close(self) -> None:
        for side in (self.client, self.broker):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class FaultProxy:
    """Listens on `port`, forwards to `target`. `faults` are used up in order; `mangle` may change any reply's bytes."""

    def __init__(self, port: int, target: int) -> None:
        self.faults: list[Fault] = []
        self.seen: list[Api] = []
        self.struck: list[Fault] = []
        self.mangle: Callable[[bytes], bytes] | None = None
        self._target = target
        self._lock = threading.Lock()
        self._lines: list[_Line] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._run(self._accept)

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()
        for thread in self._threads:
            thread.join(5)

    def cut_all(self) -> None:
        """Close every connection there is."""
        for line in self._lines:
            line.close()
        self._lines = []

    def _run(self, target: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=target, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                line = _Line(client, socket.create_connection(("127.0.0.1", self._target)))
            except OSError:
                client.close()
                continue
            self._lines.append(line)
            self._run(self._requests, line)
            self._run(self._replies, line)

    def _fault(self, api: int) -> Fault | None:
        with self._lock:
            if api in _KNOWN:
                self.seen.append(Api(api))
            for fault in self.faults:
                if fault.api != api or fault.times == 0:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                self.struck.append(fault)
                return fault
        return None

    def _requests(self, line: _Line) -> None:
        with suppress(OSError):
            while frame := _frame(line.client):
                api, _, correlation = struct.unpack_from(">hhi", frame, 4)
                fault = self._fault(api)
                if fault is None:
                    line.broker.sendall(frame)
                elif fault.harm is Harm.CUT_BEFORE:
                    break
                elif fault.harm is Harm.LATE:
                    self._late(line, frame, fault.late_by)
                    return
                elif fault.harm is not Harm.SWALLOW:
                    line.replies[correlation] = fault.harm
                    line.broker.sendall(frame)
        line.close()

    def _late(self, line: _Line, frame: bytes, seconds: float) -> None:
        """Close towards the client, and give the broker the request later, as a slow network would."""
        with suppress(OSError):
            line.client.shutdown(socket.SHUT_RDWR)
        line.client.close()
        timer = threading.Timer(seconds, _deliver, (line, frame))
        self._threads.append(timer)
        timer.start()

    def _replies(self, line: _Line) -> None:
        with suppress(OSError):
            while frame := _frame(line.broker):
                (correlation,) = struct.unpack_from(">i", frame, 4)
                harm = line.replies.pop(correlation, None)
                if harm is Harm.CUT_AFTER:
                    break
                if harm is Harm.SWALLOW_REPLY:
                    continue
                line.client.sendall(frame if self.mangle is None else self.mangle(frame))
        line.close()


def _deliver(line: _Line, frame: bytes) -> None:
    with suppress(OSError):
        line.broker.sendall(frame)


def _frame(side: socket.socket) -> bytes:
    """One whole frame with its length, or nothing at the end."""
    head = _exactly(side, 4)
    body = _exactly(side, struct.unpack(">i", head)[0]) if head else b""
    return head + body if body else b""


def _exactly(side: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = side.recv(min(1 << 20, size - len(received)))
        if not part:
            return b""
        received += part
    return bytes(received)
