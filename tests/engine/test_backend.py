"""CpuBackend against the float64 oracle, and against itself: the bits of a stream are its own."""

import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from reference import Oracle, random_parameters

from streamlstm.engine import backend as backend_module
from streamlstm.engine.backend import CpuBackend, input_limit, memory_bytes, row_bytes, row_layout
from streamlstm.errors import InvariantError, ModelFileError
from streamlstm.kernels.layout import padded
from streamlstm.model.parameters import Layer, Parameters

SHAPES = [
    (1, (50,), 1),
    (1, (64, 32), 1),
    (3, (37, 37), 5),
    (2, (1,), 3),
    (8, (64, 64), 12),
    (1, (5, 23, 28), 2),
    (4, (16, 3), 20),
    (1, (9,), 1),
    (17, (130,), 1),
    (2, (300,), 4),
]


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def advance(backend: CpuBackend, slots: NDArray[np.int64], x: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """Outputs of all events, in batches of `batch`."""
    y = np.full((len(slots), backend.layout.outputs), np.nan, np.float32)
    for start in range(0, len(slots), batch):
        stop = min(start + batch, len(slots))
        backend.step(slots[start:stop], x[start:stop], y[start:stop], stop - start)
    return y


def random_events(
    rng: np.random.Generator, n: int, streams: int, inputs: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Slots with some streams far busier than others, and inputs."""
    slots = (streams * rng.random(n) ** 2).astype(np.int64)
    return slots, rng.normal(size=(n, inputs)).astype(np.float32)


@pytest.mark.parametrize("window", [0, 1, 4])
@pytest.mark.parametrize(("inputs", "hidden", "outputs"), SHAPES)
def test_matches_the_oracle(inputs: int, hidden: tuple[int, ...], outputs: int, window: int) -> None:
    rng = np.random.default_rng([inputs, outputs, window, *hidden])
    p = random_parameters(rng, inputs, hidden, outputs, scale=2.0)
    slots, x = random_events(rng, 600, 70, inputs)
    backend, oracle = CpuBackend(p, row_layout(p, window), 70), Oracle(p, window)
    y = advance(backend, slots, x, 173)
    true = np.array([oracle.event(int(slot), row) for slot, row in zip(slots, x, strict=True)])
    np.testing.assert_allclose(y, true, rtol=1e-5, atol=2e-6)
    if window == 0:
        for stream in range(70):
            row = backend.arena[stream, : backend.layout.state_bytes].view(np.float32)
            for h, c in oracle.state(stream):
                own, rest = np.split(row[: 2 * padded(len(h))], 2), row[2 * padded(len(h)) :]
                np.testing.assert_allclose(own[0][: len(h)], h, rtol=1e-5, atol=2e-6)
                np.testing.assert_allclose(own[1][: len(h)], c, rtol=1e-5, atol=2e-6)
                assert not own[0][len(h) :].any()
                assert not own[1][len(h) :].any()
                row = rest


def test_stays_with_the_oracle_over_ten_thousand_steps() -> None:
    rng = np.random.default_rng(3)
    p = random_parameters(rng, 1, (50,), 1)
    backend, oracle = CpuBackend(p, row_layout(p), 1), Oracle(p)
    x = np.zeros((10_000, 1), np.float32)
    for t in range(1, len(x)):
        x[t] = 0.9 * x[t - 1] + 0.5 * rng.normal()
    y = advance(backend, np.zeros(len(x), np.int64), x, len(x))
    true = np.array([oracle.event(0, value) for value in x])
    assert np.abs(y - true).max() < 3e-7


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize(("inputs", "hidden", "outputs"), SHAPES[:6])
def test_bits_do_not_depend_on_the_batching(inputs: int, hidden: tuple[int, ...], outputs: int, window: int) -> None:
    rng = np.random.default_rng(11)
    p = random_parameters(rng, inputs, hidden, outputs)
    slots, x = random_events(rng, 500, 90, inputs)
    results = []
    for batch in (1, 2, 5, 7, 64, 500):
        backend = CpuBackend(p, row_layout(p, window), 90)
        y = advance(backend, slots, x, batch)
        results.append((y.tobytes(), backend.arena.tobytes()))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("window", [0, 3])
def test_bits_do_not_depend_on_the_threads(
    window: int, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "FLOPS_WORTH_A_THREAD", 0)
    rng = np.random.default_rng(12)
    p = random_parameters(rng, 2, (50, 20), 3)
    slots, x = random_events(rng, 3000, 400, 2)
    slots[rng.random(3000) < 0.1] = -1
    results = []
    for threads in (1, 2, 3, 5):
        backend = CpuBackend(p, row_layout(p, window), 400, executor, threads)
        y = advance(backend, slots, x, 700)
        results.append((y.tobytes(), backend.arena.tobytes()))
    assert all(result == results[0] for result in results)


def test_a_large_batch_is_shared_among_threads(executor: ThreadPoolExecutor) -> None:
    p = random_parameters(np.random.default_rng(1), 1, (50,), 1)
    backend = CpuBackend(p, row_layout(p), 4096, executor, 2)
    alone = CpuBackend(p, row_layout(p), 4096)
    assert backend.layout.flops * 4096 > backend_module.FLOPS_WORTH_A_THREAD
    slots, x = random_events(np.random.default_rng(2), 4096, 4096, 1)
    assert advance(backend, slots, x, 4096).tobytes() == advance(alone, slots, x, 4096).tobytes()


@pytest.mark.parametrize("window", [0, 5])
def test_other_rows_and_the_callers_header_are_left_alone(window: int) -> None:
    rng = np.random.default_rng(5)
    p = random_parameters(rng, 1, (50,), 1)
    layout = row_layout(p, window, moments=2)
    backend = CpuBackend(p, layout, 200)
    if window == 0:
        backend.arena[:] = rng.integers(0, 64, backend.arena.shape, np.uint8)  # finite floats of every kind
    backend.arena[:, layout.header_offset :] = 0xAB
    before = backend.arena.copy()
    slots = np.array([3, 7, 150, 3], np.int64)
    advance(backend, slots, np.ones((4, 1), np.float32), 4)
    changed = (backend.arena != before).any(axis=1)
    assert np.flatnonzero(changed).tolist() == [3, 7, 150]
    assert (backend.arena[:, layout.header_offset :] == 0xAB).all()


@pytest.mark.parametrize("window", [0, 5])
def test_a_streams_nan_stays_its_own(window: int) -> None:
    rng = np.random.default_rng(6)
    p = random_parameters(rng, 1, (50, 12), 2)
    slots, x = np.tile(np.arange(60), 4), rng.normal(size=(240, 1)).astype(np.float32)
    clean = CpuBackend(p, row_layout(p, window), 60)
    y = advance(clean, slots, x, 60)
    x[slots == 17] = np.nan
    poisoned = CpuBackend(p, row_layout(p, window), 60)
    y_poisoned = advance(poisoned, slots, x, 60)
    others = slots != 17
    assert y_poisoned[others].tobytes() == y[others].tobytes()
    assert np.isnan(y_poisoned[~others]).all()
    rest = np.arange(60) != 17
    assert poisoned.arena[rest].tobytes() == clean.arena[rest].tobytes()


@pytest.mark.parametrize("window", [0, 6])
def test_inputs_up_to_the_limit_stay_finite(window: int) -> None:
    rng = np.random.default_rng(7)
    p = random_parameters(rng, 3, (50, 20), 2, scale=30.0)
    limit = np.float32(input_limit(p))
    assert limit > 1e30
    backend = CpuBackend(p, row_layout(p, window), 64)
    extremes = np.array(list(itertools.product((-limit, 0, limit, 1.0), repeat=3)), np.float32)
    for _ in range(30):
        x = extremes[rng.permutation(64)]
        y = np.empty((64, 2), np.float32)
        backend.step(np.arange(64), x, y, 64)
        assert np.isfinite(y).all()
    if window == 0:
        state = backend.arena[:, : backend.layout.state_bytes].view(np.float32)
        assert np.isfinite(state).all()


def test_weights_that_could_overflow_are_refused() -> None:
    layer = Layer(np.ones((4, 1), np.float32), np.full((4, 1), 2e38, np.float32), np.zeros(4, np.float32))
    p = Parameters((layer,), np.ones((1, 1), np.float32), np.zeros(1, np.float32))
    with pytest.raises(ModelFileError, match="overflow"):
        CpuBackend(p, row_layout(p), 1)


def test_cleared_rows_start_anew() -> None:
    p = random_parameters(np.random.default_rng(8), 1, (20,), 1)
    for window in (0, 4):
        backend = CpuBackend(p, row_layout(p, window), 10)
        x = np.random.default_rng(9).normal(size=(10, 1)).astype(np.float32)
        first = advance(backend, np.arange(10), x, 10)
        advance(backend, np.arange(10), x, 10)
        backend.clear(np.array([2, 9], np.int64))
        again = advance(backend, np.arange(10), x, 10)
        same = (first == again)[:, 0]
        assert np.flatnonzero(same).tolist() == [2, 9]


def test_skipped_events_leave_their_outputs() -> None:
    p = random_parameters(np.random.default_rng(8), 1, (20,), 1)
    backend = CpuBackend(p, row_layout(p), 10)
    y = np.full((5, 1), 7.0, np.float32)
    backend.step(np.array([-1, 3, -1, 3, -1]), np.ones((5, 1), np.float32), y, 4)
    assert (y[[0, 2, 4]] == 7.0).all()
    assert (y[[1, 3]] != 7.0).all()
    backend.step(np.full(5, -1), np.ones((5, 1), np.float32), y, 5)
    backend.step(np.zeros(0, np.int64), np.zeros((0, 1), np.float32), y, 0)


def test_wrong_arguments_are_refused_before_anything_moves() -> None:
    p = random_parameters(np.random.default_rng(8), 2, (20,), 1)
    backend = CpuBackend(p, row_layout(p), 10)
    slots, x, y = np.arange(4), np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
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
    assert not backend.arena.any()
    backend.step(slots, x, y, 4)
    assert backend.arena[:4].any(axis=1).all()


def test_layout_of_another_model_is_refused() -> None:
    p = random_parameters(np.random.default_rng(8), 2, (20,), 1)
    q = random_parameters(np.random.default_rng(8), 1, (20,), 1)
    with pytest.raises(InvariantError, match="layout"):
        CpuBackend(p, row_layout(q), 10)


def test_memory_is_known_before_it_is_taken() -> None:
    p = random_parameters(np.random.default_rng(8), 1, (50,), 1)
    assert row_bytes(p) == 448
    assert row_bytes(p, window=60) == 320
    assert row_bytes(p, moments=8) == 512
    backend = CpuBackend(p, row_layout(p), 1000)
    assert backend.row_bytes == 448
    assert backend.arena.shape == (1000, 448)
    assert backend.arena.ctypes.data % 64 == 0
    parts = backend.arena.nbytes + backend._repeats.nbytes + backend._packed.buffer.nbytes
    scratch = sum(memory.nbytes for memory in backend._scratch)
    assert memory_bytes(backend.layout, 1000, 1, backend._capacity) == parts + scratch
    slots, x = random_events(np.random.default_rng(1), 10_000, 1000, 1)
    advance(backend, slots, x, 10_000)
    assert sum(memory.nbytes for memory in backend._scratch) + parts == memory_bytes(
        backend.layout, 1000, 1, backend._capacity
    )


def test_a_large_arena_asks_for_huge_pages() -> None:
    p = random_parameters(np.random.default_rng(8), 1, (50,), 1)
    backend = CpuBackend(p, row_layout(p), 40_000)
    flags: list[str] = []
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            here = start <= backend.arena.ctypes.data < end
        elif line.startswith("VmFlags:") and here:
            flags = line.split()
    assert "hg" in flags  # MADV_HUGEPAGE
    assert "sh" not in flags  # a shared mapping would be given none
