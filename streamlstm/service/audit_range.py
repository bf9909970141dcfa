"""What `streamlstm audit` has to read of each partition, fixed before anything is read.

    1. the group's committed offsets are asked for first: no event beyond them is audited. Every answer to an event
       below them is in a transaction that has committed, so it has been stored
    2. then where the logs of the answers end, open transactions included: every one of those answers lies before that

So what a daemon does meanwhile changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streamlstm.config import Config
from streamlstm.errors import InputMissingError, UsageError
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.offsets import EARLIEST, LATEST, Partition, committed_offsets, list_offsets
from streamlstm.transport.topics import TopicFacts, describe_topics, log_ranges


@dataclass(frozen=True, slots=True)
class Bound:
    """An end of the range: a time, epoch milliseconds, or an offset for some partitions, or neither."""

    time_ms: int | None = None
    offsets: Mapping[int, int] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        return self.time_ms is not None or bool(self.offsets)


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """What was asked for; `partitions` () is all of them."""

    start: Bound = Bound()
    stop: Bound = Bound()
    partitions: tuple[int, ...] = ()


@dataclass(slots=True)
class Range:
    """The input's offsets [first, end), of which the group has committed what is below `committed`; None: nothing. And
    the offsets [start, stop) of the two logs of its answers. `log_end` is the input's last stable offset.
    """

    first: int
    end: int
    committed: int | None
    log_end: int
    forecasts: tuple[int, int]
    dead_letters: tuple[int, int]

    @property
    def size(self) -> int:
        return sum(stop - start for start, stop in ((self.first, self.end), self.forecasts, self.dead_letters))


@dataclass(frozen=True, slots=True)
class Plan:
    """The ranges by partition; the configurations of input, output and dead letters, {} where we may not see them."""

    ranges: dict[int, Range]
    configs: tuple[Mapping[str, str], ...]


def plan(cluster: Cluster, config: Config, options: AuditOptions) -> Plan:
    """Raises InputMissingError (a topic isn't there, the group has committed nothing), UsageError (a partition that
    isn't there), RetryError, AccessError.
    """
    topics = (config.input.topic, config.output.topic, config.dead_letter.topic)
    facts = _facts(cluster, topics)
    partitions = _partitions(options, topics, facts)
    here = [(topics[0], partition) for partition in partitions]
    committed = _committed(cluster, config, here)
    log_ends = list_offsets(cluster, here, LATEST, _deadline(cluster))
    firsts, ends = _bounds(cluster, config, options, committed, log_ends)
    logs = [log_ranges(cluster, topic, partitions, with_open=True) for topic in topics[1:]]
    ranges = {
        each[1]: Range(firsts[each], ends[each], committed[each], log_ends[each], logs[0][each[1]], logs[1][each[1]])
        for each in here
    }
    return Plan(ranges, tuple(each.configs for each in facts))


def _deadline(cluster: Cluster) -> float:
    return cluster.deadline(cluster.settings.connect_timeout_ms)


def _facts(cluster: Cluster, topics: tuple[str, ...]) -> list[TopicFacts]:
    found = describe_topics(cluster, topics, _deadline(cluster))
    if missing := [topic for topic, facts in found.items() if facts is None]:
        raise InputMissingError(f"topic {', '.join(missing)} is not there")
    facts = [each for each in found.values() if each is not None]
    if min(each.partitions for each in facts) < facts[0].partitions:
        raise InputMissingError(
            f"topics {', '.join(topics[1:])}: expected {facts[0].partitions} partitions at least, as {topics[0]} has; "
            f"found {' and '.join(str(each.partitions) for each in facts[1:])}"
        )
    return facts


def _partitions(options: AuditOptions, topics: tuple[str, ...], facts: list[TopicFacts]) -> list[int]:
    count = facts[0].partitions
    for partition in (*options.partitions, *options.start.offsets, *options.stop.offsets):
        if partition >= count:
            raise UsageError(f"partition {partition}: topic {topics[0]} has 0 to {count - 1}")
    return sorted(set(options.partitions)) or list(range(count))


def _committed(cluster: Cluster, config: Config, here: list[Partition]) -> dict[Partition, int | None]:
    group = config.kafka.group_id
    committed = committed_offsets(cluster, group, here, _deadline(cluster))
    if all(offset is None for offset in committed.values()):
        raise InputMissingError(f"group {group!r} has committed no offset of topic {config.input.topic!r}")
    return committed


def _bounds(
    cluster: Cluster,
    config: Config,
    options: AuditOptions,
    committed: Mapping[Partition, int | None],
    log_ends: Mapping[Partition, int],
) -> tuple[dict[Partition, int], dict[Partition, int]]:
    """The first offset of each range and the one behind its last: what the input still has, from where the group began
    to what it has committed; of that, what was asked for.
    """
    here = list(committed)
    starts = list_offsets(cluster, here, EARLIEST, _deadline(cluster))
    began = _offsets(cluster, Bound(config.input.start_timestamp_ms), here)
    asked = _offsets(cluster, options.start, here), _offsets(cluster, options.stop, here)
    firsts, ends = {}, {}
    for each in here:
        known = committed[each]
        stop = starts[each] if known is None else min(known, log_ends[each])
        ends[each] = min(stop, asked[1].get(each, stop))
        firsts[each] = min(max(starts[each], began.get(each, 0), asked[0].get(each, 0)), ends[each])
    return firsts, ends


def _offsets(cluster: Cluster, bound: Bound, here: list[Partition]) -> dict[Partition, int]:
    if bound.time_ms is not None:
        return list_offsets(cluster, here, bound.time_ms, _deadline(cluster))
    return {each: bound.offsets[each[1]] for each in here if each[1] in bound.offsets}
