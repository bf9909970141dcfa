"""The forecast quality dashboard: what the forecasts turned out to be worth.

Everything is the growth of sums over a window, so it is of the window and of all members together; what a member has
seen since its start is in the last row.
"""

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as m

from deploy.grafana.frame import choice, dashboard, window
from deploy.grafana.operations import STATUS_COLORS
from deploy.grafana.panels import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Steps,
    areas,
    lines,
    listing,
    profile,
    tile,
)
from deploy.grafana.promql import (
    BY_HORIZON,
    LEGEND,
    MEMBER,
    RANGE,
    WINDOW,
    increase,
    largest,
    of,
    or_zero,
    rate,
    ratio,
    short_hash,
)
from streamlstm.service.scoring import Candidate, Landing

Panels = list[Builder[m.Panel]]

ERRORS, SCORED = "streamlstm_absolute_error_total", "streamlstm_scored_forecasts_total"
OUTCOMES = "streamlstm_interval_outcomes_total"
TARGET = largest("streamlstm_coverage_target_ratio")
H = "horizon"
STEP = "+{{horizon}}"
"""Steps ahead."""

BETTER_BELOW_1: Steps = ((None, GREEN), (1, YELLOW), (1.05, RED))
OFF_TARGET: Steps = ((None, GREEN), (0.02, YELLOW), (0.05, RED))
NEAR_1, NEAR_PROMISED = (0.6, 1.1), (0.7, 1.0)
FORECASTERS = {"emitted": Candidate.FORECAST, "last value": Candidate.NAIVE, "last season": Candidate.SEASONAL}
FORECASTER_COLORS = {"emitted": BLUE, "last value": ORANGE, "last season": PURPLE}


def forecast_quality() -> build.Dashboard:
    made = dashboard(
        "streamlstm-forecast-quality",
        "streamlstm / forecast quality",
        "What the forecasts turned out to be worth.",
        past="6h",
        refresh="1m",
    )
    horizons = choice(H, "Horizon", f"label_values({of(SCORED)}, {H})", "Steps ahead.")
    made = made.with_variable(horizons).with_variable(window())
    for title, panels in (
        ("Is it good?", _tiles()),
        ("Is the model worth it? Errors against repeating the last value and the last season", _errors()),
        ("Do the intervals hold what they promise?", _intervals()),
        ("What is forecast, what is scored, how odd the events are", _scored()),
        ("Since the start of each member", _since_start()),
    ):
        made = made.with_row(build.Row(title))
        for panel in panels:
            made = made.with_panel(panel)
    return made


def _mean_error(who: Candidate, window: str, by: str = "") -> str:
    errors = increase(ERRORS, f'forecaster="{who}"', BY_HORIZON, by=by, window=window)
    return ratio(errors, increase(SCORED, BY_HORIZON, by=by, window=window))


def _skill(against: Candidate, window: str, by: str = H) -> str:
    own, other = (
        increase(ERRORS, f'forecaster="{who}"', BY_HORIZON, by=by, window=window)
        for who in (Candidate.FORECAST, against)
    )
    return ratio(own, other)


def _share(landing: Landing, window: str, by: str = H) -> str:
    fell = increase(OUTCOMES, f'outcome="{landing}"', BY_HORIZON, by=by, window=window)
    return ratio(fell, increase(OUTCOMES, BY_HORIZON, by=by, window=window))


def _tiles() -> Panels:
    forecasts = increase("streamlstm_forecasts_total")
    ok = ratio(increase("streamlstm_forecasts_total", 'status="ok"'), forecasts)
    off = f"max(abs({_share(Landing.INSIDE, RANGE)} - on () group_left () {TARGET}))"
    return [
        tile(
            "Skill, worst horizon",
            "Absolute errors of what was emitted over those of repeating the last value, over the "
            "range of the dashboard: below 1 is better than that.",
            f"max({_skill(Candidate.NAIVE, RANGE)})",
            "none",
            steps=BETTER_BELOW_1,
            over_range=True,
            decimals=3,
        ),
        tile(
            "Coverage off target",
            "The largest distance, of any horizon, between the share of actual values inside their "
            "intervals and the level promised; over the range of the dashboard.",
            off,
            "percentunit",
            steps=OFF_TARGET,
            over_range=True,
            decimals=2,
        ),
        tile("Promised coverage", "The level of the intervals.", TARGET, "percentunit", over_range=True, decimals=0),
        tile(
            "Scored",
            "Forecasts whose actual value has come, per second, all horizons.",
            rate(SCORED, BY_HORIZON, window=WINDOW),
            "cps",
        ),
        tile(
            "Status ok",
            "Share of the forecasts with the status ok, over the range of the dashboard.",
            ok,
            "percentunit",
            over_range=True,
            decimals=1,
        ),
        tile(
            "Anomalous events",
            "Share of the events that were reported as anomalies, over the range of the dashboard.",
            or_zero(ratio(increase("streamlstm_anomalies_total"), forecasts)),
            "percentunit",
            over_range=True,
            decimals=2,
        ),
    ]


def _errors() -> Panels:
    squared = increase("streamlstm_squared_error_total", BY_HORIZON, by=H, window=WINDOW)
    rmse = f"sqrt({ratio(squared, increase(SCORED, BY_HORIZON, by=H, window=WINDOW))})"
    return [
        profile(
            "Skill by horizon",
            "Absolute errors over those of repeating the last value, over the range of the "
            "dashboard: below 1 is better than that.",
            {"skill": _skill(Candidate.NAIVE, RANGE)},
            "none",
            by=H,
            span=12,
            steps=BETTER_BELOW_1,
        ),
        profile(
            "Mean absolute error by horizon",
            "In the unit of the target, over the range of the dashboard; streams of larger values weigh more.",
            {name: _mean_error(who, RANGE, H) for name, who in FORECASTERS.items()},
            "short",
            by=H,
            span=12,
            colors=FORECASTER_COLORS,
        ),
        lines(
            "Skill",
            "Absolute errors over those of repeating the last value: below 1 is better than that.",
            {STEP: _skill(Candidate.NAIVE, WINDOW)},
            "none",
            near=NEAR_1,
            listed=True,
            span=6,
            steps=BETTER_BELOW_1,
        ),
        lines(
            "Skill against the last season",
            "Absolute errors over those of repeating the value one season before; of "
            "repeating the last value where the model knows no season.",
            {STEP: _skill(Candidate.SEASONAL, WINDOW)},
            "none",
            near=NEAR_1,
            listed=True,
            span=6,
            steps=BETTER_BELOW_1,
        ),
        lines(
            "Mean absolute error",
            "In the unit of the target, all chosen horizons and all streams together.",
            {name: _mean_error(who, WINDOW) for name, who in FORECASTERS.items()},
            "short",
            span=6,
            colors=FORECASTER_COLORS,
        ),
        lines(
            "Root mean squared error",
            "Of what was emitted, in the unit of the target.",
            {STEP: rmse},
            "short",
            span=6,
            listed=True,
        ),
    ]


def _intervals() -> Panels:
    outcomes = increase(OUTCOMES, BY_HORIZON, window=WINDOW)
    fell = {
        f"{landing.value} the interval": ratio(
            increase(OUTCOMES, f'outcome="{landing}"', BY_HORIZON, window=WINDOW), outcomes
        )
        for landing in (Landing.ABOVE, Landing.BELOW)
    }
    width = ratio(
        increase("streamlstm_interval_width_total", BY_HORIZON, by=H, window=WINDOW),
        increase(OUTCOMES, BY_HORIZON, by=H, window=WINDOW),
    )
    return [
        lines(
            "Coverage",
            "Share of actual values inside their intervals, and the level promised.",
            {STEP: _share(Landing.INSIDE, WINDOW), "promised": TARGET},
            "percentunit",
            span=6,
            near=NEAR_PROMISED,
            listed=True,
            dashed=("promised",),
        ),
        profile(
            "Coverage by horizon",
            "Over the range of the dashboard.",
            {
                "coverage": _share(Landing.INSIDE, RANGE),
                "promised": f"{_share(Landing.INSIDE, RANGE)} * 0 + on () group_left () {TARGET}",
            },
            "percentunit",
            by=H,
            span=6,
        ),
        areas(
            "Outside",
            "Share of actual values below and above their intervals: about half of what the level leaves each.",
            fell,
            "percentunit",
            span=6,
            colors={"above the interval": ORANGE, "below the interval": BLUE},
        ),
        lines(
            "Mean width",
            "Of the intervals, in the unit of the target: the narrower the better, at equal coverage.",
            {STEP: width},
            "short",
            listed=True,
            span=6,
        ),
    ]


def _scored() -> Panels:
    anomalies = rate("streamlstm_anomalies_total", window=WINDOW)
    return [
        areas(
            "Forecasts by status",
            "Shares of the forecasts, by what they are worth.",
            {"{{status}}": rate("streamlstm_forecasts_total", by="status", window=WINDOW)},
            "eps",
            percent=True,
            colors={status.label: color for status, color in STATUS_COLORS.items()},
        ),
        lines(
            "Scored forecasts",
            "Forecasts per second whose actual value has come. A horizon beyond a gap isn't scored.",
            {STEP: rate(SCORED, BY_HORIZON, by=H, window=WINDOW)},
            "cps",
            listed=True,
        ),
        lines(
            "Anomalies",
            "Events per second that were reported as anomalies: when one begins and when it grows.",
            {"anomalies": or_zero(anomalies)},
            "cps",
            colors={"anomalies": RED},
        ),
    ]


def _since_start() -> Panels:
    target = "cluster, namespace, job, instance"
    config = of("streamlstm_config_info")
    model = f"{short_hash(of('streamlstm_model_info'))} * on ({target}) group_left (group, input, output) {config}"
    return [
        lines(
            "Skill of each member",
            "Of its worst horizon, since its start: below 1 is better than repeating the last value.",
            {LEGEND: f"max by ({MEMBER}) ({of('streamlstm_skill_ratio', BY_HORIZON)})"},
            "none",
            near=NEAR_1,
            span=6,
            steps=BETTER_BELOW_1,
        ),
        lines(
            "Coverage of each member",
            "Of the horizon that covers least, since its start.",
            {LEGEND: f"min by ({MEMBER}) ({of('streamlstm_coverage_ratio', BY_HORIZON)})", "promised": TARGET},
            "percentunit",
            span=6,
            near=NEAR_PROMISED,
            dashed=("promised",),
        ),
        listing(
            "Models",
            "Which model each member runs. `streamlstm show` says what is in the file.",
            model,
            {
                "pod": "Pod",
                "instance": "Instance",
                "model_hash": "Model",
                "window": "Window",
                "inputs": "Inputs",
                "hidden": "Hidden",
                "horizons": "Horizons",
                "group": "Group",
                "input": "Input",
                "output": "Output",
            },
            span=12,
            height=8,
        ),
    ]
