"""What the demo shows: scores, live table, plain lines, plot, and the figures it reads from /metrics."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.made_answers import made_replay
from rich.console import Console

from deploy.demo.daemon import Figures, read_figures
from deploy.demo.pace import Pace
from deploy.demo.plot import save_plot
from deploy.demo.scores import Scoreboard, geometric_mean
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
        scores.add(Forecast("up", n, y, yhat, n + 1, "events", 0, n))
    errors = scores.streams["up"].trained
    assert (errors.n, errors.model, errors.naive) == (2, 0.5 + 2.0, 1.0 + 2.0)
    assert errors.ratio == pytest.approx(2.5 / 3)


def test_what_trained_the_model_is_scored_apart() -> None:
    up = made_scores().streams["up"]
    assert (up.trained.n, up.held_out.n) == (11, 8)
    assert up.current is up.held_out
    assert up.held_out.ratio == 1.0
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([-1e300, 1e300]) == "▁█"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.29901, "0.299"), (-0.5, "-0.500"), (94.584, "94.58"), (9999.4, "9999"), (25_300.0, "25.3k"), (3.62e6, "3.62M")],
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
    assert "error / naive 1.00 (unseen part)" in lines[1]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_live_table_shows_every_stream(width: int) -> None:
    terminal = io.StringIO()
    view = LiveView(Console(file=terminal, force_terminal=True, width=width, color_system=None))
    view.say("ready")
    with view.following():
        view.show(made_board())
    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue())
    assert "✓ ready" in shown
    assert all(name in shown for name in ("up", "wave", "28.5", "1.000", "█", "30 of 30 forecasts"))
    assert max(map(len, shown.splitlines())) <= width


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
    page = metrics_page(Observed(counters, Progress(0.0, 0.0), BuildInfo("1", "3", "0", "3", "x86_64")))()
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
