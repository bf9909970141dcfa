"""The data sets of accuracy.py: where they come from, how they are cut, what their season is.

    m4_hourly   M4's hourly series (github.com/Mcompetitions/M4-methods, Dataset): m4/Hourly-train.csv.gz, Hourly-test
    taxi        New York's taxis by half hours (github.com/numenta/NAB): nab/data/realKnownCause/nyc_taxi.csv
    etth1       transformer temperatures (github.com/zhouhaoyi/ETDataset): ett/ETT-small/ETTh1.csv.gz
    pjm         PJM's zones by hours (github.com/Nixtla/transfer-learning-time-series, datasets): pjm/pjm_in_zone.csv.gz
    nab         the other real series of NAB: nab/data/real*/*.csv

Splits: M4's own (48 steps are tested); the first 70 % of taxi train; 16 months of ETTh1 of 30 days train and 4 more are
tested; the first 80 % of PJM; the first half of NAB's.
"""

import csv
import gzip
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.fields import FieldPaths
from streamlstm.history.collector import Rules
from streamlstm.history.columns import Wanted
from streamlstm.history.files import read_files

MONTH = 30 * 24
ETT_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")


@dataclass(frozen=True)
class Series:
    """y float64 [T], the first `train` of which are learned from. period: the season that seasonal measures take."""

    name: str
    y: NDArray[np.float64]
    train: int
    period: int


def m4_hourly(data: Path) -> list[Series]:
    parts = []
    for part in ("train", "test"):
        rows = list(csv.reader(opened(data / "m4" / f"Hourly-{part}.csv.gz")))[1:]
        parts.append({row[0]: [float(cell) for cell in row[1:] if cell] for row in rows})
    train, test = parts
    return [Series(name, np.array(known + test[name]), len(known), 24) for name, known in train.items()]


def taxi(data: Path) -> list[Series]:
    path = data / "nab" / "data" / "realKnownCause" / "nyc_taxi.csv"
    y = _values(path)
    return [Series("nyc_taxi", y, int(len(y) * 0.7), 48)]


def etth1(data: Path) -> list[Series]:
    rows = list(csv.DictReader(opened(data / "ett" / "ETT-small" / "ETTh1.csv.gz")))[: 20 * MONTH]
    return [Series(name, np.array([float(row[name]) for row in rows]), 16 * MONTH, 24) for name in ETT_COLUMNS]


def pjm(data: Path) -> list[Series]:
    zones: dict[str, list[tuple[str, float]]] = {}
    for row in csv.DictReader(opened(data / "pjm" / "pjm_in_zone.csv.gz")):
        zones.setdefault(row["unique_id"], []).append((row["ds"], float(row["y"]) if row["y"] else np.nan))
    found = []
    for name, events in zones.items():
        y = _filled(np.array([value for _, value in sorted(events)]))
        if len(y) > 2000:
            found.append(Series(name, y, int(len(y) * 0.8), 24))
    return found


def nab(data: Path) -> list[Series]:
    found = []
    for path in sorted((data / "nab" / "data").glob("real*/*.csv")):
        if path.name == "nyc_taxi.csv":
            continue
        name = f"{path.parent.name}/{path.name}"
        daily = 24 if "realAdExchange" in name or "ambient_temp" in name else 288
        y = _values(path)
        train = len(y) // 2
        if train >= 2 * daily + 50 and y[:train].std() > 0:
            found.append(Series(name, y, train, daily))
    return found


SETS: dict[str, Callable[[Path], list[Series]]] = {
    "m4_hourly": m4_hourly, "taxi": taxi, "etth1": etth1, "pjm": pjm, "nab": nab,
}  # fmt: skip


def from_folder(given: str) -> list[Series]:
    """FOLDER:SPLIT[:PERIOD] of accuracy.py's --set; the period is 24 where it isn't given. Too short ones are left."""
    folder, split, *rest = given.rsplit(":", 2 if given.count(":") > 1 else 1)
    period = int(rest[0]) if rest else 24
    history = read_files((folder,), Wanted(FieldPaths(inputs=("value",))), Rules(), lambda read: None)
    found = []
    for stream in range(len(history.streams)):
        y = history.x[history.rows_of(stream), 0].copy()
        train = len(y) + int(split) if float(split) < 0 else int(len(y) * float(split))
        if period < train < len(y):
            found.append(Series(history.name(stream), y, train, period))
    return found


def opened(path: Path) -> TextIO:
    if not path.exists():
        sys.exit(f"{path} isn't there: --data names the folder; accuracy_sets.py says where each set comes from")
    return io.TextIOWrapper(gzip.open(path)) if path.suffix == ".gz" else path.open()


def _values(path: Path) -> NDArray[np.float64]:
    return np.array([float(row["value"]) for row in csv.DictReader(opened(path))])


def _filled(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Missing values become the last known one."""
    place = np.where(np.isfinite(y), np.arange(len(y)), 0)
    return y[np.maximum.accumulate(place)]
