"""The gates of an LSTM cell over rows of hidden units, forward beside backward, for training.

    c' = σ(z_f) c + σ(z_i) tanh(z_g)         h' = σ(z_o) tanh(c')

Serving needs c' and h' alone (kernels.cell, two divisions); backward needs i, f, g, o and tanh(c') each. They take
three divisions: i and f share one, g and o another. With e = exp(-z) and m = exp(2 z) - 1, as base-2 powers,

    σ(z) = 1 / (1 + e)      tanh(z) = m / (2 + m)

Backward (Hochreiter & Schmidhuber 1997, in the form of Greff et al. 2017), d being the derivative of the loss by what
follows it:

    dc  += dh o (1 - tanh²c')          dz_o = dh tanh(c') o (1 - o)
    dz_i = dc g i (1 - i)     dz_f = dc c f (1 - f)     dz_g = dc i (1 - g²)     dc <- dc f

float32 uses the polynomial of kernels.cell, float64 a longer one. NaN passes through.

Two rows are computed side by side: one alone is a chain of some two hundred cycles, most of which wait.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial, log
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from streamlstm.kernels.cell import EXP2_Q, EXPONENT_HIGH, LOG2E, ROUND_TO_INTEGER
from streamlstm.kernels.matmul import element_of, whole_lanes
from streamlstm.kernels.vector import F32, I64, Builder, SideBySide, Value, Vector, function_of, int64


@dataclass(frozen=True)
class Exp2:
    """2^t = 2^n (1 + f q(f)) with t = n + f, |f| <= 1/2: coefficients of q, lowest first; the number that rounds to an
    integer when added; the largest |t|, such that the product of two denominators is still finite.
    """

    coefficients: tuple[float, ...]
    round_to_integer: float
    limit: float


_SINGLE = Exp2(EXP2_Q, ROUND_TO_INTEGER, EXPONENT_HIGH)
# Taylor's: the first term left out is (ln(2) / 2)^15 / 15! = 9e-20
_DOUBLE = Exp2(tuple(log(2.0) ** n / factorial(n) for n in range(1, 15)), 1.5 * 2.0**52, 300.0)

Operations = Any  # SideBySide of a Vector: its operations are made up
Values = Any  # one value for each row, or a constant for all


def _split(v: Operations, t: Values) -> tuple[Values, Values, Values]:
    """t, limited, = n + f with an integer n and |f| <= 1/2, and q(f): (n + round_to_integer, f, q)."""
    how = _SINGLE if v.element is F32 else _DOUBLE
    t = v.clamp(t, -how.limit, how.limit)
    rounded = v.add(t, v.constant(how.round_to_integer))
    f = v.sub(t, v.sub(rounded, v.constant(how.round_to_integer)))
    q = v.constant(how.coefficients[-1])
    for coefficient in how.coefficients[-2::-1]:
        q = v.fma(q, f, v.constant(coefficient))
    return rounded, f, q


def _exp2_minus_1(v: Operations, t: Values) -> Values:
    """2^t - 1; relatively accurate near t = 0."""
    rounded, f, q = _split(v, t)
    power = v.times_power_of_two(v.constant(1.0), rounded)
    return v.fma(v.mul(power, f), q, v.sub(power, v.constant(1.0)))


def _sigmoid_pair(v: Operations, z_1: Values, z_2: Values) -> tuple[Values, Values]:
    """σ(z_1), σ(z_2)."""
    one = v.constant(1.0)
    below_1, below_2 = (_one_plus_exp(v, z) for z in (z_1, z_2))
    reciprocal = v.div(one, v.mul(below_1, below_2))
    return v.mul(below_2, reciprocal), v.mul(below_1, reciprocal)


def _tanh_and_sigmoid(v: Operations, z_1: Values, z_2: Values) -> tuple[Values, Values]:
    """tanh(z_1), σ(z_2)."""
    m = _exp2_minus_1(v, v.mul(z_1, v.constant(2.0 * LOG2E)))
    below_1, below_2 = v.add(m, v.constant(2.0)), _one_plus_exp(v, z_2)
    reciprocal = v.div(v.constant(1.0), v.mul(below_1, below_2))
    return v.mul(m, v.mul(below_2, reciprocal)), v.mul(below_1, reciprocal)


def _one_plus_exp(v: Operations, z: Values) -> Values:
    """1 + exp(-z)."""
    one = v.constant(1.0)
    rounded, f, q = _split(v, v.mul(z, v.constant(-LOG2E)))
    return v.add(v.times_power_of_two(v.fma(q, f, one), rounded), one)


def _tanh(v: Operations, z: Values) -> Values:
    m = _exp2_minus_1(v, v.mul(z, v.constant(2.0 * LOG2E)))
    return v.div(m, v.add(m, v.constant(2.0)))


@dataclass(frozen=True)
class _Lanes:
    """The lanes of one turn of a loop over units, of some rows side by side: loads and stores at a unit's offset,
    masked in the last turn. A row is a list of addresses, one for each.
    """

    v: Operations
    vector: Vector
    offset: Value
    mask: Value | None

    def _addresses(self, row: list[Value]) -> list[Value]:
        return [self.vector.builder.add(start, self.offset) for start in row]

    def load(self, row: list[Value]) -> Values:
        at = self._addresses(row)
        return self.v.load(at) if self.mask is None else self.v.load_masked(at, self.mask)

    def store(self, values: Values, row: list[Value]) -> None:
        at = self._addresses(row)
        if self.mask is None:
            self.v.store(values, at)
        else:
            self.v.store_masked(values, at, self.mask)


Body = Callable[[_Lanes, list[list[Value]]], None]


def _for_units(builder: Builder, element: Value, units: Value, body: Body, rows: list[list[Value]]) -> None:
    """Emit `body` for whole vectors of units, then for the rest as one masked vector of a quarter, half or whole."""
    widest = whole_lanes(element)

    def emit(lanes: int, unit: Value, left: Value | None) -> None:
        vector = Vector(builder, lanes, element)
        mask = None if left is None else vector.first_lanes(left)
        body(_Lanes(SideBySide(vector), vector, builder.mul(unit, int64(vector.size)), mask), rows)

    stop = builder.and_(units, int64(-widest))
    with cgutils.for_range_slice(builder, int64(0), stop, int64(widest), I64) as (unit, _):
        emit(widest, unit, None)
    rest = builder.sub(units, stop)
    least = 0
    for lanes in (widest // 4, widest // 2, widest):
        fits = builder.and_(builder.icmp_signed(">", rest, int64(least)), builder.icmp_signed("<=", rest, int64(lanes)))
        with builder.if_then(fits):
            emit(lanes, stop, rest)
        least = lanes


def _activate(at: _Lanes, rows: list[list[Value]]) -> None:
    """rows: z_i, z_f, z_g, z_o (overwritten by i, f, g, o), c, c', tanh(c'), h'."""
    v, (i_row, f_row, g_row, o_row, c_before, c_after, tanh_c, h_after) = at.v, rows
    i, f = _sigmoid_pair(v, at.load(i_row), at.load(f_row))
    g, o = _tanh_and_sigmoid(v, at.load(g_row), at.load(o_row))
    c = v.fma(f, at.load(c_before), v.mul(i, g))
    tanh = _tanh(v, c)
    results = (i, f, g, o, c, tanh, v.mul(o, tanh))
    for values, row in zip(results, (i_row, f_row, g_row, o_row, c_after, tanh_c, h_after), strict=True):
        at.store(values, row)


def _differentiate(at: _Lanes, rows: list[list[Value]]) -> None:
    """rows: i, f, g, o (overwritten by dz_i, dz_f, dz_g, dz_o), c, tanh(c'), dh' from later, dc, dh' from above."""
    v, (i_row, f_row, g_row, o_row, c_before, tanh_c, later, carried, above) = at.v, rows
    one = v.constant(1.0)
    i, f, g, o = (at.load(row) for row in (i_row, f_row, g_row, o_row))
    tanh = at.load(tanh_c)
    dh = v.add(at.load(above), at.load(later))
    dh_o = v.mul(dh, o)
    dc = v.fma(dh_o, _one_minus_square(v, tanh), at.load(carried))
    dc_f = v.mul(dc, f)
    dc_i = v.mul(dc, i)
    at.store(v.mul(v.mul(dc_i, g), v.sub(one, i)), i_row)
    at.store(v.mul(v.mul(dc_f, at.load(c_before)), v.sub(one, f)), f_row)
    at.store(v.mul(dc_i, _one_minus_square(v, g)), g_row)
    at.store(v.mul(v.mul(dh_o, tanh), v.sub(one, o)), o_row)
    at.store(dc_f, carried)


def _one_minus_square(v: Operations, a: Values) -> Values:
    """(1 - a)(1 + a): where a is near 1 or -1, a² would have lost the difference."""
    one = v.constant(1.0)
    return v.mul(v.sub(one, a), v.add(one, a))


_SIDE_BY_SIDE = 2


def _emit_rows(builder: Builder, element: Value, body: Body, dense: int, arguments: list[Value]) -> None:
    """`body` over rows of units. Arguments: rows, units, gates, gate_row, addresses of `dense` arrays [rows][H], then
    the address and bytes from row to row of each of some others.
    """
    rows, units, gates, gate_row, *rest = arguments
    hidden_bytes = builder.mul(units, int64(4 if element is F32 else 8))
    bases = [builder.add(gates, builder.mul(hidden_bytes, int64(gate))) for gate in range(4)]
    bases += [*rest[:dense], *rest[dense::2]]
    strides = [gate_row] * 4 + [hidden_bytes] * dense + rest[dense + 1 :: 2]

    def emit(first: Value, count: int) -> None:
        numbers = [builder.add(first, int64(k)) for k in range(count)]
        starts = [
            [builder.add(base, builder.mul(stride, number)) for number in numbers]
            for base, stride in zip(bases, strides, strict=True)
        ]
        _for_units(builder, element, units, body, starts)

    stop = builder.and_(rows, int64(-_SIDE_BY_SIDE))
    with cgutils.for_range_slice(builder, int64(0), stop, int64(_SIDE_BY_SIDE), I64) as (first, _):
        emit(first, _SIDE_BY_SIDE)
    with cgutils.for_range_slice(builder, stop, rows, int64(1), I64) as (last, _):
        emit(last, 1)


def _call_rows(builder: Builder, element: Value, body: Body, dense: int, arguments: list[Value]) -> None:
    """Call the function that `_emit_rows` writes."""
    name = f"streamlstm_{body.__name__}_{element.intrinsic_name}"
    function = function_of(
        builder.module, name, len(arguments), lambda inner, given: _emit_rows(inner, element, body, dense, given)
    )
    builder.call(function, arguments)


@intrinsic  # type: ignore[untyped-decorator]
def activate_rows(
    typingctx: Any, real: Any, rows: Any, units: Any, gates: Any, gate_row: Any, c_before: Any, c_after: Any,
    tanh_c: Any, h_after: Any, h_row: Any,
) -> Any:  # fmt: skip
    """The cell update of some rows. `real`: any value of the element type; the rest is int64, addresses but for `rows`,
    `units`, H, and the bytes from row to row of `gates` and `h_after`.

    gates      [rows][4][H]: pre-activations z of i, f, g, o; overwritten by the gates' values
    c_before   [rows][H], read;  c_after, tanh_c, h_after   [rows][H], written: c', tanh(c'), h'
    """

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        _call_rows(builder, element_of(real), _activate, 3, arguments[1:])
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 9), codegen


@intrinsic  # type: ignore[untyped-decorator]
def differentiate_rows(
    typingctx: Any, real: Any, rows: Any, units: Any, gates: Any, gate_row: Any, c_before: Any, tanh_c: Any, later: Any,
    dc: Any, above: Any, above_row: Any,
) -> Any:  # fmt: skip
    """The backward step of some rows. `real`: any value of the element type; the rest is int64, addresses but for
    `rows`, `units`, H, and the bytes from row to row of `gates` and `above`.

    gates          [rows][4][H]: the gates' values; overwritten by the derivatives by their pre-activations
    c_before, tanh_c   [rows][H], read: c and tanh(c')
    later, above   [rows][H], read: the derivative by h' from the next step, and from this step's reader above
    dc             [rows][H]: the derivative by c', overwritten by that by c
    """

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        _call_rows(builder, element_of(real), _differentiate, 4, arguments[1:])
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 10), codegen
