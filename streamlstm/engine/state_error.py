"""What storing h and c in 16 bits does to the forecasts of a model: measured, on series that are made here."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.events.batch import EventBatch
from streamlstm.kernels.layout import STATE_DTYPES, StateDtype
from streamlstm.model.model_file import Model, ScalingKind

STREAMS, EVENTS = 16, 1000
"""How many series there are, and how long they are."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StateError:
    """How far forecasts, over all horizons and all series but the first tenth of each, are from those of a float32
    state: root mean square and largest, in standard deviations of the series.
    """

    dtype: StateDtype
    typical: float
    largest: float


def state_errors(model: Model) -> list[StateError]:
    """Of each dtype that isn't float32; none for a model with a window, which keeps no state.

    The very kernels that serve are run, scaling and all; a guard and intervals are left out, as what they mix in beside
    the model's own forecast is the better forecast, on series that it wasn't made for. Compiles, or loads from the
    cache, the kernels of the step. Raises ModelFileError as a Forecaster.
    """
    if model.window:
        return []
    alone = replace(model, level=0.0, guard=False, model_hash="")
    x = made_series(model)
    exact, settled = _forecasts(alone, x, "float32"), EVENTS // 10
    unit = float(x[settled:, :, model.target].std())
    found = []
    for dtype in STATE_DTYPES[1:]:
        off = np.abs(_forecasts(alone, x, dtype) - exact)[settled:] / unit
        found.append(StateError(dtype, float(np.sqrt(np.mean(off**2))), float(off.max())))
    return found


def made_series(model: Model) -> Float64:
    """Float64 [EVENTS, STREAMS, F], as received: two seasons and a slow wandering, each about a third of the variance,
    and a little noise; of mean 0 and deviation 1 in the unit that the model scales to, for minmax within its range.
    Always the same numbers.
    """
    shape = (EVENTS, STREAMS, len(model.inputs))
    rng, t = np.random.default_rng(0), np.arange(EVENTS)[:, None, None]
    phase = 2 * np.pi * rng.random((2, *shape[1:]))
    period = model.features.period if model.features is not None and model.features.period else 24
    seasons = np.sin(2 * np.pi * t / period + phase[0]) + np.sin(2 * np.pi * t / (7 * period) + phase[1])
    wandering = np.zeros(shape)
    for step in range(1, EVENTS):
        wandering[step] = 0.98 * wandering[step - 1] + 0.14 * rng.normal(size=shape[1:])
    z = 0.8 * (seasons + wandering) + 0.2 * rng.normal(size=shape)
    scaling = model.scaling
    if scaling.kind is ScalingKind.MINMAX:
        z = 0.5 + z / (2 * np.abs(z).max())
    x: Float64 = np.asarray(scaling.offset) + np.asarray(scaling.scale) * z
    return x


def _forecasts(model: Model, x: Float64, dtype: StateDtype) -> Float64:
    """Float64 [EVENTS, STREAMS, O]."""
    forecaster = Forecaster(model, ForecasterSettings(max_streams=STREAMS, state_dtype=dtype))
    n = EVENTS * STREAMS
    batch = EventBatch(inputs=len(model.inputs), payload=np.zeros(0, np.uint8), capacity=n)
    first = batch.append_payload(bytes(range(STREAMS)))
    batch.stream_at[:n], batch.stream_len[:n] = first + np.arange(n) % STREAMS, 1
    batch.event_time[:n] = batch.timestamp[:n] = 1_000 * (np.arange(n) // STREAMS)
    batch.x[:n] = x.reshape(n, -1)
    batch.extend_run("made", 0, n)
    yhat = forecaster.forecast(batch).yhat[:n].astype(np.float64)
    return yhat.reshape(EVENTS, STREAMS, -1)
