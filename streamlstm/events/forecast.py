"""Columns of forecasts: what the engine hands to the encoder."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Status(IntEnum):
    """What a forecast is worth. The names in lower case are the wire format."""

    OK = 0
    WARMUP = 1
    GAP = 2
    LATE = 3
    DEGRADED = 4

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ForecastBatch:
    """N forecasts of O outputs, row by row with the EventBatch that they answer.

    Columns may be longer than N; rows whose event carries a reason hold nothing of meaning.
    """

    yhat: NDArray[np.float64]
    """[N, O], finite, in the unit of the target."""
    single: bool
    """Every yhat is a float32 exactly, and printed with the digits that a float32 needs."""
    status: NDArray[np.uint8]
    """[N], a Status each."""
    n_seen: NDArray[np.int64]
    """[N], events of the stream so far, this one included."""
    gap_ms: NDArray[np.int64]
    """[N], time step that the horizons are counted in; negative when unknown."""
