"""Models that read lags, and the judge: as the equations say; batching, threads and poison change nothing."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from streamlstm.engine.forecaster import Forecaster
from streamlstm.events.batch import Reason
from streamlstm.kernels.features import MOST_EVENTS
from streamlstm.kernels.judge_layout import SCORED
from streamlstm.model.model_file import Model
from tests.engine.expected import LAGS, ExpectedFeatured, make_featured
from tests.engine.test_forecaster import EVENTS, make_batch, sample, settings

COLUMNS = ("yhat", "lower", "upper", "anomaly_score", "status", "n_seen")
JUDGED = {"guard": {"guard": True, "level": 0.9}, "intervals": {"level": 0.5}, "no season": {"period": 0, "level": 0.9}}


def run(model: Model, sizes: list[int], threads: int = 1, poison: bool = False) -> dict[str, np.ndarray]:
    streams, times, x = sample()
    found: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    with ThreadPoolExecutor(threads) as executor:
        forecaster = Forecaster(model, settings(threads=threads), executor)
        start = turn = 0
        while start < EVENTS:
            stop = min(EVENTS, start + sizes[turn % len(sizes)])
            batch = make_batch(streams[start:stop], times[start:stop], x[start:stop].copy())
            if poison:
                batch.x[: batch.n][streams[start:stop] == 2] = [[np.nan, 1e300], [np.inf, 0.0]][turn % 2]
            columns = forecaster.forecast(batch)
            for name, parts in found.items():
                column = getattr(columns, name)
                parts.append(np.zeros(0) if column is None else column[: stop - start].copy())
            start, turn = stop, turn + 1
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test_forecasts_are_the_equations() -> None:
    model = make_featured()
    expected, found = ExpectedFeatured(model), run(model, [EVENTS])["yhat"]
    streams, _, x = sample()
    for i in range(EVENTS):
        np.testing.assert_allclose(found[i], expected.event(int(streams[i]), x[i]), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("judged", [{}, *JUDGED.values()], ids=["no judge", *JUDGED])
def test_batches_and_threads_change_no_bit(judged: dict) -> None:
    model = make_featured(**judged)
    whole = run(model, [EVENTS])
    for sizes, threads in (([1], 1), ([7, 3, 31], 1), ([MOST_EVENTS + 5], 2), ([EVENTS], 2)):
        again = run(model, sizes, threads)
        for name in COLUMNS:
            assert again[name].tobytes() == whole[name].tobytes(), name


@pytest.mark.parametrize("judged", JUDGED.values(), ids=JUDGED)
def test_poison_stays_in_its_stream(judged: dict) -> None:
    model = make_featured(**judged)
    clean, poisoned = run(model, [50]), run(model, [50], poison=True)
    others = sample()[0] != 2
    for name in COLUMNS:
        assert poisoned[name][others].tobytes() == clean[name][others].tobytes(), name


def test_absurd_but_finite_values_leave_finite_forecasts() -> None:
    model = make_featured(guard=True, level=0.9)
    forecaster = Forecaster(model, settings())
    values = [1.0, 2.0, 1.0, 1e30, -1e30, 1.0, 1e-30, 0.0, 1.5, *np.linspace(1, 2, 90)]
    x = np.stack([np.full(len(values), 10.0), values], axis=1)
    batch = make_batch(np.zeros(len(values), int), np.arange(len(values)), x)
    found = forecaster.forecast(batch)
    assert not batch.reason[: batch.n].any()
    assert np.isfinite(found.yhat[: batch.n]).all()
    beyond = make_batch(np.zeros(1, int), np.array([1000]), np.array([[10.0, 1.1e30]]))
    forecaster.forecast(beyond)
    assert beyond.reason[0] == Reason.OUT_OF_RANGE


def test_scale_and_place_don_t_matter() -> None:
    """1000 + 64 x is forecast by 1000 + 64 times the forecasts of x: powers of two, so that rounding is the same."""
    model = make_featured(guard=True, level=0.9)
    rng = np.random.default_rng(3)
    walk = np.round(np.cumsum(rng.normal(size=150)) * 256) / 256
    found = []
    for values in (walk, 64 * walk + 1024):
        x = np.stack([np.full(150, 10.0), values], axis=1)
        columns = Forecaster(model, settings()).forecast(make_batch(np.zeros(150, int), np.arange(150), x))
        found.append(np.concatenate([getattr(columns, name)[:150] for name in ("yhat", "lower", "upper")], axis=1))
    known = np.isfinite(found[0])
    np.testing.assert_allclose(found[1][known], 64 * found[0][known] + 1024, rtol=1e-6)


def test_status_is_warmup_until_the_longest_lag_is_there() -> None:
    found = run(make_featured(), [EVENTS])
    assert set(found["status"][found["n_seen"] <= max(LAGS)]) == {1}
    assert set(found["status"][found["n_seen"] > max(LAGS)]) == {0}


def strays(n: int) -> np.ndarray:
    """A stream that begins with a stray value, and goes far away once the anchor may move again."""
    values = 20.0 + np.sin(np.arange(n) / 3.0) + np.random.default_rng(4).normal(0.0, 0.1, n)
    values[0] = 1e9
    values[1100:] += 4e9
    return np.stack([np.full(n, 10.0), values], axis=1)


@pytest.mark.parametrize("judged", [{}, JUDGED["guard"]], ids=["no judge", "guard"])
def test_where_the_anchor_moves_batches_change_no_bit(judged: dict) -> None:
    x, model = strays(1300), make_featured(**judged)
    found = []
    for size in (1300, 1, 7, 40):
        forecaster, parts = Forecaster(model, settings()), []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            batch = make_batch(np.zeros(len(part), int), start + np.arange(len(part)), part)
            parts.append(forecaster.forecast(batch).yhat[: len(part)].copy())
        found.append(np.concatenate(parts))
    assert all(each.tobytes() == found[0].tobytes() for each in found)
    if not judged:
        expected = ExpectedFeatured(model)
        wanted = np.array([expected.event(0, row) for row in x])
        np.testing.assert_allclose(found[0], wanted, rtol=1e-6, atol=2e-6)


def test_a_stray_first_value_counts_for_some_events() -> None:
    x, model = strays(1400), make_featured(guard=True, level=0.9)
    found = Forecaster(model, settings()).forecast(make_batch(np.zeros(len(x), int), np.arange(len(x)), x)).yhat
    for start, stop in ((100, 1100), (1150, 1399)):
        actual = x[start + 1 : stop + 1, 1]
        naive = np.abs(actual - x[start:stop, 1]).mean()
        assert np.abs(found[start:stop, 0] - actual).mean() < 1.5 * naive


def judged_by(x: np.ndarray, times: np.ndarray, **given: object) -> tuple[Forecaster, np.ndarray]:
    """Of one stream: who forecast it, and the anomaly scores."""
    forecaster = Forecaster(make_featured(guard=True, level=0.9), replace(settings(), **given))
    scores = forecaster.forecast(make_batch(np.zeros(len(x), int), times, x)).anomaly_score
    assert scores is not None
    return forecaster, scores[: len(x)]


def test_a_missing_covariate_hides_no_anomaly() -> None:
    x = strays(200)[1:]
    x[-1] = math.nan, 500.0
    _, scores = judged_by(x, np.arange(len(x)), missing="hold")
    assert scores[-1] > 1.0
    x[-1] = 10.0, math.nan  # what isn't known isn't odd
    assert math.isnan(judged_by(x, np.arange(len(x)), missing="hold")[1][-1])


@pytest.mark.parametrize("missing", ["hold", "forecast"])
def test_no_forecast_meets_what_comes_after_a_gap_that_ends_with_a_missing_value(missing: str) -> None:
    x, times = strays(61)[1:], np.arange(60) + 1000 * (np.arange(60) >= 50)
    whole, _ = judged_by(x, times, gap_ms=100)
    x[50, 1] = math.nan
    filled, _ = judged_by(x, times, gap_ms=100, missing=missing)
    scored = [forecaster.prediction.totals[:, SCORED].tolist() for forecaster in (whole, filled)]
    assert scored[0] == scored[1] == [49 + 9, 48 + 8, 43 + 3]
