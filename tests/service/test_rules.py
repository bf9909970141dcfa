"""The rules of deploy/prometheus against the table of metrics: an alert on a name that isn't there would never fire.

Whether they fire is promtool's and a real Prometheus' to say: `make test-monitoring`.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamlstm.service.metrics import METRICS
from tests.monitoring.prometheus import faster

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
TESTS = ROOT / "deploy" / "prometheus" / "tests" / "streamlstm.test.yml"
OF_PROMETHEUS = {"cluster", "namespace", "job", "instance", "le"}
SUFFIXES = ("", "_bucket", "_sum", "_count")


def rules(kind: str) -> list[dict[str, Any]]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RECORDED = {rule["record"]: rule for rule in rules("record")}


@cache
def labels_of(metric: str) -> frozenset[str]:
    """Those that the metric, or the recorded series, can have; a KeyError where there is none such."""
    if metric == "up":
        return frozenset(OF_PROMETHEUS)
    if metric in RECORDED:
        return frozenset().union(*map(labels_of, used(RECORDED[metric]["expr"])))
    rows = {row.name + suffix: row for row in METRICS for suffix in (SUFFIXES if row.kind == "histogram" else ("",))}
    return frozenset((*rows[metric].labels, *OF_PROMETHEUS))


def used(expression: str) -> set[str]:
    return set(re.findall(r"\bstreamlstm[a-z0-9_:]*|\bup\b", re.sub(r'"[^"]*"', '""', expression)))


@pytest.mark.parametrize("rule", [*ALERTS.values(), *RECORDED.values()], ids=lambda rule: next(iter(rule.values())))
def test_every_name_and_label_is_in_the_table(rule: dict[str, Any]) -> None:
    expression = rule["expr"]
    known = frozenset[str]().union(*map(labels_of, used(expression)))
    assert used(expression)
    for metric, selectors in re.findall(r"\b(streamlstm[a-z0-9_:]*|up)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*[=!]", selectors)) <= labels_of(metric), metric
    for listed in re.findall(r"\b(?:by|without|on|group_left|group_right) \(([^)]*)\)", expression):
        assert {label.strip() for label in listed.split(",")} - {""} <= known, listed
    for text in rule.get("annotations", {}).values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= known


def test_labels_with_few_values_are_asked_for_by_those() -> None:
    """A misspelled value would match nothing, silently."""
    text = "".join(path.read_text() for path in RULES)
    outcomes = {"inside", "below", "above", "committed", "aborted", "fenced"}
    assert set(re.findall(r'\boutcome="(\w+)"', text)) <= outcomes
    assert set(re.findall(r'\bforecaster="(\w+)"', text)) == {"forecast", "naive"}
    assert set(re.findall(r'\breason!?="(\w+)"', text)) == {"tombstone"}
    assert set(re.findall(r'\ble="([^"]+)"', text)) == {"5.0"}
    assert set(re.findall(r'\bon_full="(\w+)"', text)) == {"evict"}


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_severity_a_runbook_and_a_unit_test(name: str) -> None:
    rule, tested = ALERTS[name], yaml.safe_load(TESTS.read_text())["tests"]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
    runbook = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text()
    assert runbook.startswith(f"# {name}\n")
    for section in ("## Meaning", "## Impact", "## Diagnosis", "## Mitigation"):
        assert f"\n{section}\n" in runbook
    for metric in re.findall(r"\bstreamlstm_[a-z_]+\b", runbook):
        assert labels_of(metric)
    cases = [case for test in tested for case in test.get("alert_rule_test", []) if case["alertname"] == name]
    assert any(case["exp_alerts"] for case in cases)
    assert any(not case["exp_alerts"] for case in cases)


def test_no_runbook_without_an_alert() -> None:
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("Streamlstm*.md")} == set(ALERTS)


def test_only_times_are_shortened_for_the_faults() -> None:
    given = 'rate(streamlstm_x_total{le="5.0"}[1h]) > 14.4 * 0.01\n        for: 15m\n- record: a:rate1h'
    expected = 'rate(streamlstm_x_total{le="5.0"}[180000ms]) > 14.4 * 0.01\n        for: 45000ms\n- record: a:rate1h'
    assert faster(given, 20) == expected
    for path in RULES:
        assert not re.search(r"\[\d+[smhd]\]|for: \d+[smhd]\b", faster(path.read_text(), 20))
