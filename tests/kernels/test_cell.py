"""The activation arithmetic against float64, through the very LLVM vectors that the step uses."""

from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from streamlstm.kernels import cell
from streamlstm.kernels.vector import I64, Vector, int64

LANES = 16
Float32 = NDArray[np.float32]


@intrinsic
def _advance(typingctx: Any, t_i: Any, t_f: Any, t_g: Any, t_o: Any, c: Any, c_next: Any, h_next: Any, n: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = Vector(builder, LANES)
        with cgutils.for_range_slice(builder, int64(0), arguments[7], int64(LANES), I64) as (k, _):
            offset = builder.shl(k, int64(2))
            i, f, g, o, old = (v.load(builder.add(address, offset)) for address in arguments[:5])
            new = cell.cell_state(v, i, f, g, old)
            v.store(new, builder.add(arguments[5], offset))
            v.store(cell.hidden_state(v, o, new), builder.add(arguments[6], offset))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), codegen


@numba.njit
def _advance_all(t_i, t_f, t_g, t_o, c, c_next, h_next, n):  # type: ignore[no-untyped-def]
    _advance(t_i, t_f, t_g, t_o, c, c_next, h_next, n)


def advance(t_i: Any, t_f: Any, t_g: Any, t_o: Any, c: Any) -> tuple[Float32, Float32]:
    """(c', h') of float32 exponents and cell states, broadcast to one length that is a multiple of 16."""
    columns = [np.ascontiguousarray(a, np.float32) for a in np.broadcast_arrays(t_i, t_f, t_g, t_o, c)]
    n = columns[0].size
    assert n % LANES == 0
    c_next, h_next = np.empty(n, np.float32), np.empty(n, np.float32)
    _advance_all(*(a.ctypes.data for a in (*columns, c_next, h_next)), n)
    return c_next, h_next


def units_in_last_place(found: Float32, true: NDArray[np.float64]) -> NDArray[np.float64]:
    spacing = np.spacing(np.maximum(np.abs(true).astype(np.float32), np.float32(1e-37)))
    return np.abs(found.astype(np.float64) - true) / spacing


@pytest.mark.parametrize("reach", [0.01, 1.0, 8.0, 20.0])
def test_sigmoid_and_tanh_are_within_their_stated_errors(reach: float) -> None:
    z = np.linspace(-reach, reach, 1 << 20).astype(np.float32)
    open_gate, two_z = np.float32(-100), (2 * cell.LOG2E * z).astype(np.float32)
    exponent = (-cell.LOG2E * z).astype(np.float32)

    forgotten, _ = advance(0, exponent, 0, 0, 1)  # c' = sigmoid(z) * 1
    true = 1 / (1 + np.exp2(exponent.astype(np.float64)))
    assert np.abs(forgotten - true).max() < 1.6e-7
    assert units_in_last_place(forgotten, true).max() < 4

    candidate, _ = advance(open_gate, open_gate, two_z, 0, 0)  # c' = tanh(z)
    true = np.tanh(two_z.astype(np.float64) / (2 * cell.LOG2E))
    assert np.abs(candidate - true).max() < 1.6e-7
    assert units_in_last_place(candidate, true).max() < 4

    _, hidden = advance(open_gate, open_gate, 0, open_gate, z)  # c' = z, h' = tanh(z)
    true = np.tanh(z.astype(np.float64))
    assert np.abs(hidden - true).max() < 1.6e-7
    assert units_in_last_place(hidden, true).max() < 4


def test_whole_cell_matches_the_equations() -> None:
    rng = np.random.default_rng(0)
    gates = rng.normal(0, 3, (4, 1 << 18)).astype(np.float32)
    c = rng.normal(0, 3, 1 << 18).astype(np.float32)
    c_next, h_next = advance(*gates, c)
    i, f, g, o = gates.astype(np.float64)
    true_c = c / (1 + np.exp2(f)) + np.tanh(g / (2 * cell.LOG2E)) / (1 + np.exp2(i))
    true_h = np.tanh(true_c) / (1 + np.exp2(o))
    np.testing.assert_allclose(c_next, true_c, rtol=4e-7, atol=3e-7)
    np.testing.assert_allclose(h_next, true_h, rtol=0, atol=2.5e-7)


def test_extreme_exponents_saturate_and_stay_finite() -> None:
    big = np.array([0.0, 39.0, 41.0, 1e4, 1e38, np.finfo(np.float32).max], np.float32)
    edges = np.concatenate([big, -big])
    t_i, t_f, t_g, t_o, c = np.meshgrid(edges, edges, edges, edges, [0, 1e7, -1e7, 2.0**25], indexing="ij")
    size = t_i.size // LANES * LANES
    c_next, h_next = advance(*(a.ravel()[:size] for a in (t_i, t_f, t_g, t_o, c)))
    assert np.isfinite(c_next).all()
    assert np.abs(c_next).max() <= cell.CELL_LIMIT
    assert np.abs(h_next).max() <= 1 + 2.0**-20


def test_open_gates_keep_a_cell_state_and_the_clamp_ends_its_growth() -> None:
    c = np.full(LANES, cell.CELL_LIMIT, np.float32)
    kept, _ = advance(100, -100, 0, 0, c)
    assert (kept == c).all()
    grown, _ = advance(-100, -100, 100, 0, c)
    assert (grown == c).all()


@pytest.mark.parametrize("position", range(5))
def test_nan_passes_through(position: int) -> None:
    arguments: list[Any] = [np.zeros(LANES)] * 5
    arguments[position] = np.full(LANES, np.nan)
    c_next, h_next = advance(*arguments)
    assert np.isnan(h_next).all()
    assert np.isnan(c_next).all() == (position != 3)


def test_zero_weights_keep_a_zero_state_zero_with_its_sign() -> None:
    """Lanes past H rely on it: the row of a stream must not depend on how its blocks are cut."""
    c_next, h_next = advance(*[np.zeros(LANES)] * 5)
    assert c_next.tobytes() == h_next.tobytes() == bytes(4 * LANES)


def test_polynomial_coefficients_are_the_minimax_of_their_degree() -> None:
    """Lawson's iteration finds the same coefficients again; rounded, they are off by a third of a float32 step."""
    nodes = 0.5 * np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    target = np.expm1(nodes * np.log(2.0))
    powers = nodes[:, None] ** np.arange(1, len(cell.EXP2_Q) + 1)
    weight = np.ones_like(nodes)
    for _ in range(60):
        root = np.sqrt(weight)
        found, *_ = np.linalg.lstsq(powers * root[:, None], target * root, rcond=None)
        error = np.abs(powers @ found - target)
        weight = weight * (error + 1e-30)
        weight /= weight.sum()
    assert error.max() < 2e-9
    np.testing.assert_allclose(np.array(cell.EXP2_Q), found, rtol=1e-6)
    assert np.abs(powers @ np.array(cell.EXP2_Q) - target).max() < 2e-8


def test_vector_constants_are_rounded_to_float32() -> None:
    module = ir.Module()
    builder = ir.IRBuilder(ir.Function(module, ir.FunctionType(ir.VoidType(), []), "f").append_basic_block())
    assert Vector(builder, 4).constant(0.1).constant[0].constant == float(np.float32(0.1))
