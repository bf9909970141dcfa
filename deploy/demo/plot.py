"""The picture that the demo leaves: actual values against one-step forecasts, one panel for each stream."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from deploy.demo.scores import Scoreboard, StreamScore

matplotlib.use("Agg")

EVENTS = 120
COLUMNS = 3
ACTUAL, FORECAST = "#9aa0a6", "#d1495b"
BETTER, WORSE = "#2a7f4f", "#b3261e"


def save_plot(scores: Scoreboard, path: Path) -> None:
    """Write a PNG of the last `EVENTS` events of every stream, each beside the forecast made one event before."""
    streams = list(scores.streams.values())
    rows = -(-len(streams) // COLUMNS)
    figure = Figure(figsize=(5.2 * COLUMNS, 2.5 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for panel, score in zip(panels, streams, strict=False):
        _draw(panel, score)
    for panel in list(panels)[len(streams) :]:
        panel.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=11)
    figure.suptitle(f"The last {EVENTS} events of each stream, none of them seen in training", x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw(panel: Axes, score: StreamScore) -> None:
    times = np.array(score.ts[-EVENTS:], "datetime64[ms]")
    forecast_of = [float("nan"), *score.yhat[:-1]][-EVENTS:]
    panel.plot(times, score.y[-EVENTS:], color=ACTUAL, linewidth=2.4, label="actual")
    panel.plot(times, forecast_of, color=FORECAST, linewidth=1.1, label="forecast one event before")
    ratio = score.held_out.ratio
    panel.set_title(score.stream, loc="left", fontsize=10)
    if ratio is not None:
        panel.set_title(
            f"error / naive {ratio:.2f}", loc="right", fontsize=9, color="#2a7f4f" if ratio < 1 else "#b3261e"
        )
    locator = AutoDateLocator(maxticks=6)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.01)
