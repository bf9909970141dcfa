"""h and c in 16 bits: each step against the oracle, drift, bits, snapshots, and what is said of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from reference import Oracle, random_parameters

from streamlstm.engine import backend as backend_module
from streamlstm.engine.backend import CpuBackend, memory_bytes, row_layout
from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.engine.prediction import row_layout as row_layout_of
from streamlstm.engine.state_error import EVENTS, STREAMS, made_series, state_errors
from streamlstm.errors import ConfigError
from streamlstm.kernels.half import as_float32
from streamlstm.kernels.layout import STATE_DTYPES, StateDtype, padded
from tests.engine.expected import SCALINGS, make_featured, make_model
from tests.engine.test_backend import SHAPES, advance, random_events
from tests.engine.test_checkpoint import lived

NARROW = STATE_DTYPES[1:]
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half of a last place, relative
SMALLEST = {"float16": 2.0**-25, "bfloat16": 0.0}  # half of the smallest number


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def states(backend: CpuBackend, slot: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(h, c) of each layer, as a row holds them; what fills up the blocks is zero."""
    row = as_float32(backend.arena[slot, : backend.layout.state_bytes], backend.layout.state_dtype)
    found, at = [], 0
    for hidden in backend.layout.hidden:
        h, c = np.split(row[at : at + 2 * padded(hidden)], 2)
        assert not h[hidden:].any()
        assert not c[hidden:].any()
        found.append((h[:hidden], c[:hidden]))
        at += 2 * padded(hidden)
    return found


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("inputs", "hidden", "outputs"), SHAPES)
def test_each_step_is_the_oracles_rounded_once(
    inputs: int, hidden: tuple[int, ...], outputs: int, dtype: StateDtype
) -> None:
    """From the very state that a row holds. Outputs come of h before it is rounded."""
    rng = np.random.default_rng([inputs, outputs, *hidden])
    p = random_parameters(rng, inputs, hidden, outputs, scale=2.0)
    backend, oracle = CpuBackend(p, row_layout(p, state_dtype=dtype), 7), Oracle(p)
    for _ in range(12):
        x, y = rng.normal(size=(7, inputs)).astype(np.float32), np.zeros((7, outputs), np.float32)
        before = [states(backend, slot) for slot in range(7)]
        backend.step(np.arange(7), x, y, 7)
        for slot in range(7):
            true = oracle.advance([(h.astype(float), c.astype(float)) for h, c in before[slot]], x[slot].astype(float))
            for own, exact in zip(states(backend, slot), true, strict=True):
                for found, value in zip(own, exact, strict=True):
                    most = UNIT[dtype] * np.abs(value) + SMALLEST[dtype] + 2e-6 + 1e-5 * np.abs(value)
                    assert (np.abs(found - value) <= most).all()
            np.testing.assert_allclose(y[slot], p.head_weight @ true[-1][0] + p.head_bias, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize(("dtype", "most"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_the_error_does_not_grow_with_time(dtype: StateDtype, most: float) -> None:
    rng = np.random.default_rng(3)
    p = random_parameters(rng, 1, (50,), 1, scale=2.0)
    backend, oracle = CpuBackend(p, row_layout(p, state_dtype=dtype), 1), Oracle(p)
    x = np.zeros((6000, 1), np.float32)
    for t in range(1, len(x)):
        x[t] = 0.9 * x[t - 1] + 0.5 * rng.normal()
    y = advance(backend, np.zeros(len(x), np.int64), x, len(x))
    true = np.array([oracle.event(0, value) for value in x])
    off = np.abs(y - true).reshape(6, -1).mean(axis=1) / true.std()
    assert off.max() < most
    assert off[-1] < 1.5 * off[0]


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 4096.0), ("bfloat16", 512.0)])
def test_a_state_can_not_grow_without_end(dtype: StateDtype, bound: float) -> None:
    """All gates open, step after step: c counts up, and stops where one more is rounded off."""
    p = random_parameters(np.random.default_rng(0), 1, (3,), 1)
    (layer,) = p.layers
    bias = np.repeat(np.array([60.0, 60.0, 60.0, 60.0], np.float32), 3)
    p = replace(p, layers=(replace(layer, weight_ih=0 * layer.weight_ih, weight_hh=0 * layer.weight_hh, bias=bias),))
    backend = CpuBackend(p, row_layout(p, state_dtype=dtype), 1)
    advance(backend, np.zeros(9000, np.int64), np.zeros((9000, 1), np.float32), 9000)
    ((h, c),) = states(backend, 0)
    assert (c >= bound / 4).all()
    assert (c <= bound).all()
    np.testing.assert_allclose(h, 1.0, rtol=1e-6)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("inputs", "hidden", "outputs"), SHAPES[:6])
def test_bits_do_not_depend_on_batching_and_threads(
    inputs: int, hidden: tuple[int, ...], outputs: int, dtype: StateDtype, executor: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(backend_module, "FLOPS_WORTH_A_THREAD", 0)
    rng = np.random.default_rng(11)
    p = random_parameters(rng, inputs, hidden, outputs)
    slots, x = random_events(rng, 500, 90, inputs)
    slots[rng.random(500) < 0.1] = -1
    results = set()
    for batch, threads in ((1, 1), (2, 1), (7, 2), (64, 1), (500, 1), (500, 3)):
        backend = CpuBackend(p, row_layout(p, state_dtype=dtype), 90, executor, threads)
        results.add((advance(backend, slots, x, batch).tobytes(), backend.arena.tobytes()))
    assert len(results) == 1


def test_memory_is_halved() -> None:
    p = random_parameters(np.random.default_rng(4), 1, (64,), 1)
    full, half, other = (row_layout(p, state_dtype=dtype) for dtype in STATE_DTYPES)
    assert (full.state_bytes, half.state_bytes, half) == (512, 256, replace(other, state_dtype="float16"))
    assert (full.row_bytes, half.row_bytes) == (576, 320)
    backend = CpuBackend(p, half, 1000)
    scratch = sum(memory.nbytes for memory in backend._scratch)
    parts = backend.arena.nbytes + backend._repeats.nbytes + backend._packed.buffer.nbytes
    assert memory_bytes(half, 1000, 1, backend._capacity) == parts + scratch


def test_a_window_has_no_state_to_store() -> None:
    model = make_model(SCALINGS["none"], window=4)
    assert row_layout_of(model, "float32").window == 4
    with pytest.raises(ConfigError, match=r'engine.state_dtype: expected "float32".*\(4 events\).*found "float16"'):
        Forecaster(model, ForecasterSettings(max_streams=2, state_dtype="float16"))
    assert state_errors(model) == []


@pytest.mark.parametrize("dtype", NARROW)
def test_another_dtype_is_another_state(dtype: StateDtype) -> None:
    """Said as another model is, and begun anew when that is wanted."""
    ours, theirs = lived(20), lived(20, state_dtype=dtype)
    ours.topic, theirs.topic = theirs.topic, ours.topic
    for life, expected, found in ((ours, "float32", dtype), (theirs, dtype, "float32")):
        (problem,) = life.restart().problems
        assert problem.kind == "dtype"
        assert "hold the state by another engine.state_dtype" in problem.message
        assert f"expected {expected}, found {found}" in problem.message
        assert life.warm().streams == 0
        life.see(range(20))
        life.commit()
        assert life.kinds() == []


@pytest.mark.parametrize("model", ["carried", "scaled", "lags"])
def test_the_measured_error_is_that_of_the_model(model: str) -> None:
    made = {
        "carried": make_model(SCALINGS["none"]), "scaled": make_model(SCALINGS["minmax"], predicts="change"),
        "lags": make_featured(guard=True, level=0.9),
    }[model]  # fmt: skip
    half, brain = state_errors(made)
    assert (half.dtype, brain.dtype) == NARROW
    assert 1e-7 < half.typical < 1e-3
    assert 4 < brain.typical / half.typical < 16  # three bits less
    assert half.typical < half.largest < 30 * half.typical
    assert state_errors(made) == [half, brain]


def test_series_are_made_in_the_unit_of_the_model() -> None:
    for name, low, high in (("none", -9, 9), ("running", -9, 9), ("minmax", -5, 5)):
        x = made_series(make_model(SCALINGS[name]))
        assert x.shape == (EVENTS, STREAMS, 2)
        assert low <= x[..., 1].min() < x[..., 1].max() <= high
    standard = made_series(make_model(SCALINGS["standard"]))
    np.testing.assert_allclose(standard.mean(axis=(0, 1)), [10.0, -3.0], atol=1.0)
    np.testing.assert_allclose(standard.std(axis=(0, 1)), [4.0, 0.5], rtol=0.3)
