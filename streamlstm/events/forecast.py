"""Columns of forecasts: what the engine hands to the encoder."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError


class Status(IntEnum):
    """What a forecast is worth. The names in lower case are the wire format.

    Of several that apply a forecast has the first of: gap, filled, late, degraded, warmup.
    """

    OK = 0
    WARMUP = 1  # the stream has seen few events
    GAP = 2  # more than gap_ms after the stream's latest event
    LATE = 3  # before the stream's latest event
    DEGRADED = 4  # as warmup, in a stream whose state was lost
    FILLED = 5  # a missing input was filled in

    @property
    def label(self) -> str:
        return self.name.lower()


_OF_INTERVALS = ["lower", "upper", "anomaly_score"]
_BY_HORIZON = {"yhat", "lower", "upper"}


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
    lower: NDArray[np.float64] | None = None
    """[N, O], as `upper`: the interval around each yhat, infinite while it isn't known. None, as those after it, when
    there are none.
    """
    upper: NDArray[np.float64] | None = None
    anomaly_score: NDArray[np.float64] | None = None
    """[N], of the event itself, at least 0, anomalous above 1; NaN while it isn't known."""

    def __post_init__(self) -> None:
        """Raises InvariantError: printers read the columns by address, so their layout must be as said."""
        columns = {"yhat": np.float64, "status": np.uint8, "n_seen": np.int64, "gap_ms": np.int64}
        given = [name for name in _OF_INTERVALS if getattr(self, name) is not None]
        if given and given != _OF_INTERVALS:
            raise InvariantError(f"{', '.join(_OF_INTERVALS)}: expected all of them or none; found {', '.join(given)}")
        columns |= dict.fromkeys(given, np.float64)
        for name, dtype in columns.items():
            column = getattr(self, name)
            expected = self.yhat.shape if name in _BY_HORIZON else (len(self.yhat),)
            if column.dtype != dtype or column.shape != expected or not column.flags.c_contiguous:
                raise InvariantError(
                    f"{name}: expected a contiguous {np.dtype(dtype)} column of shape {expected}; "
                    f"found {column.dtype} of shape {column.shape}"
                )
