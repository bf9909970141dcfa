"""What this core can do at the most: independent FMAs, activations of cells, weights read from the caches, rows read
and written in memory.

The roofline of a kernel (Williams, Waterman and Patterson 2009) is the larger of the time that its arithmetic takes at
the first two of these, and the time that its rows take at the last. Compiled loops, measured in the same run as the
kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from streamlstm.kernels.cell import cell_state, hidden_state
from streamlstm.kernels.memory import prefetch
from streamlstm.kernels.vector import I64, SideBySide, Vector, has_wide_vectors, int64

CHAINS = 12  # independent FMAs in flight: enough for two pipes of latency 5
CELLS = 6  # independent cells, operation by operation: more of them are no faster
AHEAD = 8  # rows that are asked for before they are needed
LINE = 64


Emit = Callable[[Vector, list[Any]], list[Any]]


def vector_loop(lanes: int, chains: int, width: int, emit: Emit) -> Callable[[int], float]:
    """A compiled loop of `count` rounds over `chains` independent chains, each of `width` vectors of `lanes` float32
    that `emit` takes from one round to the next.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def loop_over(typingctx: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = Vector(builder, lanes)
            before, loop = builder.block, builder.append_basic_block("rounds")
            after = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k, own = builder.phi(I64), [[builder.phi(v.type) for _ in range(width)] for _ in range(chains)]
            k_next, then = builder.add(k, int64(1)), [emit(v, chain) for chain in own]
            builder.cbranch(builder.icmp_signed("<", k_next, arguments[0]), loop, after)
            k.add_incoming(int64(0), before)
            k.add_incoming(k_next, loop)
            for start, (chain, updated) in enumerate(zip(own, then, strict=True)):
                for value, value_then in zip(chain, updated, strict=True):
                    value.add_incoming(v.constant(start / chains), before)
                    value.add_incoming(value_then, loop)
            builder.position_at_end(after)
            total = v.constant(0.0)
            for value in (value for chain in then for value in chain):
                total = v.add(total, value)
            return v.sum_in_halves(total)

        return types.float32(types.int64), codegen

    @njit
    def rounds(count: int) -> float:
        return loop_over(count)  # type: ignore[no-any-return]

    return rounds  # type: ignore[no-any-return]


def _multiply_and_add(v: Vector, values: list[Any]) -> list[Any]:
    factor = v.constant(0.999)
    return [v.fma(values[0], factor, factor)]


def _activate(v: Vector, values: list[Any]) -> list[Any]:
    """Cells whose gates are their own last h, each moved by something else, or LLVM would compute only one of them."""
    cells, h, c = SideBySide(v), values[:CELLS], values[CELLS:]
    t_i, t_f, t_g, t_o = ([v.add(each, v.constant(shift)) for each in h] for shift in (0.1, 0.2, 0.3, 0.4))
    c_next = cell_state(cells, t_i, t_f, t_g, c)
    return [*hidden_state(cells, t_o, c_next), *c_next]


@dataclass(frozen=True)
class Peak:
    """A turn of a loop: `run` it, so much `work` was done."""

    run: Callable[[], float]
    work: float


@cache
def peak_loop(rounds: int = 100_000) -> Peak:
    """Floating-point operations of independent FMAs."""
    return _loop(rounds, CHAINS, 1, _multiply_and_add, 2.0)


@cache
def activation_loop(rounds: int = 5_000) -> Peak:
    """Units of LSTM cells whose gates are there: their activations, c' and h'."""
    return _loop(rounds, 2, 2 * CELLS, _activate, float(CELLS))


def _loop(rounds: int, chains: int, width: int, emit: Emit, work_per_lane: float) -> Peak:
    lanes = 16 if has_wide_vectors() else 8
    loop = vector_loop(lanes, chains, width, emit)
    loop(rounds)
    return Peak(lambda: loop(rounds), work_per_lane * rounds * chains * lanes)


@njit
def _read(words: NDArray[np.int64], times: int) -> int:
    """Additions of 64-bit integers: LLVM makes wide vectors of them without being allowed to change a result."""
    total = 0
    for _ in range(times):
        for word in words:
            total += word
    return total


def reading(size: int, times: int) -> Callable[[], object]:
    """A call that reads `size` bytes `times` times: from the caches, if they fit."""
    words = np.ones(max(1, size // 8), np.int64)
    _read(words, 1)
    return lambda: _read(words, times)


@njit
def _touch(rows: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    n, width = len(order), rows.shape[1]
    for i in range(n):
        ahead = rows[order[min(i + AHEAD, n - 1)]].ctypes.data
        for line in range(0, 8 * width, LINE):
            prefetch(ahead + line)
        row = rows[order[i]]
        for j in range(width):
            row[j] += 1


def touching(row_bytes: int, streams: int, count: int) -> Callable[[], object]:
    """A call that reads and writes `count` random rows of as many, each asked for a little earlier."""
    rows = np.zeros((streams, row_bytes // 8), np.int64)
    rng = np.random.default_rng(2)
    orders = [rng.choice(streams, count, replace=False) for _ in range(8)]
    _touch(rows, orders[0])
    turn = iter(range(1 << 62))
    return lambda: _touch(rows, orders[next(turn) % len(orders)])
