"""The tables of backtest on a terminal."""

from collections.abc import Callable, Iterator
from typing import Any

from streamlstm.cli.table import aligned

MOST_HORIZONS = 12
MOST_LETTERS = 40

Document = dict[str, Any]


def lines(document: Document) -> Iterator[str]:
    """The document of service.backtest_document, for people."""
    for found in document["models"]:
        yield from _model(found)
    if document["comparison"] is not None:
        yield from _comparison(document)


def _model(found: Document) -> Iterator[str]:
    from streamlstm.history.report import counted
    from streamlstm.service.backtest_words import sentences

    scored = found["scored"]
    yield (
        f"{found['model']['path']} ({found['model']['hash'][:12]}): {found['events']:,} events; scored are "
        f"{scored['events']:,}, of {counted(scored['streams'], 'stream')}"
    )
    yield from (f"  {sentence}" for sentence in sentences(found))
    yield ""
    names, cells = _columns(found)
    yield from aligned(names, cells)
    yield ""
    quantiles = [
        (label, *(_text(each[p]) for p in ("p10", "p50", "p90")))
        for key, label in _BY_STREAM
        if (each := found["overall"]["quantiles_over_streams"][key]) is not None
    ]
    yield from aligned(("over streams", "10 %", "50 %", "90 %"), quantiles)
    streams = found["streams"]
    if streams["ranked"] > 1:
        for word in ("worst", "best"):
            yield ""
            yield from aligned(
                (word, "pairs", "MAE", "RMSE", "MASE", "RelMAE"),
                [
                    (shortened(each["stream"]), f"{each['pairs']:,}", *(_text(each[key]) for key in _OF_STREAM))
                    for each in streams[word]
                ],
            )
    yield ""


_BY_STREAM = (
    ("mae", "MAE"),
    ("rmse", "RMSE"),
    ("mase", "MASE"),
    ("rel_mae", "RelMAE"),
    ("rel_mae_seasonal", "RelMAE, seasonal"),
    ("coverage", "coverage"),
)
_OF_STREAM = ("mae", "rmse", "mase", "rel_mae")


def _columns(found: Document) -> tuple[list[str], list[list[str]]]:
    """Of the table by horizon."""
    chosen: list[tuple[str, Callable[[Document], str]]] = [("pairs", lambda each: f"{each['pairs']:,}")]
    chosen += [(name, _of(key)) for name, key in (("MAE", "mae"), ("RMSE", "rmse"), ("MASE", "mase"))]
    chosen.append(("RelMAE", _of("naive", "rel_mae")))
    if found["period"] > 1:
        chosen.append(("RelMAE, seasonal", _of("seasonal_naive", "rel_mae")))
    if found["level"] is not None:
        level = f"{100 * found['level']:.0f} %"
        chosen.append((f"in {level}", lambda each: _share(each["intervals"]["coverage"])))
        chosen += [("width", _of("intervals", "width")), ("CRPS", _of("intervals", "crps"))]
    rows = [(str(each["horizon"]), each) for each in _some(found["horizons"])]
    rows.append(("all", found["overall"]))
    return (
        ["horizon", *(name for name, _ in chosen)],
        [[name, *(cell(each) for _, cell in chosen)] for name, each in rows],
    )


def _some(horizons: list[Document]) -> list[Document]:
    """All, or as many as a reader takes in, the first and last among them."""
    if len(horizons) <= MOST_HORIZONS:
        return horizons
    last = len(horizons) - 1
    return [horizons[round(k * last / (MOST_HORIZONS - 1))] for k in range(MOST_HORIZONS)]


def _comparison(document: Document) -> Iterator[str]:
    from streamlstm.service.backtest_words import comparison_verdict

    first, second = (found["model"]["path"] for found in document["models"])
    panels = document["comparison"]["horizons"]
    yield comparison_verdict(panels[0], (first, second))
    yield ""
    yield from aligned(
        ("horizon", "pairs", "RelMAE", "better", "worse", "undecided", "pooled DM", "p"),
        [
            (
                str(each["horizon"]), f"{each['pairs']:,}", _text(each["rel_mae"]), f"{each['first_better']:,}",
                f"{each['second_better']:,}", f"{each['undecided']:,}", _text(each["pooled"]["statistic"]),
                _text(each["pooled"]["p_value"]),
            )
            for each in _some(panels)
        ],
    )  # fmt: skip


def _of(*keys: str) -> Callable[[Document], str]:
    def cell(each: Document) -> str:
        value: Any = each
        for key in keys:
            value = None if value is None else value[key]
        return _text(value)

    return cell


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def shortened(stream: str) -> str:
    """A stream's id, fit for a table: no control characters, and not too long."""
    plain = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in stream[:MOST_LETTERS])
    return plain if len(stream) <= MOST_LETTERS else f"{plain}..."
