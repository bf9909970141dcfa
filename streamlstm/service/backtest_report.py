"""A backtest as one HTML page: what of the evidence is drawn."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from streamlstm.errors import UsageError
from streamlstm.evaluation.fans import fan
from streamlstm.evaluation.panel import Panel
from streamlstm.evaluation.summary import ranked
from streamlstm.history.history import History
from streamlstm.service.backtest import Backtest
from streamlstm.service.backtest_document import Document, of_stream
from streamlstm.service.backtest_words import beats_naive, comparison_verdict, sentences

DRAWN_STREAMS = 2
DRAWN_EVENTS = 120


def require_plots() -> None:
    """Raises UsageError that names the extra."""
    if find_spec("matplotlib") is None:
        raise UsageError("--report: expected matplotlib, which draws it: pip install 'streamlstm[report]'; found none")


def page(history: History, document: Document, tests: Sequence[Backtest], panels: Sequence[Panel]) -> str:
    """The text of the page."""
    from streamlstm.report.page import Compared, render  # noqa: PLC0415, of the extra [report]
    from streamlstm.report.sections import Shown  # noqa: PLC0415

    shown = []
    for test, found in zip(tests, document["models"], strict=True):
        order = ranked(test.summary.overall)
        count = min(DRAWN_STREAMS, (len(order) + 1) // 2)
        worst, best = (
            [(of_stream(history, test.summary.overall, s), fan(test.evidence, s, DRAWN_EVENTS)) for s in some]
            for some in (order[:count].tolist(), order[::-1][: min(count, len(order) - count)].tolist())
        )
        ratios = test.summary.overall.by_stream.rel_mae[order]
        said = sentences(found)
        shown.append(Shown(found, said, beats_naive(found), ratios[ratios > 0], worst, best))
    compared = None
    if panels:
        panel = panels[0]
        is_known = (panel.mae > 0) & (panel.other_mae > 0)
        names = (Path(tests[0].path).name, Path(tests[1].path).name)
        compared = Compared(
            comparison_verdict(document["comparison"]["horizons"][0], names),
            panel.mae[is_known] / panel.other_mae[is_known],
            np.asarray(panel.verdicts)[is_known],
        )
    return render(document, list(history.report.lines()), shown, compared)
