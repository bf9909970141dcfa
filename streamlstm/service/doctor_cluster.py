"""The doctor's verdicts over what the brokers say: pure, facts in, findings out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from streamlstm.config import Config
from streamlstm.errors import ConfigError, OffsetGoneError
from streamlstm.service.doctor_findings import Finding, bad, doubtful, good, skipped
from streamlstm.transport.survey import BrokerFacts, GroupFacts

DAY_MINUTES = 1_440
SKEW_MS = 1_000
ASSIGNOR = "cooperative-sticky"


@dataclass(frozen=True, slots=True)
class Clocks:
    """What the brokers had stamped last, by partition, in two looks, and this machine's time of each; in epoch ms."""

    before: Mapping[int, int]
    before_ms: int
    after: Mapping[int, int]
    after_ms: int


@dataclass(frozen=True, slots=True)
class Offsets:
    """Of a partition of the input: what the group has committed, the first offset of the log, and its end."""

    committed: int | None
    first: int
    end: int


def judge_timeouts(config: Config, brokers: Sequence[BrokerFacts]) -> Iterator[Finding]:
    """The ladder itself is enforced when the configuration is read; here it meets the brokers' bounds."""
    kafka, commit = config.kafka, config.commit
    yield good(
        "time-outs",
        f"commit {commit.interval_ms} < request {commit.request_timeout_ms} < transaction "
        f"{commit.transaction_timeout_ms} < session {kafka.session_timeout_ms} <= poll {kafka.max_poll_interval_ms}; "
        f"heartbeat {kafka.heartbeat_interval_ms} ms",
    )
    for key, value, most, why in (
        ("kafka.heartbeat_interval_ms", kafka.heartbeat_interval_ms, 3_000, "a member hears of a rebalance so late"),
        ("kafka.session_timeout_ms", kafka.session_timeout_ms, 120_000, "a dead member's partitions wait so long"),
        ("kafka.max_poll_interval_ms", kafka.max_poll_interval_ms, 300_000,
         "a rebalance waits so long for a member that died while it was joining"),
        ("commit.transaction_timeout_ms", commit.transaction_timeout_ms, 60_000,
         "readers wait so long for a replica that died and does not come back"),
    ):  # fmt: skip
        if value > most:
            yield doubtful(key, str(value), f"at most {most}: {why}", f"{key} = {most}")
    if not any(broker.configs for broker in brokers):
        yield skipped("the brokers' limits", "they don't show them: DescribeConfigs on the cluster")
        return
    transaction = "transaction.max.timeout.ms"
    session, least = "group.max.session.timeout.ms", "group.min.session.timeout.ms"
    for key, value, bound, low in (
        ("commit.transaction_timeout_ms", commit.transaction_timeout_ms, transaction, False),
        ("kafka.session_timeout_ms", kafka.session_timeout_ms, session, False),
        ("kafka.session_timeout_ms", kafka.session_timeout_ms, least, True),
    ):
        yield from _bounded(brokers, key, value, bound, low)
    kept = _limits(brokers, "offsets.retention.minutes")
    if kept and min(kept.values()) < DAY_MINUTES:
        node = min(kept, key=lambda each: kept[each])
        yield doubtful(
            "committed offsets", f"broker {node} forgets them {kept[node]} minutes after the last member has left",
            "at least a day: a group without offsets begins at input.start", "offsets.retention.minutes=10080",
        )  # fmt: skip


def _bounded(brokers: Sequence[BrokerFacts], key: str, value: int, bound: str, low: bool) -> Iterator[Finding]:
    """The setting against the strictest of the brokers."""
    limits = _limits(brokers, bound)
    if not limits:
        return
    node = (max if low else min)(limits, key=lambda each: limits[each])
    limit = limits[node]
    if limit <= value if low else value <= limit:
        yield good(key, f"{value}, {'at least' if low else 'at most'} the brokers' {bound} ({limit})")
    else:
        expected = f"{'at least' if low else 'at most'} {limit}, the {bound} of broker {node}"
        yield bad(key, str(value), expected, f"{key} = {limit}, or another {bound}", ConfigError)


def _limits(brokers: Sequence[BrokerFacts], key: str) -> dict[int, int]:
    return {broker.node: int(broker.configs[key]) for broker in brokers if key in broker.configs}


def judge_brokers(
    config: Config, brokers: Sequence[BrokerFacts], features: Mapping[str, int], servers: str
) -> Iterator[Finding]:
    yield good("brokers", ", ".join(f"{broker.node} at {broker.address}" for broker in brokers))
    if len(config.kafka.bootstrap_servers) < min(2, len(brokers)):
        yield doubtful(
            "kafka.bootstrap_servers", ", ".join(config.kafka.bootstrap_servers),
            "two brokers or more: a start finds none while the only one named is away",
            f"kafka.bootstrap_servers = {json.dumps([broker.address for broker in brokers])}",
        )  # fmt: skip
    level = features.get("transaction.version", 0)
    metadata = f"metadata.version {features['metadata.version']}, " if "metadata.version" in features else ""
    if level >= 2:
        yield good("transactions", f"{metadata}transaction.version {level}: protocol v2 (KIP-890)")
        return
    yield doubtful(
        "transactions", f"{metadata}transaction.version {level}: protocol v1",
        "2, from Kafka 4.0 on: an interrupted commit is settled by the broker, and a transaction takes a third of the "
        "time",
        f"kafka-features.sh --bootstrap-server {servers} upgrade --feature transaction.version=2",
    )  # fmt: skip


def judge_clocks(clocks: Clocks) -> Finding:
    """A stamp is never newer than its broker's clock; one that came between the two looks is as new as the first."""
    if not clocks.after:
        return skipped("the brokers' clocks", "no partition of the snapshot topic ends with a broker's stamp yet")
    ahead = max(clocks.after.values()) - clocks.after_ms
    came = [stamp for partition, stamp in clocks.after.items() if stamp > clocks.before.get(partition, -1)]
    behind = clocks.before_ms - max(came) if came else 0
    if max(ahead, behind) > SKEW_MS:
        found = f"{max(ahead, behind) / 1000:,.1f} s {'ahead of' if ahead > behind else 'behind'} this machine, or more"
        expected = f"within {SKEW_MS / 1000:g} s: retention and the age limits of topics go by the brokers' clocks"
        return doubtful("the brokers' clocks", found, expected, "NTP on the brokers and here: chronyc tracking")
    if came:
        return good("the brokers' clocks", f"within {SKEW_MS / 1000:g} s of this machine's")
    return good("the brokers' clocks", "not ahead of this machine's; whether behind is seen while a daemon commits")


def judge_group(config: Config, group: GroupFacts, offsets: Mapping[int, Offsets]) -> Iterator[Finding]:
    """`offsets` has every partition of the input."""
    name, members, partitions = config.kafka.group_id, group.members, len(offsets)
    who = ", ".join(f"{each.instance_id or each.client_id} {each.host}" for each in members)
    yield good("members", f"{len(members)} for {partitions} partitions" + (f": {who}" if who else ""))
    if len(members) > partitions:
        yield doubtful(
            "members", f"{len(members)} for {partitions} partitions", "a partition for each; the rest stand by",
            "fewer members, or more partitions of every topic",
        )  # fmt: skip
    if members and group.protocol not in ("", ASSIGNOR):
        yield bad(
            "group", f"{name!r} is shared out by {group.protocol!r}", f"{ASSIGNOR!r}: another application is in it",
            "kafka.group_id = a name of its own", ConfigError,
        )  # fmt: skip
    yield _static_name(config, group)
    yield from _offset_verdicts(config, offsets)


def _static_name(config: Config, group: GroupFacts) -> Finding:
    name = config.kafka.group_instance_id
    if name is None:
        return doubtful(
            "kafka.group_instance_id", "unset",
            "a name of this replica that a restart keeps: else each restart moves partitions twice, and after kill -9 "
            "on another host readers wait for commit.transaction_timeout_ms",
            'kafka.group_instance_id = "streamlstm-0", another for each replica',
        )  # fmt: skip
    where = [member.host for member in group.members if member.instance_id == name]
    now = f"a member now, at {where[0]}: a second one would fence it" if where else "not a member now"
    return good("kafka.group_instance_id", f"{name}, {now}")


def _offset_verdicts(config: Config, offsets: Mapping[int, Offsets]) -> Iterator[Finding]:
    known = {partition: each for partition, each in offsets.items() if each.committed is not None}
    if not known:
        yield good("committed offsets", f"none: this group begins at {config.input.start}")
        return
    for partition, each in known.items():
        if each.committed is not None and not each.first <= each.committed <= each.end:
            gone = each.committed < each.first
            yield bad(
                "committed offsets",
                f"{config.input.topic}-{partition}: {each.committed}, where the log holds [{each.first}, {each.end})",
                "an offset of the log: " + ("retention has dropped the rest" if gone else "the topic was made anew"),
                'snapshot.on_gap = "warm" goes on with what is there' if gone
                else "a new kafka.group_id and snapshot.topic",
                OffsetGoneError,
            )  # fmt: skip
    lag = sum(max(0, each.end - (each.committed or 0)) for each in known.values())
    fresh = f", {len(offsets) - len(known)} partitions without any" if len(known) < len(offsets) else ""
    yield good("committed offsets", f"{lag:,} offsets behind the end of {len(known)} partitions{fresh}")
