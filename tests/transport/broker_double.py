"""A broker in memory: one transaction coordinator, one group, leaders, and a network that loses and delays.

It answers the very messages that the writer makes (KIP-98 and KIP-890), so it can be put in a Cluster's place.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from streamlstm.transport.cluster import CoordinatorKind, Lost, NotSent
from streamlstm.transport.group import Group
from streamlstm.transport.settings import ConnectionSettings

INVALID_EPOCH, FENCED, INVALID_STATE, OUT_OF_ORDER, STALE = 47, 90, 48, 45, 22
Partition = tuple[str, int]


@dataclass(slots=True)
class Stored:
    """A batch in a partition's log: `open` until its transaction ends, and then visible or not."""

    buffer: bytes
    visible: bool = False


@dataclass(slots=True)
class BrokerDouble:
    """`v2`: transaction.version 2. `group` is the only member whose offsets are taken, if set."""

    v2: bool
    group: Group | None = None
    producer_id: int = 7
    epoch: int = -1
    ongoing: bool = False
    added: set[Partition] = field(default_factory=set)
    offsets_added: bool = False
    previous_epoch: int | None = None
    last_end: tuple[int, bool] | None = None
    logs: dict[Partition, list[Stored]] = field(default_factory=dict)
    open: list[Stored] = field(default_factory=list)
    sequences: dict[tuple[Partition, int], int] = field(default_factory=dict)
    pending: dict[Partition, int] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)

    def visible(self) -> dict[Partition, list[bytes]]:
        """What a read_committed reader sees."""
        return {where: [each.buffer for each in log if each.visible] for where, log in self.logs.items()}

    def handle(self, request: Any) -> Any:
        name = type(request).name.removesuffix("Request")
        handler: Callable[[Any], Any] = getattr(self, f"_{name}")
        return handler(request)

    def expire(self) -> None:
        """The coordinator aborts the transaction for its age and fences the producer."""
        if self.ongoing:
            self._finish(False)
            self.epoch += 1
            self.last_end = self.previous_epoch = None

    def _finish(self, commit: bool) -> None:
        for stored in self.open:
            stored.visible = commit
        if commit:
            self.committed |= self.pending
        self.open, self.pending, self.added = [], {}, set()
        self.ongoing = self.offsets_added = False

    def _InitProducerId(self, request: Any) -> Any:  # noqa: N802
        """With an epoch (KIP-360): a repetition gets the same answer; over an open transaction it fences itself."""
        named = request.producer_id >= 0
        if named and (self.ongoing or request.producer_epoch not in (self.epoch, self.previous_epoch)):
            self.expire()
            return SimpleNamespace(error_code=FENCED)
        if not named or request.producer_epoch == self.epoch:
            self._finish(False)
            self.previous_epoch = self.epoch if named else None
            self.epoch += 1
            self.last_end = None
        return SimpleNamespace(error_code=0, producer_id=self.producer_id, producer_epoch=self.epoch)

    def _AddPartitionsToTxn(self, request: Any) -> Any:  # noqa: N802
        code = FENCED if request.v3_and_below_producer_epoch != self.epoch else 0
        rows = []
        for topic in request.v3_and_below_topics:
            if code == 0:
                self.ongoing = True
                self.added |= {(topic.name, index) for index in topic.partitions}
            each = [SimpleNamespace(partition_error_code=code) for _ in topic.partitions]
            rows.append(SimpleNamespace(results_by_partition=each))
        return SimpleNamespace(results_by_topic_v3_and_below=rows)

    def _AddOffsetsToTxn(self, request: Any) -> Any:  # noqa: N802
        if request.producer_epoch != self.epoch:
            return SimpleNamespace(error_code=FENCED)
        self.ongoing = self.offsets_added = True
        return SimpleNamespace(error_code=0)

    def _Produce(self, request: Any) -> Any:  # noqa: N802
        responses = []
        for topic in request.topic_data:
            rows = [self._append((topic.name, row.index), bytes(row.records)) for row in topic.partition_data]
            responses.append(SimpleNamespace(name=topic.name, partition_responses=rows))
        return SimpleNamespace(responses=responses)

    def _append(self, where: Partition, buffer: bytes) -> Any:
        epoch, sequence = int.from_bytes(buffer[51:53], "big"), int.from_bytes(buffer[53:57], "big")
        count = int.from_bytes(buffer[57:61], "big")
        expected = self.sequences.get((where, epoch), 0)
        code = 0
        if epoch != self.epoch:
            code = INVALID_EPOCH
        elif not self.v2 and where not in self.added:
            code = INVALID_STATE
        elif sequence != expected:
            code = OUT_OF_ORDER
        else:
            self.ongoing = True
            self.sequences[where, epoch] = sequence + count
            self.open.append(Stored(buffer))
            self.logs.setdefault(where, []).append(self.open[-1])
        return SimpleNamespace(index=where[1], error_code=code, record_errors=[], error_message=None)

    def _TxnOffsetCommit(self, request: Any) -> Any:  # noqa: N802
        code = 0
        if request.producer_epoch != self.epoch:
            code = INVALID_EPOCH
        elif self.group is not None and request.generation_id != self.group.generation_id:
            code = STALE
        elif not self.v2 and not self.offsets_added:
            code = INVALID_STATE
        topics = []
        for topic in request.topics:
            if code == 0:
                self.ongoing = True
                self.pending |= {(topic.name, row.partition_index): row.committed_offset for row in topic.partitions}
            rows = [SimpleNamespace(error_code=code) for _ in topic.partitions]
            topics.append(SimpleNamespace(name=topic.name, partitions=rows))
        return SimpleNamespace(topics=topics)

    def _Heartbeat(self, request: Any) -> Any:  # noqa: N802
        member = self.group is None or request.generation_id == self.group.generation_id
        return SimpleNamespace(error_code=0 if member else STALE)

    def _EndTxn(self, request: Any) -> Any:  # noqa: N802
        code = self._end(request.producer_epoch, request.committed)
        return SimpleNamespace(error_code=code, producer_id=self.producer_id, producer_epoch=self.epoch)

    def _end(self, epoch: int, commit: bool) -> int:
        if self.v2 and epoch == self.epoch - 1 and self.last_end is not None and self.last_end[0] == epoch:
            return 0 if self.last_end[1] == commit else INVALID_STATE
        if epoch != self.epoch:
            return FENCED
        if not self.ongoing and not self.v2:
            return 0 if self.last_end == (epoch, commit) else INVALID_STATE
        if not self.ongoing and commit:
            return INVALID_STATE
        self._finish(commit)
        self.last_end = (epoch, commit)
        self.epoch += self.v2
        return 0

    def _OffsetFetch(self, request: Any) -> Any:  # noqa: N802
        topics = [
            SimpleNamespace(
                name=topic.name,
                partitions=[
                    SimpleNamespace(
                        partition_index=index,
                        error_code=0,
                        committed_offset=self.committed.get((topic.name, index), -1),
                    )
                    for index in topic.partition_indexes
                ],
            )
            for topic in request.groups[0].topics
        ]
        return SimpleNamespace(groups=[SimpleNamespace(topics=topics, error_code=0)])


class ClusterDouble:
    """Takes a Cluster's place before a BrokerDouble. `fate` says what the network does with the next request.

    Fates: "ok", "not sent", "lost" (never arrives), "no reply" (carried out), "late" (carried out after later
    requests), "expire" (the transaction times out first), or an error code that the broker answers without acting.
    """

    def __init__(self, broker: BrokerDouble, fate: Callable[[Any], str | int] = lambda _: "ok") -> None:
        self.broker = broker
        self.fate = fate
        self.settings = ConnectionSettings(("double:9092",))
        self.now = 0.0
        self.requests: list[str] = []
        self.absent: set[str] = set()
        self._late: list[Any] = []

    def clock(self) -> float:
        return self.now

    def deadline(self, timeout_ms: int | None = None) -> float:
        return self.now + (5000 if timeout_ms is None else timeout_ms) / 1000

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def features(self, _: float) -> dict[str, int]:
        return {"transaction.version": 2 if self.broker.v2 else 1}

    def watch(self, topics: Sequence[str], deadline: float) -> None:
        """Every topic is there."""

    def refresh(self, deadline: float) -> bool:
        return True

    def missing(self, topics: Iterable[str]) -> list[str]:
        return sorted(self.absent.intersection(topics))

    def partitions(self, topic: str) -> int:
        return 4

    def leader(self, topic: str, partition: int) -> int:
        return partition % 2

    def coordinator(self, kind: CoordinatorKind, key: str, deadline: float) -> int:
        return 0

    def forget_coordinator(self, kind: CoordinatorKind, key: str) -> None:
        """Nothing is remembered."""

    def send(self, node: int, request: Any, deadline: float) -> Any:
        return self.send_all([(node, request)], deadline)[0]

    def send_all(self, requests: Sequence[tuple[int, Any]], deadline: float) -> list[Any]:
        return [self._send(request) for _, request in requests]

    def _send(self, request: Any) -> Any:
        self.now += 0.001
        name = type(request).name.removesuffix("Request")
        self.requests.append(name)
        fate = self.fate(request)
        if isinstance(fate, int):
            return refusing(request, fate)
        if fate == "not sent":
            return NotSent("the network")
        if fate == "expire":
            self.now += 20
            self.broker.expire()
        if fate == "late":
            self._late.append(request)
        if fate in ("late", "lost"):
            return Lost("the network")
        answer = self.broker.handle(request)
        if len(self._late) > 1 or (self._late and name != "Produce"):
            self.broker.handle(self._late.pop(0))
        return Lost("the network") if fate == "no reply" else answer


def refusing(request: Any, code: int) -> Any:
    """The broker's refusal of a whole request, in the shape of its reply."""
    name = type(request).name.removesuffix("Request")
    if name == "Produce":
        row = SimpleNamespace
        return row(
            responses=[
                row(
                    name=topic.name,
                    partition_responses=[
                        row(index=each.index, error_code=code, record_errors=[], error_message=None)
                        for each in topic.partition_data
                    ],
                )
                for topic in request.topic_data
            ]
        )
    if name == "TxnOffsetCommit":
        rows = [SimpleNamespace(error_code=code)]
        return SimpleNamespace(topics=[SimpleNamespace(partitions=rows)])
    if name == "AddPartitionsToTxn":
        rows = [SimpleNamespace(partition_error_code=code)]
        return SimpleNamespace(results_by_topic_v3_and_below=[SimpleNamespace(results_by_partition=rows)])
    if name == "OffsetFetch":
        return SimpleNamespace(groups=[SimpleNamespace(topics=[], error_code=code)])
    return SimpleNamespace(error_code=code)
