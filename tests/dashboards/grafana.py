"""What Grafana does with a dashboard before it draws: variables get values, queries get them, Prometheus is asked.

The rules are those of Grafana's documentation (dashboard variables; Prometheus template variables): All of a variable
is its `allValue`, else an alternative of all its values; $__interval is the range over the panel's width in pixels, not
below the scrape interval; $__rate_interval = max($__interval + scrape interval, 4 scrape intervals).
"""

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PIXELS = 1440
COLUMNS = 24
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.*), *(?P<label>\w+)\)", re.DOTALL)
STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Range:
    """What the dashboard shows, in epoch seconds, of a Prometheus that scrapes every `scrape` seconds."""

    start: float
    end: float
    scrape: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def interval(self, pixels: float, least: float = 0.0) -> float:
        """$__interval of a panel of that width."""
        exact = self.seconds / max(1.0, pixels)
        nice = next((step for step in STEPS if step >= exact * 0.75), STEPS[-1])
        return max(float(nice), self.scrape, least)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: labels and (n, 2) of epoch seconds and values; one point from an instant query."""

    labels: dict[str, str]
    points: list[tuple[float, float]]

    def name(self, legend: str | None) -> str:
        """As Grafana writes it: a label that isn't there is written as nothing."""
        if not legend:
            return "{" + ", ".join(f'{k}="{v}"' for k, v in self.labels.items()) + "}"
        return re.sub(r"{{\s*(\w+)\s*}}", lambda label: self.labels.get(label[1], ""), legend).strip()

    @property
    def finite(self) -> list[float]:
        return [value for _, value in self.points if math.isfinite(value)]


class Prometheus:
    """Its HTTP API. Queries that it refuses raise AssertionError with its words."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def query(self, expression: str, at: float) -> list[Series]:
        found = self._post("/api/v1/query", {"query": expression, "time": at})
        assert found["resultType"] in {"vector", "scalar"}, found["resultType"]
        if found["resultType"] == "scalar":
            return [Series({}, [_point(found["result"])])]
        return [Series(one["metric"], [_point(one["value"])]) for one in found["result"]]

    def query_range(self, expression: str, over: Range, step: float) -> list[Series]:
        start = over.start - over.start % step
        asked = {"query": expression, "start": start, "end": over.end, "step": step}
        found = self._post("/api/v1/query_range", asked)
        return [Series(one["metric"], [_point(value) for value in one["values"]]) for one in found["result"]]

    def label_values(self, selector: str, label: str, over: Range) -> list[str]:
        asked = urllib.parse.urlencode({"match[]": selector, "start": over.start, "end": over.end})
        return [str(value) for value in self._ask(f"/api/v1/label/{label}/values?{asked}", None)]

    def _post(self, path: str, form: Mapping[str, Any]) -> Any:
        return self._ask(path, urllib.parse.urlencode(form).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        try:
            with urllib.request.urlopen(self.url + path, body, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(
                f"{path} {urllib.parse.unquote_plus((body or b'').decode())}: {error.read()!r}"
            ) from None


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


@dataclass(slots=True)
class Dashboard:
    """A dashboard's JSON with its variables chosen. `chosen`: values by variable where not All."""

    path: Path
    prometheus: Prometheus
    over: Range
    chosen: Mapping[str, str] = field(default_factory=dict)
    json: dict[str, Any] = field(init=False)
    values: dict[str, str] = field(init=False)
    options: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.json = json.loads(self.path.read_text())
        self.values, self.options = {}, {}
        for variable in self.json["templating"]["list"]:
            self._choose(variable)

    @property
    def panels(self) -> list[dict[str, Any]]:
        """Without rows, as they lie."""
        return [panel for panel in self.json["panels"] if panel["type"] != "row"]

    def results(self, panel: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[Series]]]:
        """Each target of a panel and what it finds."""
        pixels = PIXELS * panel["gridPos"]["w"] / COLUMNS
        interval = self.over.interval(pixels)
        for target in panel["targets"]:
            expression = self.fill(target["expr"], interval)
            if target.get("instant"):
                yield target, self.prometheus.query(expression, self.over.end)
            else:
                yield target, self.prometheus.query_range(expression, self.over, interval)

    def annotations(self) -> Iterator[tuple[dict[str, Any], list[tuple[float, float, str]]]]:
        """Each annotation query and its events: from, to, text; times in epoch seconds."""
        for annotation in self.json["annotations"]["list"]:
            step = float(annotation["step"].removesuffix("s"))
            expression = self.fill(annotation["expr"], step)
            found = self.prometheus.query_range(expression, self.over, step)
            yield annotation, [event for series in found for event in _events(annotation, series, step)]

    def fill(self, text: str, interval: float) -> str:
        """A query with the values of all variables in it."""
        rate = max(interval + self.over.scrape, 4 * self.over.scrape)
        built_in = {
            "__rate_interval": f"{rate:.0f}s", "__interval": f"{interval:.0f}s", "__range": f"{self.over.seconds:.0f}s",
        }  # fmt: skip
        values = {**self.values, **built_in}
        return re.sub(r"\$([A-Za-z_]\w*)|\$\{(\w+)\}", lambda name: values[name[1] or name[2]], text)

    def _choose(self, variable: dict[str, Any]) -> None:
        name = variable["name"]
        if variable["type"] == "datasource":
            self.values[name] = "the one that is asked"
        elif variable["type"] == "interval":
            least = float(variable["auto_min"].removesuffix("m")) * 60
            self.values[name] = f"{self.over.interval(variable['auto_count'], least):.0f}s"
        else:
            found = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found, f"{name}: {variable['query']}"
            selector = self.fill(found["selector"], 60)
            self.options[name] = self.prometheus.label_values(selector, found["label"], self.over)
            every = variable.get("allValue") or "|".join(re.escape(value) for value in self.options[name])
            # a backslash of the expression is doubled within a string of PromQL
            self.values[name] = self.chosen.get(name, every).replace("\\", "\\\\")


def _events(annotation: dict[str, Any], series: Series, step: float) -> Iterator[tuple[float, float, str]]:
    """Points that follow one another are one event; with useValueForTime each new value is one, in ms."""
    text = series.name(annotation["textFormat"])
    if annotation["useValueForTime"]:
        for value in sorted({value for _, value in series.points}):
            yield value / 1000, value / 1000, text
        return
    at = [time for time, value in series.points if value]
    begin = at[:1]
    for now, following in zip(at, [*at[1:], math.inf], strict=True):
        if following - now > 1.5 * step:
            yield begin[0], now, text
            begin = [following]
