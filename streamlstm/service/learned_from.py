"""What a model has learned from, and whether that reaches into what it is scored on: such figures say little of what is
to come.
"""

import hashlib
import json

import numpy as np

from streamlstm.events.times import parse_number
from streamlstm.history.history import History
from streamlstm.history.report import time_text

LEARNED_TO = "learned_to_ms"
HISTORY = "history"
"""Keys of Model.origin: the time of the last event learned from, epoch ms; the hash of the history."""

_ADVICE = "train on an earlier part for an honest figure"


def history_hash(history: History) -> str:
    """SHA-256 over what is learned from: inputs, streams, values; the times don't count."""
    digest = hashlib.sha256(json.dumps(history.inputs).encode())
    digest.update(np.ascontiguousarray(history.start).tobytes())
    for stream in history.streams:
        digest.update(len(stream).to_bytes(4, "little") + stream)
    digest.update(np.ascontiguousarray(history.x).data)
    return digest.hexdigest()


def overlap_note(origin: dict[str, str], history: History, scored_from_ms: int | None) -> str | None:
    """What to say of a model of that origin where the scored part begins at or before the last event that it has
    learned from; None where it doesn't, or nothing is known. Models made before that time was kept have the hash alone.
    """
    last_ms = parse_number(origin.get(LEARNED_TO, ""), "ms")
    if last_ms is not None:
        if scored_from_ms is None or scored_from_ms > last_ms:
            return None
        return (
            f"note: the model has learned from events up to {time_text(last_ms)}, and what is scored begins at "
            f"{time_text(scored_from_ms)}: {_ADVICE}"
        )
    if HISTORY in origin and origin[HISTORY] == history_hash(history):
        return f"note: the model has learned from all of this history: {_ADVICE}"
    return None
