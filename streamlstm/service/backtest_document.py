"""A backtest for machines: the keys that docs/backtest.md promises. What can't be measured is null."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamlstm import __version__
from streamlstm.evaluation.compare import Comparison
from streamlstm.evaluation.measures import Measures
from streamlstm.evaluation.pairs import rows_of
from streamlstm.evaluation.panel import Panel
from streamlstm.evaluation.residuals import Autocorrelation, Timeline
from streamlstm.evaluation.summary import Anomalies, ranked
from streamlstm.evaluation.sums import quantile_levels
from streamlstm.history.history import History
from streamlstm.service.backtest import Backtest
from streamlstm.service.learned_from import overlap_note

FORMAT = 1
Document = dict[str, Any]


def document(history: History, tests: Sequence[Backtest], panels: Sequence[Panel], top: int) -> Document:
    """Of one model; or of two, with their comparison. `top`: how many of the best and worst streams are listed."""
    return {
        "format": FORMAT,
        "streamlstm": __version__,
        "history": history.report.as_json(),
        "models": [_model(history, each, top) for each in tests],
        "comparison": _comparison(history, panels, top) if panels else None,
    }


def _model(history: History, test: Backtest, top: int) -> Document:
    model, summary, evidence = test.model, test.summary, test.evidence
    has_intervals = evidence.lower is not None
    scored = _scored(test)
    return {
        "model": {
            "path": test.path,
            "hash": model.model_hash,
            "inputs": list(model.inputs),
            "target": model.inputs[model.target],
            "horizons": list(model.horizons),
            "origin": model.origin,
        },
        "events": test.replayed.events,
        "refused": dict(sorted(test.replayed.refused.items())),
        "scored": scored,
        "note": overlap_note(model.origin, history, scored["first_ms"]),
        "period": summary.period,
        "level": evidence.level if has_intervals else None,
        "overall": measured(summary.overall, summary.period > 1, evidence.level if has_intervals else None),
        "horizons": [
            {"horizon": horizon} | measured(each, summary.period > 1, evidence.level if has_intervals else None)
            for horizon, each in zip(model.horizons, summary.horizons, strict=True)
        ],
        "anomalies": _anomalies(summary.anomalies),
        "streams": _streams(history, summary.overall, top),
        "timeline": _timeline(summary.timeline),
        "autocorrelation": _autocorrelation(summary.autocorrelation),
    }


def measured(found: Measures, has_season: bool, level: float | None) -> Document:
    """The measures by their names; those of a season, and of intervals, only where there are any."""
    document: Document = {
        "pairs": found.pairs,
        "streams": found.streams,
        "mae": number(found.mae),
        "rmse": number(found.rmse),
        "bias": number(found.bias),
        "mase": number(found.mase),
        "naive": {
            "mae": number(found.naive_mae),
            "rel_mae": number(found.rel_mae),
            "better_streams": found.better,
            "streams": found.held,
        },
        "seasonal_naive": None,
        "intervals": None,
        "quantiles_over_streams": {
            name: None if each is None else dict(zip(("p10", "p50", "p90"), each, strict=True))
            for name, each in found.by_stream.quantiles().items()
        },
    }
    if has_season:
        document["seasonal_naive"] = {
            "mae": number(found.seasonal_mae),
            "rel_mae": number(found.rel_mae_seasonal),
            "better_streams": found.better_seasonal,
            "streams": found.held_seasonal,
        }
    if level is not None:
        document["intervals"] = {
            "level": level,
            "coverage": number(found.coverage),
            "width": number(found.width),
            "crps": number(found.crps),
            "quantiles": [
                {"level": q, "pinball": number(loss), "at_or_below": number(share)}
                for q, loss, share in zip(quantile_levels(level), found.pinball, found.reliability, strict=True)
            ],
        }
    return document


def number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _scored(test: Backtest) -> Document:
    evidence = test.evidence
    stream, row = rows_of(evidence, 0, evidence.scored)
    time = evidence.time[row]
    return {
        "events": len(row),
        "streams": len(np.unique(stream)),
        "first_ms": int(time.min()) if len(time) else None,
        "last_ms": int(time.max()) if len(time) else None,
    }


def _anomalies(found: Anomalies | None) -> Document | None:
    if found is None:
        return None
    return {"events": found.known, "anomalous": found.anomalous, "per_1000": number(found.per_1000)}


def _streams(history: History, found: Measures, top: int) -> Document:
    order = ranked(found).tolist()
    return {
        "ranked": len(order),
        "worst": [of_stream(history, found, stream) for stream in order[: min(top, len(order) - len(order) // 2)]],
        "best": [of_stream(history, found, stream) for stream in order[::-1][: min(top, len(order) // 2)]],
    }


def of_stream(history: History, found: Measures, stream: int) -> Document:
    """The measures of one stream, with its id."""
    each = found.by_stream
    named: Document = {"stream": history.name(stream), "pairs": int(each.pairs[stream])}
    return named | {
        name: number(getattr(each, name)[stream])
        for name in ("mae", "rmse", "mase", "rel_mae", "rel_mae_seasonal", "coverage")
    }


def _timeline(found: Timeline) -> Document:
    return {
        "edges_ms": found.edges.tolist(),
        "pairs": found.pairs.tolist(),
        "model": list(map(number, found.model)),
        "naive": list(map(number, found.naive)),
        "seasonal_naive": None if found.seasonal is None else list(map(number, found.seasonal)),
    }


def _autocorrelation(found: Autocorrelation | None) -> Document | None:
    if found is None:
        return None
    return {
        "streams": found.streams,
        "bound": found.bound,
        "lags": found.lags.tolist(),
        "p10": found.low.tolist(),
        "p50": found.median.tolist(),
        "p90": found.high.tolist(),
    }


def _comparison(history: History, panels: Sequence[Panel], top: int) -> Document:
    return {"first": 0, "second": 1, "horizons": [_panel(history, each, top) for each in panels]}


def _panel(history: History, panel: Panel, top: int) -> Document:
    statistic = np.array([each.statistic for each in panel.by_stream])
    known = np.flatnonzero(~np.isnan(statistic))
    order = known[np.argsort(statistic[known], kind="stable")].tolist()
    return {
        "horizon": panel.horizon,
        "pairs": panel.pairs,
        "rel_mae": number(panel.rel_mae),
        "first_better": panel.count(-1),
        "second_better": panel.count(1),
        "undecided": panel.count(0),
        "undecidable": panel.undecidable,
        "pooled": _test(panel.pooled),
        "for_first": [_tested(history, panel, stream) for stream in order[:top]],
        "for_second": [_tested(history, panel, stream) for stream in order[::-1][:top]],
    }


def _test(found: Comparison) -> Document:
    return {
        "mean_difference": number(found.mean_difference),
        "statistic": number(found.statistic),
        "p_value": number(found.p_value),
    }


def _tested(history: History, panel: Panel, stream: int) -> Document:
    return {
        "stream": history.name(stream),
        "mae": [number(panel.mae[stream]), number(panel.other_mae[stream])],
    } | _test(panel.by_stream[stream])
