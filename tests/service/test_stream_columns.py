"""Rows taken apart: the history in the order of time, and what the judge has found out."""

import numpy as np
import orjson

from streamlstm.engine.forecaster import Forecaster
from streamlstm.service.stream_columns import columns_of, json_rows
from tests.engine.expected import SCALINGS, make_featured, make_model
from tests.engine.test_forecaster import make_batch, settings


def served(model: object, events: int) -> tuple[Forecaster, np.ndarray]:
    forecaster = Forecaster(model, settings())  # type: ignore[arg-type]
    walk = np.random.default_rng(2).normal(size=events).cumsum() + 1000
    x = np.stack([np.full(events, 10.0), walk], axis=1)
    forecaster.forecast(make_batch(np.zeros(events, int), np.arange(events), x))
    return forecaster, walk


def test_the_history_is_in_the_order_of_time() -> None:
    for events in (1, 7, 44, 45, 200):
        forecaster, walk = served(make_featured(), events)
        found = columns_of(forecaster.model, forecaster.backend.arena[:1], "float32")
        length = forecaster.layout.history
        known = min(events, length)
        assert found["history"].shape == (1, length)
        assert np.isnan(found["history"][0, : length - known]).all()
        np.testing.assert_allclose(found["history"][0, length - known :], walk[events - known :], rtol=1e-6)
        assert found["n_seen"].tolist() == [events]
        assert found["x"].tolist() == [[10.0, walk[-1]]]
    np.testing.assert_allclose(found["mean_change"], np.abs(np.diff(walk))[-40:].mean(), rtol=0.5)


def test_judgements_are_given_by_horizon() -> None:
    forecaster, _ = served(make_featured(guard=True, level=0.9), 300)
    found = columns_of(forecaster.model, forecaster.backend.arena[:1], "float32")
    assert found["mean_error"].shape == found["below"].shape == found["above"].shape == (1, 3)
    assert (found["mean_error"] > 0.1).all()
    assert found["mean_error"][0, 2] > found["mean_error"][0, 0]  # seven steps ahead are harder than one
    assert ((found["below"] > 0.5) & (found["below"] < 10)).all()
    (row,) = json_rows(found)
    assert orjson.loads(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))["history"][-1] > 900
    guarded = served(make_featured(guard=True), 300)[0]
    assert "below" not in columns_of(guarded.model, guarded.backend.arena[:1], "float32")


def test_models_without_have_none() -> None:
    forecaster, _ = served(make_model(SCALINGS["none"]), 20)
    found = columns_of(forecaster.model, forecaster.backend.arena[:1], "float32")
    assert not {"history", "mean_error", "below"} & found.keys()
