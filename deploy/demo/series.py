"""The dozen real series of the demo: github.com/numenta/NAB at ea702d7 (MIT, data/LICENSE), each file unchanged.

One file is one stream; its file name is the stream id. The demo trains its model on the first `TRAINED` part of each
series; what comes after it is new to the model, and is what its forecasts are held to.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parent / "data"
TRAINED = 0.6


@dataclass(frozen=True, slots=True)
class Series:
    """One stream: `ts` int64 (n,) epoch ms (the files' local times read as UTC), `y` float64 (n,)."""

    stream: str
    ts: NDArray[np.int64]
    y: NDArray[np.float64]

    @property
    def n_trained(self) -> int:
        """How many of the first events the model learns from."""
        return int(len(self.y) * TRAINED)


def load_series(folder: Path = DATA) -> list[Series]:
    """Every CSV file (`timestamp,value`) of `folder`, by name."""
    return [_read(path) for path in sorted(folder.glob("*.csv"))]


def write_history(series: Sequence[Series], path: Path) -> None:
    """What the model may learn from, as a CSV of `stream,time,value`."""
    with path.open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(["stream", "time", "value"])
        for one in series:
            past = slice(0, one.n_trained)
            times = np.datetime_as_string(one.ts[past].astype("datetime64[ms]"), timezone="UTC")
            rows.writerows((one.stream, *row) for row in zip(times, one.y[past].tolist(), strict=True))


def _read(path: Path) -> Series:
    with path.open(newline="") as lines:
        rows = [(_epoch_ms(row["timestamp"]), float(row["value"])) for row in csv.DictReader(lines)]
    times, values = zip(*rows, strict=True)
    return Series(path.stem, np.array(times, np.int64), np.array(values, np.float64))


def _epoch_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def replay_order(series: Sequence[Series]) -> Iterator[tuple[int, int]]:
    """(series, position) of every event: each series in its own order of time, and all of them side by side.

    The series come from different years and tick every 5 minutes to every hour, so each is stretched over the whole
    replay: all start together and end together.
    """
    which = np.repeat(np.arange(len(series)), [len(one.y) for one in series])
    position = np.concatenate([np.arange(len(one.y)) for one in series])
    moment = np.concatenate([(np.arange(len(one.y)) + 0.5) / len(one.y) for one in series])
    for row in np.lexsort((which, moment)):
        yield int(which[row]), int(position[row])
