"""Self-scoring: what the engine adds up is what can be computed from what it said; the worst streams are found."""

import json

import numpy as np
import pytest

from streamlstm.engine.forecaster import Forecaster
from streamlstm.service.scoring import Candidate, Landing, scoring_of, worst_page, worst_streams
from tests.engine.expected import SCALINGS, make_featured, make_model
from tests.engine.test_forecaster import make_batch, settings

EVENTS = 200


def walks(noise: list[float]) -> np.ndarray:
    """[EVENTS, streams]: random walks, and noise on top of them."""
    rng = np.random.default_rng(4)
    return rng.normal(size=(EVENTS, len(noise))).cumsum(axis=0) + rng.normal(size=(EVENTS, len(noise))) * noise


def forecast(forecaster: Forecaster, y: np.ndarray) -> dict[str, np.ndarray]:
    """Every stream's events, one round after the other: [EVENTS, streams, O] of each column."""
    rounds: dict[str, list[np.ndarray]] = {"yhat": [], "lower": [], "upper": []}
    streams = y.shape[1]
    for t, values in enumerate(y):
        x = np.stack([np.full(streams, 10.0), values], axis=1)
        found = forecaster.forecast(make_batch(np.arange(streams), np.full(streams, t), x))
        for name, parts in rounds.items():
            parts.append(getattr(found, name)[:streams].copy())
    return {name: np.array(parts) for name, parts in rounds.items()}


def test_the_sums_are_those_of_what_was_said() -> None:
    forecaster = Forecaster(make_featured(guard=True, level=0.8), settings())
    y = walks([0.0, 1.0, 3.0])
    said = forecast(forecaster, y)
    scoring = scoring_of(forecaster)
    assert scoring is not None
    for k, h in enumerate((1, 2, 7)):
        actual, yhat = y[h:], said["yhat"][:-h, :, k]
        low, high = said["lower"][:-h, :, k], said["upper"][:-h, :, k]
        known = np.isfinite(low)
        expected = {
            scoring.count(): actual.size,
            scoring.absolute(Candidate.FORECAST): np.abs(actual - yhat).sum(),
            scoring.squared(): np.square(actual - yhat).sum(),
            scoring.landed(Landing.INSIDE): ((low <= actual) & (actual <= high))[known].sum(),
            scoring.landed(Landing.BELOW): (actual < low)[known].sum(),
            scoring.landed(Landing.ABOVE): (actual > high)[known].sum(),
        }
        for found, value in expected.items():
            assert dict(found)[h] == pytest.approx(value, rel=1e-9)
        assert dict(scoring.widths())[h] == pytest.approx((high - low)[known].sum(), rel=1e-6)
        naive = np.abs(actual - y[:-h]).sum()
        assert dict(scoring.absolute(Candidate.NAIVE))[h] == pytest.approx(naive, rel=1e-5)  # the history is float32
        assert dict(scoring.skill())[h] == pytest.approx(np.abs(actual - yhat).sum() / naive, rel=1e-5)


def test_a_replay_is_not_scored_again() -> None:
    forecaster = Forecaster(make_featured(level=0.8), settings())
    y = walks([1.0])
    forecast(forecaster, y[:100])
    before = forecaster.prediction.totals.copy()
    x = np.stack([np.full(100, 10.0), y[100:, 0]], axis=1)
    forecaster.replay(make_batch(np.zeros(100, int), np.arange(100, 200), x))
    assert (forecaster.prediction.totals == before).all()


def test_the_worst_streams_come_first() -> None:
    forecaster = Forecaster(make_featured(guard=False, level=0.9), settings())
    y = walks([0.0, 2.0, 0.5])
    said = forecast(forecaster, y)
    found = worst_streams(forecaster, most=2)
    errors = np.abs(y[1:] - said["yhat"][:-1, :, 0])[-60:].mean(axis=0) / np.abs(np.diff(y, axis=0))[-60:].mean(axis=0)
    order = np.argsort(-errors).tolist()
    assert [each["stream"] for each in found] == [f"stream-{s}" for s in order[:2]]
    assert found[0]["skill_ratio"] == pytest.approx(errors[order[0]], rel=0.3)
    assert found[0]["n_seen"] == EVENTS
    assert found[0]["partition"] == 0
    page = worst_page(lambda: found)
    assert json.loads(page.body)["streams"] == found


def test_where_nothing_is_judged_nothing_is_said() -> None:
    forecaster = Forecaster(make_model(SCALINGS["none"]), settings())
    assert scoring_of(forecaster) is None
    assert worst_streams(forecaster) == []
    assert json.loads(worst_page(None).body) == {"streams": []}
