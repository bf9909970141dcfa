"""The kustomize base and its example overlay: valid, and the same as the chart. Run by `make test-charts`."""

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from daemon_process import write_model

from streamlstm.config import load
from tests.charts.chart import (
    KUSTOMIZE,
    SUPPORTED,
    Manifest,
    assert_valid,
    daemon_container,
    manifests,
    mount,
    one,
    rendered,
    run,
)

FOLDERS = {"base": KUSTOMIZE / "base", "production": KUSTOMIZE / "overlays/production"}
FOLDER = pytest.mark.parametrize("folder", FOLDERS)

# What only Helm writes.
HELMS = ("helm.sh/chart", "app.kubernetes.io/managed-by", "checksum/config")


def build(folder: str) -> str:
    done = run("kustomize", "build", str(FOLDERS[folder]))
    assert done.returncode == 0, done.stderr
    return done.stdout


@FOLDER
def test_every_manifest_is_valid(folder: str) -> None:
    text = build(folder)
    for version in SUPPORTED:
        assert_valid(text, version)


def test_the_base_is_the_chart() -> None:
    """With the default values; the configuration by what it says."""
    ours, charts = normal(manifests(build("base"))), normal(manifests(rendered({})))
    assert ours.keys() == charts.keys()
    for each, manifest in ours.items():
        assert manifest == charts[each], each


def test_a_difference_would_be_seen() -> None:
    """The comparison, held to a change in each of the base's manifests."""
    base, charts = manifests(build("base")), normal(manifests(rendered({})))
    for number in range(len(base)):
        changed = copy.deepcopy(base)
        changed[number].get("spec", changed[number])["more"] = 1
        assert normal(changed) != charts
    changed = copy.deepcopy(base)
    one(changed, "ConfigMap")["data"]["streamlstm.toml"] += "\n[engine]\nthreads = 3\n"
    assert normal(changed) != charts


def normal(documents: list[Manifest]) -> dict[str, Any]:
    """By kind and name: without what only one of the tools adds, and TOML read."""
    hashed = one(documents, "ConfigMap")["metadata"]["name"]
    text = json.dumps(documents).replace(f'"{hashed}"', '"streamlstm"')
    found = {}
    for each in json.loads(text, object_hook=_without_helms):
        each["metadata"].pop("namespace", None)
        if each["kind"] == "ConfigMap":
            each["data"] = {name: tomllib.loads(text) for name, text in each["data"].items()}
        found[f"{each['kind']}/{each['metadata']['name']}"] = each
    return found


def _without_helms(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in HELMS}


@FOLDER
def test_the_daemon_takes_its_configuration(folder: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "made.safetensors")
    environ = mount(manifests(build(folder)), model, "model.safetensors", tmp_path / "pod")
    config = load(Path(environ["STREAMLSTM_CONFIG"]), environ)
    assert Path(config.model.path).read_bytes() == model.read_bytes()
    assert config.kafka.group_instance_id == "streamlstm-0"
    assert config.engine.threads == 1


def test_the_overlay_changes_what_it_says() -> None:
    found = manifests(build("production"))
    assert {each["metadata"].get("namespace") for each in found} == {"streams"}
    assert one(found, "StatefulSet")["spec"]["replicas"] == 3
    assert daemon_container(found)["image"] == "registry.example.org/platform/streamlstm:0.1.0"
    labels = one(found, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert one(found, "PodMonitor")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not one(found, "StatefulSet")["spec"]["template"]["metadata"].get("annotations")
