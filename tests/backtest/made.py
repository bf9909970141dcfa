"""Events as they come in a bad week, for the tests."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.backtest.events import FIRST_MS, HOUR_MS, Event, write_series


def made_series(path: Path) -> Path:
    """Days and weeks with noise, a walk, a constant, and levels that shift; one is far from zero, one begins late."""
    rng = np.random.default_rng(11)
    hours = np.arange(900)
    day = 10 * np.sin(hours * 2 * np.pi / 24) * (1 + 0.5 * (hours // 24 % 7 < 5))
    series = {f"day-{k}": (k + 1) * day + rng.normal(0, 2, 900) + 100 * k for k in range(6)}
    series |= {f"walk-{k}": rng.normal(size=900).cumsum() + 1e9 * k for k in range(3)}
    series |= {"constant": np.full(900, 7.0), "shift": day + 50.0 * (hours > 500), "late": day[500:]}
    return write_series(path, series, {"late": 500})


def odd_events(path: Path) -> Path:
    """Two inputs, each missing now and then; late, double and unreadable rows, and gaps."""
    rng, rows = random.Random(7), ["stream,ts,load,temp"]
    for hour in range(500):
        for stream in range(8):
            if hour % 90 < 4 * stream:
                continue
            behind = rng.choice([1, 1, 5, 40]) if rng.random() < 0.05 else 0
            load = "" if rng.random() < 0.05 else repr(10.0**stream * (5 + hour % 24 / 8 + rng.gauss(0, 0.5)))
            temp = "NA" if rng.random() < 0.05 else f"{rng.gauss(20, 5):.3f}"
            row = f"s{stream},{FIRST_MS + HOUR_MS * (hour - behind)},{load},{temp}"
            rows += [row] * (1 + (rng.random() < 0.03))
            if rng.random() < 0.02:
                rows.append(rng.choice(["s1,2,3", f"s1,soon,{load},{temp}", row + "x", f",{row.split(',', 1)[1]}"]))
    path.write_text("\n".join(rows) + "\n")
    return path


def unlike_a_file() -> Iterator[Event]:
    """Streams out of step, some begun anew by a record without a value, more of them than there is room for."""
    rng = random.Random(3)
    clock = [rng.randrange(50) for _ in range(40)]
    for n in range(6000):
        stream = rng.randrange(10 + 30 * (n > 3000))
        clock[stream] += 1 if rng.random() < 0.98 else 60
        value = {"ts": FIRST_MS + HOUR_MS * clock[stream], "value": round(rng.gauss(stream, 1), 3)}
        yield Event(f"s{stream}", None if rng.random() < 0.02 else json.dumps(value).encode())
