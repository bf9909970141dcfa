"""The page as a whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.report import markup, plots
from streamlstm.report.sections import Shown, number, sections

Document = dict[str, Any]

TERMS = (
    ("MAE, RMSE", "mean absolute and root mean squared error, over all forecasts, in the unit of the streams"),
    ("MASE", "MAE over that of the seasonal naive forecast in front of the scored part; mean over the streams"),
    ("RelMAE", "MAE over that of repeating the last value; geometric mean over the streams; below 1 is better"),
    ("pinball loss", "of a quantile: what it costs to lie above or below; smaller is better"),
    ("CRPS", "twice the mean pinball loss over the quantiles: one number for the whole forecast"),
    ("coverage, width", "the share of actual values within the intervals, and how wide these are"),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison of the document. `ratios`: MAE of the first over that of the second, of the streams where both
    have one; `verdicts` -1, 0, 1 for each.
    """

    sentence: str
    ratios: NDArray[np.float64]
    verdicts: NDArray[np.int64]


def render(document: Document, history: Sequence[str], models: Sequence[Shown], compared: Compared | None) -> str:
    """`history`: the sentences of its report."""
    names = [shown.found["model"]["path"] for shown in models]
    title = "Backtest: " + " and ".join(names)
    return markup.page(title, _body(document, history, models, compared))


def _body(
    document: Document, history: Sequence[str], models: Sequence[Shown], compared: Compared | None
) -> Iterator[str]:
    yield _header(document, models)
    if compared is not None:
        yield from _comparison(document, models, compared)
    for k, shown in enumerate(models):
        if len(models) > 1:
            named = _named([each.found["model"]["path"] for each in models])[k]
            yield f'<h1 style="margin-top: 56px">{markup.text(named)}</h1>'
        yield from sections(f"model-{k}", shown)
    yield _footer(document, history, models)


def _header(document: Document, models: Sequence[Shown]) -> str:
    found = models[0].found
    scored = found["scored"]
    names = " beside ".join(map(markup.text, _named([shown.found["model"]["path"] for shown in models])))
    said = (
        f"{_listed(document['history']['sources'])}: {found['events']:,} events of "
        f"{_streams(document['history']['streams'])}; scored are {scored['events']:,} events, "
        f"{_day(scored['first_ms'])} to {_day(scored['last_ms'])}"
    )
    return f'<header><p class="eyebrow">Backtest</p><h1>{names}</h1><p>{markup.text(said)}</p></header>'


def _comparison(document: Document, models: Sequence[Shown], compared: Compared) -> Iterator[str]:
    yield f'<div class="verdict"><strong>{markup.text(compared.sentence)}.</strong></div>'
    yield markup.heading(
        "Which is better",
        "The test of Diebold and Mariano on each stream's absolute errors, at 5 %; pooled over all streams on the mean "
        "of their scaled differences in each interval. Better: the first model.",
    )
    rows = [
        [
            str(each["horizon"]), f"{each['pairs']:,}", number(each["rel_mae"]), f"{each['first_better']:,}",
            f"{each['second_better']:,}", f"{each['undecided']:,}", number(each["pooled"]["statistic"], 3),
            number(each["pooled"]["p_value"], 2),
        ]
        for each in document["comparison"]["horizons"]
    ]  # fmt: skip
    names = ("horizon", "forecasts", "RelMAE", "better", "worse", "undecided", "pooled statistic", "p")
    if len(compared.ratios) > 1:
        drawn = plots.spread(
            "comparison", compared.ratios, "MAE of the first over the second's", compared.verdicts, plots.WIDE
        )
        keys = (("good", "better"), ("muted", "undecided"), ("bad", "worse"))
        yield markup.grid([markup.figure("All streams", keys, drawn, f"Horizon {rows[0][0]}", "wide")]) + "<br>"
    yield markup.table(names, rows)


def _footer(document: Document, history: Sequence[str], models: Sequence[Shown]) -> str:
    terms = "".join(f"<dt>{markup.text(term)}</dt><dd>{markup.text(said)}</dd>" for term, said in TERMS)
    about = [
        *history,
        *(f"{shown.found['model']['path']}: model {shown.found['model']['hash'][:12]}" for shown in models),
    ]
    if models[0].found["period"] > 1:
        about.append(f"a season is {models[0].found['period']:,} events")
    listed = "".join(f"<li>{markup.text(line)}</li>" for line in about)
    version = markup.text(document["streamlstm"])
    return f"<footer><dl>{terms}</dl><ul>{listed}</ul><p>streamlstm {version}</p></footer>"


def _listed(sources: Sequence[str]) -> str:
    return ", ".join(_named(sources)[:3]) + (f" and {len(sources) - 3:,} more" if len(sources) > 3 else "")


def _named(paths: Sequence[str]) -> list[str]:
    """Names of files without their folders, where that leaves them apart."""
    names = [PurePath(path).name or path for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count:,} streams"


def _day(time_ms: int | None) -> str:
    return "never" if time_ms is None else str(np.datetime64(time_ms, "ms").astype("datetime64[m]")).replace("T", " ")
