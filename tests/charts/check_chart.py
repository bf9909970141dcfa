"""The chart, judged by helm, kubeconform and the schemas of Kubernetes and its operators. Run by `make test-charts`."""

import copy
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.chart import (
    CASES,
    CHART,
    HAS_CUDA,
    ROOT,
    SUPPORTED,
    TOOLS,
    Manifest,
    assert_valid,
    case_manifests,
    containers,
    daemon_container,
    helm,
    kubeconform,
    lenient,
    manifests,
    one,
    rendered,
    run,
)

CASE = pytest.mark.parametrize("case", CASES)


@CASE
def test_lint(case: str) -> None:
    done = helm("lint", CASES[case], "--strict", *lenient(case))
    if lenient(case):  # lint holds the values to the schema all the same, and finds nothing else
        errors = [line for line in done.stdout.splitlines() if line.startswith(("[ERROR]", "[WARNING]"))]
        assert errors == ["[ERROR] values.yaml: - at '/config/engine/backend': value must be 'cpu'"]
    else:
        assert done.returncode == 0, done.stdout + done.stderr


@CASE
def test_every_manifest_is_valid(case: str) -> None:
    """For each version of Kubernetes that the chart says it supports."""
    assert len(SUPPORTED) >= 10
    text = rendered(CASES[case], *lenient(case))
    for version in SUPPORTED:
        assert_valid(text, version)


def test_what_is_rendered_is_for_every_supported_kubernetes() -> None:
    texts = {rendered(CASES["everything"], "--kube-version", version) for version in (SUPPORTED[0], SUPPORTED[-1])}
    assert texts == {rendered(CASES["everything"])}
    done = helm("template", {}, "--kube-version", "1.26.0")
    assert done.returncode != 0
    assert "kubeVersion" in done.stderr


def test_a_misspelt_field_of_any_object_is_refused() -> None:
    """Kubeconform's strictness, field by field, in all that the chart can make."""
    found = [
        *case_manifests("everything"),
        *[each for each in case_manifests("keda") if each["kind"] == "ScaledObject"],
    ]
    mutants, names = [], {}
    for each in found:
        for path, mutant in misspelt(each):
            names[name := f"m{len(mutants)}"] = (each["kind"], *path)
            mutant["metadata"]["name"] = name
            mutants.append(mutant)
    assert len(mutants) > 150
    verdicts = kubeconform("\n---\n".join(json.dumps(each) for each in mutants), SUPPORTED[-1])
    assert len(verdicts) == len(mutants)
    passed = {each["name"] for each in verdicts if each["status"] != "statusInvalid"}
    assert [path for name, path in names.items() if name in passed] == []


# Objects whose keys are the user's own; so are a Service's selector and the metadata of KEDA's triggers.
FREE = {"labels", "annotations", "matchLabels", "data", "requests", "limits", "nodeSelector"}


def misspelt(manifest: Manifest) -> Iterator[tuple[tuple[Any, ...], Manifest]]:
    """The manifest with one field renamed, once for each field but those that say what it is."""
    for path in list(fields(manifest, ())):
        if path in (("kind",), ("apiVersion",), ("metadata",), ("metadata", "name")):
            continue
        mutant = copy.deepcopy(manifest)
        place: Any = mutant
        for step in path[:-1]:
            place = place[step]
        place[f"{path[-1]}z"] = place.pop(path[-1])
        yield path, mutant


def fields(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, list):
        for number, each in enumerate(node):
            yield from fields(each, (*path, number))
    elif isinstance(node, dict):
        for name, each in node.items():
            yield (*path, name)
            trigger = name == "metadata" and "triggers" in path
            selector = name == "selector" and "matchLabels" not in each
            if name not in FREE and not trigger and not selector:
                yield from fields(each, (*path, name))


def test_a_gpu_needs_a_build_that_knows_it() -> None:
    done = helm("template", CASES["gpu"])
    if HAS_CUDA:
        assert done.returncode == 0
    else:
        assert done.returncode != 0
        assert "/config/engine/backend" in done.stderr
    limits = daemon_container(case_manifests("gpu"))["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1


@CASE
def test_pods_are_restricted(case: str) -> None:
    """The profile `restricted` of the Pod Security Standards, a file system that can't be written, and no token."""
    found = case_manifests(case)
    spec = one(found, "StatefulSet")["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    if case != "minimal":
        assert spec["securityContext"]["runAsUser"] == 65532
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(spec)
    allowed = {"name", "configMap", "projected", "emptyDir", "persistentVolumeClaim"}
    assert all(allowed.issuperset(volume) for volume in spec["volumes"])
    for container in containers(found):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        if container["name"] != "wait":  # the user's own
            assert context["readOnlyRootFilesystem"] is True


@CASE
def test_selectors_find_the_pods(case: str) -> None:
    found = case_manifests(case)
    labels = one(found, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    selectors = {
        "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
    }
    for each in found:
        if each["kind"] in selectors:
            chosen = selectors[each["kind"]](each["spec"])
            assert chosen
            assert chosen.items() <= labels
    spec = one(found, "StatefulSet")["spec"]
    assert spec["serviceName"] == one(found, "Service")["metadata"]["name"]
    for constraint in spec["template"]["spec"].get("topologySpreadConstraints", []):
        assert constraint["labelSelector"]["matchLabels"].items() <= labels


def test_a_change_of_configuration_rolls() -> None:
    def template(values: dict[str, Any]) -> Any:
        return one(manifests(rendered(values)), "StatefulSet")["spec"]["template"]

    assert template({}) == template({})
    assert template({}) != template({"config": {"commit": {"interval_ms": 50}}})
    assert template({}) == template({"replicas": 3})


def test_brokers_ports_are_let_out() -> None:
    def ports(case: str) -> list[int]:
        return [each["port"] for each in one(case_manifests(case), "NetworkPolicy")["spec"]["egress"][1]["ports"]]

    assert ports("defaults") == [9092]
    assert ports("everything") == [9093, 9193, 9094]


def test_keda_gets_the_replicas_and_knows_its_trigger() -> None:
    """KEDA leaves unknown keys of a trigger aside: so they are held to its own source."""
    scaler = (TOOLS / "crds/kafka_scaler.go").read_text()
    known = dict(re.findall(r'`keda:"name=(\w+),(order=triggerMetadata[^"]*)"`', scaler))
    found = case_manifests("keda")
    assert "replicas" not in one(found, "StatefulSet")["spec"]
    scaled = one(found, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == one(found, "StatefulSet")["metadata"]["name"]
    trigger = scaled["triggers"][0]
    assert trigger["metadata"] == {
        "bootstrapServers": "kafka-0:9096,kafka-1:9096", "consumerGroup": "streamlstm", "topic": "events",
        "lagThreshold": "100000", "offsetResetPolicy": "latest", "tls": "enable", "sasl": "scram_sha256",
    }  # fmt: skip
    for name, value in trigger["metadata"].items():
        choices = re.search(r"enum=([\w;]+)", known[name])
        assert choices is None or value in choices[1].split(";")
    assert trigger["authenticationRef"] == {"name": "kafka-login"}


def test_rules_and_dashboards_are_those_of_the_repository(tmp_path: Path) -> None:
    """Byte for byte or object for object, and in a packaged chart too."""
    done = run("helm", "package", str(CHART), "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    package = next(tmp_path.glob("*.tgz"))
    rules = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
    dashboards = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
    assert rules
    assert dashboards
    with tarfile.open(package) as archive:
        for path, folder in [*((rule, "rules") for rule in rules), *((page, "dashboards") for page in dashboards)]:
            packed = archive.extractfile(f"streamlstm/{folder}/{path.name}")
            assert packed is not None
            assert packed.read() == path.read_bytes()
    found = case_manifests("everything")
    base = "https://git.example.org/streamlstm/blob/main/"  # of this case
    texts = [rule.read_text().replace("runbook_url: docs/", f"runbook_url: {base}docs/") for rule in rules]
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    assert any(base in text for text in texts)
    assert one(found, "PrometheusRule")["spec"]["groups"] == groups
    maps = [each for each in found if each["kind"] == "ConfigMap" and "-dashboard-" in each["metadata"]["name"]]
    shown = {name: json.loads(text) for each in maps for name, text in each["data"].items()}
    assert shown == {page.name: json.loads(page.read_text()) for page in dashboards}
    assert all(sum(map(len, each["data"].values())) < 1 << 20 for each in maps)


def test_the_notes_name_what_is_there(tmp_path: Path) -> None:
    """`helm template` doesn't show the notes and `helm install` wants a cluster: so a copy has them in a manifest."""
    chart = tmp_path / "streamlstm"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates/NOTES.txt").read_text()
    manifest = '{{- define "notes" -}}' + notes + '{{- end -}}notes: {{ include "notes" . | quote }}'
    (chart / "templates/notes.yaml").write_text(manifest)
    done = run("helm", "template", "pumps", str(chart), "-n", "streams", "--show-only", "templates/notes.yaml")
    assert done.returncode == 0, done.stderr
    said = yaml.safe_load(done.stdout)["notes"]
    assert "kubectl -n streams create configmap streamlstm-model --from-file=model.safetensors" in said
    assert "kubectl -n streams rollout status statefulset/pumps-streamlstm" in said
    assert "group streamlstm, events -> forecasts." in said
