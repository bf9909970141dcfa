"""What the demo shows: scores, live table, plain lines, plot, and the figures it reads from /metrics."""

import io
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from demo.made_answers import made_forecast, made_replay
from rich.console import Console

from deploy.demo.daemon import Figures, read_figures
from deploy.demo.pace import Pace
from deploy.demo.plot import DETAIL, Stretch, save_plot
from deploy.demo.scores import Part, Scoreboard, coverage, geometric_mean
from deploy.demo.summary import summary
from deploy.demo.view import Board, LiveView, PlainView, short, sparkline
from deploy.demo.wire import Forecast
from streamlstm.service.counters import BuildInfo, Counters, Stage
from streamlstm.service.health import Progress
from streamlstm.service.metrics import Observed, metrics_page


def made_scores() -> Scoreboard:
    replay = made_replay()
    scores = Scoreboard(replay.series)
    for answer in replay.answers:
        if isinstance(answer, Forecast):
            scores.add(answer)
    return scores


def made_board(elapsed_seconds: float = 3.0) -> Board:
    return Board(made_scores(), 30, 30, 5, 1234.5, 6.25, elapsed_seconds)


def test_scores_compare_each_forecast_with_the_value_it_spoke_of() -> None:
    scores = Scoreboard(made_replay().series)
    for n, (y, yhat) in enumerate([(1.0, 2.5), (2.0, 2.0), (4.0, 7.0)]):
        scores.add(made_forecast("up", n, y, yhat, n + 1, 0, n))
    part = scores.streams["up"].trained
    assert (part.n, part.error, part.naive_error) == (2, 0.5 + 2.0, 1.0 + 2.0)
    assert part.ratio == pytest.approx(2.5 / 3)


def test_coverage_counts_the_intervals_that_were_known_and_held_the_value_they_spoke_of() -> None:
    scores = Scoreboard(made_replay().series)
    first = replace(made_forecast("up", 0, 1.0, 1.0, 1, 0, 0), lower=-math.inf, upper=math.inf)
    scores.add(first)
    for n, (y, yhat) in enumerate([(50.0, 2.0), (3.0, 2.5), (4.0, 4.0)], start=1):  # 3.0 is at the very end of 1 .. 3
        scores.add(made_forecast("up", n, y, yhat, n + 1, 0, n, is_anomaly=y == 50.0))
    part = scores.streams["up"].trained
    assert (part.intervals, part.covered, part.anomalies) == (2, 1, 1)
    assert part.coverage == 0.5
    assert coverage([part, Part(intervals=6, covered=6)]) == 7 / 8
    assert coverage([Part()]) is None


def test_what_trained_the_model_is_scored_apart() -> None:
    up = made_scores().streams["up"]
    assert (up.trained.n, up.held_out.n) == (11, 8)
    assert up.current is up.held_out
    assert up.held_out.ratio == 1.0
    assert (up.trained.anomalies, up.held_out.anomalies) == (1, 1)
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([-1e300, 1e300]) == "▁█"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.29901, "0.299"),
        (-0.5, "-0.500"),
        (94.584, "94.58"),
        (9999.4, "9999"),
        (25_300.0, "25.3k"),
        (3.62e6, "3.62M"),
    ],
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_plain_lines_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView()
    with view.following():
        for elapsed in (0.0, 0.5, 1.0, 3.5, 4.0):
            view.show(made_board(elapsed))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "30 of 30 forecasts · 1,234 events/s · commit 6.2 ms · 5 dead letters" in lines[1]
    assert "unseen part: error / naive 1.00 · 33.3 % within 90 % intervals · 2 anomalies" in lines[1]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_live_table_shows_every_stream(width: int) -> None:
    terminal = io.StringIO()
    view = LiveView(Console(file=terminal, force_terminal=True, width=width, color_system=None))
    view.say("ready")
    with view.following():
        view.show(made_board())
    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue())
    assert "✓ ready" in shown
    assert all(name in shown for name in ("up", "wave", "28.5", "1.000", "100.0 %", "█", "30 of 30 forecasts"))
    assert max(map(len, shown.splitlines())) <= width


def test_summary_rates_the_unseen_part_of_every_stream() -> None:
    scores = made_scores()
    scores.streams["wave"].held_out.error *= 0.25
    lines = list(summary(scores))
    assert [line.split() for line in lines if line.lstrip().startswith(("up", "wave"))] == [
        ["wave", "0.250", "100.0", "%", "1"],
        ["up", "1.000", "0.0", "%", "1", "(naive", "is", "better", "here)"],
    ]
    assert "error / naive 0.500 (geometric mean), better on 1 of 2 streams" in lines[-3]
    assert "33.3 % of 12 values within their 90 % intervals, between 88.0 % and 92.0 % on 0 of 2 streams" in lines[-2]
    assert lines[-1].strip() == "2 anomalies"


def test_plot_shows_each_event_beside_the_forecast_made_of_it() -> None:
    up = made_scores().streams["up"]
    up.forecasts[12] = replace(up.forecasts[12], lower=-math.inf, upper=math.inf)
    found = Stretch.held_out(up)
    assert found.y.tolist() == [1.5 * n for n in range(12, 20)]
    assert found.yhat.tolist() == [1.5 * n for n in range(11, 19)]
    assert np.isnan(found.lower).tolist() == np.isnan(found.upper).tolist() == [False, True, *[False] * 6]
    assert found.is_anomaly.tolist() == [False] * 7 + [True]


def test_the_detail_holds_the_oddest_event() -> None:
    n = 3 * DETAIL
    zeros = np.zeros(n)
    for oddest in (0, 7, n // 2, n - 1):
        score = zeros.copy()
        score[oddest] = 5.0
        times = np.arange(n).astype("datetime64[ms]")
        detail = Stretch(times, zeros, zeros, zeros, zeros, score > 1, score).detail()
        assert len(detail.y) == len(detail.times) == DETAIL
        assert detail.is_anomaly.sum() == 1


def test_plot_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "made" / "forecasts.png"
    save_plot(made_scores(), path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 10_000


def test_figures_are_read_from_the_daemons_own_metrics() -> None:
    counters = Counters()
    for seconds in (0.004, 0.008):
        counters.stages[Stage.COMMIT].observe(seconds)
    counters.stages[Stage.POLL].observe(9.0)
    page = metrics_page(Observed(counters, Progress(0.0, 0.0), BuildInfo("1", "3", "0", "3", "x86_64", "x86-64-v3")))()
    figures = read_figures(page.body.decode())
    assert figures.commits == 2
    assert figures.commit_ms_since(Figures(0, 0.0)) == pytest.approx(6.0)
    assert figures.commit_ms_since(figures) is None


def test_pace_is_of_the_last_second() -> None:
    pages: Iterator[Figures | None] = iter([Figures(10, 1.0), None, Figures(30, 1.2)])

    def read() -> Figures | None:
        return next(pages)

    pace = Pace(now=100.0)
    for now, events in ((100.5, 500), (101.0, 300), (102.0, 400), (103.0, 0)):
        pace.observe(now, events, read)
    assert pace.commit_ms == pytest.approx(10.0)
    assert pace.events_per_second == 0
    assert pace.idle_seconds(103.0) == 1.0
