"""The PromQL that the panels are made of: selectors under the dashboards' variables, rates, quantiles, ratios.

A selector names what every scrape has (`job`, `instance`) and what a Kubernetes one adds (`cluster`, `namespace`); a
label that isn't there matches `.*`. Pods and consumer groups choose among the values of `$instance` (see frame.py).
"""

SELECT = 'cluster=~"$cluster",namespace=~"$namespace",job=~"$job",instance=~"$instance"'
MEMBER = "pod, instance"
LEGEND = "{{pod}} {{instance}}"
"""One member: pods by their name too, where there are pods. A label that isn't there is written as nothing."""

RATE = "$__rate_interval"
RANGE = "$__range"
WINDOW = "$window"

BY_SOURCE = 'topic=~"$topic",partition=~"$partition"'
BY_HORIZON = 'horizon=~"$horizon"'


def of(metric: str, *matchers: str) -> str:
    """The metric's series that the variables choose."""
    return f"{metric}{{{','.join((SELECT, *matchers))}}}"


def rate(metric: str, *matchers: str, by: str = "", window: str = RATE) -> str:
    """Growth per second of a counter, resets accounted for, summed over members: to one number or `by` labels."""
    return f"sum{_by(by)}(rate({of(metric, *matchers)}[{window}]))"


def increase(metric: str, *matchers: str, by: str = "", window: str = RANGE) -> str:
    """Growth of a counter, as `rate`."""
    return f"sum{_by(by)}(increase({of(metric, *matchers)}[{window}]))"


def total(metric: str, *matchers: str, by: str = "") -> str:
    """Sum of a gauge over members."""
    return f"sum{_by(by)}({of(metric, *matchers)})"


def largest(metric: str, *matchers: str, by: str = "") -> str:
    """Of a gauge over members. A partition that moves is told by two of them for one scrape: it isn't doubled here."""
    return f"max{_by(by)}({of(metric, *matchers)})"


def quantile(share: float, histogram: str, *matchers: str, by: str = "", window: str = RATE) -> str:
    """Quantile of a histogram over all members, by linear interpolation within its bucket; no series without
    observations (where Prometheus gives NaN).
    """
    labels = ", ".join(filter(None, ("le", by)))
    found = f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', *matchers, by=labels, window=window)})"
    return f"{found} >= 0"


def ratio(part: str, whole: str) -> str:
    """No series where the whole is 0 (where Prometheus gives NaN)."""
    return f"{part} / ({whole} > 0)"


def or_zero(expression: str) -> str:
    """0 where there is no series and that means none: a counter that hasn't counted, a ratio of nothing."""
    return f"({expression}) or vector(0)"


def or_named_zero(expression: str, label: str, name: str) -> str:
    """The series above 0 of an expression by `label`; where there are none a series `name` at 0."""
    return f'{expression} > 0 or on () label_replace(vector(0), "{label}", "{name}", "", "")'


def short_hash(expression: str) -> str:
    """The model's hash as forecasts carry it."""
    return f'label_replace({expression}, "model_hash", "$1", "model_hash", "(.{{12}}).*")'


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else " "
