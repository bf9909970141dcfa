"""The picture that the demo leaves, of the part that the model had never seen: what came, what was forecast one event
before and within which interval, and what was anomalous. For each of a few streams all of it, and a stretch in detail.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deploy.demo.scores import Part, Scoreboard, StreamScore
from deploy.demo.view import percent, short

matplotlib.use("Agg")

STREAMS = 6
DETAIL = 150  # events
INK, MUTED, GRID = "#2b2d33", "#8a8f98", "#e9ebee"
FORECAST, INTERVAL, ANOMALY = "#0072b2", "#56b4e9", "#d55e00"  # of Okabe and Ito, for every kind of eye


@dataclass(frozen=True)
class Stretch:
    """Events of a stream [n], in order, each beside the forecast made of it; NaN where there was none."""

    times: NDArray[np.datetime64]
    y: NDArray[np.float64]
    yhat: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    is_anomaly: NDArray[np.bool_]
    score: NDArray[np.float64]

    @classmethod
    def held_out(cls, score: StreamScore) -> "Stretch":
        made = score.forecasts[score.n_trained - 1 : -1]
        came = score.forecasts[score.n_trained :]
        bounds = np.array([[each.yhat, each.lower, each.upper] for each in made], np.float64).reshape(-1, 3)
        return cls(
            times=np.array([each.ts for each in came], "datetime64[ms]"),
            y=np.array([each.y for each in came], np.float64),
            yhat=bounds[:, 0],
            lower=np.where(np.isfinite(bounds[:, 1]), bounds[:, 1], np.nan),
            upper=np.where(np.isfinite(bounds[:, 2]), bounds[:, 2], np.nan),
            is_anomaly=np.array([each.is_anomaly for each in came], np.bool_),
            score=np.array([each.anomaly_score for each in came], np.float64),
        )

    def detail(self) -> "Stretch":
        """`DETAIL` events, of which the oddest is at two thirds where it can be."""
        first = int(np.argmax(self.score)) - DETAIL * 2 // 3
        first = max(0, min(first, len(self.y) - DETAIL))
        part = slice(first, first + DETAIL)
        return Stretch(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


def save_plot(scores: Scoreboard, path: Path) -> None:
    """Write a PNG of the streams with the most anomalies."""
    seen = [(score, stretch) for score in scores.streams.values() if len((stretch := Stretch.held_out(score)).y)]
    seen = sorted(seen, key=lambda pair: pair[0].held_out.anomalies, reverse=True)[:STREAMS]
    figure = Figure(figsize=(15, 2.3 * len(seen) + 1.2), layout="constrained")
    panels = figure.subplots(len(seen), 2, squeeze=False, width_ratios=(2, 3))
    for (score, stretch), (whole, close) in zip(seen, panels, strict=True):
        detail = stretch.detail()
        _draw_whole(whole, stretch, detail)
        _draw_detail(close, detail)
        whole.set_title(score.stream, loc="left", fontsize=11, color=INK, fontweight="bold")
        close.set_title(_figures(score.held_out), loc="right", fontsize=9.5, color=MUTED)
    title = "New to the model: all of it, and the shaded stretch in detail"
    figure.suptitle(title, x=0.008, ha="left", fontsize=14, color=INK)
    handles, labels = panels[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=4, frameon=False, fontsize=10.5, labelcolor=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _figures(part: Part) -> str:
    said = [] if part.ratio is None else [f"error / naive {part.ratio:.2f}"]
    said += [] if part.coverage is None else [f"{percent(part.coverage)} within the interval"]
    return " · ".join([*said, f"anomalies: {part.anomalies} of {part.n:,} events"])


def _draw_whole(panel: Axes, stretch: Stretch, detail: Stretch) -> None:
    panel.axvspan(detail.times[0], detail.times[-1], color=GRID, linewidth=0)
    panel.plot(stretch.times, stretch.y, color=MUTED, linewidth=0.7)
    _draw_anomalies(panel, stretch, size=16)
    _dress(panel)


def _draw_detail(panel: Axes, detail: Stretch) -> None:
    panel.fill_between(
        detail.times, detail.lower, detail.upper, color=INTERVAL, alpha=0.32, linewidth=0, label="90 % interval"
    )
    panel.plot(detail.times, detail.y, color=INK, linewidth=1.3, label="actual")
    panel.plot(detail.times, detail.yhat, color=FORECAST, linewidth=1.2, label="forecast one event before")
    _draw_anomalies(panel, detail, size=46)
    low, high = float(np.min(detail.y)), float(np.max(detail.y))
    room = 0.3 * (high - low) or 1.0
    panel.set_ylim(low - room, high + room)
    _dress(panel)


def _draw_anomalies(panel: Axes, stretch: Stretch, size: float) -> None:
    odd = stretch.is_anomaly
    panel.scatter(
        stretch.times[odd], stretch.y[odd], s=size, facecolor="white", edgecolor=ANOMALY, linewidth=1.6, zorder=3,
        label="anomaly",
    )  # fmt: skip


def _dress(panel: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=6)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panel.yaxis.set_major_formatter(lambda value, _: short(value))
    panel.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    panel.tick_params(labelsize=8.5, color=GRID, labelcolor=MUTED, length=3)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(GRID)
    panel.margins(x=0.01)
