"""The anomaly score on the Numenta Anomaly Benchmark, beside its published scoreboard.

    .venv/bin/python benchmarks/nab.py --probation probation.csv [--data ../shared/data/nab]
    streamlstm train probation.csv -o nab.safetensors
    .venv/bin/python benchmarks/nab.py --model nab.safetensors [--data ..] [--gaussian] [--files]
    .venv/bin/python benchmarks/nab.py [--forecast last|season|none] [--data ..]

The data is github.com/numenta/NAB (MIT): the folders data, labels and config. All 58 files in one setting, event by
event, nothing of a file seen before it; the rules are in nab_scoring.py. `fixed`: anomalous above 1, as the product
says it. `swept`: at the one threshold for all files that is best for the profile, as the scoreboard does it.

With --model the whole product speaks: the engine that serves, one model for all files, trained on nothing but what the
benchmark lets a detector see unscored, the first 15 % of each file (--probation writes them). Else the compiled score
alone, with stand-ins for the forecast: the last value, and the value one day before for the season (NaN where a file
has no such). --forecast season: that value as the forecast too; none: neither.

Also shown are detectors that check the rules: one that never speaks, a perfect one, chance, and, with --gaussian, the
benchmark's sliding-window Gaussian (6400 values, 100 a step), which has 39.6 on the scoreboard.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
from nab_scoring import Float64s, LabelledFile, Outcome, Profile, Scoring, read_corpus, read_profiles

from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.events.batch import EventBatch
from streamlstm.kernels.anomaly import BOTH, WORDS, score_series
from streamlstm.model.model_file import Model, load

PUBLISHED = {
    "ARTime": (74.9, 65.1, 80.4),
    "Numenta HTM": (70.5, 62.6, 75.2),
    "CAD OSE": (69.9, 67.0, 73.2),
    "earthgecko Skyline": (58.2, 46.2, 63.9),
    "KNN CAD": (58.0, 43.4, 64.8),
    "Relative Entropy": (54.6, 47.6, 58.8),
    "Random Cut Forest": (51.7, 38.4, 59.7),
    "Twitter ADVec": (47.1, 33.6, 53.5),
    "Windowed Gaussian": (39.6, 20.9, 47.4),
    "Etsy Skyline": (35.7, 27.1, 44.5),
    "Bayesian Changepoint": (17.7, 3.2, 32.2),
    "EXPoSE": (16.4, 3.2, 26.9),
    "Random": (11.0, 1.2, 19.5),
    "Null": (0.0, 0.0, 0.0),
}
DAY_SECONDS = 86_400
FIRST_TS = 1_400_000_000_000


def one_day_before(file: LabelledFile) -> Float64s:
    """The value one day before each event, NaN before there is one."""
    steps = round(DAY_SECONDS / file.step_seconds)
    return np.append(np.full(steps, np.nan), file.values)[: len(file.values)]


def last_value(file: LabelledFile) -> Float64s:
    return np.append(np.nan, file.values[:-1])


def product(file: LabelledFile, forecast: str) -> Float64s:
    """The score of each event of a file, by the compiled code that serves."""
    unknown = np.full(len(file.values), np.nan)
    day = unknown if forecast == "none" else one_day_before(file)
    yhat = {"last": last_value(file), "season": day, "none": unknown}[forecast]
    score = np.empty(len(file.values))
    score_series(file.values, yhat, day, BOTH, 0.0, 0.0, np.zeros(WORDS), score)
    return score


def served(file: LabelledFile, model: Model) -> Float64s:
    """The score of each event of a file, as the daemon would have put it into the forecasts' records."""
    forecaster = Forecaster(model, ForecasterSettings(max_streams=1))
    batch = EventBatch(inputs=1, payload=np.zeros(0, np.uint8), capacity=len(file.values))
    n, key = len(file.values), file.name.encode()[:64]
    batch.stream_at[:n], batch.stream_len[:n] = batch.append_payload(key), len(key)
    batch.event_time[:n] = np.arange(n) * round(1000 * file.step_seconds)
    batch.x[:n, 0] = file.values
    batch.extend_run("nab", 0, n)
    score = forecaster.forecast(batch).anomaly_score
    if score is None:
        raise SystemExit("the model has no intervals, and so no scores: train it with --level 0.9")
    return score[:n].copy()


def write_probation(corpus: list[LabelledFile], path: Path) -> None:
    """The rows of each file that aren't scored, as a history for `train`."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stream", "ts", "value"])
        for each in corpus:
            unscored = np.flatnonzero(~each.counts)
            for row in unscored.tolist():
                rows.writerow([each.name, FIRST_TS + row * round(1000 * each.step_seconds), float(each.values[row])])


def perfect(file: LabelledFile) -> Float64s:
    score = np.zeros(len(file.values))
    for window in range(file.windows):
        score[np.flatnonzero((file.window == window) & file.counts)[0]] = 1.0
    return score


def windowed_gaussian(file: LabelledFile, size: int = 6400, step: int = 100) -> Float64s:
    """1 - Q(|y - mean| / std) of the window before each value; it grows to `size` values, then moves by `step`."""
    y, score = file.values, np.zeros(len(file.values))
    for i in range(1, len(y)):
        if i <= size or (i - size) % step == 0:
            window = y[max(0, i - size) : i]
            mean, std = window.mean(), window.std() or 1e-6
        score[i] = 1.0 - 0.5 * math.erfc(abs(y[i] - mean) / std / 1.4142)
    return score


def report(name: str, scores: list[Float64s], scoring: Scoring, profiles: dict[str, Profile], fixed: bool) -> None:
    best = [scoring.best(scores, profile) for profile in profiles.values()]
    cells = "".join(f"{outcome.score:16.2f}" for outcome in best)
    print(f"{name:32}{cells}   swept, standard at {best[0].threshold:.4g}: {found(best[0])}")
    if fixed:
        at_one = [scoring.fixed(scores, profile, 1.0) for profile in profiles.values()]
        print(f"{'':32}{''.join(f'{outcome.score:16.2f}' for outcome in at_one)}   fixed at 1: {found(at_one[0])}")


def found(outcome: Outcome) -> str:
    return f"{outcome.windows_found} windows, {outcome.false_alarms} false alarms"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "nab")
    parser.add_argument("--forecast", choices=("last", "season", "none"), default="last")
    parser.add_argument("--gaussian", action="store_true", help="run the windowed Gaussian too: a minute")
    parser.add_argument("--files", action="store_true", help="say what was found in each file")
    parser.add_argument("--probation", type=Path, metavar="FILE.csv", help="write what a model may be trained on")
    parser.add_argument("--model", type=Path, help="the whole product with this model")
    options = parser.parse_args()
    if not (options.data / "labels").is_dir():
        parser.error(f"{options.data} has no folder labels: clone github.com/numenta/NAB and name it with --data")

    corpus, profiles = read_corpus(options.data), read_profiles(options.data)
    if options.probation is not None:
        write_probation(corpus, options.probation)
        return
    scoring = Scoring(corpus)
    print(f"{len(corpus)} files, {scoring.windows} windows, {sum(len(f.values) for f in corpus)} events\n")
    print(f"{'':32}" + "".join(f"{name.removeprefix('reward_'):>16}" for name in profiles))
    for name, published in PUBLISHED.items():
        print(f"{name + ' (published)':32}" + "".join(f"{score:16.1f}" for score in published))
    print()

    report("null", [np.zeros(len(file.values)) for file in corpus], scoring, profiles, False)
    report("perfect", [perfect(file) for file in corpus], scoring, profiles, False)
    for seed in range(3):
        chance = np.random.default_rng(seed)
        report(f"chance, seed {seed}", [chance.random(len(f.values)) for f in corpus], scoring, profiles, False)
    if options.gaussian:
        report("windowed Gaussian", [windowed_gaussian(file) for file in corpus], scoring, profiles, False)
    if options.model is not None:
        model = load(options.model)
        scores = [served(file, model) for file in corpus]
        report(f"streamlstm, {options.model.name}", scores, scoring, profiles, True)
    else:
        product(corpus[0], options.forecast)
        begin = time.process_time()
        scores = [product(file, options.forecast) for file in corpus]
        seconds = time.process_time() - begin
        report(f"streamlstm, {options.forecast}", scores, scoring, profiles, True)
        print(f"\n{seconds / sum(map(len, scores)) * 1e9:.0f} ns per event")
    if options.files:
        for file, score in zip(corpus, scores, strict=True):
            print(f"{file.name:60}{found(Scoring([file]).fixed([score], profiles['standard'], 1.0))} of {file.windows}")


if __name__ == "__main__":
    main()
