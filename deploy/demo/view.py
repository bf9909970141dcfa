"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.demo.scores import Scoreboard, StreamScore, coverage, geometric_mean

BARS = "▁▂▃▄▅▆▇█"
LONGEST_NAME, LONGEST_SPARKLINE = 34, 32
FIGURES = {"events": 7, "now": 7, "next": 7, "error/naive": 11, "coverage": 8, "anomalies": 9}
"""Headings and widths. coverage: share of values that came to lie in their intervals."""
PLAIN_EVERY_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Board:
    """The demo at one moment. `events_per_second` and `commit_ms` are of the last second or so."""

    scores: Scoreboard
    expected: int
    forecasts: int
    dead_letters: int
    events_per_second: float
    commit_ms: float | None
    elapsed_seconds: float

    @property
    def held_out(self) -> bool:
        """Whether the replay has come to the part that the model was not trained on."""
        return any(score.held_out.n for score in self.scores.streams.values())

    @property
    def error_against_naive(self) -> float | None:
        known = [part.ratio for part in self.scores.current() if part.ratio]
        return geometric_mean(known) if known else None

    @property
    def coverage(self) -> float | None:
        return coverage(self.scores.current())

    @property
    def anomalies(self) -> int:
        return sum(part.anomalies for part in self.scores.current())


class View(Protocol):
    """`say` a finished step of the setting up; `show` boards while `following`."""

    def say(self, text: str) -> None: ...

    def following(self) -> AbstractContextManager[None]: ...

    def show(self, board: Board) -> None: ...


class PlainView:
    """One line for each step, and one every few seconds of the replay: for logs and CI."""

    def __init__(self) -> None:
        self._next_line = 0.0

    def say(self, text: str) -> None:
        print(text, flush=True)

    @contextmanager
    def following(self) -> Iterator[None]:
        yield

    def show(self, board: Board) -> None:
        if board.elapsed_seconds >= self._next_line:
            self._next_line = board.elapsed_seconds + PLAIN_EVERY_SECONDS
            print(f"  {board.elapsed_seconds:5.1f} s  {status_line(board)}", flush=True)


class LiveView:
    """A table that is drawn over, one row for each stream."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, text: str) -> None:
        self._console.print(Text.assemble(("✓ ", "green"), text))

    @contextmanager
    def following(self) -> Iterator[None]:
        with Live(console=self._console, auto_refresh=False) as live:
            self._live = live
            yield
            self._live = None

    def show(self, board: Board) -> None:
        if self._live is not None:
            shown = Group(table(board, self._console.width), Text(status_line(board), style="bold"))
            self._live.update(shown, refresh=True)


def status_line(board: Board) -> str:
    part = "unseen part" if board.held_out else "training part"
    said = [f"{board.forecasts:,} of {board.expected:,} forecasts", f"{board.events_per_second:,.0f} events/s"]
    if board.commit_ms is not None:
        said.append(f"commit {board.commit_ms:.1f} ms")
    said.append(f"{board.dead_letters} dead letters")
    if board.error_against_naive is not None:
        said.append(f"{part}: error / naive {board.error_against_naive:.2f}")
    if board.coverage is not None:
        said.append(f"{percent(board.coverage)} within 90 % intervals")
        said.append(f"{board.anomalies} anomalies")
    return " · ".join(said)


def table(board: Board, width: int) -> Table:
    """One row for each stream, `width` characters wide; the scores are those of the part being replayed."""
    between = len(FIGURES) + 3  # one space between columns, one at each edge
    left = max(20, width - sum(FIGURES.values()) - between)
    name = min(LONGEST_NAME, left * 3 // 5)
    sparkline_width = min(LONGEST_SPARKLINE, left - name)
    rows = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    rows.add_column("stream", no_wrap=True, width=name)
    rows.add_column("values", no_wrap=True, width=sparkline_width)
    for heading, figure_width in FIGURES.items():
        rows.add_column(heading, justify="right", no_wrap=True, width=figure_width)
    for score in board.scores.streams.values():
        rows.add_row(*_cells(score, sparkline_width))
    return rows


def _cells(score: StreamScore, sparkline_width: int) -> Sequence[str | Text]:
    if not score.forecasts:
        return (score.stream, "", "0", *[""] * (len(FIGURES) - 1))
    newest, part = score.forecasts[-1], score.current
    return (
        score.stream,
        Text(sparkline([forecast.y for forecast in score.forecasts[-sparkline_width:]]), style="cyan"),
        f"{len(score.forecasts):,}",
        short(newest.y),
        short(newest.yhat),
        _ratio_text(part.ratio),
        "" if part.coverage is None else percent(part.coverage),
        Text(str(part.anomalies), style="bold magenta" if newest.is_anomaly else ""),
    )


def short(value: float) -> str:
    """A number in at most six characters or so: 0, 0.299, 94.58, 25.3k, 2.42M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.4g}" if abs(value) >= 1 or not value else f"{value:.3f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _ratio_text(ratio: float | None) -> Text:
    if ratio is None:
        return Text("")
    style = "green" if ratio < 0.98 else "yellow" if ratio <= 1.02 else "red"
    return Text(f"{ratio:.3f}", style=style)


def sparkline(values: Sequence[float]) -> str:
    """One block character for each value, between the smallest and the largest of them."""
    levels = np.asarray(values, np.float64)
    low, high = levels.min(), levels.max()
    height = (levels - low) / (high - low) if high > low else np.zeros_like(levels)
    return "".join(BARS[int(level)] for level in np.minimum(height * len(BARS), len(BARS) - 1))
