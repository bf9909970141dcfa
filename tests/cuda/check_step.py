"""The CUDA twin against the CPU: rows and outputs in the same bits, whatever the model, the batch and the numbers.

Not collected by itself: tests/kernels/test_cuda.py runs it in the simulator, `make test-cuda` on a device.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from reference import random_parameters

from streamlstm.engine.backend import CpuBackend, layers_of, row_layout
from streamlstm.kernels.cuda_launch import DeviceArena, missing
from streamlstm.kernels.cuda_layout import SHARED_BYTES
from streamlstm.kernels.cuda_machine import SIMULATED
from streamlstm.kernels.half import as_float32
from streamlstm.kernels.layout import STATE_DTYPES, StateDtype
from streamlstm.model.parameters import Layer, Parameters

assert missing() == "", missing()
STREAMS = 40 if SIMULATED else 3000
SEEDS = range(8) if SIMULATED else range(200)
LARGEST = 9 if SIMULATED else 150  # hidden size of a random model

SHAPES = [
    (1, (1,), 1, 0),
    (1, (2,), 1, 3),  # two groups in a block of the simulator
    (3, (7,), 2, 0),
    (2, (4, 6, 3), 3, 0),
    (2, (5, 4), 1, 2),
    (1, (13,), 20, 0),  # an odd block, and a head of more than 16 lanes
]
if not SIMULATED:
    SHAPES += [
        (1, (50,), 1, 0), (1, (64,), 1, 60), (8, (64, 64), 12, 0), (4, (128, 128), 24, 3), (17, (300,), 4, 0),
        (2, (1500,), 2, 0), (3, (800, 1700), 1, 2),
    ]  # fmt: skip


class Twins:
    """Both backends over the same model and streams."""

    def __init__(
        self, p: Parameters, window: int = 0, streams: int = STREAMS, shared: int = SHARED_BYTES,
        state_dtype: StateDtype = "float32",
    ) -> None:  # fmt: skip
        self.layout = row_layout(p, window, state_dtype=state_dtype)
        self.cpu = CpuBackend(p, self.layout, streams)
        self.device = DeviceArena(layers_of(p), p.head_weight, p.head_bias, self.layout, streams, shared)

    def step(self, slots: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The outputs, which must be the same; 7 where there is none."""
        n = len(slots)
        both = [np.full((n, self.layout.outputs), 7.0, np.float32) for _ in range(2)]
        self.cpu.step(slots, x, both[0], n)
        self.device.step(slots, x, both[1], n)
        assert_same(*both)
        return both[0]

    def compare_rows(self) -> None:
        streams = np.arange(len(self.cpu.arena))
        kept = self.layout.state_bytes
        here, there = self.cpu.arena[:, :kept], self.device.read(streams)[:, :kept]
        assert_same(*(as_float32(np.ascontiguousarray(rows), self.layout.state_dtype) for rows in (here, there)))


def assert_same(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    """The same bits; NaN for NaN, but which NaN isn't promised."""
    same = (a.view(np.int32) == b.view(np.int32)) | (np.isnan(a) & np.isnan(b))
    assert same.all(), (np.argwhere(~same)[:5], a[~same][:5], b[~same][:5])


def random_slots(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Some streams far busier than others, some events to be skipped."""
    slots = (STREAMS * rng.random(n) ** 2).astype(np.int64)
    slots[rng.random(n) < 0.1] = -1
    return slots


@pytest.mark.parametrize(("inputs", "hidden", "outputs", "window"), SHAPES)
def test_bits_of_every_shape(inputs: int, hidden: tuple[int, ...], outputs: int, window: int) -> None:
    rng = np.random.default_rng([inputs, outputs, *hidden])
    twins = Twins(random_parameters(rng, inputs, hidden, outputs), window)
    for n in (1, 7, 45 if SIMULATED else 5000):
        twins.step(random_slots(rng, n), rng.normal(size=(n, inputs)).astype(np.float32))
    twins.compare_rows()


@pytest.mark.parametrize("dtype", STATE_DTYPES[1:])
@pytest.mark.parametrize(("inputs", "hidden", "outputs"), [shape[:3] for shape in SHAPES if shape[3] == 0])
def test_bits_of_state_in_16_bits(inputs: int, hidden: tuple[int, ...], outputs: int, dtype: StateDtype) -> None:
    rng = np.random.default_rng([inputs, outputs, *hidden])
    twins = Twins(random_parameters(rng, inputs, hidden, outputs, scale=3.0), state_dtype=dtype)
    for n in (1, 7, 45 if SIMULATED else 5000):
        twins.step(random_slots(rng, n), rng.normal(size=(n, inputs)).astype(np.float32))
    twins.compare_rows()


@pytest.mark.parametrize("dtype", STATE_DTYPES[1:])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the simulator's NumPy
def test_all_that_16_bits_can_hold_is_stepped_alike(dtype: StateDtype) -> None:
    """Rows of random bits, infinities and NaN among them; a third of the rows has subnormal numbers alone."""
    rng = np.random.default_rng(9)
    twins = Twins(random_parameters(rng, 2, (8, 4), 2), state_dtype=dtype)  # without padding, which stays zero
    halves = rng.integers(0, 1 << 16, (STREAMS, twins.device.row_bytes // 2), np.uint16)
    halves[::3] &= 0x83FF if dtype == "float16" else 0x807F
    rows = halves.view(np.uint8)
    twins.cpu.arena[:, : twins.layout.state_bytes] = rows[:, : twins.layout.state_bytes]
    twins.device.write(np.arange(STREAMS), rows)
    twins.step(np.arange(STREAMS), rng.normal(size=(STREAMS, 2)).astype(np.float32))
    twins.compare_rows()


@pytest.mark.parametrize("seed", SEEDS)
def test_bits_of_random_models_and_batches(seed: int) -> None:
    rng = np.random.default_rng([99, seed])
    hidden = tuple(rng.integers(1, LARGEST, rng.integers(1, 4)).tolist())
    inputs, outputs, window = (int(rng.integers(low, high)) for low, high in ((1, 6), (1, 5), (0, 4)))
    p = random_parameters(rng, inputs, hidden, outputs, scale=float(rng.choice([0.1, 1.0, 8.0])))
    twins = Twins(p, window, state_dtype=STATE_DTYPES[seed % 3] if window == 0 else "float32")
    for n in rng.integers(1, 20 if SIMULATED else 9000, 3):
        scale = 10.0 ** rng.uniform(-3, 3)
        twins.step(random_slots(rng, int(n)), (scale * rng.normal(size=(n, inputs))).astype(np.float32))
    twins.compare_rows()


@pytest.mark.parametrize(("window", "dtype"), [(0, "float32"), (0, "float16"), (0, "bfloat16"), (2, "float32")])
def test_bits_when_a_layer_does_not_fit_shared_memory(window: int, dtype: StateDtype) -> None:
    """It then comes in pieces, and new h goes beside the row until all of it is there."""
    rng = np.random.default_rng(3)
    p = random_parameters(rng, 2, (6, 5) if SIMULATED else (300, 200), 2)
    twins = Twins(p, window, shared=1024 if SIMULATED else 8192, state_dtype=dtype)
    assert twins.device.cut.depth < (7 if SIMULATED else 300)
    for n in (3, 20):
        twins.step(random_slots(rng, n), rng.normal(size=(n, 2)).astype(np.float32))
    twins.compare_rows()


def test_bits_of_one_busy_stream_among_many() -> None:
    rng = np.random.default_rng(4)
    twins = Twins(random_parameters(rng, 1, (3,), 1))
    slots = np.concatenate([np.full(20, 5), np.arange(20), np.full(20, 5)])
    twins.step(slots, rng.normal(size=(60, 1)).astype(np.float32))
    twins.compare_rows()


def test_bits_do_not_depend_on_the_batching() -> None:
    rng = np.random.default_rng(5)
    p = random_parameters(rng, 1, (4, 3), 2)
    slots, x = random_slots(rng, 50), rng.normal(size=(50, 1)).astype(np.float32)
    whole = Twins(p).step(slots, x)
    for size in (1, 3, 17):
        twins = Twins(p)
        parts = [twins.step(slots[start : start + size], x[start : start + size]) for start in range(0, 50, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_subnormal_numbers_are_kept() -> None:
    rng = np.random.default_rng(6)
    p = random_parameters(rng, 2, (4,), 2)
    head = (p.head_weight, p.head_bias)
    tiny = [np.float32(1e-41) * rng.normal(size=array.shape).astype(np.float32) for array in head]
    layers = tuple(Layer(np.float32(1e-39) * layer.weight_ih, layer.weight_hh, layer.bias) for layer in p.layers)
    twins = Twins(Parameters(layers, *tiny))
    slots = np.arange(12)
    for scale in (1e-45, 1e-40, 1e-38, 1.0):
        y = twins.step(slots, (scale * rng.normal(size=(12, 2))).astype(np.float32))
    assert ((y != 0) & (np.abs(y) < np.finfo(np.float32).tiny)).any()
    twins.compare_rows()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the simulator's NumPy
def test_infinities_nan_and_the_largest_inputs_are_treated_alike() -> None:
    rng = np.random.default_rng(7)
    twins = Twins(random_parameters(rng, 2, (4,), 2, scale=30.0))
    limit = np.float32(twins.cpu.input_limit)
    x = rng.choice(np.array([0.0, -0.0, 1.0, limit, -limit, np.inf, -np.inf, np.nan], np.float32), (20, 2))
    for _ in range(3):
        twins.step(np.arange(20), x)
        x = np.roll(x, 1, axis=0)
        x[::2] = np.nan_to_num(x[::2], nan=1.0, posinf=float(limit), neginf=-float(limit))
    twins.compare_rows()


def test_rows_are_read_written_and_cleared() -> None:
    rng = np.random.default_rng(8)
    twins = Twins(random_parameters(rng, 1, (5,), 1))
    twins.step(np.arange(30), rng.normal(size=(30, 1)).astype(np.float32))
    chosen = np.array([7, 0, 29, 12])
    rows = twins.device.read(chosen)
    twins.device.write(chosen[::-1].copy(), rows)
    assert (twins.device.read(chosen)[::-1] == rows).all()
    twins.device.write(chosen, rows)
    twins.compare_rows()
    twins.device.clear(chosen)
    twins.cpu.clear(chosen)
    twins.step(np.arange(30), rng.normal(size=(30, 1)).astype(np.float32))
    twins.compare_rows()
