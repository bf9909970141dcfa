"""Accuracy: what `train --recipe auto` forecasts, beside naive, seasonal naive, AutoETS and a plain LSTM.

    .venv/bin/python benchmarks/accuracy.py [--data FOLDER] [--sets m4_hourly,taxi,etth1,pjm,nab] [--seeds 0,1,2]
                                            [--set NAME=FOLDER:SPLIT[:PERIOD] ...] [--rivals lstm,ets] [--cache FILE]
                                            [--json FILE] [--threads N]

The product is trained by the command, on a CSV of the training parts, with --horizon 24 and no other option; then
`streamlstm forecast`, the production engine, forecasts every event of the whole series in order, its guard on. Nothing
is refitted in the test part, and every actual is seen after it has been forecast.

    RelMAE    one step ahead at every test point; MAE over that of repeating the last value, geometric mean over streams
    worst     the largest of these ratios
    MASE      of 1 to 24 steps ahead, from an origin every 24 steps, by the seasonal naive MAE of the training part

Streams that are constant in training, or repeat season for season exactly, aren't scored. The data sets are public:
accuracy_sets.py says where each comes from. --set adds others: a folder of CSV files, each a series or several as
`train` reads them (long or wide); SPLIT is the share that trains (0.8), or minus the rows of the test (-48).

The rivals are optional, and slow: lstm needs torch, ets statsforecast. Their results are kept in --cache.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from accuracy_rivals import RIVALS
from accuracy_sets import SETS, Series, from_folder
from kernel import machine
from numpy.typing import NDArray

from streamlstm.evaluation.metrics import mae, rel_mae, scale

Floats = NDArray[np.float64]
STEPS = 24
INTERVAL_MS = 60_000

BAR = {
    "m4_hourly": (0.30, 0.40, 0.75), "taxi": (0.47, 0.55, 0.74), "etth1": (0.86, 0.95, 0.83),
    "pjm": (0.21, 0.30, 0.77), "nab": (0.85, 0.95, 1.07),
}  # fmt: skip
"""What the product must reach: RelMAE, the RelMAE that is allowed at worst (of a seed), MASE."""


@dataclass(frozen=True)
class Score:
    rel_mae: float
    worst: float
    mase: float


def scores(series: list[Series], forecasts: list[Floats]) -> Score:
    """forecasts: [T, STEPS] each; row t holds what was forecast when y[t] had been seen, of y[t + 1] and on."""
    errors, naive, scaled = [], [], []
    for own, forecast in zip(series, forecasts, strict=True):
        known = own.y[: own.train]
        season = scale(known, own.period)
        if not (np.ptp(known) > 0 and season > 0):
            continue
        test = own.y[own.train :]
        errors.append(max(mae(test, forecast[own.train - 1 : -1, 0]), 1e-12))
        naive.append(mae(test, own.y[own.train - 1 : -1]))
        origins = range(own.train, len(own.y) - STEPS + 1, STEPS)
        if origins:
            scaled.append(np.mean([mae(own.y[o : o + STEPS], forecast[o - 1]) for o in origins]) / season)
    ratios = np.array(errors) / np.where(np.array(naive) > 0, naive, np.nan)
    return Score(rel_mae(np.array(errors), np.array(naive)), float(np.nanmax(ratios)), float(np.mean(scaled)))


def naive(own: Series) -> Floats:
    return np.repeat(own.y[:, None], STEPS, axis=1)


def seasonal_naive(own: Series) -> Floats:
    t, h = np.arange(len(own.y))[:, None], np.arange(1, STEPS + 1)
    return own.y[np.maximum(t + h - own.period * -(-h // own.period), 0)]


# ------------------------------------------------------------------------------------------------------------- product


def product(series: list[Series], seed: int, threads: int) -> list[Floats]:
    """Through the commands, as anybody would."""
    found = [np.full((len(own.y), STEPS), np.nan) for own in series]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train(series, folder, seed, threads)
        for stream, row, answer in answers(model, [own.y for own in series], folder):
            found[stream][row] = answer["yhat"]
    return found


def train(series: list[Series], folder: Path, seed: int, threads: int) -> Path:
    """A model of the training parts."""
    past, model = folder / "past.csv", folder / "model"
    write_csv(past, [own.y[: own.train] for own in series])
    command("train", past, "-o", model, "--horizon", STEPS, "--seed", seed, "--threads", threads)
    return model


def answers(model: Path, values: list[Floats], folder: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The stream, the row of its event, and what the engine answers to it, event by event."""
    whole, answered = folder / "all.csv", folder / "answers"
    write_csv(whole, values)
    command("forecast", "--model", model, "--input", whole, "--output", answered, "--set", "state.max_streams=100000")
    seen = [0] * len(values)
    with answered.open("rb") as lines:
        for line in lines:
            answer = orjson.loads(line)
            stream = int(answer["stream"])
            yield stream, seen[stream], answer
            seen[stream] += 1
    assert seen == [len(own) for own in values], "the engine answered another number of events"


def write_csv(path: Path, values: list[Floats]) -> None:
    """Streams 0 and on, by the minute."""
    with path.open("w") as file:
        file.write("stream,ts,value\n")
        for stream, own in enumerate(values):
            file.writelines(f"{stream},{INTERVAL_MS * t},{value!r}\n" for t, value in enumerate(own.tolist()))


def command(*arguments: object) -> None:
    """Run the program; what it says of its work goes to stderr."""
    line = [sys.executable, "-m", "streamlstm", *map(str, arguments)]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"streamlstm {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stderr}")
    for line in (*done.stderr.splitlines(), *done.stdout.splitlines()):
        if not line.startswith("network"):
            print(f"    {line}", file=sys.stderr)


# --------------------------------------------------------------------------------------------------------------- table


def measure(name: str, series: list[Series], asked: argparse.Namespace, cache: dict[str, Any]) -> dict[str, Score]:
    found = {
        "naive": scores(series, [naive(own) for own in series]),
        "seasonal naive": scores(series, [seasonal_naive(own) for own in series]),
    }
    for rival in asked.rivals:
        key = f"{name} {rival}"
        if key not in cache:
            cache[key] = asdict(scores(series, RIVALS[rival](series, STEPS)))
        found[rival] = Score(**cache[key])
    for seed in asked.seeds:
        found[f"auto, seed {seed}"] = scores(series, product(series, seed, asked.threads))
    of_seeds = [own for method, own in found.items() if method.startswith("auto")]
    found["auto"] = Score(*(float(np.mean([getattr(own, part) for own in of_seeds])) for part in asdict(of_seeds[0])))
    return found


def show(name: str, series: list[Series], found: dict[str, Score]) -> bool:
    rows, tested = sum(len(own.y) for own in series), sum(len(own.y) - own.train for own in series)
    print(f"\n{name}: {len(series)} series, {rows:,} rows, {tested:,} of them tested")
    print(f"  {'':20}{'RelMAE':>9}{'worst':>9}{'MASE':>9}")
    for method, own in found.items():
        print(f"  {method:20}{own.rel_mae:9.3f}{own.worst:9.2f}{own.mase:9.3f}")
    if name not in BAR:
        return True
    rel, worst, mase = BAR[name]
    reached = found["auto"].rel_mae <= rel and found["auto"].mase <= mase
    reached &= all(own.rel_mae <= worst for method, own in found.items() if method.startswith("auto"))
    print(f"  {'bar':20}{rel:9.3f}{'':9}{mase:9.3f}  {'reached' if reached else 'MISSED'}")
    return reached


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",") if part]


def parser_of(document: str, sets: list[str]) -> argparse.ArgumentParser:
    """What to learn from, `sets` unless it is said, and where the figures go."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--data", type=Path, default=here / "shared" / "data")
    parser.add_argument("--sets", type=listed(str), default=sets)
    parser.add_argument("--set", dest="others", action="append", default=[], metavar="NAME=FOLDER:SPLIT[:PERIOD]")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    return parser


def chosen(asked: argparse.Namespace) -> dict[str, Callable[[], list[Series]]]:
    """The sets that were asked for, not read yet."""
    sets = {name: (lambda own=name: SETS[own](asked.data)) for name in asked.sets}
    for text in asked.others:
        name, _, rest = text.partition("=")
        sets[name] = lambda given=rest: from_folder(given)
    return sets


def main() -> None:
    parser = parser_of(__doc__ or "", list(SETS))
    parser.add_argument("--seeds", type=listed(int), default=[0, 1, 2])
    parser.add_argument("--rivals", type=listed(str), default=[], help=", ".join(RIVALS))
    parser.add_argument("--cache", type=Path, help="results of the rivals")
    asked = parser.parse_args()
    cache = json.loads(asked.cache.read_text()) if asked.cache and asked.cache.exists() else {}
    print(machine())
    reached, document = True, {}
    for name, load in chosen(asked).items():
        series = load()
        found = measure(name, series, asked, cache)
        reached &= show(name, series, found)
        document[name] = {method: asdict(own) for method, own in found.items()}
        if asked.cache:
            asked.cache.write_text(json.dumps(cache, indent=1))
        if asked.json:
            asked.json.write_text(json.dumps(document, indent=1))
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
