"""Shared by the tests of histories."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamlstm.events.fields import FieldPaths
from streamlstm.history.collector import Rules
from streamlstm.history.columns import Wanted
from streamlstm.history.files import read_files
from streamlstm.history.history import History

VALUE = FieldPaths()


def read(*paths: Path | str, rules: Rules = Rules(), fields: FieldPaths = VALUE, **columns: Any) -> History:  # noqa: B008
    return read_files([str(path) for path in paths], Wanted(fields, **columns), rules)


def rows(history: History) -> dict[str, list[tuple[int, Sequence[float]]]]:
    """Times and inputs by stream; of one input, the number alone."""
    return {
        history.name(s): [
            (time, x[0] if len(x) == 1 else tuple(x))
            for time, x in zip(
                history.time[history.rows_of(s)].tolist(), history.x[history.rows_of(s)].tolist(), strict=True
            )
        ]
        for s in range(len(history.streams))
    }
