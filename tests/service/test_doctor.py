"""The doctor's verdicts as a table: facts in, level and advice out. What is gathered, and how, is in
test_doctor_command.py.
"""

import stat
from collections.abc import Iterable
from dataclasses import replace

import pytest

from streamlstm.config import Config, load
from streamlstm.errors import InputMissingError
from streamlstm.service.doctor import judge_bound
from streamlstm.service.doctor_cluster import Clocks, Offsets, judge_brokers, judge_clocks, judge_group, judge_timeouts
from streamlstm.service.doctor_findings import Finding, Level, Section, bad, doubtful, exit_code, good, skipped, told
from streamlstm.service.doctor_host import HostFacts, SecretFile, chosen, judge_host
from streamlstm.service.doctor_topics import judge_state, judge_topics
from streamlstm.service.inspect_state import Cover, PartitionState, Stored
from streamlstm.service.sizing import Part, Sizing
from streamlstm.state.recovery import Problem
from streamlstm.state.snapshot import ROOT, Header
from streamlstm.transport.survey import BrokerFacts, GroupFacts, MemberFacts
from streamlstm.transport.topics import TopicFacts
from tests.engine.expected import SCALINGS, make_model

GB = 1_000_000_000
SERVERS = "one:9092"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def config(*overrides: str) -> Config:
    return load(None, {}, overrides)


def doubts(findings: Iterable[Finding]) -> dict[str, Finding]:
    """What isn't ok, by what it is about; each has something to say and, when it warns or fails, a way out."""
    found = {each.about: each for each in findings if each.level is not Level.OK}
    assert all(each.found for each in found.values())
    assert all(each.fix for each in found.values() if each.level in (Level.WARN, Level.FAIL))
    return found


FINE = HostFacts(
    versions=(("python", "3.11.2"),), threads=2, cpu_quota=None, memory_limit=8 * GB, memory_available=6 * GB,
    open_files=65_536, huge_pages="madvise", clock_error_ms=3.0, clock_synchronised=True, port="free", port_problem="",
    secrets=(),
)  # fmt: skip


def sized(resident: float) -> Sizing:
    """1,000 bytes for each of a million streams, and 1 GB without any."""
    streams = int((resident - GB) / 1000)
    return Sizing(streams, (Part("rows", 1000, streams * 1000), Part("fixed", 0, GB)))


class TestHost:
    def test_all_is_well(self) -> None:
        assert doubts(judge_host(config(), FINE, sized(2 * GB))) == {}

    @pytest.mark.parametrize(
        ("change", "size", "about", "level", "says"),
        [
            ({"cpu_quota": 1.0}, 2, "threads", Level.WARN, "engine.threads = 1,"),
            ({"cpu_quota": 0.25, "threads": 1}, 2, "threads", Level.WARN, "engine.threads = 1,"),
            ({"memory_limit": 3 * GB}, 4, "memory", Level.FAIL, "state.max_streams = 1700000 fits"),
            ({"memory_limit": 2 * GB}, 1.9, "memory", Level.WARN, "state.max_streams = 800000 fits"),
            ({"memory_limit": 2 * GB // 3}, 4, "memory", Level.FAIL, "1,000 MB are taken without a stream"),
            ({"memory_available": GB * 3 // 2}, 2, "memory", Level.WARN, "state.max_streams = 500000 fits"),
            ({"open_files": 256}, 2, "open files", Level.WARN, "LimitNOFILE="),
            ({"huge_pages": "never"}, 2, "huge pages", Level.WARN, "echo madvise >"),
            ({"clock_synchronised": False}, 2, "clock", Level.WARN, "chrony"),
            ({"port": "taken", "port_problem": "Address already in use"}, 2, "metrics port", Level.FAIL, "another"),
            ({"port": "off"}, 2, "metrics port", Level.WARN, "metrics.enabled = true"),
            (
                {"secrets": (SecretFile("kafka.security.ssl_keyfile", "/k.pem", stat.S_IFREG | 0o644),)},
                2, "kafka.security.ssl_keyfile", Level.WARN, "chmod 600 /k.pem",
            ),
        ],
    )  # fmt: skip
    def test_what_is_amiss(self, change: dict[str, object], size: float, about: str, level: Level, says: str) -> None:
        found = doubts(judge_host(config(), replace(FINE, **change), sized(size * GB)))  # type: ignore[arg-type]
        assert {about: level} == {each: finding.level for each, finding in found.items()}
        assert says in found[about].fix

    @pytest.mark.parametrize(
        "change",
        [
            {"cpu_quota": 2.0},
            {"cpu_quota": 1.5},
            {"open_files": -1},
            {"huge_pages": "always"},
            {"port": "ours", "memory_available": 0},  # what is taken is the daemon's
            {"secrets": (SecretFile("kafka.security.ssl_keyfile", "/k.pem", stat.S_IFREG | 0o640),)},
        ],
    )
    def test_what_is_not(self, change: dict[str, object]) -> None:
        assert doubts(judge_host(config(), replace(FINE, **change), sized(2 * GB))) == {}  # type: ignore[arg-type]

    def test_what_can_not_be_known_is_said(self) -> None:
        unknown = replace(FINE, huge_pages=None, clock_synchronised=None, clock_error_ms=None)
        found = doubts(judge_host(config(), unknown, None))
        assert {about: each.level for about, each in found.items()} == dict.fromkeys(
            ("memory", "huge pages", "clock"), Level.SKIPPED
        )

    def test_files_of_the_kernel(self) -> None:
        assert chosen("always [madvise] never\n") == "madvise"


LIMITS = {
    "transaction.max.timeout.ms": "900000",
    "group.min.session.timeout.ms": "6000",
    "group.max.session.timeout.ms": "1800000",
    "offsets.retention.minutes": "10080",
}


def brokers(**changed: str) -> list[BrokerFacts]:
    """Two; the second one differs."""
    other = LIMITS | {name.replace("_", "."): value for name, value in changed.items()}
    return [BrokerFacts(1, "one:9092", LIMITS), BrokerFacts(2, "two:9092", other)]


class TestTimeouts:
    def test_all_is_well(self) -> None:
        assert doubts(judge_timeouts(config(), brokers())) == {}

    @pytest.mark.parametrize(
        ("changed", "about", "expected"),
        [
            ({"transaction_max_timeout_ms": "10000"}, "commit.transaction_timeout_ms", "at most 10000"),
            ({"group_max_session_timeout_ms": "30000"}, "kafka.session_timeout_ms", "at most 30000"),
            ({"group_min_session_timeout_ms": "60000"}, "kafka.session_timeout_ms", "at least 60000"),
        ],
    )
    def test_beyond_what_a_broker_takes(self, changed: dict[str, str], about: str, expected: str) -> None:
        (found,) = doubts(judge_timeouts(config(), brokers(**changed))).values()
        assert (found.level, found.about, found.exit_code) == (Level.FAIL, about, 78)
        assert found.expected.startswith(expected)
        assert "broker 2" in found.expected

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("kafka.heartbeat_interval_ms", 5_000),
            ("kafka.session_timeout_ms", 300_000),
            ("kafka.max_poll_interval_ms", 600_000),
            ("commit.transaction_timeout_ms", 90_000),
        ],
    )
    def test_longer_than_is_good(self, key: str, value: int) -> None:
        room = ("kafka.max_poll_interval_ms=300000", "kafka.session_timeout_ms=120000", f"{key}={value}")
        (found,) = doubts(judge_timeouts(config(*room), brokers())).values()
        assert (found.level, found.about) == (Level.WARN, key)
        assert found.fix.startswith(f"{key} = ")
        assert doubts(judge_timeouts(config(*room[:2], *found.fix.replace(" ", "").split("\n")), brokers())) == {}

    def test_offsets_that_are_soon_forgotten(self) -> None:
        (found,) = doubts(judge_timeouts(config(), brokers(offsets_retention_minutes="60"))).values()
        assert (found.level, found.about) == (Level.WARN, "committed offsets")

    def test_brokers_that_show_nothing(self) -> None:
        (found,) = doubts(judge_timeouts(config(), [BrokerFacts(1, "one:9092", {})])).values()
        assert found.level is Level.SKIPPED
        assert "DescribeConfigs" in found.found


class TestBrokers:
    def test_two_named_and_protocol_v2(self) -> None:
        both = config('kafka.bootstrap_servers=["one:9092","two:9092"]')
        assert doubts(judge_brokers(both, brokers(), {"transaction.version": 2, "metadata.version": 27}, SERVERS)) == {}

    def test_one_named_and_protocol_v1(self) -> None:
        found = doubts(judge_brokers(config(), brokers(), {"transaction.version": 1}, SERVERS))
        assert found.keys() == {"kafka.bootstrap_servers", "transactions"}
        assert found["kafka.bootstrap_servers"].fix == 'kafka.bootstrap_servers = ["one:9092", "two:9092"]'
        assert "kafka-features.sh --bootstrap-server one:9092 upgrade" in found["transactions"].fix
        assert doubts(judge_brokers(config(), brokers()[:1], {}, SERVERS)).keys() == {"transactions"}


class TestClocks:
    @pytest.mark.parametrize(
        ("before", "after", "level", "says"),
        [
            ({0: 9_900}, {0: 10_400}, Level.OK, "within 1 s"),
            ({0: 9_900}, {0: 9_900}, Level.OK, "not ahead"),
            ({0: 1, 1: 2}, {0: 1, 1: 2}, Level.OK, "not ahead"),
            ({}, {}, Level.SKIPPED, "no partition"),
            ({0: 15_000}, {0: 15_000}, Level.WARN, "4.0 s ahead"),
            ({0: 6_900}, {0: 7_400}, Level.WARN, "2.6 s behind"),
            ({0: 6_900, 1: 3}, {0: 6_900, 1: 9_700}, Level.OK, "within 1 s"),
            ({}, {0: 7_000}, Level.WARN, "3.0 s behind"),
        ],
    )
    def test_by_what_was_stamped(self, before: dict[int, int], after: dict[int, int], level: Level, says: str) -> None:
        found = judge_clocks(Clocks(before, 10_000, after, 11_000))
        assert found.level is level
        assert says in found.found


ME = MemberFacts("streamlstm", "/10.0.0.1", "streamlstm-0")
NAMED = config("kafka.group_instance_id=streamlstm-0")


def group(*members: MemberFacts, protocol: str = "cooperative-sticky") -> GroupFacts:
    return GroupFacts("Stable" if members else "Empty", protocol if members else "", members)


class TestGroup:
    def test_all_is_well(self) -> None:
        offsets = {0: Offsets(5, 0, 9), 1: Offsets(7, 7, 7)}
        assert doubts(judge_group(NAMED, group(ME), offsets)) == {}
        assert doubts(judge_group(NAMED, group(), {0: Offsets(None, 3, 9)})) == {}
        says = [each.found for each in judge_group(NAMED, group(ME), offsets)]
        assert says[0] == "1 for 2 partitions: streamlstm-0 /10.0.0.1"
        assert "a member now, at /10.0.0.1: a second one would fence it" in says[1]
        assert says[2] == "4 offsets behind the end of 2 partitions"

    def test_what_is_amiss(self) -> None:
        stranger = MemberFacts("app", "/10.0.0.2", None)
        found = doubts(judge_group(config(), group(ME, stranger, protocol="range"), {0: Offsets(5, 6, 9)}))
        assert {about: (each.level, each.exit_code) for about, each in found.items()} == {
            "members": (Level.WARN, 0),
            "group": (Level.FAIL, 78),
            "kafka.group_instance_id": (Level.WARN, 0),
            "committed offsets": (Level.FAIL, 66),
        }
        assert found["committed offsets"].found == "events-0: 5, where the log holds [6, 9)"
        assert "on_gap" in found["committed offsets"].fix

    def test_a_log_that_ends_before_what_was_committed(self) -> None:
        found = doubts(judge_group(NAMED, group(ME), {0: Offsets(10, 0, 9)}))["committed offsets"]
        assert "made anew" in found.expected
        assert "kafka.group_id" in found.fix


def topic(partitions: int = 4, replicas: int = 3, lagging: int = 0, **changed: str) -> TopicFacts:
    configs = {
        "cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS), "min.insync.replicas": "2",
        "unclean.leader.election.enable": "false", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1",
        "delete.retention.ms": str(DAY_MS),
    }  # fmt: skip
    return TopicFacts(partitions, configs | {k.replace("_", "."): v for k, v in changed.items()}, replicas, lagging)


def topics(**changed: TopicFacts | None) -> dict[str, TopicFacts | None]:
    found: dict[str, TopicFacts | None] = {
        "events": topic(), "forecasts": topic(), "dead-letters": topic(), "snapshots": topic(cleanup_policy="compact"),
    }  # fmt: skip
    return found | {name.replace("_", "-"): facts for name, facts in changed.items()}


class TestTopics:
    def test_all_is_well(self) -> None:
        said = list(judge_topics(config(), topics(), (), (), SERVERS))
        assert doubts(said) == {}
        assert said[0].found == "4 partitions, 3 copies, 2 of them have what is acknowledged, kept 7 d"
        assert said[3].found.endswith("compacted")

    @pytest.mark.parametrize(
        ("name", "facts", "level", "says"),
        [
            ("events", topic(replicas=1, min_insync_replicas="1"), Level.WARN, "--replication-factor 3"),
            ("events", topic(lagging=2), Level.WARN, "--under-replicated-partitions"),
            ("events", topic(min_insync_replicas="4"), Level.FAIL, "min.insync.replicas=2"),
            ("events", topic(min_insync_replicas="3"), Level.WARN, "min.insync.replicas=2"),
            ("events", topic(min_insync_replicas="1"), Level.WARN, "min.insync.replicas=2"),
            ("events", topic(unclean_leader_election_enable="true"), Level.WARN, "enable=false"),
            ("events", topic(retention_ms=str(HOUR_MS)), Level.WARN, "retention.ms=604800000"),
            ("forecasts", topic(retention_ms=str(DAY_MS)), Level.WARN, "retention.ms=604800000"),
            ("dead_letters", topic(cleanup_policy="compact"), Level.WARN, "cleanup.policy=delete"),
            ("snapshots", topic(cleanup_policy="compact", segment_ms=str(7 * DAY_MS)), Level.WARN, "segment.ms=600000"),
            ("snapshots", topic(cleanup_policy="compact", min_cleanable_dirty_ratio="0.9"), Level.WARN, "ratio=0.1"),
            ("snapshots", topic(cleanup_policy="compact", delete_retention_ms="1000"), Level.WARN, "=86400000"),
        ],
    )
    def test_what_is_amiss(self, name: str, facts: TopicFacts, level: Level, says: str) -> None:
        found = doubts(judge_topics(config(), topics(**{name: facts}), (), (), SERVERS))
        (finding,) = found.values()
        assert (finding.about, finding.level) == (name.replace("_", "-"), level)
        assert says in finding.fix

    @pytest.mark.parametrize(
        "facts",
        [
            topic(retention_ms="-1"),
            topic(cleanup_policy="compact", retention_ms="1"),
            topic(min_insync_replicas="1", replicas=2),
            TopicFacts(4, {}, 3),
        ],
    )
    def test_what_is_not(self, facts: TopicFacts) -> None:
        assert doubts(judge_topics(config(), topics(events=facts), (), (), SERVERS)) == {}

    @pytest.mark.parametrize(("ahead", "ttl", "doubted"), [(HOUR_MS, DAY_MS, 0), (DAY_MS, DAY_MS, 1), (DAY_MS, 0, 0)])
    def test_clocks_that_are_ahead(self, ahead: int, ttl: int, doubted: int) -> None:
        given = config(*([f"state.ttl_ms={ttl}"] if ttl else []))
        events = topic(message_timestamp_after_max_ms=str(ahead))
        assert len(doubts(judge_topics(given, topics(events=events), (), (), SERVERS))) == doubted

    def test_what_a_start_would_complain_of(self) -> None:
        line = "topic 'x' has a=1; expected at least 2, so; mend it: kafka-configs.sh --alter"
        (found,) = judge_topics(config(), {"events": None}, [line], (), SERVERS)
        assert (found.level, found.exit_code) == (Level.FAIL, 66)
        assert (found.found, found.expected, found.fix) == (
            "topic 'x' has a=1", "at least 2, so", "kafka-configs.sh --alter",
        )  # fmt: skip
        missing = told("topics", "topic 'x' is not there; make it: kafka-topics.sh --create", InputMissingError)
        assert (missing.found, missing.fix) == ("topic 'x' is not there", "kafka-topics.sh --create")


def stored(offset: int, committed: int, *problems: Problem) -> PartitionState:
    header = Header("streamlstm", "events", 0, offset, 7, "model", 2, None, None, 2, 64)
    cover = Cover(("streamlstm", "events", 0), None, "float32", lambda _: False, {ROOT: Stored(header, 100, None)})
    return PartitionState(0, cover, committed, list(problems), [])


@pytest.mark.parametrize(
    ("bound", "timeout_ms", "level"),
    [(100_000, 15_000, None), (1_000_000, 15_000, Level.WARN), (1_000_000, 20_000, None)],
)
def test_a_bound_whose_state_goes_out_in_time(bound: int, timeout_ms: int, level: Level | None) -> None:
    model = make_model(SCALINGS["none"])
    given = (f"state.max_streams={bound}", f"commit.transaction_timeout_ms={timeout_ms}")
    assert list(judge_bound(config(*given), model)) == []
    found = doubts(judge_bound(config(*given, f"state.max_streams_per_partition={bound}"), model))
    assert [each.level for each in found.values()] == ([level] if level else [])


class TestState:
    def test_what_a_restart_costs(self) -> None:
        (found,) = judge_state(config(), [stored(1_000, 3_000)], 7)
        assert found.level is Level.OK
        assert found.found == "2 streams in 100 bytes; a restart reads 7 records, replays 2,000 events"
        (long,) = judge_state(config(), [stored(0, 90_000_000)], 7)
        assert (long.level, long.fix) == (Level.WARN, "snapshot.interval_ms = 15000, or more members")
        assert "about 300 s" in long.found

    @pytest.mark.parametrize(
        ("kind", "key"),
        [("gap", "snapshot.on_gap"), *((kind, "snapshot.on_model_change") for kind in ("model", "abi", "dtype"))],
    )
    def test_what_a_restart_could_not_use(self, kind: str, key: str) -> None:
        problem = Problem(kind, 0, "so and so")  # type: ignore[arg-type]
        found = doubts(judge_state(config(), [stored(1, 2, problem)], 1))["events-0"]
        assert (found.level, found.exit_code, found.found) == (Level.FAIL, 65, f"{kind}: so and so")
        assert found.fix.startswith(f'{key} = "warm"')
        mended = doubts(judge_state(config(f"{key}=warm"), [stored(1, 2, problem)], 1))["events-0"]
        assert mended.level is Level.WARN


def test_the_exit_code_is_that_of_the_first_failure() -> None:
    fine = Section("host", (good("a", "x"), doubtful("b", "x", "y", "z"), skipped("c", "x")))
    assert exit_code([fine]) == 0
    assert exit_code([fine, Section("topics", (bad("d", "x", "y", "z", InputMissingError),)), fine]) == 66
