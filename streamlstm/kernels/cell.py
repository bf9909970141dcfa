"""The arithmetic of one LSTM cell, from gate pre-activations to c' and h'.

Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000:

    c' = σ(z_f) c + σ(z_i) tanh(z_g)         h' = σ(z_o) tanh(c')

Written once over an arithmetic `a` (add, sub, mul, div, fma, clamp, constant, times_power_of_two), so that every
machine that offers these as single IEEE operations gets the same bits: kernels.vector.Vector emits them as LLVM
vectors, the tests give a NumPy one.

Pre-activations come as base-2 exponents, the factor being folded into the weights when they are packed
(kernels.packing): e_i = 2^t_i = exp(-z_i), likewise f and o, and 2^t_g = exp(2 z_g). With m = 2^t - 1

    σ(z) = 1 / (1 + e)      tanh(z_g) = m_g / (2 + m_g)

and both fractions of c' over one denominator, A = (1 + e_i)(2 + m_g), F = 1 + e_f,

    c' = (c A + m_g F) / (A F)      h' = m_c / ((1 + e_o)(2 + m_c))

cost one division each, and tanh keeps its relative accuracy near 0. Over all inputs each function is within 1.6e-7
absolute and 4 units in the last place of the true value.

Nothing overflows: exponents are clamped to 40 and -100, so A F < 2^121, |c| A < 2^106 by the clamp of c' to CELL_LIMIT,
and |h'| <= 1 + 2^-20. NaN passes through.
"""

from typing import Any

LOG2E = 1.4426950408889634074

# 2^f - 1 = f q(f) on [-1/2, 1/2]: minimax of the absolute error by Lawson's iteration, 1.9e-9 before rounding to
# float32 (tests/kernels/test_cell.py holds it to that).
EXP2_Q = (
    float.fromhex("0x1.62e43p-1"),
    float.fromhex("0x1.ebfbep-3"),
    float.fromhex("0x1.c6aedp-5"),
    float.fromhex("0x1.3b29aep-7"),
    float.fromhex("0x1.5f47c8p-10"),
    float.fromhex("0x1.448d98p-13"),
)
ROUND_TO_INTEGER = 12582912.0  # 1.5 * 2^23: a float32 of this size has no fraction bits left
EXPONENT_LOW, EXPONENT_HIGH = -100.0, 40.0
CELL_LIMIT = 2.0**25  # a carried c can't grow past 2^24 in float32: c + 1 = c there. The clamp makes it a promise

Number = Any
Arithmetic = Any


def _split(a: Arithmetic, t: Number) -> tuple[Number, Number, Number]:
    """t = n + f with an integer n and |f| <= 1/2, and q(f): (n + ROUND_TO_INTEGER, f, q)."""
    rounded = a.add(t, a.constant(ROUND_TO_INTEGER))
    f = a.sub(t, a.sub(rounded, a.constant(ROUND_TO_INTEGER)))
    q = a.constant(EXP2_Q[-1])
    for coefficient in EXP2_Q[-2::-1]:
        q = a.fma(q, f, a.constant(coefficient))
    return rounded, f, q


def exp2(a: Arithmetic, t: Number) -> Number:
    """2^t, t limited to [-100, 40]."""
    rounded, f, q = _split(a, a.clamp(t, EXPONENT_LOW, EXPONENT_HIGH))
    return a.times_power_of_two(a.fma(q, f, a.constant(1.0)), rounded)


def exp2_minus_1(a: Arithmetic, t: Number) -> Number:
    """2^t - 1, t limited to [-40, 40]; relatively accurate near t = 0."""
    rounded, f, q = _split(a, a.clamp(t, -EXPONENT_HIGH, EXPONENT_HIGH))
    power = a.times_power_of_two(a.constant(1.0), rounded)
    return a.fma(a.mul(power, f), q, a.sub(power, a.constant(1.0)))


def cell_state(a: Arithmetic, t_i: Number, t_f: Number, t_g: Number, c: Number) -> Number:
    """c' from the exponents of the gates i, f, g and the cell state c."""
    one, two = a.constant(1.0), a.constant(2.0)
    m_g = exp2_minus_1(a, t_g)
    A = a.mul(a.add(exp2(a, t_i), one), a.add(m_g, two))
    F = a.add(exp2(a, t_f), one)
    return a.clamp(a.div(a.fma(c, A, a.mul(m_g, F)), a.mul(A, F)), -CELL_LIMIT, CELL_LIMIT)


def hidden_state(a: Arithmetic, t_o: Number, c: Number) -> Number:
    """h' from the exponent of the gate o and the new cell state c'."""
    one, two = a.constant(1.0), a.constant(2.0)
    m_c = exp2_minus_1(a, a.mul(c, a.constant(2.0 * LOG2E)))
    return a.div(m_c, a.mul(a.add(exp2(a, t_o), one), a.add(m_c, two)))
