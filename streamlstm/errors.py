"""The errors of streamlstm, and the exit code each one gives the process.

    StreamlstmError
    ├── UsageError           64  the command line makes no sense
    ├── BadDataError         65  input that cannot be read
    │   ├── ModelFileError   65  a model file that is refused; names tensor or field, found and expected
    │   └── BatchRefusedError  65  a record batch that the broker will never take; the transaction was aborted
    ├── InputMissingError    66  a file or topic that is not there
    │   └── OffsetGoneError  66  an offset to be read that the log does not hold (any more)
    ├── InvariantError       70  a broken promise inside streamlstm: a bug, please report it
    ├── RetryError           75  fenced, or a fault that a restart may cure: the supervisor starts again
    │   ├── FencedError      75  another member owns the transactional id or the group instance id
    │   └── StaleGenerationError  75  the group has moved on; the transaction was aborted, the process can go on
    ├── AccessError          77  authentication or authorisation refused by the broker
    └── ConfigError          78  configuration; carries every problem found, not just the first

Codes are those of BSD sysexits.h. A message says what, where, expected and found.
"""

from collections.abc import Sequence

MAX_MESSAGE = 1200  # letters of the refusal of a model file


class StreamlstmError(Exception):
    """Root of the tree. `exit_code` is what the process ends with when nobody catches it."""

    exit_code = 70


class UsageError(StreamlstmError):
    exit_code = 64


class BadDataError(StreamlstmError):
    exit_code = 65


class ModelFileError(BadDataError):
    """A model file is refused.

    `where` names the file and, after a colon, the tensor or field; `expected` and `found` say what was wrong with it.
    """

    def __init__(self, where: str, problem: str, *, expected: str = "", found: str = "") -> None:
        parts = [f"{where}: {problem}"]
        if expected:
            parts.append(f"expected {expected}")
        if found:
            parts.append(f"found {found}")
        super().__init__(_printable("; ".join(parts)))


def _printable(text: str) -> str:
    """Names in a refused file are a stranger's: no control characters for the terminal, no pages of text."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:MAX_MESSAGE])
    return shown if len(text) <= MAX_MESSAGE else f"{shown}..."


class BatchRefusedError(BadDataError):
    """The broker will never take a record batch. The transaction was aborted and nothing of it is visible.

    `index` is the batch's place in what was to be committed, `reason` why ("too_large", "invalid_timestamp" or
    "invalid_record"), `records` the places of the records to blame within the batch, as far as the broker said.
    """

    def __init__(self, index: int, reason: str, records: Sequence[int], message: str) -> None:
        self.index = index
        self.reason = reason
        self.records = tuple(records)
        super().__init__(message)


class InputMissingError(StreamlstmError):
    exit_code = 66


class OffsetGoneError(InputMissingError):
    """The offset to be read is outside the log, which holds [`first`, `end`)."""

    def __init__(self, message: str, first: int, end: int) -> None:
        self.first = first
        self.end = end
        super().__init__(message)


class InvariantError(StreamlstmError):
    exit_code = 70


class RetryError(StreamlstmError):
    exit_code = 75


class FencedError(RetryError):
    pass


class StaleGenerationError(RetryError):
    """The group has moved on since the offsets were read. The transaction was aborted and nothing of it is visible."""


class AccessError(StreamlstmError):
    exit_code = 77


class ConfigError(StreamlstmError):
    """Every problem of a configuration at once; one line each in the message."""

    exit_code = 78

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))
