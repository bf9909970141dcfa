"""How good the forecasts have turned out: sums over all streams for the metrics, and the worst streams for people."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.forecaster import Forecaster
from streamlstm.errors import InvariantError
from streamlstm.kernels import judge_layout as at
from streamlstm.kernels.layout import FLOAT, WORD
from streamlstm.service.http_server import Page

MOST_STREAMS = 20
FEWEST = 30
"""Forecasts of a stream below which nothing is said of it."""
_ROWS_AT_ONCE = 16_384


class Candidate(StrEnum):
    """Whose errors are summed."""

    FORECAST = "forecast"  # what was emitted
    NAIVE = "naive"  # repeating the last value
    SEASONAL = "seasonal"  # repeating the last season; the last value where the model knows no season


class Landing(StrEnum):
    """Where an actual value fell."""

    INSIDE = "inside"
    BELOW = "below"
    ABOVE = "above"


@dataclass(frozen=True, slots=True)
class Scoring:
    """Of forecasts whose actual has come, since the start of the process, each horizon (in steps) for itself.

    `totals` float64 [O][TOTALS] is the engine's own (kernels.judge_layout) and goes on. `level` is what the intervals
    promise; 0: there are none, and nothing is said of them.
    """

    horizons: tuple[int, ...]
    totals: NDArray[np.float64]
    level: float

    def count(self) -> Iterator[tuple[int, float]]:
        return self._column(at.SCORED)

    def squared(self) -> Iterator[tuple[int, float]]:
        return self._column(at.SQUARED)

    def absolute(self, candidate: Candidate) -> Iterator[tuple[int, float]]:
        """Sums of absolute errors."""
        columns = {
            Candidate.FORECAST: at.ABSOLUTE,
            Candidate.NAIVE: at.NAIVE_ABSOLUTE,
            Candidate.SEASONAL: at.SEASONAL_ABSOLUTE,
        }
        return self._column(columns[candidate])

    def landed(self, landing: Landing) -> Iterator[tuple[int, float]]:
        columns = {Landing.INSIDE: at.COVERED, Landing.BELOW: at.MISSED_BELOW, Landing.ABOVE: at.MISSED_ABOVE}
        return self._column(columns[landing]) if self.level else iter(())

    def widths(self) -> Iterator[tuple[int, float]]:
        return self._column(at.WIDTHS) if self.level else iter(())

    def skill(self) -> Iterator[tuple[int, float]]:
        """The forecasts' absolute errors over those of repeating the last value: below 1 is better than that."""
        for (horizon, own), (_, naive) in zip(
            self.absolute(Candidate.FORECAST), self.absolute(Candidate.NAIVE), strict=True
        ):
            if naive > 0.0:
                yield horizon, own / naive

    def coverage(self) -> Iterator[tuple[int, float]]:
        """The share of actual values inside their intervals."""
        for (horizon, inside), (_, below), (_, above) in zip(*map(self.landed, Landing), strict=True):
            if inside + below + above > 0.0:
                yield horizon, inside / (inside + below + above)

    def _column(self, which: int) -> Iterator[tuple[int, float]]:
        return zip(self.horizons, self.totals[:, which].tolist(), strict=True)


def scoring_of(forecaster: Forecaster) -> Scoring | None:
    """None where forecasts aren't judged."""
    model, totals = forecaster.model, forecaster.prediction.totals
    return Scoring(model.horizons, totals, model.level) if len(totals) else None


def worst_page(worst: Callable[[], list[dict[str, Any]]] | None) -> Page:
    """/debug/streams/worst; None: no model is loaded yet."""
    body = json.dumps({"streams": worst() if worst is not None else []}, ensure_ascii=False).encode()
    return Page(HTTPStatus.OK, "application/json", body + b"\n")


def worst_streams(forecaster: Forecaster, most: int = MOST_STREAMS) -> list[dict[str, Any]]:
    """The streams with the worst skill over their latest events, at the first horizon, the worst first.

    Read beside the loop that writes: a stream may be a batch older or newer than its neighbour, and one that goes just
    now is left out. A few thousand rows at a time, so that the loop isn't held up.
    """
    layout, arena = forecaster.layout, forecaster.backend.arena
    if not layout.judge:
        return []
    errors, naive, counts = _recent_errors(forecaster)
    known = (counts >= FEWEST) & (naive > 0.0)
    ratio = np.where(known, errors / np.where(known, naive, 1.0), -np.inf)
    slots = np.argsort(-ratio, kind="stable")[: min(most, int(known.sum()))]
    seen = arena.view(np.int64)[:, layout.header_at]
    found = []
    for slot in slots.tolist():
        with suppress(InvariantError):  # it has gone meanwhile
            partition, key = forecaster.slots.key_of(slot)
            found.append(
                {
                    "stream": key.decode(errors="backslashreplace"),
                    "partition": forecaster.partition_of(partition),
                    "n_seen": int(seen[slot]),
                    "skill_ratio": float(ratio[slot]),
                    "mae": float(errors[slot]),
                    "naive_mae": float(naive[slot]),
                }
            )
    return found


def _recent_errors(forecaster: Forecaster) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each slot, at the first horizon: mean absolute errors, newer ones counting more, of what was emitted and of
    repeating the last value, and how many forecasts they are of.
    """
    layout, rows = forecaster.layout, forecaster.backend.arena.view(np.float32)
    judged = at.JudgeLayout(forecaster.model.horizons)
    first = (WORD * layout.judge_at + judged.pending_bytes) // FLOAT + at.TRACKED_AT
    columns = [np.empty(len(rows)) for _ in range(3)]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        for column, word in zip(columns, (at.SCALE, at.NAIVE_ERROR, at.RESIDUALS), strict=True):
            column[part] = rows[part, first + word]
    return columns[0], columns[1], columns[2]
