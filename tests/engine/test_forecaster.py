"""The state machine whole: scaled, stepped and scaled back as the oracle says; batching and poison change nothing."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.errors import ModelFileError
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.forecast import Status
from streamlstm.model.golden import Golden
from tests.engine.expected import INPUTS, SCALINGS, Expected, make_model

STREAMS, EVENTS = 7, 400


def make_batch(streams: np.ndarray, times: np.ndarray, x: np.ndarray, reason: np.ndarray | None = None) -> EventBatch:
    n = len(streams)
    batch = EventBatch(inputs=x.shape[1], payload=np.zeros(0, np.uint8), capacity=n)
    for i in range(n):
        key = b"stream-%d" % streams[i]
        batch.stream_at[i], batch.stream_len[i] = batch.append_payload(key), len(key)
    batch.event_time[:n], batch.x[:n] = times, x
    batch.reason[:n] = 0 if reason is None else reason
    batch.extend_run("events", 0, n)
    return batch


def sample(seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    streams = rng.integers(0, STREAMS, EVENTS)
    streams[100:160] = 3  # one stream many times in a row
    times = 1_730_000_000_000 + np.cumsum(rng.integers(1, 50, EVENTS))
    x = np.stack([rng.normal(10, 4, EVENTS), rng.normal(-3, 0.5, EVENTS)], axis=1)
    return streams, times, x


def settings(**given: int) -> ForecasterSettings:
    return ForecasterSettings(max_streams=64, **given)


def forecast_all(forecaster: Forecaster, sizes: list[int]) -> dict[str, np.ndarray]:
    streams, times, x = sample()
    columns: dict[str, list[np.ndarray]] = {"yhat": [], "n_seen": [], "gap_ms": [], "status": []}
    start = 0
    while start < EVENTS:
        stop = min(EVENTS, start + sizes[start % len(sizes)])
        found = forecaster.forecast(make_batch(streams[start:stop], times[start:stop], x[start:stop]))
        for name, parts in columns.items():
            parts.append(getattr(found, name)[: stop - start].copy())
        start = stop
    return {name: np.concatenate(parts) for name, parts in columns.items()}


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize("predicts", ["value", "change"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_forecasts_are_the_oracles(scaling: str, predicts: str, window: int) -> None:
    model = make_model(SCALINGS[scaling], predicts, window)
    found = forecast_all(Forecaster(model, settings()), [37])
    expected = Expected(model)
    streams, _, x = sample()
    y = np.array([expected.event(int(s), v) for s, v in zip(streams, x, strict=True)])
    np.testing.assert_allclose(found["yhat"], y, rtol=1e-5, atol=1e-5)


def test_counts_gaps_and_warmup() -> None:
    found = forecast_all(Forecaster(make_model(SCALINGS["none"], window=6), settings()), [37])
    streams, times, _ = sample()
    seen: dict[int, tuple[int, int]] = {}
    for i, (stream, time) in enumerate(zip(streams.tolist(), times.tolist(), strict=True)):
        n, last = seen.get(stream, (0, 0))
        assert found["n_seen"][i] == n + 1
        assert found["gap_ms"][i] == (time - last if n else -1)
        assert found["status"][i] == (Status.WARMUP if n + 1 < 6 else Status.OK)
        seen[stream] = n + 1, time


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_bytes_do_not_depend_on_batches_or_threads(scaling: str, window: int) -> None:
    model = make_model(SCALINGS[scaling], window=window)
    wanted = forecast_all(Forecaster(model, settings()), [EVENTS])
    with ThreadPoolExecutor(2) as executor:
        for sizes, threads in (([1], 1), ([2], 1), ([7], 1), ([500], 2), ([3, 50, 11], 2)):
            found = forecast_all(Forecaster(model, settings(threads=threads), executor), sizes)
            for name, column in wanted.items():
                assert found[name].tobytes() == column.tobytes(), (name, sizes, threads)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e308, -1.7e308])
def test_poison_stays_in_its_row(scaling: str, poison: float) -> None:
    """Bad values for stream 3, and one for a stream of its own, change no other row, nor stream 3's later ones."""
    model = make_model(SCALINGS[scaling])
    streams, times, x = sample()
    clean = Forecaster(model, settings()).forecast(make_batch(streams, times, x))
    wanted = clean.yhat[:EVENTS].copy()
    at = np.array([0, 50, 120, 300])
    dirty_x = np.insert(x, at, poison, axis=0)
    dirty_x[np.isnan(dirty_x).any(axis=1)] = math.nan
    extra = np.insert(streams, at, [3, 3, 99, 3])
    forecaster = Forecaster(model, settings())
    batch = make_batch(extra, np.insert(times, at, times[at]), dirty_x)
    found = forecaster.forecast(batch)
    bad = batch.reason[: batch.n] != 0
    assert np.flatnonzero(bad).tolist() == (at + np.arange(4)).tolist()
    assert set(batch.reason[: batch.n][bad].tolist()) == {Reason.OUT_OF_RANGE}
    assert found.yhat[: batch.n][~bad].tobytes() == wanted.tobytes()
    assert forecaster.n_streams == STREAMS


def test_capacity_refuses_new_streams_only() -> None:
    forecaster = Forecaster(make_model(SCALINGS["none"]), ForecasterSettings(max_streams=2))
    x = np.ones((5, INPUTS))
    batch = make_batch(np.array([1, 2, 3, 1, 4]), np.arange(5), x)
    forecaster.forecast(batch)
    assert batch.reason[:5].tolist() == [0, 0, Reason.CAPACITY, 0, Reason.CAPACITY]
    assert forecaster.release("events", 0) == 2
    batch = make_batch(np.array([3]), np.arange(1), x[:1])
    fresh = forecaster.forecast(batch)
    assert fresh.n_seen[0] == 1
    again = Forecaster(make_model(SCALINGS["none"]), settings()).forecast(
        make_batch(np.array([3]), np.arange(1), x[:1])
    )
    assert fresh.yhat[0].tobytes() == again.yhat[0].tobytes()


def test_the_largest_admitted_input_stays_finite() -> None:
    model = make_model(SCALINGS["none"])
    forecaster = Forecaster(model, settings())
    limit = forecaster.backend.input_limit
    x = np.array([[limit, -limit], [-limit, limit], [0.1, 0.1], [np.nextafter(limit, np.inf), 0.0]])
    batch = make_batch(np.zeros(4, np.int64), np.arange(4), x)
    found = forecaster.forecast(batch)
    assert batch.reason[:4].tolist() == [0, 0, 0, Reason.OUT_OF_RANGE]
    assert np.isfinite(found.yhat[:3]).all()


def test_a_model_that_does_not_compute_what_it_says_never_starts() -> None:
    model = make_model(SCALINGS["none"])
    wrong = Golden(model.golden.x, model.golden.y + 1e-3, model.golden.tolerance)
    object.__setattr__(model, "golden", wrong)
    with pytest.raises(ModelFileError, match="golden"):
        Forecaster(model, settings())


def test_running_scaling_knows_no_unit() -> None:
    """The same series in other units, and one that hasn't moved, which is forecast at its level."""
    model, rng = make_model(SCALINGS["running"]), np.random.default_rng(5)
    walk = 3.0 + np.cumsum(rng.normal(size=(60, INPUTS)), axis=0)
    found = []
    for unit in (1.0, 2.0**-40, 2.0**40):
        batch = make_batch(np.zeros(60, int), np.arange(60), walk * unit)
        found.append(Forecaster(model, settings()).forecast(batch).yhat[:60] / unit)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    still = make_batch(np.zeros(9, int), np.arange(9), np.full((9, INPUTS), 1e-6))
    assert (Forecaster(model, settings()).forecast(still).yhat[:9] == 1e-6).all()
