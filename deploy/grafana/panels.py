"""The kinds of panels that the dashboards have, each with one look: what Grafana's builder is told every time."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    barchart,
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as m
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = m.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"
BLUE, PURPLE, GREY = "blue", "purple", "#808080"

Steps = Sequence[tuple[float | None, str]]
"""(from which value on, colour), rising; the first value is None: from the least on."""
Queries = Mapping[str, str]
"""Legend -> PromQL."""


def thresholds(steps: Steps) -> build.ThresholdsConfig:
    found = [m.Threshold(value=value, color=color) for value, color in steps]
    return build.ThresholdsConfig().mode(m.ThresholdsMode.ABSOLUTE).steps(found)


def tile(
    title: str,
    description: str,
    query: str,
    unit: str,
    *,
    steps: Steps = ((None, BLUE),),
    span: int = 4,
    decimals: int | None = None,
    over_range: bool = False,
) -> stat.Panel:
    """One number, its past behind it. `over_range`: a query over the whole range of the dashboard has no past."""
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .span(span)
        .height(3)
        .datasource(PROMETHEUS)
        .thresholds(thresholds(steps))
        .color_scheme(_color(m.FieldColorModeId.THRESHOLDS))
        .reduce_options(reduced)
        .graph_mode(c.BigValueGraphMode.NONE if over_range else c.BigValueGraphMode.AREA)
        .color_mode(c.BigValueColorMode.VALUE)
        .text_mode(c.BigValueTextMode.VALUE)
        .justify_mode(c.BigValueJustifyMode.AUTO)
        .with_target(_query(query, "A", "", instant=over_range))
    )
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    title: str,
    description: str,
    queries: Queries,
    unit: str,
    *,
    span: int = 8,
    steps: Steps = (),
    low: float | None = 0,
    high: float | None = None,
    colors: Mapping[str, str] | None = None,
    dashed: Iterable[str] = (),
    steady: bool = False,
    near: tuple[float, float] | None = None,
    listed: bool = False,
) -> timeseries.Panel:
    """Lines over time, a legend with last and largest value below. `low`, `high`: ends of the axis, None: by the data.
    `near`: what the axis shows at least, in place of these. `steps` are drawn as lines. `steady`: gauges that stand
    still between changes are drawn as stairs. `listed`: a legend of names alone, for many lines of one kind.
    """
    shape = c.LineInterpolation.STEP_AFTER if steady else c.LineInterpolation.LINEAR
    panel = _over_time(title, description, queries, unit, span).fill_opacity(0).line_interpolation(shape)
    if near:
        panel = panel.axis_soft_min(near[0]).axis_soft_max(near[1])
    else:
        panel = panel if low is None else panel.min(low)
        panel = panel if high is None else panel.max(high)
    if listed:
        panel = panel.legend(_names_alone())
    if steps:
        style = common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(thresholds(steps)).thresholds_style(style)
    for name in dashed:
        style = {"fill": "dash", "dash": [8, 6]}
        panel = panel.override_by_name(
            name, [_set("custom.lineStyle", style), _set("custom.fillOpacity", 0), _fixed(GREY)]
        )
    return _colored(panel, colors)


def areas(
    title: str,
    description: str,
    queries: Queries,
    unit: str,
    *,
    span: int = 8,
    colors: Mapping[str, str] | None = None,
    percent: bool = False,
) -> timeseries.Panel:
    """Parts of a whole, stacked."""
    mode = c.StackingMode.PERCENT if percent else c.StackingMode.NORMAL
    stacking = common.StackingConfig().mode(mode).group("A")
    panel = _over_time(title, description, queries, unit, span).fill_opacity(50).line_width(0).min(0).stacking(stacking)
    return _colored(panel, colors)


def bars(
    title: str, description: str, queries: Queries, unit: str, *, span: int = 8, colors: Mapping[str, str] | None = None
) -> timeseries.Panel:
    """Counts of what happens now and then, stacked."""
    stacking = common.StackingConfig().mode(c.StackingMode.NORMAL).group("A")
    panel = _over_time(title, description, queries, unit, span).draw_style(c.GraphDrawStyle.BARS).fill_opacity(80)
    return _colored(panel.line_width(0).min(0).stacking(stacking), colors)


def distribution(title: str, description: str, query: str, unit: str, *, span: int = 8) -> heatmap.Panel:
    """The buckets of a histogram over time; `query` is by (le)."""
    color = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    color = color.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .span(span)
        .height(8)
        .datasource(PROMETHEUS)
        .calculate(False)
        .color(color)
        .cell_gap(1)
        .unit(unit)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .cell_values(heatmap.CellValues().unit("cps"))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(c.HeatmapCellLayout.AUTO))
        .with_target(_query(query, "A", "{{le}}").format(PromQueryFormat.HEATMAP))
    )


def timeline(
    title: str, description: str, query: str, legend: str, states: Mapping[str, tuple[str, str]], *, span: int = 24
) -> statetimeline.Panel:
    """One line of states for each series; `states`: value -> (name, colour)."""
    options = {
        value: m.ValueMappingResult(text=name, color=color, index=k)
        for k, (value, (name, color)) in enumerate(states.items())
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .span(span)
        .height(8)
        .datasource(PROMETHEUS)
        .mappings([m.ValueMap(options=options)])
        .unit("none")
        .show_value(c.VisibilityMode.AUTO)
        .fill_opacity(80)
        .legend(_names_alone())
        .with_target(_query(query, "A", legend))
    )


def listing(
    title: str, description: str, query: str, columns: Mapping[str, str], *, span: int = 24, height: int = 8
) -> table.Panel:
    """The labels of series as a table. `columns`: label -> heading, in order; other labels are left out."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .span(span)
        .height(height)
        .datasource(PROMETHEUS)
        .unit("none")
        .cell_height(c.TableCellHeight.SM)
        .with_target(_query(query, "A", "", instant=True).format(PromQueryFormat.TABLE))
        .transformations(_columns(columns))
    )


def profile(
    title: str,
    description: str,
    queries: Queries,
    unit: str,
    *,
    by: str,
    span: int = 8,
    steps: Steps = (),
    colors: Mapping[str, str] | None = None,
) -> barchart.Panel:
    """A bar for each value of the label `by`, in the order of their numbers; one query a colour."""
    panel = (
        barchart.Panel()
        .title(title)
        .description(description)
        .span(span)
        .height(8)
        .datasource(PROMETHEUS)
        .unit(unit)
        .x_field(by)
        .min(0)
        .fill_opacity(80)
        .group_width(0.8)
        .bar_width(0.9)
        .show_value(c.VisibilityMode.NEVER)
        .x_tick_label_spacing(0)
        .color_scheme(_color(m.FieldColorModeId.THRESHOLDS if steps else m.FieldColorModeId.PALETTE_CLASSIC))
        .legend(_names_alone().show_legend(len(queries) > 1))
    )
    if steps:
        panel = panel.thresholds(thresholds(steps))
    for name, color in (colors or {}).items():
        panel = panel.override_by_name(name, [_fixed(color)])
    names = {}
    for letter, (legend, query) in zip("ABCDEF", queries.items(), strict=False):
        panel = panel.with_target(_query(query, letter, legend, instant=True).format(PromQueryFormat.TABLE))
        names[f"Value #{letter}" if len(queries) > 1 else "Value"] = legend
    return panel.transformations([*_in_order_of(by), *_columns({by: by, **names})])


def _in_order_of(by: str) -> list[m.DataTransformerConfig]:
    """One table of all queries, in the order of a label's numbers; the label stays a text, as bars want it."""

    def as_type(name: str) -> dict[str, Any]:
        return {"conversions": [{"targetField": by, "destinationType": name}]}

    return [
        m.DataTransformerConfig(id_val="joinByField", options={"byField": by, "mode": "outer"}),
        m.DataTransformerConfig(id_val="convertFieldType", options=as_type("number")),
        m.DataTransformerConfig(id_val="sortBy", options={"sort": [{"field": by}]}),
        m.DataTransformerConfig(id_val="convertFieldType", options=as_type("string")),
    ]


def _columns(headings: Mapping[str, str]) -> list[m.DataTransformerConfig]:
    """These fields alone, in this order, under these headings."""
    order = {name: k for k, name in enumerate(headings)}
    return [
        m.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(headings)}}),
        m.DataTransformerConfig(
            id_val="organize", options={"excludeByName": {}, "indexByName": order, "renameByName": dict(headings)}
        ),
    ]


def _names_alone() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(True).placement(c.LegendPlacement.BOTTOM)
    return legend.display_mode(c.LegendDisplayMode.LIST)


def _over_time(title: str, description: str, queries: Queries, unit: str, span: int) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(c.LegendDisplayMode.TABLE)
        .placement(c.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
        .sort_by("Max")
        .sort_desc(True)
    )
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .span(span)
        .height(8)
        .datasource(PROMETHEUS)
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
        .show_points(c.VisibilityMode.NEVER)
        .line_width(1)
        .color_scheme(_color(m.FieldColorModeId.PALETTE_CLASSIC))
    )
    for letter, (name, query) in zip("ABCDEFGH", queries.items(), strict=False):
        panel = panel.with_target(_query(query, letter, name))
    return panel


def _query(query: str, letter: str, legend: str, *, instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query).ref_id(letter).datasource(PROMETHEUS)
    target = target.legend_format(legend) if legend else target
    return target.instant() if instant else target.range()


def _color(mode: m.FieldColorModeId) -> build.FieldColor:
    return build.FieldColor().mode(mode)


def _set(property_name: str, value: Any) -> m.DynamicConfigValue:
    return m.DynamicConfigValue(id_val=property_name, value=value)


def _fixed(color: str) -> m.DynamicConfigValue:
    return _set("color", {"mode": "fixed", "fixedColor": color})


def _colored(panel: timeseries.Panel, colors: Mapping[str, str] | None) -> timeseries.Panel:
    for name, color in (colors or {}).items():
        panel = panel.override_by_name(name, [_fixed(color)])
    return panel
