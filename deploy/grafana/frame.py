"""What the dashboards share: variables, annotations, links between them, time range and refresh."""

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as m

from deploy.grafana.panels import BLUE, ORANGE, PROMETHEUS, PURPLE
from deploy.grafana.promql import MEMBER, of, short_hash

TAG = "streamlstm"
ALL = m.VariableOption(selected=True, text="All", value="$__all")
ANNOTATION_STEP = "30s"
RECENT = "2m"
"""How long an event of an annotation is seen as new: some scrapes."""


def dashboard(uid: str, title: str, description: str, *, past: str, refresh: str) -> build.Dashboard:
    """A dashboard without panels. `past`: the range it opens with."""
    link = (
        build.DashboardLink("streamlstm dashboards")
        .type(m.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
        .tooltip("The other dashboard, same choice and time")
    )
    made = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time(f"now-{past}", "now")
        .refresh(refresh)
        .tooltip(m.DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(link)
        .variables([*_sources()])
    )
    for annotation in _annotations():
        made = made.annotation(annotation)
    return made


def choice(name: str, label: str, query: str, description: str, *, every: str | None = ".*") -> build.QueryVariable:
    """A filter by the values of a label, all of them at first. `every`: what All stands for; None: for all values
    that there are.
    """
    made = (
        build.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(PROMETHEUS)
        .query({"qryType": 1, "query": query, "refId": name})
        .current(ALL)
        .multi(True)
        .include_all(True)
        .refresh(m.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(m.VariableSort.NATURAL_ASC)
    )
    return made if every is None else made.all_value(every)


def window() -> build.IntervalVariable:
    """How far back each point of a ratio looks: a fiftieth of the range unless chosen, at least two minutes."""
    auto = "$__auto_interval_window"
    return (
        build.IntervalVariable("window")
        .label("Over")
        .description("How far back each point looks; auto: by the range.")
        .values("5m,15m,1h,6h,1d")
        .auto(True)
        .step_count(50)
        .min_interval("2m")
        .current(m.VariableOption(selected=True, text="auto", value=auto))
        .options(
            [
                m.VariableOption(selected=value == auto, text=text, value=value)
                for text, value in (("auto", auto), *((each, each) for each in ("5m", "15m", "1h", "6h", "1d")))
            ]
        )
    )


def _sources() -> list[build.QueryVariable | build.DatasourceVariable]:
    """Each narrows the next. What a scrape has no label for has no values, and All then means everything.

    `instance` stands for all members that the others leave, and it alone, with its job, is in the panels' queries: so a
    pod and a consumer group can be chosen although most metrics don't carry them, and metrics that every process has
    (`process_*`) are those of streamlstm.
    """
    narrowed = 'cluster=~"$cluster",namespace=~"$namespace",job=~"$job"'
    return [
        build.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .description("The Prometheus that scrapes streamlstm."),
        choice(
            "cluster",
            "Cluster",
            "label_values(streamlstm_build_info, cluster)",
            "Where Prometheus' series have such a label.",
        ),
        choice(
            "namespace",
            "Namespace",
            'label_values(streamlstm_build_info{cluster=~"$cluster"}, namespace)',
            "Of Kubernetes; nothing elsewhere.",
        ),
        choice(
            "job",
            "Job",
            'label_values(streamlstm_build_info{cluster=~"$cluster",namespace=~"$namespace"}, job)',
            "Job of Prometheus' scrape configuration.",
        ),
        choice("group", "Group", f"label_values(streamlstm_config_info{{{narrowed}}}, group)", "Consumer group."),
        choice(
            "pod",
            "Pod",
            f'label_values(streamlstm_config_info{{{narrowed},group=~"$group"}}, pod)',
            "Of Kubernetes; nothing elsewhere.",
        ),
        choice(
            "instance",
            "Instance",
            f'label_values(streamlstm_config_info{{{narrowed},group=~"$group",pod=~"$pod"}}, instance)',
            "Members, by the address that Prometheus scrapes.",
            every=None,
        ),
    ]


class _PrometheusAnnotation(m.AnnotationQuery):
    """What Prometheus' annotations have beside the expression; the builder's type knows none of it."""

    def __init__(self, name: str, color: str, expr: str, title: str, text: str, at_value: bool) -> None:
        super().__init__(name=name, datasource=PROMETHEUS, icon_color=color, expr=expr)
        self._own = {
            "step": ANNOTATION_STEP,
            "titleFormat": title,
            "textFormat": text,
            "tagKeys": "",
            "useValueForTime": at_value,
        }

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self._own}


class _Ready(build.AnnotationQuery):
    """An annotation that is made already."""

    def __init__(self, made: m.AnnotationQuery) -> None:
        super().__init__()
        self._internal = made


def _annotations() -> list[build.AnnotationQuery]:
    """Starts carry their time as their value, in ms; the others are bands of `RECENT`."""
    started = f"max by ({MEMBER}) ({of('streamlstm_start_time_seconds')}) * 1000"
    deployed = f"{_running()} unless {_running(f' offset {RECENT}')}"
    rebalanced = f"ceil(sum by ({MEMBER}) (increase({of('streamlstm_rebalances_total')}[{RECENT}]))) > 0"
    return [
        _Ready(_PrometheusAnnotation("Starts", BLUE, started, "Started", "{{pod}} {{instance}}", True)),
        _Ready(
            _PrometheusAnnotation(
                "Deploys",
                PURPLE,
                deployed,
                "New version or model",
                "streamlstm {{version}}, model {{model_hash}}",
                False,
            )
        ),
        _Ready(_PrometheusAnnotation("Rebalances", ORANGE, rebalanced, "Rebalance", "{{pod}} {{instance}}", False)),
    ]


def _running(ago: str = "") -> str:
    build_info, model_info = of("streamlstm_build_info") + ago, of("streamlstm_model_info") + ago
    both = f"{build_info} * on (cluster, namespace, job, instance) group_left (model_hash) {short_hash(model_info)}"
    return f"count by (version, model_hash) ({both})"
