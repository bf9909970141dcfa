"""What `streamlstm doctor` says: findings, each with what was found, what is expected, and what mends it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from streamlstm.errors import StreamlstmError

Area = Literal["configuration", "host", "model", "brokers", "topics", "group", "state"]


class Level(StrEnum):
    """SKIPPED: could not be looked at, and why."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. `fix` is a command or a setting; `exit_code` that of the error which a start would meet."""

    level: Level
    about: str
    found: str
    expected: str = ""
    fix: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Section:
    area: Area
    findings: tuple[Finding, ...]


def good(about: str, found: str) -> Finding:
    return Finding(Level.OK, about, found)


def doubtful(about: str, found: str, expected: str, fix: str) -> Finding:
    return Finding(Level.WARN, about, found, expected, fix)


def bad(about: str, found: str, expected: str, fix: str, error: type[StreamlstmError]) -> Finding:
    return Finding(Level.FAIL, about, found, expected, fix, error.exit_code)


def skipped(about: str, why: str) -> Finding:
    return Finding(Level.SKIPPED, about, why)


def told(about: str, line: str, error: type[StreamlstmError]) -> Finding:
    """A failure out of a line of an error, in the house's form: found; expected; mend it: command."""
    rest, fix = line, ""
    for words in ("; mend it: ", "; make it: "):
        if words in rest:
            rest, _, fix = rest.partition(words)
    found, _, expected = rest.partition("; expected ")
    return bad(about, found, expected, fix, error)


def exit_code(sections: Iterable[Section]) -> int:
    """That of the first failure; 0 without one, whatever the warnings."""
    findings = (finding for section in sections for finding in section.findings)
    return next((finding.exit_code for finding in findings if finding.level is Level.FAIL), 0)
