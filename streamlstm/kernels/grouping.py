"""Rows of many streams in the order they came, to the rows of each stream by time; and what stands out in them."""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled

RARE = 10
"""The most frequent difference counts as the interval where it makes up one in so many differences at least."""

Int64s = NDArray[np.int64]


@compiled("void(int32[::1], int64[::1], int64[::1])")
def group_rows(stream: NDArray[np.int32], start: Int64s, order: Int64s) -> None:
    """Write the rows of each stream, as they came, to order int64 [N]; where each stream begins to start [S + 1]."""
    start[:] = 0
    for row in range(stream.shape[0]):
        start[stream[row] + 1] += 1
    for s in range(1, start.shape[0]):
        start[s] += start[s - 1]
    for row in range(stream.shape[0]):
        order[start[stream[row]]] = row
        start[stream[row]] += 1
    for s in range(start.shape[0] - 1, 0, -1):
        start[s] = start[s - 1]
    start[0] = 0


@compiled("UniTuple(int64, 2)(int64[::1], int64[::1], int64[::1], boolean)")
def sort_groups(start: Int64s, time: Int64s, order: Int64s, sorts: bool) -> tuple[int, int]:
    """Sort the rows of each stream by time, rows of one time as they came; leave them if not `sorts`.

    Returns how many rows came behind a later one of their stream, and the first row that did (N: none).
    """
    late, first = 0, time.shape[0]
    for s in range(start.shape[0] - 1):
        begin, end = start[s], start[s + 1]
        before = late
        if begin < end:
            latest = time[order[begin]]
        for i in range(begin, end):
            now = time[order[i]]
            if now < latest:
                late += 1
                first = min(first, order[i])
            else:
                latest = now
        if late > before and sorts:
            rows = order[begin:end].copy()
            by_time = np.argsort(time[rows], kind="mergesort")
            for i in range(end - begin):
                order[begin + i] = rows[by_time[i]]
    return late, first


@compiled("void(int64[::1], int64[::1], float64[:, ::1], int64[::1], int64[::1], int64[::1], int64[::1], uint8[::1])")
def survey(
    start: Int64s,
    time: Int64s,
    x: NDArray[np.float64],
    interval: Int64s,
    off: Int64s,
    gaps: Int64s,
    longest: Int64s,
    constant: NDArray[np.uint8],
) -> None:
    """Per stream: its interval, ms (0: it has no two times); how many differences of successive times are off it by
    more than a tenth; how many are above one and a half of it, and the longest of those (0: none); whether no input
    changes.

    The interval is the most frequent difference, of equally frequent ones the shortest; where even that is rare, in
    times with jitter, the median. Differences that aren't positive don't count.
    """
    most = 0
    for s in range(start.shape[0] - 1):
        most = max(most, start[s + 1] - start[s])
    scratch = np.empty(most, np.int64)
    for s in range(start.shape[0] - 1):
        begin, end = start[s], start[s + 1]
        n = 0
        uniform = True
        same = True
        for i in range(begin + 1, end):
            step = time[i] - time[i - 1]
            if step > 0:
                scratch[n] = step
                uniform &= step == scratch[0]
                n += 1
            for k in range(x.shape[1]):
                same &= x[i, k] == x[begin, k]
        constant[s] = same
        interval[s], off[s], gaps[s], longest[s] = 0, 0, 0, 0
        if n == 0:
            continue
        interval[s] = scratch[0]
        if uniform:
            continue
        steps = scratch[:n]
        steps.sort()
        run = best = 0
        for i in range(n):
            run = run + 1 if i > 0 and steps[i] == steps[i - 1] else 1
            if run > best:
                best = run
                interval[s] = steps[i]
        if best * RARE < n:
            interval[s] = steps[(n - 1) // 2]
        for i in range(n):
            off[s] += 10 * abs(steps[i] - interval[s]) > interval[s]
            if 2 * steps[i] > 3 * interval[s]:
                gaps[s] += 1
                longest[s] = steps[i]
