"""A picture of a dashboard as Grafana lays it out: its grid, titles, units, thresholds, legends and annotations, and
what its queries find. Grafana itself isn't needed; matplotlib draws.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from tests.dashboards.grafana import COLUMNS, PIXELS, Dashboard, Series
from tests.dashboards.units import written

CELL, GAP, INSET = 38, 8, 10
DPI = 100
BACKGROUND, PANEL, EDGE, TEXT, FAINT, GRID = "#111217", "#181b1f", "#2a2d33", "#ccccdc", "#8e8e9a", "#2b2e35"
NAMED = {"green": "#73bf69", "yellow": "#fade2a", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2",
         "purple": "#b877d9"}  # fmt: skip
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a",
           "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477")  # fmt: skip
ORANGES = LinearSegmentedColormap.from_list("oranges", ["#2b1a0e", "#7f3a0d", "#e8731a", "#fdbe85", "#feedde"])
FONTS = ("Inter", "Liberation Sans", "DejaVu Sans")  # Grafana's own, else one that is there
LEGEND_SHARE, LEGEND_ROW = 0.35, 21


@dataclass(frozen=True, slots=True)
class Line:
    """A series with its name and colour."""

    name: str
    color: str
    series: Series

    @property
    def xy(self) -> tuple[np.ndarray, np.ndarray]:
        points = np.array(self.series.points)
        return points[:, 0], points[:, 1]


class Canvas:
    """A figure measured in pixels from the top left."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure((width / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)

    def text(self, x: float, y: float, text: str, size: float = 12, color: str = TEXT, **kind: Any) -> None:
        """`y`: of the middle; `size` in pixels."""
        options = {"va": "center", "ha": "left", "fontsize": size * 72 / DPI, "color": color, **kind}
        self.figure.text(x / self.width, 1 - y / self.height, text, **options)

    def box(self, x: float, y: float, w: float, h: float, **kind: Any) -> None:
        rounded = "round,pad=0,rounding_size=0.0006"
        corner = (x / self.width, 1 - (y + h) / self.height)
        patch = FancyBboxPatch(corner, w / self.width, h / self.height, boxstyle=rounded, lw=0.8, zorder=-1, **kind)
        self.figure.add_artist(patch)

    def axes(self, x: float, y: float, w: float, h: float) -> Axes:
        found = self.figure.add_axes((x / self.width, 1 - (y + h) / self.height, w / self.width, h / self.height))
        found.set_facecolor("none")
        found.tick_params(colors=FAINT, labelsize=7.5, length=0, pad=3)
        for spine in found.spines.values():
            spine.set_visible(False)
        return found


@dataclass(frozen=True, slots=True)
class Frame:
    """One panel, where it lies on the canvas (pixels), and what its queries found."""

    canvas: Canvas
    dashboard: Dashboard
    panel: dict[str, Any]
    x: float
    y: float
    w: float
    h: float
    found: list[tuple[dict[str, Any], list[Series]]]
    events: list[tuple[str, float, float]]

    @property
    def defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = self.panel["fieldConfig"]["defaults"]
        return defaults

    @property
    def custom(self) -> dict[str, Any]:
        custom: dict[str, Any] = self.defaults.get("custom", {})
        return custom

    def written(self, value: float) -> str:
        decimals = self.defaults.get("decimals")
        return written(value, self.defaults["unit"], None if decimals is None else int(decimals))

    def steps(self) -> list[tuple[float, str]]:
        found = self.defaults.get("thresholds", {}).get("steps", [])
        return [(-math.inf if step["value"] is None else step["value"], _named(step["color"])) for step in found]

    def color_at(self, value: float) -> str:
        return [color for begin, color in self.steps() if value >= begin][-1]

    def override(self, name: str, what: str) -> Any:
        for override in self.panel["fieldConfig"]["overrides"]:
            if override["matcher"]["options"] == name:
                for each in override["properties"]:
                    if each["id"] == what:
                        return each["value"]
        return None

    def lines(self) -> list[Line]:
        every = [(series.name(target.get("legendFormat")), series) for target, found in self.found for series in found]
        made = []
        for k, (name, series) in enumerate(every):
            fixed = self.override(name, "color")
            made.append(Line(name, _named(fixed["fixedColor"]) if fixed else PALETTE[k % len(PALETTE)], series))
        return made


def draw(dashboard: Dashboard, path: Path) -> None:
    """Writes a PNG."""
    known = {font.name for font in fontManager.ttflist}
    mpl.rcParams["font.family"] = next(name for name in FONTS if name in known)
    grid = [panel["gridPos"] for panel in dashboard.json["panels"]]
    top = 84
    canvas = Canvas(PIXELS, top + max(each["y"] + each["h"] for each in grid) * CELL + GAP)
    _head(canvas, dashboard)
    events = [
        (_named(annotation["iconColor"]), begin, end)
        for annotation, found in dashboard.annotations()
        for begin, end, _ in found
    ]
    column = (PIXELS - GAP) / COLUMNS
    for panel in dashboard.json["panels"]:
        at = panel["gridPos"]
        x, y = GAP + at["x"] * column, top + at["y"] * CELL
        w, h = at["w"] * column - GAP, at["h"] * CELL - GAP
        if panel["type"] == "row":
            canvas.text(x + 4, y + h / 2, f"⌄  {panel['title']}", 15, weight="bold")
            continue
        canvas.box(x, y, w, h, facecolor=PANEL, edgecolor=EDGE)
        canvas.text(x + INSET, y + 17, panel["title"], 13, weight="bold")
        found = list(dashboard.results(panel))
        if any(series for _, series in found):
            DRAWN[panel["type"]](Frame(canvas, dashboard, panel, x, y, w, h, found, events))
        else:
            canvas.text(x + w / 2, y + h / 2, "No data", 14, FAINT, ha="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.figure.savefig(path, facecolor=BACKGROUND)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )


def _head(canvas: Canvas, dashboard: Dashboard) -> None:
    over = dashboard.over
    canvas.text(GAP + 4, 20, dashboard.json["title"], 17, weight="bold")
    canvas.text(PIXELS - GAP - 4, 20, f"{_clock(over.start)} to {_clock(over.end)} UTC", 13, FAINT, ha="right")
    chosen = {"datasource": "Prometheus", "window": "auto", **dashboard.chosen}
    x = GAP + 4.0
    for variable in dashboard.json["templating"]["list"]:
        label, shown = variable["label"], chosen.get(variable["name"], "All")
        canvas.text(x, 56, label, 12, FAINT)
        begin = x + 7.8 * len(label) + 8
        width = 7.8 * len(shown) + 16
        canvas.box(begin, 44, width, 24, facecolor=PANEL, edgecolor=EDGE)
        canvas.text(begin + 8, 56, shown, 12)
        x = begin + width + 14


def _stat(frame: Frame) -> None:
    every = [point for _, found in frame.found for series in found for point in series.points]
    points = [point for point in every if math.isfinite(point[1])]
    value = points[-1][1] if points else math.nan
    text, color = (frame.written(value), frame.color_at(value)) if points else ("No data", FAINT)
    if len(points) > 1 and frame.panel["options"]["graphMode"] == "area":
        axes = frame.canvas.axes(frame.x + 1, frame.y + frame.h * 0.6, frame.w - 2, frame.h * 0.4 - 1)
        times, values = np.array(points).T
        axes.fill_between(times, values, color=color, alpha=0.2, lw=0)
        axes.plot(times, values, color=color, lw=1)
        axes.set(xlim=(frame.dashboard.over.start, frame.dashboard.over.end), ylim=(0, max(values.max() * 1.1, 1e-12)))
        axes.set_axis_off()
    frame.canvas.text(frame.x + frame.w / 2, frame.y + frame.h * 0.54, text, 32, color, ha="center", weight="bold")


def _timeseries(frame: Frame) -> None:
    lines = frame.lines()
    listed = frame.panel["options"]["legend"]["displayMode"] == "list"
    rows = 1 if listed else min(len(lines) + 1, int(frame.h * LEGEND_SHARE / LEGEND_ROW))
    axes = _plot_area(frame, rows * LEGEND_ROW)
    stacked = frame.custom.get("stacking", {}).get("mode", "none")
    if stacked != "none":
        _stack(axes, frame, lines, stacked == "percent")
    for line in lines if stacked == "none" else ():
        x, y = line.xy
        style = frame.override(line.name, "custom.lineStyle")
        shape = "steps-post" if frame.custom.get("lineInterpolation") == "stepAfter" else "default"
        x, y = _with_gaps(x, y)
        axes.plot(x, y, color=line.color, lw=1.2, ls=(0, (6, 4)) if style else "-", drawstyle=shape)
        if not style and frame.custom.get("fillOpacity"):
            axes.fill_between(x, y, color=line.color, alpha=frame.custom["fillOpacity"] / 100, lw=0)
    _y_axis(axes, frame)
    for begin, color in frame.steps()[1:] if "thresholdsStyle" in frame.custom else ():
        if begin < axes.get_ylim()[1]:
            axes.axhline(begin, color=color, lw=1, ls=(0, (6, 4)))
    if listed:
        _names(frame, [(line.name, line.color) for line in lines])
    else:
        _legend(frame, lines, rows)


def _with_gaps(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line ends where its series does."""
    if len(x) < 2:
        return x, y
    holes = np.flatnonzero(np.diff(x) > 1.5 * np.diff(x).min()) + 1
    return np.insert(x, holes, x[holes] - 1e-3), np.insert(y, holes, np.nan)


def _stack(axes: Axes, frame: Frame, lines: list[Line], percent: bool) -> None:
    times = np.unique(np.concatenate([line.xy[0] for line in lines]))
    values = np.zeros((len(lines), len(times)))
    for row, line in zip(values, lines, strict=True):
        x, y = line.xy
        row[np.searchsorted(times, x)] = np.nan_to_num(y)
    if percent:
        values = values / np.maximum(values.sum(axis=0), 1e-300)
    tops = np.cumsum(values, axis=0)
    width = np.diff(times).min() if len(times) > 1 else 1.0
    for line, top, part in zip(lines, tops, values, strict=True):
        if frame.custom.get("drawStyle") == "bars":
            axes.bar(times, part, width * 0.9, bottom=top - part, color=line.color, alpha=0.8, lw=0)
        else:
            axes.fill_between(times, top - part, top, color=line.color, alpha=0.55, lw=0)
    if percent:
        axes.set_ylim(0, 1)


def _y_axis(axes: Axes, frame: Frame) -> None:
    low, high = axes.get_ylim()
    low = frame.defaults.get("min", min(low, frame.custom.get("axisSoftMin", low)))
    high = frame.defaults.get("max", max(high, frame.custom.get("axisSoftMax", high), low + 1e-9))
    axes.set_ylim(low, high)
    unit = "percentunit" if frame.custom.get("stacking", {}).get("mode") == "percent" else frame.defaults["unit"]
    ticks = [tick for tick in mpl.ticker.MaxNLocator(5).tick_values(low, high) if low <= tick <= high + 1e-12]
    axes.set_yticks(ticks, [written(tick, unit) for tick in ticks])


def _plot_area(frame: Frame, below: float, left: float = 58) -> Axes:
    """Axes of time with the annotations on them; room for a legend of `below` pixels."""
    axes = frame.canvas.axes(frame.x + left, frame.y + 36, frame.w - left - 14, frame.h - 36 - 24 - below)
    over = frame.dashboard.over
    axes.set_xlim(over.start, over.end)
    axes.grid(color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    every = next(step for step in (30, 60, 120, 300, 600, 3600, 7200, 14400) if over.seconds / step <= frame.w / 75)
    ticks = np.arange(math.ceil(over.start / every) * every, over.end, every)
    axes.set_xticks(ticks, [_clock(tick) for tick in ticks])
    for color, begin, end in frame.events:
        axes.axvline(begin, color=color, lw=0.9, ls=(0, (3, 3)), alpha=0.8)
        if end > begin:
            axes.axvspan(begin, end, color=color, alpha=0.07, lw=0)
    return axes


def _legend(frame: Frame, lines: list[Line], rows: int) -> None:
    """Name, last and largest value, by the largest; what doesn't fit is scrolled to in Grafana."""
    largest = sorted(lines, key=lambda line: -max(line.series.finite, default=-math.inf))
    y = frame.y + frame.h - rows * LEGEND_ROW
    right = frame.x + frame.w - INSET
    frame.canvas.text(frame.x + INSET, y, "Name", 11, NAMED["blue"])
    frame.canvas.text(right - 90, y, "Last *", 11, NAMED["blue"], ha="right")
    frame.canvas.text(right, y, "Max", 11, NAMED["blue"], ha="right")
    for k, line in enumerate(largest[: rows - 1], 1):
        numbers = line.series.finite or [math.nan]
        row = y + k * LEGEND_ROW
        frame.canvas.box(frame.x + INSET, row - 1.5, 14, 3, facecolor=line.color, edgecolor=line.color)
        frame.canvas.text(frame.x + INSET + 20, row, line.name, 11.5)
        frame.canvas.text(right - 90, row, frame.written(numbers[-1]), 11.5, ha="right")
        frame.canvas.text(right, row, frame.written(max(numbers)), 11.5, ha="right")


def _names(frame: Frame, names: list[tuple[str, str]]) -> None:
    """A legend of one row: names with their colours."""
    x, y = frame.x + INSET, frame.y + frame.h - 14
    for name, color in names:
        frame.canvas.box(x, y - 1.5, 14, 3, facecolor=color, edgecolor=color)
        frame.canvas.text(x + 18, y, name, 11.5)
        x += 18 + 7.5 * len(name) + 12


def _heatmap(frame: Frame) -> None:
    axes = _plot_area(frame, 0)
    ((_, found),) = frame.found
    rows = sorted(found, key=lambda series: float(series.labels["le"]))
    times = np.unique(np.concatenate([np.array(series.points)[:, 0] for series in rows]))
    values = np.zeros((len(rows), len(times)))
    for row, series in zip(values, rows, strict=True):
        x, y = np.array(series.points).T
        row[np.searchsorted(times, x)] = np.nan_to_num(y)
    per_bucket = np.diff(values, axis=0, prepend=0)
    shown = np.ma.masked_less_equal(per_bucket, 0)
    axes.pcolormesh(times, np.arange(len(rows)), shown, cmap=ORANGES, norm=PowerNorm(0.5), shading="nearest")
    names = [written(float(series.labels["le"]), frame.defaults["unit"]) for series in rows]
    axes.set_yticks(range(0, len(rows), 2), names[::2])
    axes.grid(visible=False)


def _state_timeline(frame: Frame) -> None:
    lines = frame.lines()
    (mapping,) = frame.defaults["mappings"]
    states = {float(value): (state["text"], _named(state["color"])) for value, state in mapping["options"].items()}
    axes = _plot_area(frame, LEGEND_ROW, left=190)
    for k, line in enumerate(lines):
        x, y = line.xy
        step = np.diff(x).min()
        for value, begin, end in _runs(x, y, step):
            text, color = states[value]
            axes.barh(-k, end - begin, left=begin, height=0.8, color=color, alpha=0.85, lw=0)
            if end - begin > frame.dashboard.over.seconds / 12:
                axes.text(begin + 2, -k, text, fontsize=8, va="center", color="#111217")
    axes.set_yticks([-k for k in range(len(lines))], [line.name for line in lines])
    axes.grid(visible=False)
    _names(frame, list(states.values()))


def _runs(x: np.ndarray, y: np.ndarray, step: float) -> Iterator[tuple[float, float, float]]:
    """(value, from, to) of equal neighbours without a gap."""
    begin = 0
    for k in range(1, len(x) + 1):
        if k == len(x) or y[k] != y[begin] or x[k] - x[k - 1] > 1.5 * step:
            yield y[begin], x[begin], x[k - 1] + step
            begin = k


def _table(frame: Frame) -> None:
    ((_, found),) = frame.found
    options = frame.panel["transformations"][-1]["options"]
    columns = [label for label in options["indexByName"] if any(label in series.labels for series in found)]
    widths = [max(len(options["renameByName"][c]), *(len(s.labels.get(c, "")) for s in found)) + 2 for c in columns]
    per_letter = (frame.w - 2 * INSET) / sum(widths)
    size = min(12.0, per_letter * 1.75)
    x = frame.x + INSET
    for column, width in zip(columns, widths, strict=True):
        frame.canvas.text(x, frame.y + 48, options["renameByName"][column], size, NAMED["blue"], weight="bold")
        for k, series in enumerate(found, 1):
            frame.canvas.text(x, frame.y + 48 + 30 * k, series.labels.get(column, ""), size)
        x += width * per_letter


def _barchart(frame: Frame) -> None:
    several = len(frame.found) > 1
    by = frame.panel["options"]["xField"]
    axes = frame.canvas.axes(frame.x + 58, frame.y + 36, frame.w - 72, frame.h - 60 - (LEGEND_ROW if several else 0))
    axes.grid(color=GRID, lw=0.7, axis="y")
    axes.set_axisbelow(True)
    names = [target["legendFormat"] for target, _ in frame.found]
    fixed = [frame.override(name, "color") for name in names]
    colors = [_named(each["fixedColor"]) if each else PALETTE[k] for k, each in enumerate(fixed)]
    if several:
        _names(frame, list(zip(names, colors, strict=True)))
    for k, (_, found) in enumerate(frame.found):
        rows = sorted((int(series.labels[by]), series.points[-1][1]) for series in found)
        width = 0.8 / len(frame.found)
        for n, (_, value) in enumerate(rows):
            color = colors[k] if several else frame.color_at(value)
            axes.bar(n - 0.4 + (k + 0.5) * width, value, width * 0.9, color=color, alpha=0.8, lw=0)
        axes.set_xticks(range(len(rows)), [str(horizon) for horizon, _ in rows])
    _y_axis(axes, frame)


def _named(color: str) -> str:
    return NAMED.get(color, color)


def _clock(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%H:%M}"


DRAWN: dict[str, Callable[[Frame], None]] = {
    "stat": _stat, "timeseries": _timeseries, "heatmap": _heatmap, "state-timeline": _state_timeline, "table": _table,
    "barchart": _barchart,
}  # fmt: skip
