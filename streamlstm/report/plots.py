"""The plots of a backtest. Legends are the page's: every plot draws the same thing in the same colour."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from streamlstm.evaluation.fans import Fan, Path
from streamlstm.report.drawing import svg
from streamlstm.report.style import BAD, GOOD, GRID, INK, MODEL, MUTED, NAIVE, SEASONAL

WIDE, NARROW, HEIGHT = 10.4, 5.0, 2.5
BINS = 31
MUCH = 20
MINUTE = np.timedelta64(60_000, "ms")

Document = dict[str, Any]
Floats = NDArray[np.float64]


def by_horizon(name: str, found: Document) -> str:
    """MAE of the model and of what it has to beat, by horizon."""

    def draw(panel: Axes) -> None:
        horizons = [each["horizon"] for each in found["horizons"]]
        for key, colour in (("naive", NAIVE), ("seasonal_naive", SEASONAL)):
            if found["overall"][key] is not None:
                panel.plot(horizons, _numbers(each[key]["mae"] for each in found["horizons"]), ".-", color=colour.drawn)
        panel.plot(
            horizons, _numbers(each["mae"] for each in found["horizons"]), ".-", color=MODEL.drawn, linewidth=2.2
        )
        others = ([_mae(each[key]) for each in found["horizons"]] for key in ("naive", "seasonal_naive"))
        _error_axis(panel, [[each["mae"] for each in found["horizons"]], *others])
        _count_axis(panel, "horizon, events ahead")

    return svg(name, "Mean absolute error by horizon", draw, NARROW, HEIGHT)


def over_time(name: str, found: Document) -> str:
    """Scaled errors over the scored time."""
    timeline = found["timeline"]

    def draw(panel: Axes) -> None:
        edges = np.array(timeline["edges_ms"], "datetime64[ms]")
        for key, colour, width in (
            ("naive", NAIVE, 1.2),
            ("seasonal_naive", SEASONAL, 1.2),
            ("model", MODEL, 2.2),
        ):
            if timeline[key] is not None:
                values = _numbers(timeline[key])
                panel.stairs(values, edges, color=colour.drawn, linewidth=width, baseline=None)
        _error_axis(panel, [timeline[key] for key in ("naive", "seasonal_naive", "model")])
        _time_axis(panel, 8, edges)

    return svg(name, "Scaled error over time", draw, WIDE, HEIGHT)


def coverage(name: str, found: Document) -> str:
    """Realised beside nominal coverage, by horizon."""

    def draw(panel: Axes) -> None:
        horizons = [each["horizon"] for each in found["horizons"]]
        shares = _numbers(each["intervals"]["coverage"] for each in found["horizons"])
        level = found["level"]
        panel.axhspan(level - 0.02, level + 0.02, color=GOOD.drawn, alpha=0.13, linewidth=0)
        panel.axhline(level, color=MUTED.drawn, linewidth=1, linestyle=(0, (4, 3)))
        panel.plot(horizons, shares, ".-", color=MODEL.drawn, markersize=8)
        known = shares[~np.isnan(shares)]
        low = min([level - 0.1, *known.tolist()])
        panel.set_ylim(max(0.0, low - 0.03), 1.005)
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _count_axis(panel, "horizon, events ahead")
        if len(horizons) == 1:
            panel.set_xticks(horizons)

    return svg(name, "Realised coverage by horizon", draw, NARROW, HEIGHT)


def reliability(name: str, found: Document) -> str:
    """The share of actual values at or below each quantile, beside its level; all horizons."""
    quantiles = found["overall"]["intervals"]["quantiles"]

    def draw(panel: Axes) -> None:
        levels = _numbers(each["level"] for each in quantiles)
        shares = _numbers(each["at_or_below"] for each in quantiles)
        panel.plot([0, 1], [0, 1], color=MUTED.drawn, linewidth=1, linestyle=(0, (4, 3)))
        panel.vlines(levels, levels, shares, color=MODEL.drawn, linewidth=2, alpha=0.4)
        panel.plot(levels, shares, "o", color=MODEL.drawn, markersize=6)
        for level, share in zip(levels.tolist(), shares.tolist(), strict=True):
            beside = (9, -3) if level < 0.75 else (-9, -3)
            panel.annotate(
                f"{100 * share:.1f} %", (level, share), beside, textcoords="offset points",
                ha="left" if level < 0.75 else "right", color=INK.drawn,
            )  # fmt: skip
        panel.set_xlim(-0.02, 1.02)
        panel.set_ylim(-0.03, 1.06)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        panel.set_xlabel("level of the quantile")

    return svg(name, "Actual values at or below each quantile", draw, NARROW, HEIGHT)


def autocorrelation(name: str, found: Document, width: float) -> str:
    """Of the errors, by lag, with the bounds of white noise."""
    acf = found["autocorrelation"]

    def draw(panel: Axes) -> None:
        lags, bound = acf["lags"], acf["bound"]
        panel.axhspan(-bound, bound, color=MUTED.drawn, alpha=0.14, linewidth=0)
        panel.axhline(0, color=MUTED.drawn, linewidth=0.8)
        if acf["streams"] > 1:
            panel.vlines(lags, acf["p10"], acf["p90"], color=MODEL.drawn, linewidth=3.4, alpha=0.28)
        panel.vlines(lags, 0, acf["p50"], color=MODEL.drawn, linewidth=1.3)
        panel.plot(lags, acf["p50"], "o", color=MODEL.drawn, markersize=3.6)
        reach = max(0.25, 1.15 * max(map(abs, (*acf["p10"], *acf["p90"]))))
        panel.set_ylim(-min(reach, 1.02), min(reach, 1.02))
        _count_axis(panel, "lag, events")

    return svg(name, "Autocorrelation of the errors", draw, width, HEIGHT)


def spread(
    name: str, ratios: Floats, label: str, verdicts: NDArray[np.int64] | None = None, width: float = NARROW
) -> str:
    """How many streams have which ratio of errors, on a logarithmic axis around 1: better at the left. `verdicts` -1,
    0, 1 colours them; without, all below 1 are good.
    """

    def draw(panel: Axes) -> None:
        logs = np.clip(np.log2(ratios), -8, 8)
        reach = max(0.25, float(np.abs(logs).max(initial=0.0)))
        edges = np.linspace(-reach, reach, BINS + 1)
        kinds = np.sign(logs).astype(np.int64) if verdicts is None else verdicts
        parts = [logs[kinds == kind] for kind in (-1, 0, 1)]
        panel.hist(
            parts, bins=edges.tolist(), stacked=True, color=[GOOD.drawn, MUTED.drawn, BAD.drawn], linewidth=0.8,
            edgecolor="none", rwidth=0.86,
        )  # fmt: skip
        panel.axvline(0, color=INK.drawn, linewidth=1)
        panel.set_xlim(-reach * 1.03, reach * 1.03)
        panel.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{2.0**value:.3g}"))
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.set_xlabel(label)
        panel.set_ylabel("streams")
        panel.grid(False, axis="x")

    return svg(name, f"Streams by {label}", draw, width, HEIGHT)


def fan(name: str, stream: Fan) -> str:
    """The newest events of a stream: actual values, the forecasts of each, their intervals, and one path ahead."""

    def draw(panel: Axes) -> None:
        time = stream.time.astype("datetime64[ms]")
        _band(panel, time, stream.following, 0.17)
        panel.plot(time, stream.actual, color=INK.drawn, linewidth=1.3, alpha=0.8)
        panel.plot(time, stream.following.yhat, color=MODEL.drawn, linewidth=1.4)
        if stream.following.lower is not None and stream.following.upper is not None:
            with np.errstate(invalid="ignore"):
                outside = (stream.actual < stream.following.lower) | (stream.actual > stream.following.upper)
            panel.plot(time[outside], stream.actual[outside], "o", color=BAD.drawn, markersize=3.6)
        if stream.path is not None:
            ahead = stream.path.time.astype("datetime64[ms]")
            _band(panel, ahead, stream.path, 0.13)
            panel.plot(ahead, stream.path.yhat, color=SEASONAL.drawn, linewidth=1.6, linestyle=(0, (3, 1.6)))
        panel.margins(x=0.01)
        panel.yaxis.set_major_locator(MaxNLocator(5))
        _time_axis(panel, 5, time)

    return svg(name, "Forecasts beside actual values", draw, NARROW, HEIGHT)


def _band(panel: Axes, time: NDArray[np.datetime64], path: Path, alpha: float) -> None:
    if path.lower is not None and path.upper is not None:
        panel.fill_between(time, path.lower, path.upper, color=MODEL.drawn, alpha=alpha, linewidth=0)


def _error_axis(panel: Axes, lines: Sequence[Sequence[float | None] | None]) -> None:
    """From 0 on; logarithmic where one line would lie flat below another."""
    positive = [values[values > 0] for line in lines if line is not None for values in (_numbers(line),)]
    levels = [float(np.median(values)) for values in positive if values.size]
    if levels and max(levels) > MUCH * min(levels):
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)


def _mae(baseline: Document | None) -> float | None:
    return None if baseline is None else baseline["mae"]


def _time_axis(panel: Axes, ticks: int, time: NDArray[np.datetime64]) -> None:
    if time.max() - time.min() < MINUTE:  # matplotlib would show some years around a single time
        middle = time.min() + (time.max() - time.min()) / 2
        panel.set_xlim(middle - MINUTE / 2, middle + MINUTE / 2)
    locator = AutoDateLocator(minticks=2, maxticks=ticks)  # with more, it finds no ticks for two to five years
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panel.xaxis.get_offset_text().set_color(MUTED.drawn)
    panel.grid(False, axis="x")


def _count_axis(panel: Axes, label: str) -> None:
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.set_xlabel(label)
    panel.grid(False, axis="x")
    panel.spines["bottom"].set_color(GRID.drawn)


def _numbers(values: Any) -> Floats:
    """None becomes NaN, which isn't drawn."""
    listed: Sequence[float | None] = list(values)
    return np.array([np.nan if value is None else value for value in listed], np.float64)
