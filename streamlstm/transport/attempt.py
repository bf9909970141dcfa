"""What is known of a transaction while it is under way, and of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamlstm.errors import AccessError
from streamlstm.transport.cluster import DEADLINE_OVER, Lost, NotSent
from streamlstm.transport.group import Group
from streamlstm.transport.offsets import Later
from streamlstm.transport.outbox import Outbox
from streamlstm.transport.outcomes import Step
from streamlstm.transport.requests import Partition


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction is in the log for good. `attempts` is 1 unless it had to be aborted and sent again."""

    seconds: float
    attempts: int


@dataclass(slots=True)
class WriterCounters:
    """Since the start. `doubts` counts commits whose outcome had to be found out; `doubt_since` is since when that of
    the present one isn't known, by the cluster's clock, None while there is no doubt.
    """

    committed: int = 0
    aborted: int = 0
    fenced: int = 0
    doubts: int = 0
    doubt_since: float | None = None
    retries: int = 0
    batches: int = 0
    bytes: int = 0
    commit_seconds: float = 0.0


@dataclass(slots=True)
class Attempt:
    """One call of `commit` under way. `pause` is the next pause between two requests, `why` the last refusal;
    `offsets_answer` the reply to the offsets, where they went along with the last batches.
    """

    outbox: Outbox
    offsets: Mapping[Partition, int]
    group: Group
    began: float
    deadline: float
    pause: float
    count: int = 1
    why: str = ""
    denied: AccessError | None = None
    offsets_answer: Any = None

    def note(self, step: Step, answer: NotSent | Lost | Later) -> None:
        """Remember why it does not go on, unless that is only the deadline."""
        if answer is not DEADLINE_OVER:
            self.why = f"{step.name}: {answer.why}"
