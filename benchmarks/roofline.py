"""What this core can do at the most: independent FMAs, weights read from the caches, rows read and written in memory.

The roofline of a kernel (Williams, Waterman and Patterson 2009) is the larger of the time that its arithmetic takes at
the first of these, and the time that its rows take at the last. Compiled loops, measured in the same run as the kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from streamlstm.kernels.memory import prefetch
from streamlstm.kernels.vector import I64, Vector, has_wide_vectors, int64

CHAINS = 12  # independent FMAs in flight: enough for two pipes of latency 5
AHEAD = 8  # rows that are asked for before they are needed
LINE = 64


def fma_loop(lanes: int) -> Callable[[int], float]:
    """A compiled loop: `count` rounds of CHAINS independent FMAs of `lanes` float32 each."""

    @intrinsic  # type: ignore[untyped-decorator]
    def multiply_and_add(typingctx: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v = Vector(builder, lanes)
            factor = v.constant(0.999)
            before, loop = builder.block, builder.append_basic_block("rounds")
            after = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k, sums = builder.phi(I64), [builder.phi(v.type) for _ in range(CHAINS)]
            k_next, updated = builder.add(k, int64(1)), [v.fma(own, factor, factor) for own in sums]
            builder.cbranch(builder.icmp_signed("<", k_next, arguments[0]), loop, after)
            k.add_incoming(int64(0), before)
            k.add_incoming(k_next, loop)
            for start, (own, then) in enumerate(zip(sums, updated, strict=True)):
                own.add_incoming(v.constant(start), before)
                own.add_incoming(then, loop)
            builder.position_at_end(after)
            total = updated[0]
            for own in updated[1:]:
                total = v.add(total, own)
            return v.sum_in_halves(total)

        return types.float32(types.int64), codegen

    @njit
    def rounds(count: int) -> float:
        return multiply_and_add(count)  # type: ignore[no-any-return]

    return rounds  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Peak:
    """A turn of the FMA loop: `run` it, `flops` were done."""

    run: Callable[[], float]
    flops: float


def peak_loop(rounds: int = 100_000) -> Peak:
    lanes = 16 if has_wide_vectors() else 8
    loop = fma_loop(lanes)
    loop(rounds)
    return Peak(lambda: loop(rounds), 2.0 * rounds * CHAINS * lanes)


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
