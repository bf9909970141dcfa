"""The scoring rules of the Numenta Anomaly Benchmark, version 1.1, over arrays.

Lavin & Ahmad 2015, "Evaluating real-time anomaly detection algorithms"; Ahmad, Lavin, Purdy & Agha 2017, "Unsupervised
real-time anomaly detection for streaming data". In short, for a threshold on the scores:

    window      a labelled stretch of rows; its earliest detection counts, worth S(p) / S(-1) times the weight of a true
                positive, where p runs from -1 at the window's first row to -1/width at its last
    missed      a window without detection costs the weight of a false negative
    elsewhere   every detection costs the weight of a false positive times -S(p): p is the distance behind the window
                before it, in widths of that window; 1 from three widths on, and where there is no window before it
    S(p)        2 / (1 + exp(5 p)) - 1
    probation   the first 15 % of a file, of 5,000 rows at most, count for nothing

The score is the sum over all files, on the scale where a detector that never speaks has 0 and a perfect one 100. The
benchmark takes the one threshold for all files that is best for the profile; a fixed one may be given too.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PROBATION, PROBATION_ROWS = 0.15, 5000
FAR = 3.0
NO_WINDOW = -1
Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """What a profile of users pays for a window found, one missed, and a false alarm."""

    found: float
    missed: float
    false_alarm: float


@dataclass(frozen=True)
class LabelledFile:
    """A file of the corpus: values float64 [N], its median time step in seconds, and what a detection at each row is
    worth: `window` int64 [N] is the row's window or NO_WINDOW, `worth` float64 [N] lies in [-1, 1] before weighting,
    `counts` bool [N] is False in the probation.
    """

    name: str
    values: Float64s
    step_seconds: float
    windows: int
    window: NDArray[np.int64]
    worth: Float64s
    counts: NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """A normalised score, the threshold that gave it, and what was found there."""

    score: float
    threshold: float
    windows_found: int
    false_alarms: int


def sigmoid(position: Float64s) -> Float64s:
    """S(p); -1 from p = 3 on."""
    return np.where(position >= FAR, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, FAR))) - 1.0)


def read_profiles(folder: Path) -> dict[str, Profile]:
    """The profiles of config/profiles.json, by name."""
    found = json.loads((folder / "config" / "profiles.json").read_text())
    costs = {name: profile["CostMatrix"] for name, profile in found.items()}
    return {name: Profile(cost["tpWeight"], cost["fnWeight"], cost["fpWeight"]) for name, cost in costs.items()}


def read_corpus(folder: Path) -> list[LabelledFile]:
    """Every file that labels/combined_windows.json names, in its order."""
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text())
    return [_read(folder / "data" / name, name, limits) for name, limits in windows.items()]


def _read(path: Path, name: str, limits: list[list[str]]) -> LabelledFile:
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    times = np.array([row["timestamp"] for row in rows], "datetime64[s]")
    window, worth = place(times, [(np.datetime64(a[:19]), np.datetime64(b[:19])) for a, b in limits])
    counts = np.arange(len(times)) >= min(int(PROBATION * len(times)), PROBATION * PROBATION_ROWS)
    step = float(np.median(np.diff(times).astype(np.float64)))
    values = np.array([float(row["value"]) for row in rows])
    return LabelledFile(name, values, step, len(limits), window, worth, counts)


def place(
    times: NDArray[np.datetime64], limits: list[tuple[np.datetime64, np.datetime64]]
) -> tuple[NDArray[np.int64], Float64s]:
    """Each row's window, int64 [N], and the worth of a detection there, float64 [N]. Both limits are rows of it."""
    row = np.arange(len(times))
    window, worth = np.full(len(times), NO_WINDOW), np.full(len(times), -1.0)
    for number, (begin, end) in enumerate(limits):
        first, last = int(np.flatnonzero(times == begin)[0]), int(np.flatnonzero(times == end)[0])
        width = last - first + 1
        behind = row > last
        worth[behind] = sigmoid((row[behind] - last) / (width - 1.0))
        inside = slice(first, last + 1)
        window[inside] = number
    for number in range(len(limits)):  # windows last: the rows between two belong to the first one's wake
        inside = np.flatnonzero(window == number)
        worth[inside] = sigmoid(-(inside[-1] - inside + 1.0) / len(inside)) / sigmoid(np.array(-1.0))
    return window, worth


class Scoring:
    """The rules over a list of files, ready for many detectors."""

    def __init__(self, files: list[LabelledFile]) -> None:
        firsts = np.cumsum([0, *(file.windows for file in files)])
        self.windows = int(firsts[-1])
        named = [np.where(f.window < 0, NO_WINDOW, f.window + k) for f, k in zip(files, firsts[:-1], strict=True)]
        self._counts = np.concatenate([file.counts for file in files])
        self._window = np.concatenate(named)[self._counts]
        self._worth = np.concatenate([file.worth for file in files])[self._counts]

    def best(self, scores: list[Float64s], profile: Profile) -> Outcome:
        """The outcome at the threshold that is best for these files; scores float64 [N] per file, in their order.

        Detections are the rows whose score reaches the threshold. NaN is below every threshold.
        """
        flat = self._flat(scores)
        order = np.argsort(-flat, kind="stable")
        flat, window, worth = flat[order], self._window[order], self._worth[order]
        gain = np.where(window < 0, worth * profile.false_alarm, 0.0)
        by_window = np.argsort(window, kind="stable")
        for rows in np.split(by_window, np.flatnonzero(np.diff(window[by_window])) + 1):
            if window[rows[0]] >= 0:
                best_yet = np.maximum.accumulate(np.append(-profile.missed, worth[rows] * profile.found))
                gain[rows] = np.diff(best_yet)
        total = np.append(0.0, np.cumsum(gain))
        steps = np.append(True, flat[1:] != flat[:-1])  # a threshold is a score: equal ones are taken together
        ends = np.append(np.flatnonzero(steps), len(flat))
        most = ends[np.argmax(total[ends])]
        threshold = float(flat[most - 1]) if most else np.inf
        return self._evaluated(self._flat(scores) >= threshold, profile, threshold)

    def fixed(self, scores: list[Float64s], profile: Profile, threshold: float) -> Outcome:
        """The outcome where a detection is a score above `threshold`."""
        flat = self._flat(scores)
        return self._evaluated(flat > threshold, profile, threshold)

    def _flat(self, scores: list[Float64s]) -> Float64s:
        flat = np.concatenate(scores)[self._counts]
        return np.where(np.isnan(flat), -np.inf, flat)

    def _evaluated(self, detected: NDArray[np.bool_], profile: Profile, threshold: float) -> Outcome:
        window, worth = self._window, self._worth
        value = np.full(self.windows, -profile.missed)
        hits = detected & (window >= 0)
        np.maximum.at(value, window[hits], worth[hits] * profile.found)
        false = detected & (window < 0)
        raw = value.sum() + profile.false_alarm * worth[false].sum()
        null, perfect = -self.windows * profile.missed, self.windows * profile.found or 1.0
        found = len(np.unique(window[hits]))
        return Outcome(float(100.0 * (raw - null) / (perfect - null)), threshold, found, int(false.sum()))
