"""Do intervals hold what they promise? By the stream, as served, and after a shift of level or of scale.

    .venv/bin/python benchmarks/coverage.py [--data FOLDER] [--sets taxi,etth1,pjm,nab] [--seed 0] [--threads N]
                                            [--set NAME=FOLDER:SPLIT[:PERIOD] ...] [--json FILE]

A model is trained on the first part of each series as in accuracy.py, and the production engine forecasts the whole,
its intervals 90 % wide and one step ahead. Counted is, by stream with 500 or more events to test, how many fall within
the bounds that were given for them before. Then the same model meets the same series changed from the middle of the
test part on, where counting begins: moved up by three standard deviations of the training part, or blown up threefold
around its mean. Good is a share of 88 to 92 %.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from accuracy import Floats, answers, chosen, parser_of, train
from accuracy_sets import Series

ENOUGH = 500
GOOD = (0.88, 0.92)
ENOUGH_STREAMS = 0.95


def as_it_is(own: Series) -> Floats:
    return own.y


def moved(own: Series) -> Floats:
    y = own.y.copy()
    y[middle(own) :] += 3 * np.std(own.y[: own.train])
    return y


def blown_up(own: Series) -> Floats:
    y, mean = own.y.copy(), np.mean(own.y[: own.train])
    y[middle(own) :] = mean + 3 * (y[middle(own) :] - mean)
    return y


def middle(own: Series) -> int:
    return (own.train + len(own.y)) // 2


CASES: dict[str, tuple[Callable[[Series], Floats], Callable[[Series], int]]] = {
    "as it is": (as_it_is, lambda own: own.train),
    "level": (moved, middle),
    "scale": (blown_up, middle),
}
"""The series, and the first event that is counted."""


def bounds(model: Path, values: list[Floats], folder: Path) -> tuple[list[Floats], list[Floats]]:
    """Per stream, the lower and the upper bound that were given for each event before it came; NaN for the first."""
    lower, upper = ([np.full(len(own) + 1, np.nan) for own in values] for _ in range(2))
    for stream, row, answer in answers(model, values, folder):
        for side, name, unbounded in ((lower, "lower", -np.inf), (upper, "upper", np.inf)):
            bound = answer[name][0]
            side[stream][row + 1] = unbounded if bound is None else bound
    return [own[:-1] for own in lower], [own[:-1] for own in upper]


def measure(series: list[Series], seed: int, threads: int) -> dict[str, list[float]]:
    """Of each case, by stream, the share of events that fell within their bounds."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train(series, folder, seed, threads)
        for case, (change, first) in CASES.items():
            values = [change(own) for own in series]
            shares = found[case] = []
            for own, y, lower, upper in zip(series, values, *bounds(model, values, folder), strict=True):
                counted = slice(first(own), None)
                shares.append(float(np.mean((lower[counted] <= y[counted]) & (y[counted] <= upper[counted]))))
    return found


def show(name: str, case: str, shares: list[float]) -> bool:
    good = float(np.mean([GOOD[0] <= share <= GOOD[1] for share in shares]))
    print(f"| {name} | {len(shares)} | {case} | {good:.1%} | {min(shares):.1%} to {max(shares):.1%} |", flush=True)
    return good >= ENOUGH_STREAMS


def main() -> None:
    parser = parser_of(__doc__ or "", ["taxi", "etth1", "pjm", "nab"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    document: dict[str, dict[str, list[float]]] = {}
    print("| set | streams | case | 88 to 92 % on | least to greatest |\n|---|---|---|---|---|")
    for name, load in chosen(asked).items():
        series = load()
        counted = [k for k, own in enumerate(series) if len(own.y) - own.train >= ENOUGH]
        if not counted:
            continue
        found = measure(series, asked.seed, asked.threads)
        document[name] = {case: [shares[k] for k in counted] for case, shares in found.items()}
        for case, shares in document[name].items():
            show(name, case, shares)
    reached = True
    for case in CASES:
        reached &= show("all", case, [share for of_set in document.values() for share in of_set[case]])
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=1))
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
