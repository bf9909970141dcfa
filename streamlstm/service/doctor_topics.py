"""The doctor's verdicts over topics and what is stored in them: pure, facts in, findings out."""

import math
from collections.abc import Iterator, Mapping, Sequence

from streamlstm.config import Config
from streamlstm.errors import BadDataError, InputMissingError
from streamlstm.service.doctor_findings import Finding, bad, doubtful, good, told
from streamlstm.service.inspect_state import PartitionState
from streamlstm.state.recovery import OTHER_MODEL
from streamlstm.transport.topics import SNAPSHOT_CONFIGS, TopicFacts, alter_command

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
LONGEST_SEGMENT_MS = HOUR_MS
DIRTIEST = 0.5
SHORTEST_TOMBSTONE_MS = 600_000
REPLAYED_PER_SECOND = 300_000  # README, "Measured": 6.1M events in 18.6 s
LONGEST_REPLAY_SECONDS = 60


def judge_topics(
    config: Config,
    found: Mapping[str, TopicFacts | None],
    problems: Sequence[str],
    warnings: Sequence[str],
    servers: str,
) -> Iterator[Finding]:
    """`problems` and `warnings` are those that a start would have (wiring.check_cluster)."""
    yield from (told("topics", line, InputMissingError) for line in problems)
    yield from (doubtful("topics", line, "", "") for line in warnings)
    for topic, facts in found.items():
        if facts is None:
            continue
        doubts = [*_copies(topic, facts, servers), *_of_its_own(config, topic, facts, found, servers)]
        yield from doubts
        if not doubts:
            yield good(topic, _summary(facts))


def _summary(facts: TopicFacts) -> str:
    parts = [f"{facts.partitions} partitions", f"{facts.replicas} copies"]
    if "min.insync.replicas" in facts.configs:
        parts.append(f"{facts.configs['min.insync.replicas']} of them have what is acknowledged")
    policy = facts.configs.get("cleanup.policy")
    if policy is not None:
        kept = _kept(facts)
        parts.append("compacted" if policy == "compact" else "kept for ever" if kept is None else f"kept {_time(kept)}")
    else:
        parts.append("settings not shown (DescribeConfigs)")
    return ", ".join(parts)


def _copies(topic: str, facts: TopicFacts, servers: str) -> Iterator[Finding]:
    if facts.replicas == 1:
        yield doubtful(
            topic, "one copy", "3: what one broker's disk alone has goes with it",
            "kafka-reassign-partitions.sh on three brokers; for a new topic --replication-factor 3",
        )  # fmt: skip
    if facts.lagging:
        yield doubtful(
            topic, f"{facts.lagging} copies are not in sync", "all of them",
            f"kafka-topics.sh --bootstrap-server {servers} --describe --topic {topic} --under-replicated-partitions",
        )  # fmt: skip
    least = int(facts.configs.get("min.insync.replicas", 0))
    if least > facts.replicas > 0:
        fix = alter_command(servers, topic, "min.insync.replicas", str(max(1, facts.replicas - 1)))
        yield bad(
            topic, f"min.insync.replicas={least} of {facts.replicas} copies", "no more than there are: nothing can be "
            "written", fix, InputMissingError,
        )  # fmt: skip
    elif least == facts.replicas > 1:
        fix = alter_command(servers, topic, "min.insync.replicas", str(facts.replicas - 1))
        expected = "fewer than there are: one broker away stops all writing"
        yield doubtful(topic, f"min.insync.replicas={least} of {facts.replicas} copies", expected, fix)
    elif least == 1 and facts.replicas > 2:
        fix = alter_command(servers, topic, "min.insync.replicas", "2")
        expected = "2: what one broker alone has acknowledged goes with it"
        yield doubtful(topic, f"min.insync.replicas=1 of {facts.replicas} copies", expected, fix)
    if facts.configs.get("unclean.leader.election.enable") == "true":
        fix = alter_command(servers, topic, "unclean.leader.election.enable", "false")
        yield doubtful(topic, "unclean.leader.election.enable=true", "false: it loses what was acknowledged", fix)


def _of_its_own(
    config: Config, topic: str, facts: TopicFacts, found: Mapping[str, TopicFacts | None], servers: str
) -> Iterator[Finding]:
    if topic == config.input.topic:
        yield from _input(config, topic, facts, servers)
    elif topic == config.snapshot.topic:
        yield from _snapshots(topic, facts, servers)
    else:
        yield from _answers(topic, facts, found[config.input.topic], servers)


def _input(config: Config, topic: str, facts: TopicFacts, servers: str) -> Iterator[Finding]:
    kept = _kept(facts)
    if kept is not None and kept < DAY_MS:
        expected = "a day or more: a daemon that is down for longer than that loses events"
        fix = alter_command(servers, topic, "retention.ms", str(7 * DAY_MS))
        yield doubtful(topic, f"retention.ms={kept} ({_time(kept)})", expected, fix)
    ttl, ahead = config.state.ttl_ms, facts.configs.get("message.timestamp.after.max.ms")
    if ttl is not None and ahead is not None and int(ahead) > max(ttl // 2, HOUR_MS):
        expected = "an hour: with state.ttl_ms one record of a clock that is ahead forgets all of its partition"
        fix = alter_command(servers, topic, "message.timestamp.after.max.ms", str(HOUR_MS))
        yield doubtful(topic, f"message.timestamp.after.max.ms={ahead}", expected, fix)


def _answers(topic: str, facts: TopicFacts, source: TopicFacts | None, servers: str) -> Iterator[Finding]:
    if "compact" in facts.configs.get("cleanup.policy", ""):
        expected = "delete: compaction leaves one answer of each key, and `streamlstm audit` can't check the others"
        fix = alter_command(servers, topic, "cleanup.policy", "delete")
        yield doubtful(topic, f"cleanup.policy={facts.configs['cleanup.policy']}", expected, fix)
    kept, needed = _kept(facts), None if source is None else _kept(source)
    if kept is not None and needed is not None and kept < needed:
        expected = f"at least {needed}, as long as the input: `streamlstm audit` needs both"
        fix = alter_command(servers, topic, "retention.ms", str(needed))
        yield doubtful(topic, f"retention.ms={kept} ({_time(kept)})", expected, fix)


def _snapshots(topic: str, facts: TopicFacts, servers: str) -> Iterator[Finding]:
    """What a restart has to read. That it's compacted at all is `check`'s."""
    for key, least, most, why in (
        ("segment.ms", 0, LONGEST_SEGMENT_MS, "the newest segment is never compacted"),
        ("min.cleanable.dirty.ratio", 0, DIRTIEST, "compaction waits until so much of the log is old"),
        ("delete.retention.ms", SHORTEST_TOMBSTONE_MS, math.inf, "a restart must still see tombstones"),
    ):
        value = facts.configs.get(key)
        if value is not None and not least <= float(value) <= most:
            better = SNAPSHOT_CONFIGS[key]
            yield doubtful(topic, f"{key}={value}", f"{better}: {why}", alter_command(servers, topic, key, better))


def _kept(facts: TopicFacts) -> int | None:
    """For how many ms; None: for ever, or not known."""
    kept = int(facts.configs.get("retention.ms", -1))
    return kept if kept >= 0 and "delete" in facts.configs.get("cleanup.policy", "") else None


def _time(milliseconds: int) -> str:
    for unit, name in ((DAY_MS, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if milliseconds >= unit:
            return f"{round(milliseconds / unit, 1):g} {name}"
    return f"{milliseconds} ms"


def judge_state(config: Config, states: Sequence[PartitionState], to_read: int) -> Iterator[Finding]:
    """What a restart of everything would find, and what it would cost."""
    mended = config.snapshot.on_gap == "warm"
    for state in states:
        where = f"{config.input.topic}-{state.partition}"
        for problem in state.problems:
            warm = config.snapshot.on_model_change == "warm" if problem.kind in OTHER_MODEL else mended
            key = "snapshot.on_model_change" if problem.kind in OTHER_MODEL else "snapshot.on_gap"
            if warm:
                yield doubtful(where, f"{problem.kind}: {problem.message}", "", f'begins anew, by {key} = "warm"')
            else:
                fix = f'{key} = "warm" begins anew what is lost'
                yield bad(where, f"{problem.kind}: {problem.message}", "state that is exact", fix, BadDataError)
        yield from (doubtful(where, note, "", "") for note in state.notes)
    replay = sum(max((state.committed or 0) - state.tags[0], 0) for state in states if state.tags)
    seconds = replay / REPLAYED_PER_SECOND
    streams, size = sum(state.streams for state in states), sum(state.size for state in states)
    found = f"{streams:,} streams in {size:,} bytes; a restart reads {to_read:,} records, replays {replay:,} events"
    if seconds > LONGEST_REPLAY_SECONDS:
        yield doubtful(
            "restart", f"{found}, about {seconds:,.0f} s", f"at most {LONGEST_REPLAY_SECONDS} s",
            f"snapshot.interval_ms = {max(1_000, config.snapshot.interval_ms // 4)}, or more members",
        )  # fmt: skip
    else:
        yield good("restart", found)
