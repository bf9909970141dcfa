"""The Grafana dashboards that are shipped, against the table of metrics. `make test-dashboards` asks Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana.build import dashboards as built
from streamlstm.service.metrics import METRICS, metrics_page
from tests.service.test_metrics import observed

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
TARGET_LABELS = {"cluster", "namespace", "job", "instance", "pod"}
PROCESS = {
    "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds",
}  # fmt: skip
LABELS = {row.name: set(row.labels) for row in METRICS} | {name: set[str]() for name in PROCESS}
KINDS = {row.name: row.kind for row in METRICS}
SELECTOR = re.compile(r"\b((?:streamlstm|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
UNITS = {"none", "short", "s", "bytes", "Bps", "percentunit", "eps", "cps"}


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels() -> Iterator[Any]:
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield pytest.param(panel, id=f"{name}: {panel['title']}")


def expressions() -> Iterator[Any]:
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                legend = target.get("legendFormat", "")
                yield pytest.param(target["expr"], legend, id=f"{name}: {panel['title']} {target['refId']}")
        for annotation in dashboard["annotations"]["list"]:
            yield pytest.param(annotation["expr"], annotation["textFormat"], id=f"{name}: {annotation['name']}")


def family(name: str) -> str:
    """A histogram's name without its suffix."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if KINDS.get(base) == "histogram" else name


def labels_of(name: str) -> set[str]:
    le = {"le"} if name.endswith("_bucket") else set()
    return LABELS[family(name)] | TARGET_LABELS | le


def label_values() -> dict[tuple[str, str], set[str]]:
    """(metric, label) -> values, of a page with everything on it."""
    found: dict[tuple[str, str], set[str]] = {}
    for each in text_string_to_metric_families(metrics_page(observed())().body.decode()):
        for sample in each.samples:
            for label, value in sample.labels.items():
                found.setdefault((sample.name, label), set()).add(value)
    return found


VALUES, EXPRESSIONS, PANELS = label_values(), list(expressions()), list(panels())


def test_files_are_what_the_builder_makes() -> None:
    for path, text in built().items():
        assert path.read_text() == text, f"{path} is old: python -m deploy.grafana.build"


@pytest.mark.parametrize(("expression", "legend"), EXPRESSIONS)
def test_queries_name_metrics_and_labels_that_exist(expression: str, legend: str) -> None:
    named = SELECTOR.findall(expression)
    assert named or "ALERTS" in expression
    known = {label for name, _ in named for label in labels_of(name)}
    for name, matchers in named:
        for label, operator, value in MATCHER.findall(matchers):
            assert label in labels_of(name), f"{name} has no label {label}"
            if operator != "=~":
                assert value in VALUES[name, label], f"{name} never has {label}={value}"
    for grouped in re.findall(r"(?:by|on|group_left) \(([\w, ]*)\)", expression):
        assert set(filter(None, grouped.split(", "))) <= known, grouped
    assert set(re.findall(r"{{(\w+)}}", legend)) <= known


@pytest.mark.parametrize(("expression", "legend"), EXPRESSIONS)
def test_counters_are_read_through_their_growth(expression: str, legend: str) -> None:
    for found in SELECTOR.finditer(expression):
        counts = KINDS.get(family(found[1])) in {"counter", "histogram"} or found[1] == "process_cpu_seconds_total"
        if counts:
            assert expression[: found.start()].endswith(("rate(", "increase(")), found[0]


@pytest.mark.parametrize(("expression", "legend"), EXPRESSIONS)
def test_every_selector_obeys_the_variables(expression: str, legend: str) -> None:
    for _, matchers in SELECTOR.findall(expression):
        for label in ("cluster", "namespace", "job", "instance"):
            assert f'{label}=~"${label}"' in matchers


@pytest.mark.parametrize("panel", PANELS)
def test_panels_say_what_they_show(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["description"].endswith(".")
    assert panel["targets"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("dashboard", list(dashboards().values()), ids=list(dashboards()))
def test_panels_fill_the_width_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        cells |= own
    height = max(y for _, y in cells) + 1
    assert cells == {(x, y) for x in range(24) for y in range(height)}
    assert len({(panel["type"], panel["title"]) for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_dashboards_link_to_each_other() -> None:
    found = dashboards()
    assert len({dashboard["uid"] for dashboard in found.values()}) == len(found) == 2
    for dashboard in found.values():
        (link,) = dashboard["links"]
        assert link["includeVars"]
        assert link["keepTime"]
        assert set(link["tags"]) <= set(dashboard["tags"])
