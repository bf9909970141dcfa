"""The plots of a run of the benchmarks: throughput against batch size, cost against streams, latency against rate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from figures import Figure

mpl.use("agg")

from matplotlib import pyplot as plt


@dataclass(frozen=True)
class Chart:
    """Figures of one benchmark whose `of` ends in `ending`, each name a line, against `at`."""

    name: str
    title: str
    benchmark: str
    ending: str
    x: str
    y: str
    from_zero: bool = True


KERNEL = "Step kernel, rows in cache, one core"
CHARTS = (
    Chart("throughput", KERNEL, "kernel", " hot, steps", "batch size", "million steps/s"),
    Chart("peak", KERNEL, "kernel", " hot, of the FMA peak", "batch size", "of the FMA peak"),
    Chart("scaling", "Whole daemon, random streams", "scaling", "CPU per event", "streams", "us CPU per event"),
    Chart("memory", "Whole daemon", "scaling", "resident memory", "streams", "resident MB", from_zero=False),
    Chart("latency", "Append of an event to its forecast in a reader's hands", "latency", "", "events/s", "ms"),
)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito 2008


def draw(figures: list[Figure], stem: Path) -> list[Path]:
    """Every chart that has two points to show, as STEM-NAME.png; returns their paths."""
    found = []
    for chart in CHARTS:
        lines = dict(_lines(chart, figures))
        if any(len(points) > 1 for points in lines.values()):
            found.append(_draw(chart, lines, Path(f"{stem}-{chart.name}.png")))
    return found


def _lines(chart: Chart, figures: list[Figure]) -> Iterator[tuple[str, list[Figure]]]:
    def belongs(figure: Figure) -> bool:
        mine = figure.benchmark == chart.benchmark and figure.at is not None
        return mine and figure.of.endswith(chart.ending) and not figure.of.startswith("stage ")

    chosen = [figure for figure in figures if belongs(figure)]
    for of in dict.fromkeys(figure.of for figure in chosen):
        yield of.removesuffix(chart.ending) or of, sorted((f for f in chosen if f.of == of), key=_at)


def _at(figure: Figure) -> float:
    return figure.at or 0.0


def _draw(chart: Chart, lines: dict[str, list[Figure]], path: Path) -> Path:
    size: Callable[..., tuple[plt.Figure, plt.Axes]] = plt.subplots
    drawing, axes = size(figsize=(7.2, 4.2), layout="constrained")
    for (name, points), colour in zip(lines.items(), COLOURS * 3, strict=False):
        x, y = [_at(point) for point in points], [point.value for point in points]
        axes.plot(x, y, marker="o", markersize=4, color=colour, label=name)
        if all(point.low is not None and point.high is not None for point in points):
            axes.fill_between(x, [p.low or 0 for p in points], [p.high or 0 for p in points], color=colour, alpha=0.15)
    axes.set_xscale("log")
    if chart.from_zero:
        axes.set_ylim(0, 1.08 * max(p.high or p.value for points in lines.values() for p in points))
    else:
        axes.set_yscale("log")
    axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1 or chart.ending.startswith(" "):  # else the title says it all
        axes.legend(frameon=False)
    drawing.savefig(path, dpi=110)
    plt.close(drawing)
    return path
