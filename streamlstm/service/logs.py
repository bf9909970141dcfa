"""Structured logs on standard error: text for a person, logfmt or JSON for a collector.

Fields go in as `log.info("message", extra={"topic": topic})`. What the levels mean: debug is for who works on
streamlstm; info is a change of phase; warning is a fault that was dealt with; error is one that stops something.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

Format = Literal["auto", "text", "logfmt", "json"]
Level = Literal["debug", "info", "warning", "error"]

# kafka-python's lower levels print requests byte by byte, credentials among them: never shown, at no log level.
TAMED = ("kafka", "numba", "llvmlite")

REPEAT_SECONDS = 30.0
MAX_TEMPLATES = 256

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BARE = re.compile(r"[^\s=\"\\\x00-\x1f\x7f]+")


def configure(kind: Format, level: Level, stream: TextIO | None = None) -> None:
    """Send every log of the process to `stream` (standard error) in one format. Replaces earlier handlers."""
    stream = stream if stream is not None else sys.stderr
    if kind == "auto":
        kind = "text" if stream.isatty() else "logfmt"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATTERS[kind]())
    handler.addFilter(_LibraryFilter())
    root = logging.getLogger()
    for former in tuple(root.handlers):
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in TAMED:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    threading.excepthook = _log_thread_death


class _LibraryFilter(logging.Filter):
    """Makes the libraries speak by our rules.

    A connection that fails is no error while it is tried again, and the same message with other figures, four for each
    attempt, says nothing new: it is shown once in `REPEAT_SECONDS`, with how often it was `repeated` unseen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in TAMED:
            return True
        if record.levelno == logging.ERROR:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        template = record.name, str(record.msg)
        at, repeated = self._shown.get(template, (float("-inf"), 0))
        if record.created - at < REPEAT_SECONDS:
            self._shown[template] = at, repeated + 1
            return False
        if repeated:
            record.repeated = repeated
        if len(self._shown) >= MAX_TEMPLATES:
            self._shown.clear()
        self._shown[template] = record.created, 0
        return True


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """What a call gave as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


class _Formatter(logging.Formatter):
    def timestamp(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"

    def trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class TextFormatter(_Formatter):
    """2026-05-04T03:02:01.000Z INFO    joined the group  generation=3"""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.timestamp(record)} {record.levelname:<7} {record.getMessage()}"
        fields = " ".join(f"{name}={logfmt_value(value)}" for name, value in fields_of(record).items())
        return "\n".join(part for part in (f"{line}  {fields}".rstrip(), self.trace(record)) if part)


class LogfmtFormatter(_Formatter):
    """ts=2026-05-04T03:02:01.000Z level=info logger=streamlstm.service.daemon msg="joined the group" generation=3"""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{name}={logfmt_value(value)}" for name, value in _columns(self, record).items())


class JsonFormatter(_Formatter):
    """The same as one JSON object in a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_columns(self, record), ensure_ascii=False, default=str)


FORMATTERS: Mapping[str, type[_Formatter]] = {"text": TextFormatter, "logfmt": LogfmtFormatter, "json": JsonFormatter}


def _columns(formatter: _Formatter, record: logging.LogRecord) -> dict[str, object]:
    columns: dict[str, object] = {
        "ts": formatter.timestamp(record),
        "level": record.levelname.lower(),
        "logger": record.name,
        "msg": record.getMessage(),
    }
    columns |= {name: value for name, value in fields_of(record).items() if name not in columns}
    trace = formatter.trace(record)
    return columns | {"trace": trace} if trace else columns


def logfmt_value(value: object) -> str:
    """A value as logfmt writes it: bare when that is unambiguous, else a quoted JSON text."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _log_thread_death(death: threading.ExceptHookArgs) -> None:
    if death.exc_type is SystemExit or death.exc_value is None:
        return
    trace = (death.exc_type, death.exc_value, death.exc_traceback)
    name = death.thread.name if death.thread else "unknown"
    logging.getLogger(__name__).error("a thread died", exc_info=trace, extra={"thread_name": name})
