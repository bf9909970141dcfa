"""What must hold between settings, and the files they name. Each check yields the keys it blames and a sentence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

from streamlstm.config.sections import Config
from streamlstm.config.security import FILES, SECRETS, Security, read_secret


@dataclass(frozen=True, slots=True)
class Problem:
    """Settings that don't go together. `keys` are dotted, the one to change first; the others are only read."""

    keys: tuple[str, ...]
    found: str
    expected: str


def cross_problems(config: Config) -> Iterator[Problem]:
    """Every contradiction between settings that are each valid by themselves."""
    yield from _timeouts(config)
    yield from _topics(config)
    yield from _start(config)
    yield from _sizes(config)
    yield from _state(config)
    yield from _input_fields(config)
    yield from _security(config.kafka.security)
    yield from _security_files(config.kafka.security)


def _timeouts(config: Config) -> Iterator[Problem]:
    """The ladder: each wait must end before the next one does, or a healthy member looks dead to the broker."""
    kafka, commit = config.kafka, config.commit
    ladder = {
        "commit.interval_ms": commit.interval_ms,
        "commit.request_timeout_ms": commit.request_timeout_ms,
        "commit.transaction_timeout_ms": commit.transaction_timeout_ms,
        "kafka.session_timeout_ms": kafka.session_timeout_ms,
    }
    names = list(ladder)
    for lower, upper in pairwise(names):
        if ladder[lower] >= ladder[upper]:
            yield _not_below(lower, ladder[lower], upper, ladder[upper])
    if kafka.session_timeout_ms > kafka.max_poll_interval_ms:
        yield Problem(
            ("kafka.max_poll_interval_ms", "kafka.session_timeout_ms"),
            str(kafka.max_poll_interval_ms),
            f"at least kafka.session_timeout_ms ({kafka.session_timeout_ms})",
        )
    if kafka.heartbeat_interval_ms * 3 > kafka.session_timeout_ms:
        yield Problem(
            ("kafka.heartbeat_interval_ms", "kafka.session_timeout_ms"),
            str(kafka.heartbeat_interval_ms),
            f"at most a third of kafka.session_timeout_ms ({kafka.session_timeout_ms})",
        )
    if config.fetch.max_wait_ms >= commit.request_timeout_ms:
        yield _not_below(
            "fetch.max_wait_ms", config.fetch.max_wait_ms, "commit.request_timeout_ms", commit.request_timeout_ms
        )


def _not_below(lower: str, value: int, upper: str, limit: int) -> Problem:
    return Problem((lower, upper), str(value), f"less than {upper} ({limit})")


def _topics(config: Config) -> Iterator[Problem]:
    topics = {
        "input.topic": config.input.topic,
        "output.topic": config.output.topic,
        "dead_letter.topic": config.dead_letter.topic,
        "snapshot.topic": config.snapshot.topic,
    }
    for first, second in combinations(topics, 2):
        if topics[first] == topics[second]:
            yield Problem((second, first), f'"{topics[second]}"', f"another topic than {first}")


def _start(config: Config) -> Iterator[Problem]:
    start, timestamp = config.input.start, config.input.start_timestamp_ms
    if start == "timestamp" and timestamp is None:
        yield Problem(
            ("input.start_timestamp_ms", "input.start"), "nothing", 'a time, because input.start = "timestamp"'
        )
    if start != "timestamp" and timestamp is not None:
        yield Problem(
            ("input.start", "input.start_timestamp_ms"),
            f'"{start}"',
            '"timestamp", because input.start_timestamp_ms is set',
        )


def _sizes(config: Config) -> Iterator[Problem]:
    fetch = config.fetch
    if fetch.max_partition_bytes > fetch.max_bytes:
        yield Problem(
            ("fetch.max_partition_bytes", "fetch.max_bytes"),
            str(fetch.max_partition_bytes),
            f"at most fetch.max_bytes ({fetch.max_bytes})",
        )
    if fetch.min_bytes > fetch.max_bytes:
        yield Problem(
            ("fetch.min_bytes", "fetch.max_bytes"), str(fetch.min_bytes), f"at most fetch.max_bytes ({fetch.max_bytes})"
        )


def _state(config: Config) -> Iterator[Problem]:
    state, events = config.state, config.events
    most = state.max_streams_per_partition
    if most is not None and most > state.max_streams:
        yield Problem(
            ("state.max_streams_per_partition", "state.max_streams"),
            str(most),
            f"at most state.max_streams ({state.max_streams})",
        )
    if events.after_gap == "reset" and events.gap_ms is None:
        yield Problem(("events.gap_ms", "events.after_gap"), "nothing", 'a time, because events.after_gap = "reset"')


def _input_fields(config: Config) -> Iterator[Problem]:
    events = config.input
    paths: dict[str, tuple[str, ...]] = {
        "input.stream_field": (events.stream_field,),
        "input.values_field": (events.values_field,),
    }
    paths |= {"input.time_fields": events.time_fields, "input.value_fields": events.value_fields}
    for key, values in paths.items():
        for path in values:
            if not all(path.split(".")):
                yield Problem((key,), f'"{path}"', 'names separated by single dots, such as "payload.value"')
    for first, second in combinations(paths, 2):
        both = sorted(set(paths[first]) & set(paths[second]))
        if both:
            yield Problem((second, first), f'"{both[0]}"', f"a field that {first} does not read")
    if events.format == "raw" and events.stream_source == "field":
        yield Problem(("input.stream_source", "input.format"), '"field"', '"auto" or "key": raw events have no fields')


def _security(security: Security) -> Iterator[Problem]:
    here = "kafka.security."
    protocol = f'security_protocol = "{security.security_protocol}"'
    for name, value in security.model_dump(
        exclude_none=True, exclude={"security_protocol", "ssl_check_hostname"}
    ).items():
        used = security.encrypted if name.startswith("ssl_") else security.authenticated
        if not used:
            yield Problem((here + name, here + "security_protocol"), f'"{value}"', f"nothing, with {protocol}")
    if security.authenticated and security.sasl_mechanism is None:
        yield Problem((here + "sasl_mechanism", here + "security_protocol"), "nothing", f"a mechanism, with {protocol}")
    if security.authenticated and re.match("PLAIN|SCRAM", security.sasl_mechanism or ""):
        for name in ("sasl_plain_username", "sasl_plain_password_file"):
            if getattr(security, name) is None:
                yield Problem(
                    (here + name, here + "sasl_mechanism"), "nothing", f"a value, with {security.sasl_mechanism}"
                )
    if security.ssl_keyfile is not None and security.ssl_certfile is None:
        yield Problem((here + "ssl_certfile", here + "ssl_keyfile"), "nothing", "a file, because ssl_keyfile is set")


def _security_files(security: Security) -> Iterator[Problem]:
    for name in FILES:
        path = getattr(security, name)
        if path is None:
            continue
        trouble = _file_trouble(Path(path), secret=name in SECRETS.values())
        if trouble:
            yield Problem((f"kafka.security.{name}",), f'"{path}" ({trouble})', "a file that can be read")


def _file_trouble(path: Path, *, secret: bool) -> str:
    try:
        if secret:
            return "" if read_secret(path) else "empty"
        with path.open("rb"):
            return ""
    except UnicodeDecodeError:
        return "not UTF-8 text"
    except OSError as error:
        return error.strerror or type(error).__name__
