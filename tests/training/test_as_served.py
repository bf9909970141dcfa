"""No difference between training and serving: the network is trained on the very bits that the engine gives it."""

import numpy as np
import pytest

from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.events.batch import EventBatch
from streamlstm.training.past import SCALE_WINDOW, Base, Lags, crops_of, past_of
from tests.engine.expected import FED, LAGS, make_featured

EVENTS = 300


def streams() -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    walk = rng.normal(size=EVENTS).cumsum()
    return [walk, 1e9 + 50 * walk, np.full(EVENTS, 3.0), np.where(np.arange(EVENTS) < 150, 5.0, 1e-6 * walk)]


@pytest.mark.parametrize("number", range(4))
def test_the_network_sees_the_same_bits(number: int) -> None:
    y, other = streams()[number], np.random.default_rng(10).normal(10, 4, EVENTS)
    model = make_featured(window=SCALE_WINDOW)
    forecaster = Forecaster(model, ForecasterSettings(max_streams=1))
    batch = EventBatch(inputs=2, payload=np.zeros(0, np.uint8), capacity=EVENTS)
    batch.stream_at[:EVENTS], batch.stream_len[:EVENTS] = batch.append_payload(b"s"), 1
    batch.event_time[:EVENTS], batch.x[:EVENTS] = np.arange(EVENTS), np.stack([other, y], axis=1)
    batch.extend_run("events", 0, EVENTS)
    forecaster.forecast(batch)
    served, unit = forecaster._columns.x[:EVENTS], forecaster._columns.y_scale[:EVENTS]

    offset, scale = model.scaling.offset[0], model.scaling.scale[0]
    past = past_of(y, ((other - offset) / scale).astype(np.float32)[:, None], np.array([0, EVENTS]))
    base = Base(Lags("of the test", LAGS, FED), (1,), np.zeros((1, len(LAGS))))
    crops = crops_of(past, np.array([EVENTS]), base, np.zeros(1, np.int64), np.zeros(1, np.int64), EVENTS)
    assert crops.inputs[0].tobytes() == served.tobytes()
    assert past.unit.tobytes() == unit.tobytes()
