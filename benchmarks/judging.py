"""The judge: nanoseconds per event, and how well its intervals keep their promise.

    .venv/bin/python benchmarks/judging.py [--folder data/nab/data] [--rows 1000000] [--rounds 30]

Time: CPU time of one core for calls of 8,192 events. Hot: random rows of 512 streams, which stay in the caches. Cold:
random rows of a million streams, everything else flushed from the caches between calls.

Coverage: over made series, or over the column `value` of every CSV file below the folder (the layout of NAB), with a
bad model (a constant), so that guard and seasonal naive carry the forecast. In the middle of each series nothing
happens, the level moves by ten standard deviations, or everything becomes ten times as large; coverage is said before
and after it. The interval score (Gneiting and Raftery 2007) of the second half is divided by that of the fixed
interval which held the same share of the errors of the first half (split conformal).
"""

import argparse
import csv
import mmap
import time
from pathlib import Path

import numpy as np
from figures import Figure, write
from numpy.typing import NDArray

from streamlstm.kernels import judge_layout as at
from streamlstm.kernels.judge import judge

CALL = 8192
Reals = NDArray[np.float64]


class Arena:
    """Rows of nothing but what the judge needs, on huge pages where there are some."""

    def __init__(self, horizons: tuple[int, ...], period: int, streams: int, call: int) -> None:
        layout = at.JudgeLayout(horizons, period)
        self.ring = layout.longest_lag + call + 1
        yhat_at, pending_at = 24, 24 + 8 * len(horizons)
        ring_at = -(-(pending_at + 8 * layout.words) // 64) * 64
        row_bytes = -(-(ring_at + 4 * self.ring) // 64) * 64
        memory = mmap.mmap(-1, streams * row_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        self.rows = np.frombuffer(memory, np.int64).reshape(streams, row_bytes // 8)
        self.rows[:] = 0
        self.rings = self.rows.view(np.float32)[:, ring_at // 4 : ring_at // 4 + self.ring]
        self.plan = layout.plan(ring_at=ring_at, anchor_at=0, pending_at=pending_at, yhat_at=yhat_at, ring=self.ring)
        self.rates, self.totals = at.rates(horizons, 0.9), np.zeros((len(horizons), at.TOTALS))

    def call(self, slots: NDArray[np.int64], numbers: NDArray[np.int64], y: Reals, yhat: Reals) -> tuple[Reals, Reals]:
        n = len(slots)
        lower, upper, score = np.zeros_like(yhat), np.zeros_like(yhat), np.zeros(n)
        judge(n, self.plan, self.rates, np.zeros(2), self.totals, slots, numbers, np.zeros(n, np.uint8), y[:, None],
              y[:, None], self.rows, yhat, lower, upper, score)  # fmt: skip
        return lower, upper


def nanoseconds(horizons: tuple[int, ...], streams: int, rounds: int, is_cold: bool) -> float:
    """Median over calls, in steady state."""
    rng = np.random.default_rng(0)
    arena = Arena(horizons, 24, streams, 20)
    arena.rings[0] = rng.normal(size=arena.ring)
    for number in range(1, 401):
        arena.call(np.zeros(1, np.int64), np.array([number]), rng.normal(size=1), rng.normal(size=(1, len(horizons))))
    arena.rows[1:] = arena.rows[0]
    seen, times = np.full(streams, 400), []
    for _ in range(rounds):
        if is_cold:
            np.ones(16_000_000)
        slots = rng.integers(0, streams, CALL)
        numbers = np.zeros(CALL, np.int64)
        for i, s in enumerate(slots):
            seen[s] += 1
            numbers[i] = seen[s]
        y, yhat = rng.normal(size=CALL), rng.normal(size=(CALL, len(horizons)))
        start = time.process_time()
        arena.call(slots, numbers, y, yhat)
        times.append((time.process_time() - start) / CALL * 1e9)
    return float(np.median(times))


def made() -> list[Reals]:
    rng = np.random.default_rng(1)
    n = 3000
    season = np.sin(np.arange(n) * 2 * np.pi / 24) * 5
    bursts = np.repeat(np.exp(rng.normal(size=n // 50)), 50)
    return [
        *(rng.normal(size=n).cumsum() for _ in range(10)),
        *(season + rng.normal(size=n) for _ in range(10)),
        *(season + bursts * rng.standard_t(3, size=n) for _ in range(10)),
        *(np.maximum(0, rng.normal(size=n)).round(1) for _ in range(10)),
    ]


def from_folder(folder: Path) -> list[Reals]:
    found = []
    for path in sorted(folder.rglob("*.csv")):
        with path.open() as file:
            y = np.array([float(row["value"]) for row in csv.DictReader(file) if "value" in row])
        if len(y) >= 1000 and y.std() > 0:
            found.append(y)
    return found


def shifted(y: Reals, shift: str) -> Reals:
    y, middle = y.copy(), len(y) // 2
    if shift == "level":
        y[middle:] += 10 * y[:middle].std()
    if shift == "scale":
        y[middle:] *= 10
    return y


def score(y: Reals, lower: Reals, upper: Reals) -> float:
    missed = np.maximum(lower - y, 0) + np.maximum(y - upper, 0)
    return float(np.mean(upper - lower + 20 * missed))


def intervals(y: Reals, h: int) -> tuple[float, float, float]:
    """Coverage before and after the middle, and the interval score after it, relative to a fixed interval's."""
    n, middle = len(y), len(y) // 2
    arena = Arena((h,), 24, 1, n)
    numbers = np.arange(1, n + 1)
    arena.rows.view(np.float64)[0, 0] = y[0]
    arena.rings[0, numbers % arena.ring] = y - y[0]
    yhat = np.full((n, 1), y[:middle].mean())
    bounds = arena.call(np.zeros(n, np.int64), numbers, y, yhat)
    lower, upper = (bound[:-h, 0] for bound in bounds)
    actual, yhat = y[h:], yhat[:-h, 0]
    inside = (lower <= actual) & (actual <= upper)
    low, high = np.quantile((actual - yhat)[: middle - h], [0.05, 0.95])
    after = slice(middle - h, None)
    fixed = score(actual[after], (yhat + low)[after], (yhat + high)[after])
    ours = score(actual[after], lower[after], upper[after])
    return inside[: middle - h].mean(), inside[after].mean(), ours / fixed if fixed else np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options, found = parser.parse_args(), []
    for horizons, rows in (((1,), options.rows), (tuple(range(1, 25)), options.rows // 5)):
        hot = nanoseconds(horizons, 512, options.rounds, is_cold=False)
        cold = nanoseconds(horizons, rows, options.rounds, is_cold=True)
        print(f"horizons {len(horizons):2d}: {hot:7.1f} ns per event hot, {cold:7.1f} over {rows:,} rows")
        found.append(Figure(f"judge of {len(horizons)} horizons, hot", hot, "ns"))
        found.append(Figure(f"judge of {len(horizons)} horizons, cold", cold, "ns", at=rows))
    write(options.json, found)
    series = from_folder(options.folder) if options.folder else made()
    for h in (1, 24):
        for shift in ("none", "level", "scale"):
            before, after, relative = np.array([intervals(shifted(y, shift), h) for y in series]).T
            kept = [np.mean((share >= 0.88) & (share <= 0.92)) for share in (before, after)]
            print(
                f"h {h:2d}, shift {shift:5s}: 88-92 % held on {kept[0]:4.0%} of {len(series)} series before,"
                f" {kept[1]:4.0%} after; interval score {np.exp(np.nanmean(np.log(relative))):.2f} of a fixed one's"
            )


if __name__ == "__main__":
    main()
