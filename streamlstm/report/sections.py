"""The sections on one model: each takes the model's part of the document and gives its HTML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.evaluation.fans import Fan
from streamlstm.report import markup, plots
from streamlstm.report.markup import Cell

MODEL_KEYS = (("model", "this model"), ("naive", "the last value"))
SEASON_KEY = ("seasonal", "one season before")
MOST_ROWS = 24
MOST_TILES = 6
"""In a row."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """What is drawn of one model. `sentences`: the verdict first; `good`: whether it beats the last value, None: no
    difference. `ratios`: RelMAE of the streams that have one. `worst` and `best`: a stream's measures and its fan.
    """

    found: Document
    sentences: Sequence[str]
    good: bool | None
    ratios: NDArray[np.float64]
    worst: Sequence[tuple[Document, Fan]]
    best: Sequence[tuple[Document, Fan]]


def sections(name: str, shown: Shown) -> Iterator[str]:
    """`name` is unique in the page."""
    found = shown.found
    yield verdict(shown)
    yield tiles(found)
    yield from _forecasts(name, shown)
    yield from _errors(name, found)
    if found["level"] is not None and found["overall"]["intervals"]["coverage"] is not None:
        yield from _calibration(name, found)
    yield from _streams(name, shown)


def verdict(shown: Shown) -> str:
    kind = {True: "good", False: "bad", None: ""}[shown.good]
    first, *others = (sentence[0].upper() + sentence[1:] + "." for sentence in shown.sentences)
    listed = "".join(f"<li>{markup.text(each)}</li>" for each in others)
    return f'<div class="verdict {kind}"><strong>{markup.text(first)}</strong><ul>{listed}</ul></div>'


def tiles(found: Document) -> str:
    overall, intervals = found["overall"], found["overall"]["intervals"]
    parts = [
        markup.tile(number(overall["naive"]["rel_mae"], 3), "RelMAE to the last value", _kind(overall["naive"])),
    ]
    if overall["seasonal_naive"] is not None:
        seasonal = overall["seasonal_naive"]
        parts.append(markup.tile(number(seasonal["rel_mae"], 3), "RelMAE to one season before", _kind(seasonal)))
    parts += [
        markup.tile(number(overall["mase"], 3), "MASE"),
        markup.tile(number(overall["mae"]), "MAE"),
        markup.tile(number(overall["rmse"]), "RMSE"),
    ]
    if intervals is not None:
        parts.append(markup.tile(share(intervals["coverage"]), f"within {share(intervals['level'], 0)} intervals"))
        parts.append(markup.tile(number(intervals["crps"]), "CRPS"))
    if found["anomalies"] is not None and found["anomalies"]["events"]:
        parts.append(markup.tile(number(found["anomalies"]["per_1000"], 2), "anomalies per 1,000 events"))
    parts.append(markup.tile(f"{overall['pairs']:,}", "forecasts scored"))
    columns = len(parts) if len(parts) <= MOST_TILES else -(-len(parts) // 2)
    return f'<div class="tiles" style="--columns: {columns}">' + "".join(parts) + "</div>"


def _errors(name: str, found: Document) -> Iterator[str]:
    keys = (*MODEL_KEYS, SEASON_KEY) if found["period"] > 1 else MODEL_KEYS
    yield markup.heading(
        "Errors",
        "Absolute errors beside those of the forecasts that cost nothing. Over time they are divided by each stream's "
        "own scale, that of MASE, so that streams of all units count alike.",
    )
    parts = [
        markup.figure("Over time", keys, plots.over_time(f"{name}-time", found), "Scaled error, horizon "
                      f"{found['horizons'][0]['horizon']}", "wide"),
    ]  # fmt: skip
    if len(found["horizons"]) > 1:
        parts.append(markup.figure("By horizon", keys, plots.by_horizon(f"{name}-horizon", found), "MAE"))
    if found["autocorrelation"] is not None:
        keys_acf = [("model", "median stream"), ("muted", "where 95 % of white noise lies")]
        if found["autocorrelation"]["streams"] > 1:
            keys_acf.insert(1, ("band", "10 to 90 % of streams"))
        is_alone = len(parts) == 1
        drawn = plots.autocorrelation(f"{name}-acf", found, plots.WIDE if is_alone else plots.NARROW)
        said = "Bars beyond the grey band: something is left in the errors to forecast"
        kind = "wide" if is_alone else ""
        parts.append(markup.figure("Autocorrelation of the errors", keys_acf, drawn, said, kind))
    yield markup.grid(parts)
    yield "<br>" + _horizon_table(found)


def _horizon_table(found: Document) -> str:
    names = ["horizon", "forecasts", "MAE", "RMSE", "bias", "MASE", "RelMAE"]
    names += ["RelMAE, seasonal"] * (found["period"] > 1)
    if found["level"] is not None:
        names += ["coverage", "width", "CRPS"]
    last = len(found["horizons"]) - 1
    some = (
        sorted({round(k * last / (MOST_ROWS - 1)) for k in range(MOST_ROWS)}) if last >= MOST_ROWS else range(last + 1)
    )
    rows = [_measures(str(found["horizons"][k]["horizon"]), found["horizons"][k], found) for k in some]
    rows.append(_measures("all", found["overall"], found))
    return markup.table(names, rows, total=True)


def _measures(label: str, each: Document, found: Document) -> list[Cell]:
    cells: list[Cell] = [label, f"{each['pairs']:,}"]
    cells += [number(each[key]) for key in ("mae", "rmse", "bias", "mase")]
    cells.append((number(each["naive"]["rel_mae"]), _kind(each["naive"])))
    if found["period"] > 1:
        cells.append((number(each["seasonal_naive"]["rel_mae"]), _kind(each["seasonal_naive"])))
    if found["level"] is not None:
        intervals = each["intervals"]
        cells += [share(intervals["coverage"]), number(intervals["width"]), number(intervals["crps"])]
    return cells


def _calibration(name: str, found: Document) -> Iterator[str]:
    level = share(found["level"], 0)
    yield markup.heading(
        "Calibration",
        f"Whether intervals said to hold {level} of what comes do so, and whether the quantiles they are made of lie "
        "where they should.",
    )
    yield markup.grid(
        [
            markup.figure(
                "Coverage by horizon",
                (("model", "realised"), ("good", "within two points of what is promised"), ("muted", "promised")),
                plots.coverage(f"{name}-coverage", found),
            ),
            markup.figure(
                "Reliability by quantile",
                (("model", "share of actual values at or below"), ("muted", "perfect")),
                plots.reliability(f"{name}-reliability", found),
            ),
        ]
    )
    rows = [
        [f"{100 * each['level']:.4g} %", share(each["at_or_below"]), number(each["pinball"])]
        for each in found["overall"]["intervals"]["quantiles"]
    ]
    yield "<br>" + markup.table(("quantile", "actual values at or below", "pinball loss"), rows)


def _forecasts(name: str, shown: Shown) -> Iterator[str]:
    ranked = shown.found["streams"]["ranked"]
    if not ranked:
        return
    yield markup.heading(
        "Forecasts",
        "The newest events of the streams that are worst and best beside the last value."
        if ranked > 1
        else "The newest events of the stream.",
    )
    parts = []
    for word, listed in (("worst", shown.worst), ("best", shown.best)):
        parts += [_fan(f"{name}-{word}-{k}", word if ranked > 1 else "", each, fan)
                  for k, (each, fan) in enumerate(listed)]  # fmt: skip
    yield markup.grid(parts)


def _streams(name: str, shown: Shown) -> Iterator[str]:
    found = shown.found
    ranked = found["streams"]["ranked"]
    if ranked < 2:
        return
    yield markup.heading(
        "Streams", f"{ranked:,} streams can be told from the last value; they are ranked by the ratio of errors."
    )
    drawn = plots.spread(f"{name}-spread", shown.ratios, "RelMAE to the last value")
    spread = markup.figure("All streams", (("good", "better"), ("bad", "worse")), drawn)
    yield markup.grid([spread, _quantile_table(found)])
    for word in ("worst", "best"):
        yield f"<br>{_stream_table(word, found)}"


def _fan(name: str, word: str, each: Document, fan: Fan) -> str:
    keys = [("ink", "actual"), ("model", f"forecast {_events(fan)} before")]
    if fan.following.lower is not None:
        keys += [("band", "interval"), ("bad", "outside")]
    if fan.path is not None:
        keys.append(("seasonal", "one path, all horizons"))
    said = f"{word}: RelMAE {number(each['rel_mae'])}" if word else f"RelMAE {number(each['rel_mae'])}"
    if each["coverage"] is not None:
        said += f", coverage {share(each['coverage'])}"
    return markup.figure(each["stream"], keys, plots.fan(name, fan), said)


def _events(fan: Fan) -> str:
    return "1 event" if fan.horizon == 1 else f"{fan.horizon:,} events"


def _quantile_table(found: Document) -> str:
    labels = {
        "mae": "MAE", "rmse": "RMSE", "mase": "MASE", "rel_mae": "RelMAE", "rel_mae_seasonal": "RelMAE, seasonal",
        "coverage": "coverage",
    }  # fmt: skip
    rows = [
        [label, *(share(each[p]) if key == "coverage" else number(each[p]) for p in ("p10", "p50", "p90"))]
        for key, label in labels.items()
        if (each := found["overall"]["quantiles_over_streams"][key]) is not None
    ]
    return markup.table(("over the streams", "10 %", "50 %", "90 %"), rows)


def _stream_table(word: str, found: Document) -> str:
    names = [word, "forecasts", "MAE", "RMSE", "MASE", "RelMAE"]
    has_season, has_intervals = found["period"] > 1, found["level"] is not None
    names += ["RelMAE, seasonal"] * has_season + ["coverage"] * has_intervals
    rows: list[list[Cell]] = []
    for each in found["streams"][word]:
        row: list[Cell] = [each["stream"], f"{each['pairs']:,}"]
        row += [number(each[key]) for key in ("mae", "rmse", "mase")]
        row.append((number(each["rel_mae"]), _kind(each)))
        row += [number(each["rel_mae_seasonal"])] * has_season + [share(each["coverage"])] * has_intervals
        rows.append(row)
    return markup.table(names, rows)


def number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if 10**digits <= abs(value) < 1e9 else f"{value:.{digits}g}"


def share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _kind(each: Document) -> str:
    ratio = each["rel_mae"]
    return "" if ratio is None or abs(ratio - 1) <= 0.02 else "good" if ratio < 1 else "bad"
