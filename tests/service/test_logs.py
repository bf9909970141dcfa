"""Logs: one format for everything, fields readable by a machine, and no secret at any level."""

import io
import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlstm.service import logs

CANARY = "canary-hunter2-canary"


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Put the process's logging back as pytest had it."""
    root = logging.getLogger()
    before = (tuple(root.handlers), root.level, logging.raiseExceptions, threading.excepthook)
    levels = {name: logging.getLogger(name).level for name in logs.TAMED}
    yield
    logging.captureWarnings(False)
    root.handlers[:], logging.raiseExceptions, threading.excepthook = list(before[0]), before[2], before[3]
    root.setLevel(before[1])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def logged(kind: logs.Format, *, level: logs.Level = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(kind, level, stream)
    return stream


def logfmt_fields(line: str) -> dict[str, str]:
    """A reader of logfmt of its own: key=bare or key="JSON text"."""
    found = re.findall(r'([^\s=]+)=("(?:[^"\\]|\\.)*"|\S*)', line)
    return {key: json.loads(text) if text.startswith('"') else text for key, text in found}


FIELDS = {"topic": "a b", "n": 3, "ok": True, "none": None, "quote": 'say "hi"=\n', "share": 0.5, "empty": ""}


def test_logfmt_reads_back() -> None:
    stream = logged("logfmt")
    logging.getLogger("streamlstm.x").info("joined %s", "it", extra=FIELDS)
    (line,) = stream.getvalue().splitlines()
    fields = logfmt_fields(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("ts"))
    assert fields == {
        "level": "info", "logger": "streamlstm.x", "msg": "joined it", "topic": "a b", "n": "3", "ok": "true",
        "none": "null", "quote": 'say "hi"=\n', "share": "0.5", "empty": "",
    }  # fmt: skip


def test_json_lines_read_back() -> None:
    stream = logged("json")
    logging.getLogger("streamlstm.x").warning("odd", extra=FIELDS | {"where": {1: b"x"}})
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert fields.pop("ts").endswith("Z")
    assert fields == {"level": "warning", "logger": "streamlstm.x", "msg": "odd", "where": {"1": "b'x'"}, **FIELDS}


def test_text_for_a_person() -> None:
    stream = logged("text")
    logging.getLogger("streamlstm.x").info("joined the group", extra={"generation": 3, "topic": "a b"})
    assert re.fullmatch(r'\S+Z INFO    joined the group  generation=3 topic="a b"\n', stream.getvalue())


def test_timestamps_are_utc_with_milliseconds() -> None:
    record = logging.makeLogRecord({"created": 1_730_000_000.0456, "msg": "x", "levelname": "INFO", "name": "n"})
    assert logs.LogfmtFormatter().format(record) == "ts=2024-10-27T03:33:20.045Z level=info logger=n msg=x"


@pytest.mark.parametrize("kind", ["logfmt", "json"])
def test_a_traceback_stays_in_one_line(kind: logs.Format) -> None:
    stream = logged(kind)
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("streamlstm").exception("failed")
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line) if kind == "json" else logfmt_fields(line)
    assert fields["trace"].startswith("Traceback (most recent call last):\n")
    assert fields["trace"].endswith("\nValueError: no")


def test_auto_is_logfmt_where_there_is_no_terminal() -> None:
    stream = logged("auto")
    logging.getLogger("streamlstm").info("x")
    assert stream.getvalue().startswith("ts=")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_auto_is_text_on_a_terminal() -> None:
    stream = Terminal()
    logs.configure("auto", "info", stream)
    logging.getLogger("streamlstm").info("x")
    assert " INFO    x\n" in stream.getvalue()


def test_levels() -> None:
    stream = logged("logfmt", level="warning")
    log = logging.getLogger("streamlstm.y")
    log.info("hidden")
    log.warning("shown")
    assert [logfmt_fields(line)["msg"] for line in stream.getvalue().splitlines()] == ["shown"]


def test_libraries_speak_the_same_format_from_warning_on() -> None:
    stream = logged("logfmt", level="debug")
    logging.getLogger("kafka.net.connection").info("hidden")
    logging.getLogger("numba.core.byteflow").debug("hidden")
    logging.getLogger("kafka.net.connection").warning("shown")
    assert [logfmt_fields(line)["msg"] for line in stream.getvalue().splitlines()] == ["shown"]


def emit(name: str, level: int, text: str, argument: str, at: float) -> None:
    record = logging.makeLogRecord(
        {"name": name, "levelno": level, "levelname": logging.getLevelName(level), "msg": text, "args": (argument,)}
    )
    record.created = at
    logging.getLogger(name).handle(record)


def test_what_libraries_repeat_is_shown_once_in_a_while() -> None:
    stream = logged("logfmt")
    for second in range(0, 65, 5):
        emit("kafka.net.manager", logging.ERROR, "Connection failed: %s", f"no {second}", float(second))
        emit("kafka.net.manager", logging.WARNING, "Closing %s", "it", float(second))
        emit("streamlstm.x", logging.ERROR, "ours %s", "is never hidden", float(second))
    lines = [logfmt_fields(line) for line in stream.getvalue().splitlines()]
    failures = [line for line in lines if line["msg"].startswith("Connection failed")]
    assert [(line["msg"], line["level"], line.get("repeated")) for line in failures] == [
        ("Connection failed: no 0", "warning", None),
        ("Connection failed: no 30", "warning", "5"),
        ("Connection failed: no 60", "warning", "5"),
    ]
    assert sum(line["msg"] == "Closing it" for line in lines) == 3
    assert sum(line["level"] == "error" for line in lines) == 13


def test_the_memory_of_repeats_is_bounded() -> None:
    stream = logged("logfmt")
    for n in range(3 * logs.MAX_TEMPLATES):
        emit("kafka.x", logging.WARNING, f"{n} %s", "", 0.0)
    assert len(stream.getvalue().splitlines()) == 3 * logs.MAX_TEMPLATES


def test_warnings_and_dying_threads_are_logged() -> None:
    stream = logged("logfmt")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("take care", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="worker")
    thread.start()
    thread.join()
    first, second = (logfmt_fields(line) for line in stream.getvalue().splitlines())
    assert "take care" in first["msg"]
    assert (second["msg"], second["thread_name"]) == ("a thread died", "worker")
    assert "ZeroDivisionError" in second["trace"]


def test_a_log_call_that_is_wrong_never_raises() -> None:
    logged("logfmt")
    logging.getLogger("streamlstm").info("%d", "not a number")


SECRET_PROGRAM = """
import sys
from kafka import KafkaConsumer
from streamlstm.config import load
from streamlstm.service import logs

config = load(None, {}, sys.argv[1:])
logs.configure("logfmt", "debug")
import logging
logging.getLogger("streamlstm").debug("configuration", extra={"config": config})
try:
    security = config.kafka.security.client_settings()
    KafkaConsumer(bootstrap_servers=["127.0.0.1:1"], bootstrap_timeout_ms=500, **security)
except Exception as error:
    logging.getLogger("streamlstm").exception("no broker: %s", error)
print(config, file=sys.stderr)
"""


def test_no_secret_in_any_log_at_debug_level(tmp_path: Path) -> None:
    """Configuration, kafka-python with the password in hand, and the exception of a broker that isn't there."""
    path = tmp_path / "password"
    path.write_text(CANARY)
    security = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me",
        "sasl_plain_password_file": str(path),
    }
    overrides = [f"kafka.security.{name}={value}" for name, value in security.items()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SECRET_PROGRAM, *overrides],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "no broker" in done.stderr
    assert "sasl_plain_password_file" in done.stderr
    assert CANARY not in done.stderr + done.stdout
