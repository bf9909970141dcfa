"""The engine on a CUDA device against the engine on the CPU: forecasts, rows, snapshots and restored state, bit by bit.

Not collected by itself: tests/kernels/test_cuda.py runs it in the simulator, `make test-cuda` on a device.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from reference import random_parameters

from streamlstm.engine.backend import layers_of, make_backend, memory_of, row_layout
from streamlstm.engine.checkpoint import Checkpoint
from streamlstm.engine.cuda_backend import CudaBackend
from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.errors import ConfigError, InvariantError
from streamlstm.kernels import cuda_launch, cuda_layout
from streamlstm.kernels.cuda_machine import PART, SIMULATED, THREADS, WARP, multiprocessors
from streamlstm.kernels.layout import StateDtype
from streamlstm.model.features import Features
from streamlstm.model.golden import Golden, golden_of
from streamlstm.model.model_file import Model, default_inputs
from tests.engine.expected import SCALINGS
from tests.engine.test_forecaster import make_batch

EVENTS, STREAMS = (30, 7) if SIMULATED else (5000, 60)
SIZES = (12, 5, 14)


def short_golden(parameters: Any, window: int) -> Golden:
    rng = np.random.default_rng(1)
    return golden_of(parameters, window, rng.normal(size=(2, 2, parameters.inputs)).astype(np.float32), "test")


def model_of(scaling: str = "standard", window: int = 0, **given: Any) -> Model:
    parameters = random_parameters(np.random.default_rng(5), 2, (3, 2), 2)
    return Model(
        parameters=parameters, window=window, inputs=default_inputs(2), target=1, predicts="value",
        horizons=(1, 2), scaling=SCALINGS[scaling], interval_ms=None, origin={},
        golden=short_golden(parameters, window), **given,
    )  # fmt: skip


def featured() -> Model:
    parameters = random_parameters(np.random.default_rng(6), 3, (3,), 2)
    skip = np.random.default_rng(7).uniform(-0.3, 0.3, (2, 3)).astype(np.float32)
    return replace(
        model_of(), parameters=parameters, golden=short_golden(parameters, 0), predicts="change",
        features=Features((1, 2, 5), (0, 2), 40, 3, skip), level=0.8, guard=True,
    )  # fmt: skip


CASES: dict[str, tuple[Model, dict[str, Any]]] = {
    "carried": (model_of(), {}),
    "running scaling": (model_of("running"), {}),
    "window": (model_of(window=3), {}),
    "intervals and guard": (model_of(level=0.8, guard=True), {}),
    "lags": (featured(), {}),
    "streams begin anew": (model_of(), {"ttl_ms": 300, "gap_ms": 90, "after_gap": "reset"}),
    "streams are evicted": (model_of(window=2), {"max_streams": 5, "on_full": "evict"}),
    "filled": (model_of(), {"missing": "forecast"}),
    "float16": (model_of(), {"state_dtype": "float16"}),
    "bfloat16": (model_of(), {"state_dtype": "bfloat16", "ttl_ms": 300}),
}


def forecaster_of(case: str, backend: str) -> Forecaster:
    model, given = CASES[case]
    return Forecaster(model, ForecasterSettings(**({"max_streams": 2 * STREAMS, "backend": backend} | given)))


class Sample:
    def __init__(self, missing: bool) -> None:
        rng = np.random.default_rng(2)
        self.streams = rng.integers(0, STREAMS, EVENTS)
        self.times = 1_730_000_000_000 + np.cumsum(rng.integers(1, 40, EVENTS))
        self.x = np.stack([rng.normal(10, 4, EVENTS), rng.normal(-3, 0.5, EVENTS)], axis=1)
        if missing:
            self.x[rng.random(EVENTS) < 0.3, 1] = np.nan

    def through(self, forecaster: Forecaster, first: int = 0, last: int = EVENTS) -> list[bytes]:
        """What became of each batch."""
        found = []
        start = first
        while start < last:
            rows = slice(start, min(last, start + SIZES[start % 3] * (1 if SIMULATED else 50)))
            batch = make_batch(self.streams[rows], self.times[rows], self.x[rows])
            answer, n = forecaster.forecast(batch), batch.n
            good = batch.reason[:n] == 0
            columns = (answer.yhat, answer.status, answer.n_seen, answer.lower, answer.upper, answer.anomaly_score)
            found += [batch.reason[:n].tobytes(), *(c[:n][good].tobytes() for c in columns if c is not None)]
            start = rows.stop
        return found


def rows_of(forecaster: Forecaster) -> dict[bytes, bytes]:
    index = forecaster.partition_index("events", 0)
    slots = forecaster.slots.slots_of(index)
    keys = [forecaster.slots.key_of(slot)[1] for slot in slots.tolist()]
    return dict(zip(keys, map(bytes, forecaster.backend.read_rows(slots)), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_forecasts_and_rows_are_those_of_the_cpu(case: str) -> None:
    sample = Sample(missing=case == "filled")
    here, there = forecaster_of(case, "cpu"), forecaster_of(case, "cuda")
    assert sample.through(there) == sample.through(here)
    assert rows_of(there) == rows_of(here)
    assert np.array_equal(here.prediction.totals, there.prediction.totals)


@pytest.mark.parametrize(
    ("case", "first", "then"),
    [
        ("window", "cpu", "cuda"),
        ("intervals and guard", "cuda", "cpu"),
        ("intervals and guard", "cuda", "cuda"),
        ("float16", "cpu", "cuda"),
        ("bfloat16", "cuda", "cpu"),
    ],
)
def test_state_is_handed_on_through_snapshots(case: str, first: str, then: str) -> None:
    """What one backend wrote the other restores, and goes on with the forecasts of a run that never stopped."""
    sample, half = Sample(missing=False), EVENTS // 2

    def checkpoint_of(forecaster: Forecaster) -> Checkpoint:
        return Checkpoint(
            forecaster, group="g", topic="events", model_hash="m", max_chunk_bytes=20_000, interval_seconds=60.0
        )

    written = forecaster_of(case, first)
    checkpoint = checkpoint_of(written)
    checkpoint.finish(0, None, 0, 0, 0.0)
    sample.through(written, 0, half)
    records = checkpoint.take(0, half, 0, 1.0)
    assert records

    restored = forecaster_of(case, then)
    checkpoint = checkpoint_of(restored)
    for key, value in reversed(records):
        checkpoint.load(0, key, value)
    found = checkpoint.finish(0, half, 0, half, 0.0)
    assert (found.problems, found.streams) == ([], written.n_streams)
    assert rows_of(restored) == rows_of(written)

    alone = forecaster_of(case, "cpu")
    sample.through(alone, 0, half)
    assert sample.through(restored, half) == sample.through(alone, half)
    assert rows_of(restored) == rows_of(alone)
    restored.release("events", 0)
    assert not restored.backend.read_rows(np.arange(2 * STREAMS)).any()


@pytest.mark.parametrize(("window", "dtype"), [(0, "float32"), (3, "float32"), (0, "float16"), (0, "bfloat16")])
def test_memory_is_known_before_it_is_taken(window: int, dtype: StateDtype) -> None:
    p = random_parameters(np.random.default_rng(8), 2, (5, 3), 2)
    layout = row_layout(p, window, state_dtype=dtype)
    arena = cuda_launch.DeviceArena(layers_of(p), p.head_weight, p.head_bias, layout, 70)
    how = cuda_layout.cut(layout, THREADS, WARP)
    blocks = multiprocessors() * cuda_layout.BLOCKS_EACH
    assert arena.nbytes == cuda_layout.device_bytes(layout, 70, how, blocks, PART)
    few, many = (memory_of("cuda", layout, streams, 1, 0) for streams in (1000, 2000))
    assert few.device_row == cuda_layout.row_bytes(layout)
    assert few.device_other == many.device_other


def test_wrong_arguments_are_refused_before_anything_moves() -> None:
    p = random_parameters(np.random.default_rng(8), 2, (3,), 1)
    backend = make_backend("cuda", p, row_layout(p), 10)
    slots, x, y = np.arange(4), np.ones((4, 2), np.float32), np.full((4, 1), 7.0, np.float32)
    with pytest.raises(InvariantError, match="expected below 10, found 12"):
        backend.step(np.array([1, 2, 1, 12]), x, y, 4)
    with pytest.raises(InvariantError, match=r"x \[4, 2\]"):
        backend.step(slots, x[:, :1].copy(), y, 4)
    with pytest.raises(InvariantError, match="found"):
        backend.step(slots, x, y, 5)
    with pytest.raises(TypeError):
        backend.step(slots, x.astype(np.float64), y, 4)
    with pytest.raises(TypeError):
        backend.step(slots, x[:, ::-1], y, 4)
    assert not backend.read_rows(np.arange(10)).any()
    backend.step(np.array([-1, 3, -1, 3]), x, y, 3)
    assert (y[[0, 2, 3]] == 7.0).all()
    assert y[1] != 7.0
    backend.step(np.full(4, -1), x, y, 4)
    backend.step(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), y[:0], 0)


def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    p = random_parameters(np.random.default_rng(8), 2, (3,), 1)
    monkeypatch.setattr(cuda_launch, "free_bytes", lambda: 1000.0)
    with pytest.raises(ConfigError, match=r"max_streams = 10 needs .* MB of device memory"):
        CudaBackend(p, row_layout(p), 10)
    monkeypatch.setattr(cuda_launch, "missing", lambda: "no CUDA device can be used; expected an NVIDIA GPU")
    with pytest.raises(ConfigError, match="no CUDA device can be used"):
        Forecaster(model_of(), ForecasterSettings(max_streams=10, backend="cuda"))
