"""Events at a steady pace, a few of them bad, late or repeated, on a thread of its own."""

import random
import threading
import time

from confluent_kafka import Producer

BAD = (
    b'{"stream":"$stream","ts":$time,"value":NaN}',
    b'{"stream":"$stream","ts":$time,"value":null}',
    b'{"stream":"$stream","ts":$time,"value":1e308}',
    b'{"stream":"$stream","ts":$time,"value":"7"}',
    b'{"stream":"$stream","ts":$time}',
    b'{"stream":"$stream","ts":"yesterday","value":1}',
    b'{"stream":"","ts":$time,"value":1}',
    b"[1,2]",
    b"\xff\xfe garbage",
)
_TICK = 0.02


def event(chance: random.Random, stream: bytes, now: int) -> bytes:
    """One in fifty is bad; one in fifty is some seconds old. Events name their stream, as files need it."""
    if chance.random() < 0.02:
        return chance.choice(BAD).replace(b"$stream", stream).replace(b"$time", b"%d" % now)
    time_ms = now - chance.choice([1, 5_000, 60_000]) if chance.random() < 0.02 else now
    return b'{"stream":"%s","ts":%d,"value":%.4f}' % (stream, time_ms, chance.gauss(50, 9))


class Traffic(threading.Thread):
    """`rate` events per second in all, every partition in turn. The broker may go away; nothing is sent twice."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, streams: int, rate: float, seed: int) -> None:
        super().__init__(daemon=True, name="traffic")
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap, "linger.ms": 5, "acks": "all", "enable.idempotence": True,
                "message.timeout.ms": 0, "reconnect.backoff.max.ms": 500, "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )  # fmt: skip
        self._topic = topic
        self._partitions = partitions
        self._streams = max(1, streams // partitions)
        self._rate = rate
        self._chance = random.Random(seed)
        self._enough = threading.Event()
        self.sent = 0
        self.failed: str | None = None

    def run(self) -> None:
        began = time.monotonic()
        while not self._enough.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while self.sent < due:
                self._send()
            self._producer.poll(0)
            self._enough.wait(_TICK)
        self._producer.flush()

    def _send(self) -> None:
        partition = self.sent % self._partitions
        stream = b"stream-%d-%d" % (partition, self._chance.randrange(self._streams))
        now = time.time_ns() // 1_000_000
        self._producer.produce(
            self._topic, event(self._chance, stream, now), stream, partition, timestamp=now,
            headers=[("number", b"%d" % self.sent)], on_delivery=self._note,
        )  # fmt: skip
        self.sent += 1

    def _note(self, error: object, message: object) -> None:
        if error is not None:
            self.failed = str(error)

    def stop(self) -> None:
        """Until everything sent is in the topic."""
        self._enough.set()
        self.join()
        assert self.failed is None, f"the producer gave up: {self.failed}"
